//! A backend's answer, message by message, each whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::HeaderValue;
use tokio::time::sleep;

use crate::backend::client::Opened;
use crate::backend::sse::Events;
use crate::backend::{Backend, Body, Incoming};
use crate::dispatch::Exchange;
use crate::error::{Error, MaxBytes};
use crate::metrics::Cap;
use crate::relay::UNANSWERED;

/// How long a backend is left alone that ended its stream to be asked for the rest, when it does not say.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// The longest that it may say.
pub(crate) const MAX_RETRY: Duration = Duration::from_secs(30);
/// How often the rest of one answer is asked for.
const MAX_POLLS: u32 = 1_000;

/// Reads one answer. Dropped, the backend sees its client leave.
pub(crate) struct Answer {
    backend: Arc<Backend>,
    /// The session to ask for the rest of a stream in; only legacy streams have a rest.
    opened: Option<Arc<Opened>>,
    body: Box<dyn Body>,
    form: Form,
    max: MaxBytes,
    retry: Duration,
    polls: u32,
    polling: Option<BoxFuture<'static, Result<Incoming, Error>>>,
    ended: bool,
}

enum Form {
    Events(Events),
    Json(BytesMut),
}

impl Answer {
    /// Each message may have so many bytes.
    ///
    /// # Errors
    /// When it is neither JSON nor an event stream.
    pub(crate) fn new(
        backend: &Arc<Backend>,
        opened: Option<Arc<Opened>>,
        incoming: Incoming,
        max: MaxBytes,
    ) -> Result<Self, Error> {
        let form = match () {
            () if incoming.is_event_stream() => Form::Events(Events::new(max.bytes)),
            () if incoming.is_json() => Form::Json(BytesMut::new()),
            () => return Err(broken(backend, "its answer is neither JSON nor an event stream")),
        };
        Ok(Self {
            backend: Arc::clone(backend),
            opened,
            body: incoming.body,
            form,
            max,
            retry: DEFAULT_RETRY,
            polls: 0,
            polling: None,
            ended: false,
        })
    }

    /// The next message, or nothing at the end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(polling) = &mut self.polling {
                let polled = polling.await;
                self.polling = None;
                let incoming = polled?;
                if !incoming.status.is_success() || !incoming.is_event_stream() {
                    return Err(broken(&self.backend, "it does not continue the stream that it broke off"));
                }
                (self.body, self.form) = (incoming.body, Form::Events(Events::new(self.max.bytes)));
            }
            if let Form::Events(events) = &mut self.form {
                while let Some(event) = events.next() {
                    self.retry = event.retry.map_or(self.retry, Duration::from_millis).min(MAX_RETRY);
                    // An event that only primes the stream has no message.
                    if !event.data.trim_ascii().is_empty() {
                        return Ok(Some(event.data.into()));
                    }
                }
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await? {
                Some(chunk) => self.take(&chunk)?,
                None => {
                    if let Some(whole) = self.end()? {
                        return Ok(Some(whole));
                    }
                }
            }
        }
    }

    /// What to say when it has ended, and the response was not in it.
    pub(super) fn ended(&self) -> Error {
        broken(
            &self.backend,
            match self.form {
                Form::Events(_) => UNANSWERED,
                Form::Json(_) => "its answer is not a response to the request",
            },
        )
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), Error> {
        let taken = match &mut self.form {
            Form::Events(events) => events.push(chunk).is_ok(),
            Form::Json(whole) => {
                whole.extend_from_slice(chunk);
                whole.len() <= self.max.bytes
            }
        };
        if taken {
            return Ok(());
        }
        self.backend.cap_reached(Cap::Answer);
        let backend = self.backend.name().clone();
        Err(Error::TooLong { backend, what: "a message of its answer", max: self.max })
    }

    /// The backend's side of the connection is over.
    fn end(&mut self) -> Result<Option<Bytes>, Error> {
        match &mut self.form {
            Form::Json(whole) => {
                self.ended = true;
                Ok(Some(whole.split().freeze()))
            }
            Form::Events(events) => {
                let rest = events.last_id().zip(self.opened.as_ref()).and_then(|(id, opened)| {
                    let id = HeaderValue::from_str(id).ok()?;
                    Some((id, Arc::clone(opened)))
                });
                let Some((id, opened)) = rest else {
                    self.ended = true;
                    return Ok(None);
                };
                self.polls += 1;
                if self.polls > MAX_POLLS {
                    return Err(broken(&self.backend, "it breaks its stream off again and again"));
                }
                let (backend, pause) = (Arc::clone(&self.backend), self.retry);
                self.polling = Some(Box::pin(async move {
                    sleep(pause).await;
                    poll(&backend, &opened, id).await
                }));
                Ok(None)
            }
        }
    }
}

/// Asks for what a stream holds after an event (2025-11-25, Transports, Resumability).
pub(crate) async fn poll(backend: &Backend, opened: &Opened, last: HeaderValue) -> Result<Incoming, Error> {
    backend.send_unjudged(opened.get(Some(last), backend.config.timeout)).await
}

/// How long one message of an answer may be.
pub(super) fn max_answer(exchange: &Exchange<'_>) -> MaxBytes {
    MaxBytes::configured("bridge.max_answer", exchange.snapshot.config.bridge.max_answer)
}

pub(crate) fn broken(backend: &Backend, what: &'static str) -> Error {
    Error::BackendProtocol { backend: backend.name().clone(), what: what.into() }
}
