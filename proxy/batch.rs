//! A JSON-RPC batch (2025-03-26 only): each message as if it had come alone, one after the other, the answers on one event
//! stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;

use crate::backend::sse;
use crate::dispatch::{self, Request};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::record::Record;
use crate::reply::{Body, End, Next, Reply, Source};
use crate::snapshot::Snapshot;

/// What is left of a batch.
pub(crate) struct Batch {
    gateway: Arc<Gateway>,
    snapshot: Arc<Snapshot>,
    request: Arc<Request>,
    messages: VecDeque<Bytes>,
    asking: Option<BoxFuture<'static, Reply>>,
    current: Option<Current>,
    /// Of the answer that is being written.
    writing: Option<Box<Record>>,
}

/// An answer that streams.
struct Current {
    source: Source,
    record: Option<Box<Record>>,
    /// Whether its bytes are JSON that has to be made an event.
    wrap: bool,
    begun: bool,
}

impl Batch {
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        snapshot: &Arc<Snapshot>,
        request: Request,
        messages: Vec<Bytes>,
    ) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            snapshot: Arc::clone(snapshot),
            request: Arc::new(request),
            messages: messages.into(),
            asking: None,
            current: None,
            writing: None,
        }
    }

    pub(crate) async fn next(&mut self) -> Next {
        // Whoever wants more has written what there was.
        self.writing.take().into_iter().for_each(Record::written);
        loop {
            if let Some(current) = &mut self.current {
                match current.next().await {
                    Next::End(_) => self.current = None,
                    next @ (Next::Broken(_) | Next::Chunk(_)) => return next,
                }
            }
            let asking = match &mut self.asking {
                Some(asking) => asking,
                None => {
                    let Some(message) = self.messages.pop_front() else { return Next::End(End::As(Kind::Ok)) };
                    let (gateway, request) = (Arc::clone(&self.gateway), Arc::clone(&self.request));
                    let snapshot = Arc::clone(&self.snapshot);
                    self.asking.insert(Box::pin(async move {
                        dispatch::message(&gateway, &snapshot, &request, message).await
                    }))
                }
            };
            let reply = poll_fn(|cx| asking.as_mut().poll(cx)).await;
            self.asking = None;
            match reply.body {
                Body::Whole(pieces) if pieces.is_empty() => reply.record.into_iter().for_each(Record::written),
                Body::Whole(pieces) => {
                    let whole = pieces.concat();
                    self.writing = reply.record;
                    if let Some(payload) = self.writing.as_mut().and_then(|record| record.payload.as_mut()) {
                        payload.json(&whole);
                    }
                    return Next::Chunk(sse::event(&whole));
                }
                Body::Stream(source) => {
                    let wrap = !source.is_event_stream();
                    self.current = Some(Current { source, record: reply.record, wrap, begun: false });
                }
            }
        }
    }

    pub(crate) fn takes_comments(&self) -> bool {
        self.current.as_ref().is_none_or(|current| !current.wrap && current.source.takes_comments())
    }

    pub(crate) fn cut(&mut self, error: &Error) -> Option<Bytes> {
        self.messages.clear();
        match &mut self.current {
            Some(current) => {
                let end = current.source.outcome().unwrap_or_else(|| End::Failed(error.clone()));
                current.record.take().into_iter().for_each(|record| record.ended(&end));
                current.source.cut(error)
            }
            None => Some(Bytes::new()),
        }
    }
}

impl Current {
    async fn next(&mut self) -> Next {
        let next = self.source.next().await;
        if let (Next::Chunk(chunk), Some(record)) = (&next, &mut self.record)
            && let Some(payload) = &mut record.payload
        {
            payload.take(chunk, !self.wrap);
        }
        match next {
            Next::Chunk(chunk) if self.wrap => Next::Chunk(self.wrap_chunk(&chunk)),
            Next::End(end) => {
                self.record.take().into_iter().for_each(|record| record.ended(&end));
                if std::mem::take(&mut self.begun) {
                    return Next::Chunk(Bytes::from_static(b"\n\n"));
                }
                Next::End(end)
            }
            Next::Broken(error) => {
                self.record.take().into_iter().for_each(|record| record.ended(&End::Failed(error.clone())));
                Next::Broken(error)
            }
            next @ Next::Chunk(_) => next,
        }
    }

    /// JSON has line breaks between its tokens only, and a line break of an event's data is another `data:` line.
    fn wrap_chunk(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(chunk.len() + 16);
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"data: ");
        }
        for &byte in chunk {
            match byte {
                b'\n' => out.extend_from_slice(b"\ndata: "),
                b'\r' => out.extend_from_slice(b" "),
                _ => out.extend_from_slice(&[byte]),
            }
        }
        out.freeze()
    }
}
