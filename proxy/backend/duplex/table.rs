//! Who is waiting for what on one pipe, and where each message of the backend goes.
//!
//! Every request gets an id of its own towards the backend, and its progress token becomes that id: whoever shares a pipe
//! may count alike. Both are put back on the way to the client.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::levels::Levels;
use super::queue::{Pieces, Sender};
use super::rewrite::{edit, one_line, replace, subscription_of};
use super::subscribers::Subscribers;
use super::waiting::{Call, Inbox, Listener, Purpose, Waiting};
use crate::backend::client;
use crate::catalog;
use crate::era::Severity;
use crate::error::{Error, HEADER_MISMATCH, METHOD_NOT_FOUND, MISSING_CAPABILITY, UNSUPPORTED_VERSION};
use crate::jsonrpc::{self, ErrorObject, Message, Notification, OwnedId, Request, Response};
use crate::session::ClientCapabilities;

/// Questions of a backend that wait for their answers; beyond, the oldest is taken for one that will not be answered.
const MAX_QUESTIONS: usize = 64;
/// Calls whose clients left that are still known, so that they can be cancelled.
const MAX_ABANDONED: usize = 256;

/// What changes what a shared backend tells.
const SET_LEVEL: &str = "logging/setLevel";
const SUBSCRIBE: &str = "resources/subscribe";
const UNSUBSCRIBE: &str = "resources/unsubscribe";

/// Whether a request changes what the sessions of a shared backend are told.
pub(super) fn changes_sharing(request: &Request<'_>) -> bool {
    matches!(&*request.method, SET_LEVEL | SUBSCRIBE | UNSUBSCRIBE)
}

/// Whose a pipe is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sharing {
    /// Everybody's, statelessly: requests of 2026-07-28 on.
    Modern,
    /// One session's.
    Session,
    /// All sessions'.
    Shared,
}

/// What trying the modern era on a pipe came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trial {
    /// The backend speaks it, or is being asked whether it does.
    Modern,
    /// It has refused all that it was asked, and can be told `initialize` as if nothing had been.
    Refused,
    /// It left a request without an answer.
    Silent,
}

/// A session, as its holder calls it. Empty for requests without one.
pub(super) type SessionId = Arc<str>;

/// An answer to a call.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) message: Pieces,
    /// The `result`, unless it is an error.
    pub(super) result: Option<Box<RawValue>>,
}

/// Where a message of the backend goes.
pub(super) enum Route {
    /// It answers a call.
    Answer(oneshot::Sender<Answered>, Answered),
    /// Nobody can take it, which the backend is told.
    Back(Bytes),
    /// It is none.
    NoMessage,
    /// It is dropped.
    Nowhere(&'static str),
    /// It goes to these streams.
    Streams(Vec<Sender>, Pieces),
}

pub(super) struct Table {
    sharing: Sharing,
    next: u64,
    waiting: Waiting,
    /// Questions of the backend that are not answered yet, and who was asked, oldest first.
    asked: VecDeque<(OwnedId, SessionId)>,
    /// Of a pipe that is all sessions': those whose clients can be asked something.
    askable: HashSet<SessionId>,
    /// Of a pipe that is all sessions'.
    subscribers: Subscribers,
    /// The same.
    levels: Levels,
    /// Whether the backend was told that the handshake is done.
    initialized: bool,
    /// Of a pipe of the modern era.
    trial: Trial,
    closed: bool,
}

impl Table {
    pub(super) fn new(sharing: Sharing) -> Self {
        Self {
            sharing,
            next: 1,
            waiting: Waiting::default(),
            asked: VecDeque::new(),
            askable: HashSet::new(),
            subscribers: Subscribers::default(),
            levels: Levels::default(),
            initialized: false,
            trial: Trial::Refused,
            closed: false,
        }
    }

    /// Gives a pipe of the modern era to sessions, if the backend has shown that it is a legacy one.
    pub(super) fn hand_over(&mut self, to: Sharing) -> Trial {
        if !self.is_idle() {
            return Trial::Modern;
        }
        if self.trial == Trial::Refused {
            self.sharing = to;
        }
        self.trial
    }

    /// Ends every call and every stream; there will be no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.waiting.calls.clear();
        self.waiting.listeners.clear();
    }

    // === towards the backend ===

    /// Notes a call. Returns its id, and its request as the backend gets it; nothing when the pipe is closed.
    pub(super) fn ask(
        &mut self,
        session: &SessionId,
        body: &Bytes,
        request: &Request<'_>,
        inbox: Inbox,
    ) -> Option<(u64, Pieces)> {
        if self.closed {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let raw = |part: &str| Bytes::copy_from_slice(part.as_bytes());
        let token = request.params.meta.as_ref().and_then(|meta| meta.progress_token).map(RawValue::get);
        let id = request.id.raw();
        let edits = [Some(id), token].into_iter().flatten().filter_map(|part| edit(body, part, number.to_string()));
        let mut edits: Vec<_> = edits.collect();
        let level = request.params.level.zip(self.level_asked(request)).map(|(raw, asked)| {
            let (told, change) = self.levels.ask(session, asked);
            edits.extend(edit(body, raw.get(), jsonrpc::json_string(told.as_str())).filter(|_| told != asked));
            change
        });
        let message = flat(replace(body, edits));
        let purpose = match &*request.method {
            "initialize" | "ping" => Purpose::Handshake,
            "subscriptions/listen" => Purpose::Listen,
            _ => Purpose::Plain,
        };
        let uri = request.params.uri().filter(|_| request.method == SUBSCRIBE && self.sharing == Sharing::Shared);
        let call = Call {
            id: raw(id),
            token: token.map(raw),
            session: Arc::clone(session),
            purpose,
            subscribes: uri.filter(|uri| self.subscribers.add(session, uri)).map(Into::into),
            sets_level: level,
            log_level: request.params.meta.as_ref().and_then(|meta| meta.log_level()).and_then(|l| Severity::read(&l)),
            inbox: Some(inbox),
        };
        self.waiting.calls.insert(number, call);
        Some((number, message))
    }

    /// A notification or a response as the backend gets it; nothing when it is none of its business.
    pub(super) fn tell(&mut self, session: &SessionId, body: &Bytes, message: &Message<'_>) -> Option<Pieces> {
        match message {
            Message::Request(_) => return None,
            Message::Response(response) => {
                // One that was not asked of this session is not its to answer.
                let id = response.id?;
                let at = self.asked.iter().position(|(asked, of)| asked.borrow() == id && of == session)?;
                self.asked.remove(at);
            }
            Message::Notification(n) if n.method == "notifications/cancelled" => {
                let id = n.params.request_id()?;
                let is_it = |call: &Call| call.session == *session && id.raw().as_bytes() == call.id;
                let number = self.waiting.calls.iter().rfind(|(_, call)| is_it(call)).map(|(number, _)| *number)?;
                // Many servers do not answer a call that was cancelled, and what they ask is not asked on its behalf any more.
                if let Some(inbox) = self.waiting.calls.remove(&number).and_then(|call| call.inbox) {
                    let message = jsonrpc::error_body(Some(id.raw()), &Error::Cancelled.object()).into();
                    let _ = inbox.answer.send(Answered { message, result: None });
                }
                return Some(flat(replace(body, vec![edit(body, id.raw(), number.to_string())?])));
            }
            Message::Notification(n) if n.method == "notifications/initialized" => {
                if std::mem::replace(&mut self.initialized, true) {
                    return None;
                }
            }
            Message::Notification(_) => {}
        }
        Some(one_line(body).into())
    }

    /// The level that a request asks for, of a pipe that is all sessions'.
    fn level_asked(&self, request: &Request<'_>) -> Option<Severity> {
        let is_it = request.method == SET_LEVEL && self.sharing == Sharing::Shared;
        request.params.level().filter(|_| is_it).and_then(|level| Severity::read(&level))
    }

    /// Takes in a request that the backend is not told, because of what its other sessions asked for: a session that wants to
    /// hear of a resource no more, of which others do; or a level that is no change.
    pub(super) fn absorbs(&mut self, session: &SessionId, request: &Request<'_>) -> bool {
        if let Some(asked) = self.level_asked(request) {
            return self.levels.absorbs(session, asked);
        }
        let is_it = request.method == UNSUBSCRIBE && self.sharing == Sharing::Shared;
        request.params.uri().filter(|_| is_it).is_some_and(|uri| self.subscribers.remove(session, &uri))
    }

    /// Takes in a session of a pipe that is all sessions', by its `initialize`.
    pub(super) fn join(&mut self, session: &SessionId, initialize: &Request<'_>) {
        if ClientCapabilities::read(initialize.params.capabilities) != ClientCapabilities::default() {
            self.askable.insert(Arc::clone(session));
        }
    }

    /// Gives up what a session that is over asked for. Returns what the backend is to be told; nobody waits for its answers.
    pub(super) fn give_up(&mut self, session: &SessionId) -> Vec<Bytes> {
        self.askable.remove(session);
        let uris =
            self.subscribers.end(session).into_iter().map(|uri| (UNSUBSCRIBE, "uri", jsonrpc::json_string(&uri)));
        let level = self.levels.end(session).map(|level| (SET_LEVEL, "level", jsonrpc::json_string(level.as_str())));
        let told = uris.chain(level).map(|(method, key, value)| {
            let number = self.next;
            self.next += 1;
            jsonrpc::request_body(&number.to_string(), method, Some(&jsonrpc::object([(key, &*value)])))
        });
        told.collect()
    }

    /// Forgets a call that the backend was never asked, or that is over.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(call) = self.waiting.calls.remove(&number) {
            self.refused(&call);
        }
    }

    /// Takes in that the backend did not do what a call asked for.
    fn refused(&mut self, call: &Call) {
        if let Some(uri) = &call.subscribes {
            self.subscribers.remove(&call.session, uri);
        }
        if let Some(change) = call.sets_level {
            self.levels.refused(&call.session, change);
        }
    }

    /// A call's client has left. Returns what the backend is to be told.
    pub(super) fn leave(&mut self, number: u64) -> Option<Bytes> {
        if self.sharing == Sharing::Modern {
            self.waiting.calls.remove(&number)?;
            if self.trial == Trial::Refused {
                self.trial = Trial::Silent;
            }
            let params = format!("{{\"requestId\":{number}}}");
            return Some(jsonrpc::notification_body("notifications/cancelled", Some(&params)));
        }
        self.waiting.calls.get_mut(&number)?.inbox = None;
        let abandoned = self.waiting.calls.iter().filter(|(_, call)| call.inbox.is_none());
        if abandoned.clone().count() > MAX_ABANDONED
            && let Some(oldest) = abandoned.map(|(number, _)| *number).next()
        {
            self.waiting.calls.remove(&oldest);
        }
        None
    }

    /// Notes a stream for what belongs to no call, in the place of an earlier one of its session.
    pub(super) fn listen(&mut self, session: &SessionId, events: Sender) -> Option<u64> {
        if self.closed {
            return None;
        }
        self.waiting.listeners.retain(|listener| listener.session != *session);
        let ticket = self.next;
        self.next += 1;
        self.waiting.listeners.push(Listener { ticket, session: Arc::clone(session), events });
        Some(ticket)
    }

    pub(super) fn unlisten(&mut self, ticket: u64) {
        self.waiting.listeners.retain(|listener| listener.ticket != ticket);
    }

    /// Ends the streams of a session.
    pub(super) fn end(&mut self, session: &SessionId) {
        self.waiting.listeners.retain(|listener| listener.session != *session);
        self.asked.retain(|(_, of)| of != session);
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.listeners.is_empty() && self.waiting.calls.values().all(|call| call.inbox.is_none())
    }

    // === from the backend ===

    pub(super) fn route(&mut self, line: &Bytes) -> Route {
        match jsonrpc::parse(line) {
            Ok(Message::Response(response)) => self.answer(line, &response),
            Ok(Message::Request(request)) => self.question(line, &request),
            Ok(Message::Notification(notification)) => self.notification(line, &notification),
            Err(_) => Route::NoMessage,
        }
    }

    fn answer(&mut self, line: &Bytes, response: &Response<'_>) -> Route {
        let call = response.id.and_then(|id| Some((id, self.waiting.calls.remove(&number(id.raw())?)?)));
        let Some((id, call)) = call else { return Route::Nowhere("answers nothing that was asked") };
        let code = client::error_code(response.value).filter(|_| response.error);
        // Errors that only this era has are as good as a result (2026-07-28, stdio, backward compatibility).
        if !response.error || matches!(code, Some(HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)) {
            self.trial = Trial::Modern;
        }
        if response.error {
            self.refused(&call);
        }
        let Some(inbox) = call.inbox else { return Route::Nowhere("answers a client that has left") };
        let subscription = subscription_of(response.value).filter(|_| call.purpose == Purpose::Listen);
        let parts = [Some(id.raw()), subscription];
        let edits = parts.into_iter().flatten().filter_map(|part| edit(line, part, call.id.clone())).collect();
        let wants_result = call.purpose == Purpose::Handshake && !response.error;
        let result = wants_result.then(|| response.value.to_owned());
        Route::Answer(inbox.answer, Answered { message: replace(line, edits), result })
    }

    fn question(&mut self, line: &Bytes, request: &Request<'_>) -> Route {
        let id = request.id;
        if request.method == "ping" {
            return Route::Back(jsonrpc::result_body(id.raw(), "{}"));
        }
        let taker = match self.sharing {
            Sharing::Modern => None,
            Sharing::Session => self
                .waiting
                .only_call()
                .or_else(|| self.waiting.newest_listener())
                .or_else(|| self.waiting.oldest_call()),
            // The gateway lists and looks at the backend in a session of its own, and modern clients have others.
            Sharing::Shared => {
                self.waiting.oldest_call_of_the_only_session_that(|session| self.askable.contains(session))
            }
        };
        let Some((session, events)) = taker.map(|(session, events)| (Arc::clone(session), events.clone())) else {
            let message = format!("Method not found: {}; {}", request.method, self.nobody()).into();
            let error = ErrorObject { code: METHOD_NOT_FOUND, message, data: None };
            return Route::Back(jsonrpc::error_body(Some(id.raw()), &error));
        };
        while self.asked.len() >= MAX_QUESTIONS {
            self.asked.pop_front();
        }
        self.asked.push_back((id.owned(), session));
        Route::Streams(vec![events], line.clone().into())
    }

    /// Why there is nobody to be asked.
    fn nobody(&self) -> &'static str {
        match self.sharing {
            Sharing::Modern => "a server of this protocol version asks in its results",
            Sharing::Session => "its client has neither a call under way nor a stream open",
            Sharing::Shared if self.waiting.underway().any(|(session, _)| self.askable.contains(session)) => {
                "calls of several sessions are under way in this process, which does not say whose question it is; \
                 `instances: session` gives each a process of its own"
            }
            Sharing::Shared => {
                "no session with a call under way in this process, which sessions share, can be asked; \
                 `instances: session` gives each a process of its own"
            }
        }
    }

    fn notification(&mut self, line: &Bytes, notification: &Notification<'_>) -> Route {
        if notification.method == "notifications/progress" {
            let token = notification.params.progress_token.map(RawValue::get);
            return self.to_its_call(line, token, |call| call.token.clone());
        }
        if let Some(id) = notification.params.meta.as_ref().and_then(|meta| meta.subscription_id) {
            return self.to_its_call(line, Some(id.get()), |call| Some(call.id.clone()));
        }
        let withdrawn = notification.params.request_id().filter(|_| notification.method == "notifications/cancelled");
        let at = withdrawn.and_then(|id| self.asked.iter().position(|(asked, _)| asked.borrow() == id));
        let asked = at.and_then(|at| self.asked.remove(at)).map(|(_, session)| session);
        let is_log = notification.method == "notifications/message";
        let level = notification.params.level().and_then(|level| Severity::read(&level));
        let takers: Vec<_> = match self.sharing {
            // Only who asked for it is told (2026-07-28, Logging).
            Sharing::Modern if is_log => self.waiting.only_call_that_hears(level).into_iter().collect(),
            // Nothing tells whose it is, and it may be nobody else's business.
            Sharing::Modern => self.waiting.only_call().into_iter().collect(),
            Sharing::Session => {
                let taker = self
                    .waiting
                    .only_call()
                    .or_else(|| self.waiting.newest_listener())
                    .or_else(|| self.waiting.oldest_call());
                taker.into_iter().collect()
            }
            Sharing::Shared if let Some(asked) = &asked => {
                let its = |(session, _): &(&SessionId, &Sender)| *session == asked;
                self.waiting.underway().find(its).or_else(|| self.waiting.listening().find(its)).into_iter().collect()
            }
            // What is logged for one session is not another's to read.
            Sharing::Shared if is_log => {
                let taker = self.waiting.oldest_call_of_the_only_session();
                taker.filter(|(session, _)| self.levels.hears(session, level)).into_iter().collect()
            }
            Sharing::Shared if notification.method == catalog::RESOURCE_UPDATED => {
                let subscribed = notification.params.uri().map(|uri| self.subscribers.of(&uri)).unwrap_or_default();
                self.waiting.listening().filter(|(session, _)| subscribed.contains(session)).collect()
            }
            Sharing::Shared => self.waiting.listening().collect(),
        };
        if takers.is_empty() {
            return Route::Nowhere("is for nobody who listens");
        }
        Route::Streams(takers.into_iter().map(|(_, events)| events.clone()).collect(), line.clone().into())
    }

    /// To the call that a part of the message names, with what `own` says in the place of that part.
    fn to_its_call(&self, line: &Bytes, named: Option<&str>, own: impl Fn(&Call) -> Option<Bytes>) -> Route {
        let lost = Route::Nowhere("belongs to no call under way");
        let Some(part) = named else { return lost };
        let Some(call) = number(part).and_then(|number| self.waiting.calls.get(&number)) else { return lost };
        let (Some(inbox), Some(own)) = (&call.inbox, own(call)) else { return lost };
        let edits = edit(line, part, own).into_iter().collect();
        Route::Streams(vec![inbox.events.clone()], replace(line, edits))
    }
}

/// An id or a token of ours, as the backend wrote it back.
fn number(json: &str) -> Option<u64> {
    json.parse().ok()
}

/// Each piece on one line.
fn flat(message: Pieces) -> Pieces {
    Pieces(message.0.iter().map(one_line).collect())
}
