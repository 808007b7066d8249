//! Writes replies: whole ones at once, streams as their bytes come.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::time::{Instant, sleep_until};

use super::Headers;
use super::downstream::Downstream;
use crate::backend::sse;
use crate::deadline::at_once;
use crate::error::Error;
use crate::gateway::{Gateway, Phase};
use crate::payload::Payload;
use crate::record::Record;
use crate::reply::{Body, End, Next, Reply, Source};

/// How much of a stream is gathered before it is written.
const GATHERED: usize = 16 * 1024;

/// How writing a reply ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    Whole,
    /// The connection is of no more use.
    Broken,
}

/// How a stream ended.
enum Ended {
    Failed(Error),
    /// The client left, or did not read.
    Left,
    Well(End),
}

/// Writes replies to one client.
pub(super) struct Writer<'a> {
    pub(super) gateway: &'a Gateway,
    /// Headers that every reply gets.
    pub(super) extra: &'a Headers,
    /// Interval of comments on idle event streams.
    pub(super) keep_alive: Duration,
}

/// What is logged of the call that this answers, where it is.
fn payload(reply: &mut Reply) -> Option<&mut Payload> {
    reply.record.as_mut()?.payload.as_deref_mut()
}

/// Counts an open stream, until dropped.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Writer<'_> {
    pub(super) async fn write(&self, downstream: &mut Downstream, reply: &mut Reply) -> Written {
        match std::mem::replace(&mut reply.body, Body::Whole(Vec::new())) {
            Body::Whole(pieces) => self.whole(downstream, reply, pieces).await,
            Body::Stream(source) => self.stream(downstream, reply, source).await,
        }
    }

    async fn whole(&self, downstream: &mut Downstream, reply: &mut Reply, pieces: Vec<Bytes>) -> Written {
        let length = pieces.iter().map(Bytes::len).sum();
        let headers = [&*reply.headers, self.extra];
        if downstream.begin(reply.status, headers, Some(length)).await.is_err()
            || downstream.send(&pieces, true).await.is_err()
        {
            return Written::Broken;
        }
        if let Some(payload) = payload(reply) {
            pieces.iter().for_each(|piece| payload.json(piece));
        }
        reply.record.take().into_iter().for_each(Record::written);
        Written::Whole
    }

    /// Relays a stream until it ends, the client leaves or the gateway goes down.
    async fn stream(&self, downstream: &mut Downstream, reply: &mut Reply, mut source: Source) -> Written {
        let headers = [&*reply.headers, self.extra];
        if downstream.begin(reply.status, headers, None).await.is_err() {
            return Written::Broken;
        }
        let open = self.count(&source);
        let mut last = Vec::new();
        let ended = self.relay(downstream, &mut source, &mut last, payload(reply)).await;
        let (is_whole, end) = match ended {
            Ended::Well(end) => (true, Some(end)),
            // The client must not take what it got for complete.
            Ended::Failed(error) => (false, Some(End::Failed(error))),
            Ended::Left => (false, source.outcome()),
        };
        // Whatever the stream holds on to, the connection to its backend above all, goes before the last byte is awaited.
        drop((source, open));
        let written = is_whole && downstream.send(&last, true).await.is_ok();
        if let Some(End::Failed(error)) = &end {
            error.cap().into_iter().for_each(|cap| self.gateway.metrics.cap_reached(cap));
        }
        if let (Some(record), Some(end)) = (reply.record.take(), end) {
            record.ended(&end);
        }
        if written { Written::Whole } else { Written::Broken }
    }

    fn count(&self, source: &Source) -> Open {
        let streams = &self.gateway.metrics.streams;
        let gauge = match source.is_event_stream() {
            true if source.ends() => &streams.call,
            true if source.is_operators() => &streams.operator,
            true => &streams.client,
            false => &streams.json,
        };
        gauge.inc();
        Open(gauge.clone())
    }

    /// Moves bytes until there are no more to be moved. What is there at the same time is written at once; `last` is what can
    /// go with the end.
    async fn relay(
        &self,
        downstream: &mut Downstream,
        source: &mut Source,
        last: &mut Vec<Bytes>,
        mut payload: Option<&mut Payload>,
    ) -> Ended {
        let ends = source.ends();
        let stopping = async {
            match ends {
                true => self.gateway.until(Phase::Cut).await,
                false => self.gateway.until_streams_end().await,
            }
        };
        tokio::pin!(stopping);
        // Since when nothing was written, once something is waited for.
        let mut written = None;
        let mut ready = at_once(pin!(source.next())).await;
        if ready.is_none() && downstream.flush().await.is_err() {
            return Ended::Left;
        }
        loop {
            let comments = source.takes_comments();
            let next = match ready.take() {
                Some(next) => next,
                None => tokio::select! {
                    biased;
                    next = pin!(source.next()) => next,
                    () = pin!(downstream.left()) => return Ended::Left,
                    () = &mut stopping => {
                        let Some(cut) = source.cut(&Error::CutShort) else { return Ended::Failed(Error::CutShort) };
                        last.push(cut);
                        return Ended::Well(source.outcome().unwrap_or(End::Failed(Error::CutShort)));
                    }
                    () = sleep_until(*written.get_or_insert_with(Instant::now) + self.keep_alive), if comments => {
                        Next::Chunk(Bytes::from_static(sse::KEEP_ALIVE))
                    }
                },
            };
            match next {
                Next::Chunk(chunk) => {
                    if let Some(payload) = &mut payload {
                        payload.take(&chunk, source.is_event_stream());
                    }
                    last.push(chunk);
                }
                Next::End(end) => return Ended::Well(end),
                Next::Broken(error) => {
                    let _ = downstream.send(last, false).await;
                    return Ended::Failed(error);
                }
            }
            // Not for ever: a backend that is faster than its client must be held up by it.
            if last.iter().map(Bytes::len).sum::<usize>() < GATHERED {
                ready = at_once(pin!(source.next())).await;
            }
            if ready.is_none() {
                if downstream.send(last, false).await.is_err() {
                    return Ended::Left;
                }
                last.clear();
                written = None;
            }
        }
    }
}
