//! A modern client's request on a legacy backend.
//!
//! The backend wants a session; modern clients have none, so they share one with all that could not be told apart by what it is
//! told: principal, capabilities, log level. Request ids and progress tokens would clash there, so the gateway has its own.
//! What the backend asks parks the call.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::answer::{Answer, broken};
use super::envelope;
use super::parked::{Binding, Question};
use super::shape::{self, Shaped};
use crate::backend::client::{self, Judged, Opened, Verdict};
use crate::backend::{Backend, Incoming, sse};
use crate::catalog;
use crate::dispatch::{Client, Exchange, Modern};
use crate::era::LOG_LEVELS;
use crate::error::{Error, Kind};
use crate::gateway::{self, Gateway};
use crate::jsonrpc::{self, Message, Notification, OwnedId};
use crate::relay::Holds;
use crate::reply::{Next, Reply, Source};
use crate::route::{self, Target};
use crate::session::{ANYONE, Borrowed, ClientCapabilities, Leg, PoolKey, Sessions, Way};

/// How long the head of the session's own stream is waited for.
const EAR_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// A call on a legacy backend, alive until its answer has come.
pub(crate) struct Call {
    backend: Arc<Backend>,
    sent: Sent,
    method: &'static str,
    uri: Option<Box<str>>,
    /// The client's, as JSON.
    progress_token: Option<Box<str>>,
    capabilities: ClientCapabilities,
    /// The least severe level that the client wants to hear of, as an index of [`LOG_LEVELS`].
    log_level: Option<usize>,
    answer: Answer,
    /// The session's own stream, on which some backends ask. Only where the session is this call's alone.
    ear: Option<Answer>,
    _holds: Holds,
}

/// A request that a legacy backend has, or is about to get, and has not answered.
struct Sent {
    leg: Arc<Leg>,
    opened: Arc<Opened>,
    /// As the backend knows it.
    id: OwnedId,
    session: Borrowed,
    is_answered: bool,
}

/// What happened next to a call.
enum Step {
    /// A notification for the client.
    Event(Bytes),
    /// The backend asks.
    Asks(Question),
    Done(Shaped),
}

/// Sends a request on, or takes up the call that waited for what it brings.
pub(crate) async fn call(exchange: &mut Exchange<'_>, target: Target<'_>) -> Result<Reply, Error> {
    let Client::Modern(modern) = &exchange.client else { return Err(Error::SessionMissing) };
    let binding = Binding::new(exchange.method, exchange.params, ANYONE);
    let call = match exchange.params.request_state {
        Some(state) => match resume(exchange, modern, &binding, state).await? {
            Resumed::Runs(call) => call,
            Resumed::AsksAgain(reply) => return Ok(*reply),
        },
        None => Box::new(start(exchange, modern, target).await?),
    };
    let id = exchange.id()?.owned();
    let bridged = ToLegacy {
        gateway: Arc::clone(exchange.gateway),
        ttl: exchange.snapshot.config.bridge.parked_ttl,
        max_parked: exchange.snapshot.config.bridge.parked,
        binding,
        id,
        call: Some(call),
        ready: VecDeque::new(),
        outcome: None,
    };
    let (reply, kind) = bridged.reply().await?;
    exchange.ended_as = kind;
    Ok(reply)
}

/// What became of a retry.
enum Resumed {
    Runs(Box<Call>),
    /// The answers to what was asked are not all there.
    AsksAgain(Box<Reply>),
}

async fn resume(
    exchange: &Exchange<'_>,
    modern: &Modern,
    binding: &Binding,
    state: &RawValue,
) -> Result<Resumed, Error> {
    let lapsed = || Error::InvalidParams {
        what: "`requestState` is not of a call that waits for input here, or no longer; call again without it".into(),
    };
    let state = jsonrpc::text(state).ok_or_else(lapsed)?;
    let parked = &exchange.gateway.parked;
    let waiting = parked.take(&exchange.gateway.sessions, &state, binding).ok_or_else(lapsed)?;
    let answer = exchange.params.input_responses.and_then(|all| jsonrpc::member(all.get(), waiting.question.key()));
    let Some(answer) = answer.filter(|answer| answer.starts_with('{')) else {
        // Not what was asked for: asked again (2026-07-28, Multi Round-Trip Requests, error handling).
        let settings = &exchange.snapshot.config.bridge;
        let result = parked
            .park(
                &exchange.gateway.sessions,
                binding,
                waiting.call,
                waiting.question,
                (settings.parked_ttl, settings.parked),
            )
            .map_err(|_| lapsed())?;
        return exchange.result(result.into()).map(|reply| Resumed::AsksAgain(Box::new(reply)));
    };
    let mut call = waiting.call;
    call.serves(exchange, modern);
    let body = jsonrpc::result_body(waiting.question.id().raw(), answer);
    client::notify(&call.backend, &call.sent.opened, body, Judged::No).await?;
    Ok(Resumed::Runs(call))
}

async fn start(exchange: &Exchange<'_>, modern: &Modern, target: Target<'_>) -> Result<Call, Error> {
    let backend = Arc::clone(target.backend);
    let key = PoolKey {
        principal: ANYONE.into(),
        capabilities: modern.capabilities,
        level: modern.log_level.clone(),
        backend: backend.uid,
    };
    let session = Sessions::borrow(exchange.gateway, key);
    let leg = session.leg(&backend);
    let own_id = OwnedId::integer(client::next_id());
    let guard = session.call(own_id.clone(), Way::Session(Arc::clone(&leg)));
    let body = body(exchange, &target, &own_id)?;
    let cap = usize::try_from(exchange.snapshot.config.bridge.max_answer).unwrap_or(usize::MAX);
    let opened = leg.open(&session, None).await?;
    let mut sent = Sent { leg, opened, id: own_id, session, is_answered: false };
    let mut is_last_try = false;
    let (incoming, ear) = loop {
        let ear = if sent.session.is_shared() { None } else { listen(&backend, &sent.opened, cap).await };
        let mut request = sent.opened.post(body.clone(), target.timeout, false);
        request.headers.extend(route::request_id(exchange));
        let incoming = backend.send(request).await?;
        match client::verdict(&backend, &sent.opened, incoming).await? {
            Verdict::Answer(incoming) => break (incoming, ear),
            // An error that came with a status of its own says the same without one.
            Verdict::Refusal { body, .. } => break (Incoming::json(StatusCode::OK, body), ear),
            Verdict::SessionLost if is_last_try => {
                return Err(broken(&backend, "it forgets sessions as soon as they are opened"));
            }
            Verdict::SessionLost => sent.opened = sent.leg.open(&sent.session, Some(&sent.opened)).await?,
        }
        is_last_try = true;
    };
    let mut call = Call {
        answer: Answer::new(&backend, Some(Arc::clone(&sent.opened)), incoming, cap)?,
        sent,
        uri: None,
        method: exchange.method,
        progress_token: None,
        capabilities: modern.capabilities,
        log_level: None,
        ear,
        _holds: target.holds(Some(guard)),
        backend,
    };
    call.serves(exchange, modern);
    Ok(call)
}

/// Opens the session's own stream, if the backend has one. Not waited for for long: most backends ask where they are asked.
async fn listen(backend: &Arc<Backend>, opened: &Arc<Opened>, cap: usize) -> Option<Answer> {
    opened.session_id.as_ref()?;
    let incoming = timeout(EAR_WITHIN, client::listen(backend, opened)).await.ok()?.ok()??;
    Answer::new(backend, Some(Arc::clone(opened)), incoming, cap).ok()
}

/// The request as the backend gets it: its own names, an id and a progress token of the gateway's, no envelope.
fn body(exchange: &Exchange<'_>, target: &Target<'_>, own_id: &OwnedId) -> Result<Bytes, Error> {
    let mut edits = target.edits.clone();
    let mut replace = |part: &str| {
        let span = jsonrpc::span(exchange.body, part);
        edits.extend(span.map(|span| (span, own_id.raw().to_owned())));
    };
    replace(exchange.id()?.raw());
    if let Some(token) = exchange.params.meta.as_ref().and_then(|meta| meta.progress_token) {
        replace(token.get());
    }
    Ok(envelope::undress(&route::spliced(exchange.body, edits)))
}

impl Call {
    /// Notes what the request says that waits for the answer now: a retry has a progress token of its own.
    fn serves(&mut self, exchange: &Exchange<'_>, modern: &Modern) {
        let meta = exchange.params.meta.as_ref();
        let level = modern.log_level.as_deref().map(|level| level.trim_matches('"'));
        self.uri = exchange.params.uri().map(|uri| uri.as_ref().into());
        self.progress_token = meta.and_then(|meta| meta.progress_token).map(|token| token.get().into());
        self.log_level = level.and_then(|level| LOG_LEVELS.iter().position(|known| *known == level));
    }

    /// Waits for what happens next; `client` is the client's id for it. Dropping the future loses nothing.
    async fn step(&mut self, client: &OwnedId) -> Result<Step, Error> {
        loop {
            let data = match &mut self.ear {
                None => self.answer.next().await?,
                Some(ear) => tokio::select! {
                    biased;
                    data = self.answer.next() => data?,
                    heard = ear.next() => match heard {
                        Ok(Some(data)) => Some(data),
                        Ok(None) | Err(_) => {
                            self.ear = None;
                            continue;
                        }
                    },
                },
            };
            let Some(data) = data else {
                return Err(broken(&self.backend, "it ended its answer before it was complete"));
            };
            match jsonrpc::parse(&data) {
                Ok(Message::Response(response))
                    if response.id == Some(self.sent.id.borrow()) || response.id.is_none() =>
                {
                    self.sent.is_answered = true;
                    return Ok(Step::Done(shape::to_modern(self.method, self.uri.as_deref(), client, &response)));
                }
                Ok(Message::Notification(notification)) => {
                    if let Some(event) = self.notification(&notification, &data) {
                        return Ok(Step::Event(event));
                    }
                }
                Ok(Message::Request(request)) => {
                    let mode = request.params.mode();
                    if self.capabilities.can(&request.method, mode.as_deref()) {
                        return Ok(Step::Asks(Question::new(&request, &data)));
                    }
                    self.refuse(client::answer_to_question(&data));
                }
                Ok(Message::Response(_)) | Err(_) => {}
            }
        }
    }

    /// What of a notification is for the client.
    fn notification(&self, notification: &Notification<'_>, data: &Bytes) -> Option<Bytes> {
        match &*notification.method {
            "notifications/progress" => {
                let token = self.progress_token.as_deref()?;
                let own = notification.params.progress_token.filter(|own| own.get() == self.sent.id.raw())?;
                let span = jsonrpc::span(data, own.get())?;
                Some(jsonrpc::splice(data, &[(span, token.as_bytes())]))
            }
            // Without a level in the request none may be sent (2026-07-28, Logging).
            "notifications/message" => {
                let level = notification.params.level()?;
                let level = LOG_LEVELS.iter().position(|known| *known == level)?;
                self.log_level.filter(|least| level >= *least).map(|_| data.clone())
            }
            method => {
                if catalog::is_list_change(method) {
                    self.backend.relist.notify_one();
                }
                None
            }
        }
    }

    /// Answers the backend in the client's place.
    fn refuse(&self, body: Option<Bytes>) {
        let Some(body) = body else { return };
        let (backend, opened) = (Arc::clone(&self.backend), Arc::clone(&self.sent.opened));
        tokio::spawn(async move {
            let _ = client::notify(&backend, &opened, body, Judged::No).await;
        });
    }
}

impl Drop for Sent {
    /// A modern client cancels by leaving, a legacy backend is told by a message. A session that was the call's alone ends with
    /// it: what the backend still asks there must not be asked the next one.
    fn drop(&mut self) {
        if self.is_answered || !self.leg.has_session_id() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let params = format!("{{\"requestId\":{},\"reason\":\"the client left\"}}", self.id.raw());
        let body = jsonrpc::notification_body("notifications/cancelled", Some(&params));
        let (leg, opened) = (Arc::clone(&self.leg), Arc::clone(&self.opened));
        let legs = if self.session.is_shared() { Vec::new() } else { self.session.take_legs(|_| true) };
        tokio::spawn(async move {
            let _ = client::notify(&leg.backend, &opened, body, Judged::No).await;
            gateway::close(legs).await;
        });
    }
}

/// A call's answer on its way to the client.
pub(crate) struct ToLegacy {
    gateway: Arc<Gateway>,
    ttl: std::time::Duration,
    max_parked: u32,
    binding: Binding,
    /// The client's id for it.
    id: OwnedId,
    /// Gone when it is over or parked.
    call: Option<Box<Call>>,
    ready: VecDeque<Bytes>,
    outcome: Option<Kind>,
}

impl ToLegacy {
    /// JSON if the answer comes first, a stream if something else does.
    async fn reply(mut self) -> Result<(Reply, Option<Kind>), Error> {
        match self.advance().await? {
            Advance::Event(event) => {
                self.ready.push_back(sse::event(&event));
                Ok((Reply::events(Source::ToLegacy(self)), None))
            }
            Advance::Last(shaped) => {
                let mut reply = Reply::json(vec![shaped.body]);
                reply.status = shaped.status;
                Ok((reply, Some(shaped.kind)))
            }
        }
    }

    async fn advance(&mut self) -> Result<Advance, Error> {
        loop {
            let Some(call) = &mut self.call else { return Err(Error::Cancelled) };
            match call.step(&self.id).await? {
                Step::Event(event) => return Ok(Advance::Event(event)),
                Step::Done(shaped) => {
                    self.call = None;
                    return Ok(Advance::Last(shaped));
                }
                Step::Asks(question) => {
                    let Some(call) = self.call.take() else { return Err(Error::Cancelled) };
                    let limits = (self.ttl, self.max_parked);
                    match self.gateway.parked.park(&self.gateway.sessions, &self.binding, call, question, limits) {
                        Ok(result) => {
                            let body = jsonrpc::result_body(self.id.raw(), &result);
                            return Ok(Advance::Last(Shaped { body, kind: Kind::Ok, status: StatusCode::OK }));
                        }
                        Err(refused) => {
                            let (call, body) = *refused;
                            call.refuse(Some(body));
                            self.call = Some(call);
                        }
                    }
                }
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Next {
        if let Some(chunk) = self.ready.pop_front() {
            return Next::Chunk(chunk);
        }
        if let Some(kind) = self.outcome {
            return Next::End(kind);
        }
        match self.advance().await {
            Ok(Advance::Event(event)) => Next::Chunk(sse::event(&event)),
            Ok(Advance::Last(shaped)) => {
                self.outcome = Some(shaped.kind);
                Next::Chunk(sse::event(&shaped.body))
            }
            Err(error) => {
                let last = self.cut(&error);
                self.outcome = Some(error.kind());
                Next::Chunk(last)
            }
        }
    }

    /// Ends it with an error in the answer's place.
    pub(crate) fn cut(&mut self, error: &Error) -> Bytes {
        self.call = None;
        if self.outcome.is_some() {
            return Bytes::new();
        }
        sse::event(&jsonrpc::error_body(Some(self.id.raw()), &error.object()))
    }

    pub(crate) fn outcome(&self) -> Option<Kind> {
        self.outcome.filter(|_| self.ready.is_empty())
    }
}

/// What goes to the client next.
enum Advance {
    Event(Bytes),
    Last(Shaped),
}
