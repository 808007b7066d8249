//! A backend's answer to a call on its way to the client: bytes as they come, never whole, never changed.
//!
//! Events that are not the answer are looked at before they pass: a question of the backend to its client is answered here,
//! as nothing was offered to it that the client would have to answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::backend::client::{self, Opened};
use crate::backend::sse::{self, Piece, Splitter};
use crate::backend::{Backend, Body, Incoming, Slot};
use crate::error::{Error, Kind};
use crate::jsonrpc::{self, Message, OwnedId};
use crate::limit::Permit;
use crate::reply::Next;
use crate::scan::{Outcome, Scan};
use crate::session::CallGuard;

/// The longest event that is held back because it may be a question or a notification.
const MAX_HELD_EVENT: usize = 4 * 1024 * 1024;
/// Questions of one stream that are being answered at once.
const MAX_QUESTIONS: u32 = 16;

/// What a call holds on to until its stream has ended.
pub(crate) struct Holds {
    pub(crate) _permit: Permit,
    pub(crate) _slot: Slot,
    pub(crate) call: CallGuard,
}

/// An answer under way.
pub(crate) struct Relay {
    backend: Arc<Backend>,
    opened: Arc<Opened>,
    id: OwnedId,
    body: Box<dyn Body>,
    form: Form,
    ready: VecDeque<Bytes>,
    /// Bytes of JSON that are still to come, where the backend said how many.
    left: Option<u64>,
    outcome: Option<Kind>,
    end: Option<Ended>,
    questions: Arc<AtomicU32>,
    holds: Holds,
}

enum Form {
    Events(Box<Splitter>),
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
        opened: Arc<Opened>,
        incoming: Incoming,
        id: OwnedId,
        holds: Holds,
    ) -> Result<Self, Error> {
        let broken = |what: &'static str| Error::BackendProtocol { backend: backend.name().clone(), what: what.into() };
        if incoming.headers.get(http::header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
            return Err(broken("it compressed its answer though asked not to"));
        }
        let length = incoming.headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        let left = length.filter(|_| incoming.is_json());
        let form = match () {
            () if incoming.is_event_stream() => Form::Events(Box::new(Splitter::new(MAX_HELD_EVENT))),
            () if incoming.is_json() => Form::Json(Box::new(Scan::new())),
            () if incoming.status == http::StatusCode::ACCEPTED => {
                return Err(broken("it accepted a request without answering it"));
            }
            () => return Err(broken("its answer is neither JSON nor an event stream")),
        };
        let mut relay = Self {
            backend: Arc::clone(backend),
            opened,
            id,
            body: incoming.body,
            form,
            ready: VecDeque::new(),
            left,
            outcome: None,
            end: None,
            questions: Arc::default(),
            holds,
        };
        relay.prime().await?;
        Ok(relay)
    }

    /// Of JSON, reads the first bytes: until then an error of ours can still take the answer's place.
    async fn prime(&mut self) -> Result<(), Error> {
        if matches!(self.form, Form::Events(_)) {
            return Ok(());
        }
        let broken =
            |what: &'static str| Error::BackendProtocol { backend: self.backend.name().clone(), what: what.into() };
        let first = self.body.next().await?.ok_or_else(|| broken("its answer is empty"))?;
        if first.trim_ascii_start().first() != Some(&b'{') {
            return Err(broken("its answer is not a JSON-RPC response"));
        }
        self.take(first);
        Ok(())
    }

    pub(crate) fn is_event_stream(&self) -> bool {
        matches!(self.form, Form::Events(_))
    }

    pub(crate) fn takes_comments(&self) -> bool {
        match &self.form {
            Form::Events(splitter) => self.ready.is_empty() && splitter.is_between_events(),
            Form::Json(_) => false,
        }
    }

    /// How it ended, if the answer is out: what its client does afterwards changes nothing.
    pub(crate) fn outcome(&self) -> Option<Kind> {
        self.outcome.filter(|_| self.ready.is_empty())
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
            let cancelled = self.holds.call.cancelled();
            let read = tokio::select! {
                biased;
                read = self.body.next() => read,
                () = cancelled.notified() => Err(Error::Cancelled),
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
                self.left = self.left.map(|left| left.saturating_sub(chunk.len() as u64));
                self.outcome = self.outcome.or_else(|| scan.outcome().map(kind_of));
                self.ready.push_back(chunk);
            }
            Form::Events(splitter) => {
                splitter.push(chunk);
                self.take_pieces();
            }
        }
    }

    fn take_pieces(&mut self) {
        while let Form::Events(splitter) = &mut self.form
            && let Some(piece) = splitter.next()
        {
            match piece {
                Ok(Piece::Pass(bytes)) => self.ready.push_back(bytes),
                Ok(Piece::Response(outcome)) => self.outcome = self.outcome.or_else(|| Some(kind_of(outcome))),
                Ok(Piece::Message { raw, data }) => self.take_message(raw, &data),
                Err(_) => self.end = Some(Ended::Failed(self.broken("an event of its answer is too long"))),
            }
        }
    }

    /// Decides about a message of the backend that is no answer.
    fn take_message(&mut self, raw: Bytes, data: &[u8]) {
        match jsonrpc::parse(data) {
            Ok(Message::Request(_)) => self.answer_question(data),
            // The catalog finds out whether something really changed, and tells every client.
            Ok(Message::Notification(n)) if n.method == "notifications/tools/list_changed" => {
                self.backend.relist.notify_one();
            }
            _ => self.ready.push_back(raw),
        }
    }

    fn answer_question(&mut self, data: &[u8]) {
        let Some(body) = client::answer_to_question(data) else { return };
        if self.questions.fetch_add(1, Ordering::Relaxed) >= MAX_QUESTIONS {
            self.end = Some(Ended::Failed(self.broken("it asks too many questions at once")));
            return;
        }
        let (backend, opened) = (Arc::clone(&self.backend), Arc::clone(&self.opened));
        let questions = Arc::clone(&self.questions);
        tokio::spawn(async move {
            let _ = client::notify(&backend, &opened, body, client::Judged::No).await;
            questions.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::BackendProtocol { backend: self.backend.name().clone(), what: what.into() }
    }

    /// The backend's side is over. An event stream without the answer gets an error in its place.
    fn finish(&mut self, ended: Ended) -> Next {
        match (self.outcome, ended, &self.form) {
            (Some(kind), _, _) => {
                self.holds.call.answered();
                Next::End(kind)
            }
            // Complete, but no response: what a backend says is passed on, not put right.
            (None, Ended::Well, Form::Json(_)) => Next::End(Kind::UpstreamError),
            (None, Ended::Well, Form::Events(_)) => {
                let error = self.broken("it ended its answer before it was complete");
                self.end_with(error)
            }
            (None, Ended::Failed(error), _) => self.end_with(error),
        }
    }

    fn end_with(&mut self, error: Error) -> Next {
        match self.cut(&error) {
            Some(last) => {
                self.outcome = Some(error.kind());
                self.end = Some(Ended::Well);
                Next::Chunk(last)
            }
            None => Next::Broken(error),
        }
    }

    /// Puts an error in the place of the answer, where one can still be told; nothing where the answer is out already.
    pub(crate) fn cut(&self, error: &Error) -> Option<Bytes> {
        let Form::Events(splitter) = &self.form else { return None };
        if self.outcome.is_some() {
            return Some(Bytes::new());
        }
        let event = sse::event(&jsonrpc::error_body(Some(self.id.raw()), &error.object()));
        if splitter.is_between_events() {
            return Some(event);
        }
        // Half an event has passed already. A blank line ends it: unreadable, but what follows is not.
        Some([b"\n\n", &*event].concat().into())
    }
}

fn kind_of(outcome: Outcome) -> Kind {
    match outcome {
        Outcome::Ok => Kind::Ok,
        Outcome::ToolError => Kind::ToolError,
        Outcome::RpcError { .. } => Kind::RpcError,
    }
}
