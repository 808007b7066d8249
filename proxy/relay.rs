//! A backend's answer to a call on its way to a client of the same era: bytes as they come, never whole, never changed but for
//! the ids that must not clash.
//!
//! Events that are not the answer are looked at before they pass. A question of the backend goes to the client under an id that
//! no other backend uses, if the client can be asked; else it is answered here, at once.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::sse::{self, Piece, Splitter, Tagger};
use crate::backend::{Backend, Body, Incoming, Slot};
use crate::bridge::question::Asked;
use crate::catalog;
use crate::error::{Error, Kind, MaxBytes};
use crate::jsonrpc::{self, Message, OwnedId};
use crate::limit::Permit;
use crate::metrics::Cap;
use crate::reply::{End, Next};
use crate::scan::{Outcome, Scan};
use crate::session::{CallGuard, StreamGuard};

/// The longest event that is held back because it may be a question or a notification.
const MAX_HELD_EVENT: MaxBytes = MaxBytes::fixed(4 * 1024 * 1024);

/// What is said of a body that is none, and of a stream in which there is none.
const NO_RESPONSE: &str = "its answer is not a JSON-RPC response";
pub(crate) const UNANSWERED: &str = "its event stream ended without a response to the request";

/// White space before JSON that is waited through.
const MAX_SPACE: usize = 64 * 1024;

/// What a call holds on to until its stream has ended.
pub(crate) struct Holds {
    pub(crate) _permit: Option<Permit>,
    pub(crate) _slot: Option<Slot>,
    /// Of a legacy client, who may cancel it by a message.
    pub(crate) call: Option<CallGuard>,
}

/// On whose behalf a stream is relayed.
pub(crate) enum Side {
    /// A legacy client's, in its session with the backend.
    Legacy(Asked),
    /// A modern client's: no questions, and nothing to come back for.
    Modern,
}

/// An answer under way.
pub(crate) struct Relay {
    backend: Arc<Backend>,
    side: Side,
    /// The request that is answered; none where a client came back for the rest of a stream.
    id: Option<OwnedId>,
    body: Box<dyn Body>,
    form: Form,
    ready: VecDeque<Bytes>,
    /// Bytes of JSON that are still to come, where the backend said how many.
    left: Option<u64>,
    outcome: Option<End>,
    /// What else the backend did on its stream that breaks the protocol.
    fault: Option<&'static str>,
    end: Option<Ended>,
    holds: Option<Holds>,
    _stream: Option<StreamGuard>,
}

enum Form {
    Events { tagger: Option<Tagger>, splitter: Box<Splitter> },
    Json(Box<Scan>),
}

/// How the backend's side ended.
enum Ended {
    Well,
    Failed(Error),
}

impl Relay {
    /// Takes over the answer to request `id`.
    ///
    /// # Errors
    /// When it is no answer that a client could read.
    pub(crate) async fn new(
        backend: &Arc<Backend>,
        side: Side,
        incoming: Incoming,
        id: OwnedId,
        holds: Holds,
    ) -> Result<Box<Self>, Error> {
        let broken = |what: &'static str| Error::BackendProtocol { backend: backend.name().clone(), what: what.into() };
        if incoming.headers.get(http::header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
            return Err(broken("it compressed its answer though asked not to"));
        }
        let length = incoming.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let left = length.filter(|_| incoming.is_json());
        let form = match () {
            () if incoming.is_event_stream() => Form::events(backend, &side, Some(&id)),
            () if incoming.is_json() => Form::Json(Box::new(Scan::of(Some(id.clone())))),
            () if incoming.status == http::StatusCode::ACCEPTED => {
                return Err(broken("it accepted a request without answering it"));
            }
            () => return Err(broken("its answer is neither JSON nor an event stream")),
        };
        let mut relay = Box::new(Self {
            backend: Arc::clone(backend),
            side,
            id: Some(id),
            body: incoming.body,
            form,
            ready: VecDeque::new(),
            left,
            outcome: None,
            fault: None,
            end: None,
            holds: Some(holds),
            _stream: None,
        });
        relay.prime().await?;
        Ok(relay)
    }

    /// The rest of a stream of a backend that a legacy client came back for.
    pub(crate) fn resumed(
        backend: &Arc<Backend>,
        asked: Asked,
        body: Box<dyn Body>,
        holds: Holds,
        stream: StreamGuard,
    ) -> Box<Self> {
        let side = Side::Legacy(asked);
        Box::new(Self {
            backend: Arc::clone(backend),
            form: Form::events(backend, &side, None),
            side,
            id: None,
            body,
            ready: VecDeque::new(),
            left: None,
            outcome: None,
            fault: None,
            end: None,
            holds: Some(holds),
            _stream: Some(stream),
        })
    }

    /// Of JSON, reads the first bytes: until then an error of ours can still take the answer's place.
    async fn prime(&mut self) -> Result<(), Error> {
        if self.is_event_stream() {
            return Ok(());
        }
        let mut space = 0;
        loop {
            let chunk = self.body.next().await?.ok_or_else(|| self.broken("its answer is empty"))?;
            let first = chunk.trim_ascii_start().first().copied();
            space += chunk.len();
            if first.is_some_and(|first| first != b'{') || (first.is_none() && space > MAX_SPACE) {
                return Err(self.broken(NO_RESPONSE));
            }
            self.take(chunk);
            if let Form::Json(scan) = &self.form
                && let Some(Outcome::Broken(fault)) = scan.outcome()
                && fault.is_of_id()
            {
                // Its client would wait for ever.
                return Err(self.broken(fault.what()));
            }
            if first.is_some() {
                return Ok(());
            }
        }
    }

    pub(crate) fn is_event_stream(&self) -> bool {
        matches!(self.form, Form::Events { .. })
    }

    pub(crate) fn takes_comments(&self) -> bool {
        match &self.form {
            Form::Events { splitter, .. } => self.ready.is_empty() && splitter.is_between_events(),
            Form::Json(_) => false,
        }
    }

    /// How it ended, if the answer is out: what its client does afterwards changes nothing.
    pub(crate) fn outcome(&self) -> Option<End> {
        self.outcome.clone().filter(|_| self.ready.is_empty())
    }

    /// Reads ahead until it is known whether the answer is an error, or more has come than an error is long.
    pub(crate) async fn look_ahead(&mut self) -> bool {
        const ENOUGH: usize = 64 * 1024;
        while self.outcome.is_none() && self.end.is_none() && self.ready.iter().map(Bytes::len).sum::<usize>() < ENOUGH
        {
            match self.body.next().await {
                Ok(Some(chunk)) => self.take(chunk),
                Ok(None) => self.end = Some(Ended::Well),
                Err(error) => self.end = Some(Ended::Failed(error)),
            }
        }
        matches!(self.outcome, Some(End::RpcError(_)))
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            if self.left == Some(0) && self.end.is_none() && self.ready.len() == 1 {
                // The backend has no more to say, which frees its connection without a wait. Its client may be off as soon
                // as it has the last byte.
                self.left = None;
                self.end = Some(self.body.next().await.map_or_else(Ended::Failed, |_| Ended::Well));
            }
            if let Some(chunk) = self.ready.pop_front() {
                return Next::Chunk(chunk);
            }
            if let Some(ended) = self.end.take() {
                return self.finish(ended);
            }
            let cancelled = self.holds.as_ref().and_then(|holds| holds.call.as_ref()).map(CallGuard::cancelled);
            let read = match cancelled {
                None => self.body.next().await,
                Some(cancelled) => tokio::select! {
                    biased;
                    read = self.body.next() => read,
                    () = cancelled.notified() => Err(Error::Cancelled),
                },
            };
            match read {
                Ok(Some(chunk)) => self.take(chunk),
                Ok(None) => self.end = Some(Ended::Well),
                Err(error) => self.end = Some(Ended::Failed(error)),
            }
        }
    }

    /// Takes bytes of the backend in.
    fn take(&mut self, chunk: Bytes) {
        match &mut self.form {
            Form::Json(scan) => {
                scan.push(&chunk);
                let outcome = scan.outcome();
                self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
                self.ready.push_back(chunk);
                if let (None, Some(outcome)) = (&self.outcome, outcome) {
                    self.outcome = Some(self.end_of(outcome));
                }
            }
            Form::Events { tagger, splitter } => {
                splitter.push(match tagger {
                    Some(tagger) => tagger.push(chunk),
                    None => chunk,
                });
                self.take_pieces();
            }
        }
    }

    fn take_pieces(&mut self) {
        while let Form::Events { splitter, .. } = &mut self.form
            && let Some(piece) = splitter.next()
        {
            match piece {
                Ok(Piece::Pass(bytes)) => self.ready.push_back(bytes),
                Ok(Piece::Response(outcome)) => self.take_response(outcome),
                Ok(Piece::Message { raw, data }) => self.take_message(raw, &data),
                Err(sse::TooLong { .. }) => {
                    self.backend.cap_reached(Cap::Event);
                    let backend = self.backend.name().clone();
                    let error = Error::TooLong { backend, what: "an event of its answer", max: MAX_HELD_EVENT };
                    self.end = Some(Ended::Failed(error));
                }
            }
        }
    }

    /// Notes that a response has passed. One of another request leaves the call to wait for its own.
    fn take_response(&mut self, outcome: Outcome) {
        let is_stray = matches!(outcome, Outcome::Broken(fault) if fault.is_of_id());
        if is_stray {
            self.fault = Some("it sent a response that has another `id` than the request");
        } else if self.outcome.is_none() {
            self.outcome = Some(self.end_of(outcome));
        } else if self.id.is_some() {
            self.fault = Some("it answered more than once");
        }
        if let (Some(what), Some(End::As(_) | End::RpcError(_))) = (self.fault, &self.outcome) {
            self.outcome = Some(End::Failed(self.broken(what)));
        }
    }

    fn end_of(&self, outcome: Outcome) -> End {
        match outcome {
            Outcome::Broken(fault) => End::Failed(self.broken(fault.what())),
            Outcome::Ok => End::As(Kind::Ok),
            Outcome::RpcError { code } => End::RpcError(code),
            Outcome::ToolError => End::As(Kind::ToolError),
        }
    }

    /// Decides about a message of the backend that is no answer.
    fn take_message(&mut self, raw: Bytes, data: &Bytes) {
        let message = jsonrpc::parse(data);
        if let Ok(Message::Notification(notification)) = &message
            && catalog::is_list_change(&notification.method)
        {
            // The catalog finds out whether something really changed, and tells every client.
            self.backend.relist.notify_one();
            return;
        }
        match (&self.side, message) {
            (Side::Legacy(asked), Ok(message)) => match asked.take(&message, &raw, data) {
                Ok(pass) => self.ready.extend(pass),
                Err(what) => self.end = Some(Ended::Failed(self.broken(what))),
            },
            // A backend of this era asks by its answer; a request of it would be answered by nobody.
            (Side::Modern, Ok(Message::Request(_))) => {}
            (_, _) => self.ready.push_back(raw),
        }
    }

    /// Whether its client can come back for the rest of it: it has had the id of an event, or came with one.
    fn is_resumable(&self) -> bool {
        match &self.form {
            Form::Events { tagger, .. } => self.id.is_none() || tagger.as_ref().is_some_and(Tagger::has_ids),
            Form::Json(_) => false,
        }
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::BackendProtocol { backend: self.backend.name().clone(), what: what.into() }
    }

    /// The backend's side is over. An event stream without the answer gets an error in its place.
    fn finish(&mut self, ended: Ended) -> Next {
        match (self.outcome.take(), ended, &self.form) {
            (Some(end), _, _) => {
                self.outcome = Some(end.clone());
                Next::End(end)
            }
            // Complete, but no response: what a backend says is passed on, not put right.
            (None, Ended::Well, Form::Json(_)) => Next::End(End::Failed(self.broken(NO_RESPONSE))),
            // The backend wants to be asked for the rest (2025-11-25, SEP-1699), or the client came for no answer.
            (None, Ended::Well, Form::Events { .. }) if self.is_resumable() && self.fault.is_none() => {
                Next::End(End::As(Kind::Ok))
            }
            (None, Ended::Well, Form::Events { .. }) => {
                let error = self.broken(self.fault.unwrap_or(UNANSWERED));
                self.end_with(error)
            }
            // Its connection broke. What it has said since the last id can still be had, which a client knows how to ask for.
            (None, Ended::Failed(error @ Error::BackendClosed { .. }), Form::Events { .. }) if self.is_resumable() => {
                Next::End(End::Failed(error))
            }
            (None, Ended::Failed(error), _) => self.end_with(error),
        }
    }

    fn end_with(&mut self, error: Error) -> Next {
        if self.id.is_none() && self.is_event_stream() {
            // There is nothing to tell, and its client may come back once more.
            return Next::End(End::Failed(error));
        }
        match self.cut(&error) {
            Some(last) => {
                if let Some(call) = self.holds.as_mut().and_then(|holds| holds.call.as_mut()) {
                    call.failed();
                }
                self.outcome = Some(End::Failed(error));
                self.end = Some(Ended::Well);
                Next::Chunk(last)
            }
            None => Next::Broken(error),
        }
    }

    /// Puts an error in the place of the answer, where one can still be told; nothing where the answer is out already.
    pub(crate) fn cut(&self, error: &Error) -> Option<Bytes> {
        let Form::Events { splitter, .. } = &self.form else { return None };
        if self.outcome.is_some() {
            return Some(Bytes::new());
        }
        let Some(id) = &self.id else { return Some(Bytes::new()) };
        let event = sse::event(&jsonrpc::error_body(Some(id.raw()), &error.object()));
        if splitter.is_between_events() {
            return Some(event);
        }
        // Half an event has passed already. A blank line ends it: unreadable, but what follows is not.
        Some([b"\n\n", &*event].concat().into())
    }
}

impl Drop for Relay {
    /// Whatever ended it: a call that is answered, or whose client cannot come back, is over, and so is what was asked in it.
    fn drop(&mut self) {
        let is_resumable = self.is_resumable();
        let Some(call) = self.holds.as_mut().and_then(|holds| holds.call.as_mut()) else { return };
        if self.outcome.is_some() {
            call.answered();
        } else if is_resumable {
            let tagger = if let Form::Events { tagger, .. } = &self.form { tagger.as_ref() } else { None };
            call.resumable(tagger.and_then(Tagger::last_id));
        }
    }
}

impl Form {
    /// The answer to request `id`, if to one.
    fn events(backend: &Backend, side: &Side, id: Option<&OwnedId>) -> Self {
        let tagger = match side {
            Side::Legacy(_) => Some(Tagger::new(&EventId::tag(EventId::CALL, backend.name().as_str()))),
            Side::Modern => None,
        };
        Self::Events { tagger, splitter: Box::new(Splitter::of(MAX_HELD_EVENT.bytes, id.cloned())) }
    }
}

/// The id of an event as clients have it: which stream of which backend it was, and the backend's own id.
pub(crate) struct EventId<'a> {
    /// [`EventId::CALL`] or [`EventId::NEWS`].
    pub(crate) stream: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) own: &'a str,
}

impl<'a> EventId<'a> {
    /// The stream that answers a call.
    pub(crate) const CALL: &'static str = "c";
    /// A backend's own stream.
    pub(crate) const NEWS: &'static str = "n";

    /// What stands before the backend's own id. A backend's name has no slash in it.
    pub(crate) fn tag(stream: &str, backend: &str) -> String {
        format!("{stream}/{backend}/")
    }

    /// From a client's `Last-Event-ID`.
    pub(crate) fn read(id: &'a str) -> Option<Self> {
        let (stream, rest) = id.split_once('/')?;
        let (backend, own) = rest.split_once('/')?;
        matches!(stream, Self::CALL | Self::NEWS).then_some(Self { stream, backend, own })
    }
}
