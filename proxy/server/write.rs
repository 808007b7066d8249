//! Writes replies: whole ones at once, streams as their bytes come.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use prometheus::IntGauge;
use tokio::time::{Instant, sleep_until};

use super::{Downstream, Headers, ResponseHead};
use crate::backend::sse;
use crate::error::{Error, Kind};
use crate::gateway::{Gateway, Phase};
use crate::record::Record;
use crate::reply::{Body, Next, Reply, Source};

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
    Well(Kind),
}

/// Writes replies to one client.
pub(super) struct Writer<'a> {
    pub(super) gateway: &'a Gateway,
    /// Headers that every reply gets.
    pub(super) extra: &'a Headers,
    /// Interval of comments on idle event streams.
    pub(super) keep_alive: Duration,
}

/// Counts an open stream, until dropped.
struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Writer<'_> {
    pub(super) async fn write(&self, downstream: &mut Downstream, mut reply: Reply) -> Written {
        match std::mem::replace(&mut reply.body, Body::Whole(Vec::new())) {
            Body::Whole(pieces) => self.whole(downstream, reply, pieces).await,
            Body::Stream(source) => self.stream(downstream, reply, source).await,
        }
    }

    async fn whole(&self, downstream: &mut Downstream, reply: Reply, pieces: Vec<Bytes>) -> Written {
        let length = pieces.iter().map(Bytes::len).sum();
        let Some(head) = self.head(downstream, &reply, Some(length)) else { return Written::Broken };
        let mut writing = downstream.write_response_header(Box::new(head)).await;
        for piece in pieces {
            if writing.is_ok() {
                writing = downstream.write_response_body(piece, false).await;
            }
        }
        if writing.is_ok() {
            writing = downstream.write_response_body(Bytes::new(), true).await;
        }
        if writing.is_err() {
            return Written::Broken;
        }
        reply.record.into_iter().for_each(Record::written);
        Written::Whole
    }

    /// Relays a stream until it ends, the client leaves or the gateway goes down.
    async fn stream(&self, downstream: &mut Downstream, reply: Reply, mut source: Box<Source>) -> Written {
        let Some(head) = self.head(downstream, &reply, None) else { return Written::Broken };
        if downstream.write_response_header(Box::new(head)).await.is_err() {
            return Written::Broken;
        }
        let open = self.count(&source);
        let ended = self.relay(downstream, &mut source).await;
        let kind = match &ended {
            Ended::Well(kind) => Some(*kind),
            Ended::Failed(error) => Some(error.kind()),
            Ended::Left => source.outcome(),
        };
        // Whatever the stream holds on to, the connection to its backend above all, goes before the last byte is awaited.
        drop((source, open));
        let (written, failure) = match ended {
            Ended::Well(_) => (downstream.write_response_body(Bytes::new(), true).await.is_ok(), None),
            // The client must not take what it got for complete.
            Ended::Failed(error) => (false, Some(error)),
            Ended::Left => (false, None),
        };
        if let (Some(mut record), Some(kind)) = (reply.record, kind) {
            if let Some(error) = &failure {
                record.failed(error);
                error.cap().into_iter().for_each(|cap| self.gateway.metrics.cap_reached(cap));
            }
            record.end(kind);
        }
        if written { Written::Whole } else { Written::Broken }
    }

    fn count(&self, source: &Source) -> Open {
        let kind = match source.is_event_stream() {
            true if source.ends() => "call",
            true => "client",
            false => "json",
        };
        let gauge = self.gateway.metrics.streams.with_label_values(&[kind]);
        gauge.inc();
        Open(gauge)
    }

    /// Moves bytes until there are no more to be moved.
    async fn relay(&self, downstream: &mut Downstream, source: &mut Source) -> Ended {
        let last_phase = if source.ends() { Phase::Cut } else { Phase::Draining };
        let stopping = self.gateway.until(last_phase);
        tokio::pin!(stopping);
        let mut written = Instant::now();
        loop {
            let comments = source.takes_comments();
            let chunk = tokio::select! {
                biased;
                next = pin!(source.next()) => match next {
                    Next::Chunk(chunk) => chunk,
                    Next::End(kind) => return Ended::Well(kind),
                    Next::Broken(error) => return Ended::Failed(error),
                },
                _ = pin!(downstream.read_body_or_idle(true)) => return Ended::Left,
                () = &mut stopping => {
                    let Some(last) = source.cut(&Error::CutShort) else { return Ended::Failed(Error::CutShort) };
                    let _ = downstream.write_response_body(last, false).await;
                    return Ended::Well(source.outcome().unwrap_or(Kind::Internal));
                }
                () = sleep_until(written + self.keep_alive), if comments => Bytes::from_static(sse::KEEP_ALIVE),
            };
            if downstream.write_response_body(chunk, false).await.is_err() {
                return Ended::Left;
            }
            written = Instant::now();
        }
    }

    /// The head of a reply; `length` of its body, if it is known here.
    fn head(&self, downstream: &Downstream, reply: &Reply, length: Option<usize>) -> Option<ResponseHead> {
        let mut head = ResponseHead::build(reply.status, Some(reply.headers.len() + self.extra.len() + 4)).ok()?;
        for (name, value) in reply.headers.iter().chain(self.extra) {
            head.insert_header(name.clone(), value.clone()).ok()?;
        }
        match length {
            Some(_) if reply.status == StatusCode::NO_CONTENT => {}
            Some(length) => head.insert_header(CONTENT_LENGTH, length).ok()?,
            None if downstream.is_http2() || head.headers.contains_key(CONTENT_LENGTH) => {}
            // HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
            None if downstream.req_header().version == Version::HTTP_10 => {
                head.insert_header(CONNECTION, "close").ok()?;
            }
            None => head.insert_header(TRANSFER_ENCODING, "chunked").ok()?,
        }
        Some(head)
    }
}

/// Writes a refusal on a connection whose request head could not be read.
pub(super) async fn refuse_unread(downstream: &mut Downstream, reply: Reply) {
    let Body::Whole(pieces) = reply.body else { return };
    let body = pieces.concat();
    let Ok(mut head) = ResponseHead::build(reply.status, Some(4)) else { return };
    for (name, value) in reply.headers {
        let _ = head.insert_header(name, value);
    }
    let _ = head.insert_header(CONTENT_LENGTH, body.len());
    if downstream.write_response_header(Box::new(head)).await.is_ok() {
        let _ = downstream.write_response_body(body.into(), true).await;
    }
}
