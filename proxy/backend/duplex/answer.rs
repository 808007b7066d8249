//! What a pipe says to one call, or to one listener, as the body of an HTTP answer.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use memchr::memchr2;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout_at};
use toolgate_config::BackendName;

use super::pipe::Pipe;
use super::queue::{Pieces, Receiver};
use super::table::Answered;
use crate::backend::sse;
use crate::backend::{Body, Incoming};
use crate::error::{Error, Phase};
use crate::fields::Fields;

/// A message for a call.
#[derive(Debug)]
pub(super) enum Said {
    Answer(Answered),
    Event(Pieces),
}

/// A call under way. Dropped before its answer, the pipe knows that its client has left.
pub(super) struct Underway {
    pipe: Arc<Pipe>,
    number: u64,
    events: Receiver,
    answer: oneshot::Receiver<Answered>,
    done: bool,
}

impl Underway {
    pub(super) fn new(pipe: &Arc<Pipe>, number: u64, events: Receiver, answer: oneshot::Receiver<Answered>) -> Self {
        Self { pipe: Arc::clone(pipe), number, events, answer, done: false }
    }

    /// The next message; the answer is the last. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Said, Error> {
        tokio::select! {
            // What was said before the answer comes before it.
            biased;
            Some(event) = self.events.pop() => Ok(Said::Event(event)),
            answered = &mut self.answer => {
                self.done = true;
                answered.map(Said::Answer).map_err(|_| self.pipe.error())
            }
        }
    }

    /// The answer, whatever is said before.
    pub(super) async fn answer(&mut self) -> Result<Answered, Error> {
        loop {
            if let Said::Answer(answered) = self.next().await? {
                return Ok(answered);
            }
        }
    }

    /// The backend was not asked.
    pub(super) fn forget(mut self) {
        self.done = true;
        self.pipe.forget(self.number);
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.done {
            self.pipe.leave(self.number);
        }
    }
}

/// An answer without a body.
pub(super) fn bare(status: StatusCode) -> Incoming {
    Incoming { status, headers: Fields::default(), body: Box::new(Whole(VecDeque::new())) }
}

/// An answer of one JSON message.
pub(super) fn json(status: StatusCode, message: Pieces) -> Incoming {
    let mut headers = Fields::default();
    headers.push(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.push(CONTENT_LENGTH, HeaderValue::from(message.len()));
    Incoming { status, headers, body: Box::new(Whole(message.0.into())) }
}

fn events(body: Box<dyn Body>) -> Incoming {
    let mut headers = Fields::default();
    headers.push(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    Incoming { status: StatusCode::OK, headers, body }
}

/// The answer that begins with this message: JSON if that is all there is, a stream otherwise.
pub(super) fn beginning_with(said: Said, underway: Underway, backend: &BackendName, idle: Duration) -> Incoming {
    match said {
        Said::Answer(answered) => json(StatusCode::OK, answered.message),
        Said::Event(event) => {
            let (backend, ready) = (backend.clone(), framed(event).into());
            events(Box::new(Stream { backend, underway: Some(underway), ready, idle, waiting: None }))
        }
    }
}

/// A message as an event.
pub(super) fn framed(message: Pieces) -> Vec<Bytes> {
    // Between the tokens of JSON a line end can only be space; in an event it would end a line.
    let has_lines = message.0.iter().any(|piece| memchr2(b'\n', b'\r', piece).is_some());
    if has_lines || message.0.len() == 1 && message.len() < 4096 {
        return vec![sse::event(&message.whole())];
    }
    let mut framed = Vec::with_capacity(message.0.len() + 2);
    framed.push(Bytes::from_static(b"data: "));
    framed.extend(message.0);
    framed.push(Bytes::from_static(b"\n\n"));
    framed
}

/// A body that is all there.
struct Whole(VecDeque<Bytes>);

#[async_trait]
impl Body for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.pop_front())
    }
}

/// The stream of a call.
struct Stream {
    backend: BackendName,
    /// None after the answer.
    underway: Option<Underway>,
    ready: VecDeque<Bytes>,
    idle: Duration,
    /// Since when the backend is waited for. Kept apart from the future that waits, which may be dropped and made anew.
    waiting: Option<Instant>,
}

#[async_trait]
impl Body for Stream {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(chunk) = self.ready.pop_front() {
            return Ok(Some(chunk));
        }
        let Some(underway) = &mut self.underway else { return Ok(None) };
        let until = *self.waiting.get_or_insert_with(Instant::now) + self.idle;
        let said = timeout_at(until, underway.next()).await.unwrap_or_else(|_| {
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::Idle, after: self.idle })
        });
        self.waiting = None;
        let message = match said {
            Ok(Said::Event(event)) => event,
            Ok(Said::Answer(answered)) => {
                self.underway = None;
                answered.message
            }
            Err(error) => {
                self.underway = None;
                return Err(error);
            }
        };
        self.ready = framed(message).into();
        Ok(self.ready.pop_front())
    }
}

/// What belongs to no call, as a stream that ends with the pipe.
pub(super) struct Listening {
    pipe: Arc<Pipe>,
    ticket: u64,
    events: Receiver,
    ready: VecDeque<Bytes>,
}

impl Listening {
    pub(super) fn new(pipe: &Arc<Pipe>, ticket: u64, events: Receiver) -> Self {
        Self { pipe: Arc::clone(pipe), ticket, events, ready: VecDeque::new() }
    }

    pub(super) fn incoming(self) -> Incoming {
        events(Box::new(self))
    }
}

#[async_trait]
impl Body for Listening {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ready.is_empty() {
            let Some(event) = self.events.pop().await else { return Ok(None) };
            self.ready = framed(event).into();
        }
        Ok(self.ready.pop_front())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.pipe.unlisten(self.ticket);
    }
}
