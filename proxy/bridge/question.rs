//! What a legacy backend asks a legacy client: passed on under an id of the gateway's, and answered here at once where the
//! client cannot be asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use crate::backend::client::{self, Judged, Opened};
use crate::backend::sse;
use crate::catalog;
use crate::error::{CLIENT_CLOSED, METHOD_NOT_FOUND};
use crate::jsonrpc::{self, ErrorObject, Message, OwnedId, Request};
use crate::metrics::Cap;
use crate::session::{Asker, Leg, MAX_QUESTIONS, Session};

/// Questions of one stream that are being answered here at once.
const MAX_ANSWERING: u32 = 16;

/// What is asked on one stream of a backend, in one session with it.
pub(crate) struct Asked {
    session: Arc<Session>,
    leg: Arc<Leg>,
    opened: Arc<Opened>,
    /// What the call is known by, or the stream, with which its questions end; none on the session's own.
    within: Option<u64>,
    answering: Arc<AtomicU32>,
}

impl Asked {
    pub(crate) fn new(session: &Arc<Session>, leg: &Arc<Leg>, opened: Arc<Opened>, within: Option<u64>) -> Self {
        Self { session: Arc::clone(session), leg: Arc::clone(leg), opened, within, answering: Arc::default() }
    }

    /// Decides about a message that is no answer: what of its event passes to the client, if anything.
    ///
    /// # Errors
    /// When the backend asks more than can be answered.
    pub(crate) fn take(&self, message: &Message<'_>, raw: &Bytes, data: &Bytes) -> Result<Option<Bytes>, &'static str> {
        match message {
            Message::Request(request) if self.can_ask(request) => {
                let asker = Asker::Backend {
                    leg: Arc::clone(&self.leg),
                    opened: Arc::clone(&self.opened),
                    id: request.id.owned(),
                };
                let (id, put_off) = self.session.ask(asker, self.within);
                if let Some(Asker::Backend { leg, opened, id }) = put_off {
                    leg.backend.cap_reached(Cap::Questions);
                    let body = jsonrpc::error_body(Some(id.raw()), &too_many());
                    self.answer(leg, opened, body)?;
                }
                Ok(Some(renamed(raw, data, request.id.raw(), &id)))
            }
            Message::Request(_) => {
                if let Some(body) = client::answer_to_question(data) {
                    self.answer(Arc::clone(&self.leg), Arc::clone(&self.opened), body)?;
                }
                Ok(None)
            }
            // The backend does not want to know any more what it asked.
            Message::Notification(notification) if notification.method == "notifications/cancelled" => {
                let own = notification.params.request_id();
                Ok(own.and_then(|own| {
                    let id = self.session.question(&self.leg.backend, &own.owned())?;
                    self.session.answered(&id);
                    Some(renamed(raw, data, own.raw(), &id))
                }))
            }
            Message::Notification(notification) if notification.method == catalog::RESOURCE_UPDATED => {
                let wanted = |uri: &str| self.session.wants(&self.leg.backend, uri);
                Ok(notification.params.uri().filter(|uri| wanted(uri)).map(|_| raw.clone()))
            }
            Message::Notification(_) | Message::Response(_) => Ok(Some(raw.clone())),
        }
    }

    fn can_ask(&self, request: &Request<'_>) -> bool {
        let mode = request.params.mode();
        self.session.capabilities.can(&request.method, mode.as_deref())
    }

    /// Answers in the client's place.
    fn answer(&self, leg: Arc<Leg>, opened: Arc<Opened>, body: Bytes) -> Result<(), &'static str> {
        if self.answering.fetch_add(1, Ordering::Relaxed) >= MAX_ANSWERING {
            return Err("it asks too many questions at once");
        }
        let answering = Arc::clone(&self.answering);
        tokio::spawn(async move {
            // A backend that cannot take the answer will time its own question out.
            let _ = client::notify(&leg.backend, &opened, body, Judged::No).await;
            answering.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }
}

/// Tells a backend of another call that its question was put off.
pub(crate) fn put_off(asker: Option<Asker>) {
    if let Some(Asker::Backend { leg, opened, id }) = asker {
        pass_answer(leg, opened, jsonrpc::error_body(Some(id.raw()), &too_many()));
    }
}

/// Tells backends whose questions were taken back that nobody will answer: a call is over that they are still at.
pub(crate) fn taken_back(askers: Vec<Asker>) {
    if askers.is_empty() || tokio::runtime::Handle::try_current().is_err() {
        return;
    }
    for asker in askers {
        if let Asker::Backend { leg, opened, id } = asker {
            let message =
                "the call is over in which this was asked: its client has left it, cancelled it or lost it".into();
            let error = ErrorObject { code: CLIENT_CLOSED, message, data: None };
            pass_answer(leg, opened, jsonrpc::error_body(Some(id.raw()), &error));
        }
    }
}

/// Refuses a question that the client has not come to hear of.
pub(crate) fn unheard(session: &Session, question: &Bytes) {
    let Ok(Message::Request(request)) = jsonrpc::parse(question) else { return };
    if let Some(Asker::Backend { leg, opened, id }) = session.answered(&request.id.owned()) {
        let message = "the client does not listen to the stream of its session".into();
        let error = ErrorObject { code: METHOD_NOT_FOUND, message, data: None };
        pass_answer(leg, opened, jsonrpc::error_body(Some(id.raw()), &error));
    }
}

/// A message of a backend as it came: its question under its own id, for who answers it there.
pub(crate) fn as_asked(session: &Session, message: Bytes) -> Bytes {
    let Ok(Message::Request(request)) = jsonrpc::parse(&message) else { return message };
    let Some(Asker::Backend { id, .. }) = session.answered(&request.id.owned()) else { return message.clone() };
    let span = jsonrpc::span(&message, request.id.raw());
    span.map_or_else(|| message.clone(), |span| jsonrpc::splice(&message, &[(span, id.raw().as_bytes())]))
}

/// What a backend is told whose question is put off for newer ones.
fn too_many() -> ErrorObject {
    let message = format!(
        "the client has {MAX_QUESTIONS} questions to answer, the most that one may have; the oldest is put off"
    );
    ErrorObject { code: 429, message: message.into(), data: None }
}

/// Sends a client's answer to the backend that asked.
pub(crate) fn pass_answer(leg: Arc<Leg>, opened: Arc<Opened>, body: Bytes) {
    tokio::spawn(async move {
        if let Err(error) = client::notify(&leg.backend, &opened, body, Judged::No).await {
            tracing::debug!(backend = %leg.backend.name(), %error, "a client's answer was not taken");
        }
    });
}

/// The event with another id in its message; every other byte stays, unless the message is on several lines.
fn renamed(raw: &Bytes, data: &Bytes, own: &str, id: &OwnedId) -> Bytes {
    let with = id.raw().as_bytes();
    match (jsonrpc::span(raw, own), jsonrpc::span(data, own)) {
        (Some(span), _) => jsonrpc::splice(raw, &[(span, with)]),
        (None, Some(span)) => sse::event(&jsonrpc::splice(data, &[(span, with)])),
        (None, None) => raw.clone(),
    }
}
