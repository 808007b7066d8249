//! A modern client's request on a legacy backend.
//!
//! The backend wants a session; modern clients have none, so they share one with all that could not be told apart by what it is
//! told: principal, capabilities, log level. There is one with each replica, and the least busy replica gets the request.
//! Request ids and progress tokens would clash there, so the gateway has its own. What the backend asks parks the call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};
use toolgate_config::Timeout;

use super::answer::{Answer, broken, max_answer};
use super::crossing::{self, Crossing, Direction};
use super::envelope;
use super::parked::{Binding, Question, Refused};
use super::shape::{self, Shaped};
use crate::backend::client::{self, Judged, Opened, Verdict};
use crate::backend::{Backend, Incoming};
use crate::catalog;
use crate::dispatch::{Client, Exchange, Modern};
use crate::era::Severity;
use crate::error::{Error, Kind, MaxBytes, Phase, URL_ELICITATION_REQUIRED};
use crate::gateway::{self, Gateway};
use crate::jsonrpc::{self, Message, Notification, OwnedId, Response};
use crate::news::early::{self, Ear};
use crate::relay::Holds;
use crate::reply::Reply;
use crate::route::{self, Target};
use crate::session::{ANYONE, Borrowed, ClientCapabilities, Leg, PoolKey, Sessions};

/// The deadline of what has another one.
const LONG: Duration = Duration::from_hours(24);

/// What a modern client can be asked in (2026-07-28, Multi Round-Trip Requests, supported requests).
const MAY_ASK: [&str; 3] = ["prompts/get", "resources/read", "tools/call"];

/// A call on a legacy backend, alive until its answer has come.
pub(crate) struct Call {
    backend: Arc<Backend>,
    sent: Sent,
    method: &'static str,
    uri: Option<Box<str>>,
    /// The client's, as JSON.
    progress_token: Option<Box<str>>,
    capabilities: ClientCapabilities,
    /// The least severe level that the client wants to hear of.
    log_level: Option<Severity>,
    /// The head of the answer, while it is waited for.
    head: Option<Head>,
    answer: Option<Answer>,
    max: MaxBytes,
    /// Let go when the call is over, or handed on where it is sent again.
    holds: Holds,
}

/// A request that was sent and the head of its answer, which may be long in coming: some backends ask on the session's own
/// stream before they answer at all.
struct Head {
    backend: Arc<Backend>,
    coming: BoxFuture<'static, Result<(Arc<Opened>, Incoming), Error>>,
    /// Whether that stream is heard meanwhile.
    is_heard: bool,
    within: Duration,
    deadline: Instant,
}

/// A request that a legacy backend has, or is about to get, and has not answered.
struct Sent {
    leg: Arc<Leg>,
    opened: Arc<Opened>,
    /// As the backend knows it.
    id: OwnedId,
    session: Borrowed,
    /// The session's own stream, on which some backends ask. Only where the session is this call's alone.
    ear: Option<Ear>,
    is_answered: bool,
}

/// What was heard of an answer.
enum Heard {
    Answer(Option<Bytes>),
    /// It comes in a new session.
    Elsewhere(Arc<Opened>),
}

/// What happened next to a call.
enum Step {
    /// A notification for the client.
    Event(Bytes),
    /// The backend asks.
    Asks(Question),
    Done(Shaped),
}

/// Sends a request on.
pub(crate) async fn call(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let Client::Modern(modern) = &exchange.client else { return Err(Error::SessionMissing) };
    if exchange.params.request_state.is_some() && !route::was_parked(exchange) {
        return Err(lapsed());
    }
    let binding = Binding::new(exchange.method, exchange.params, ANYONE);
    let call = Box::new(start(exchange, modern, target).await?);
    reply(exchange, binding, call).await
}

/// Takes up the call that waited for what a request brings, wherever it runs: the backend that has its name by now may be another
/// one. `target` is where a call goes that has to be sent again, if there is anybody to send it to.
pub(crate) async fn take_up(exchange: &mut Exchange<'_>, target: Option<&mut Target<'_>>) -> Result<Reply, Error> {
    let Client::Modern(modern) = &exchange.client else { return Err(Error::SessionMissing) };
    let binding = Binding::new(exchange.method, exchange.params, ANYONE);
    match resume(exchange, modern, &binding).await? {
        Resumed::Runs(call) => reply(exchange, binding, call).await,
        Resumed::AsksAgain(reply) => Ok(*reply),
        Resumed::StartsAgain(refused) => {
            let Call { backend, holds: Holds { _permit: permit, _slot: slot, .. }, .. } = *refused;
            let Some(target) = target else { return Err(Error::BackendRemoved { backend: backend.name().clone() }) };
            // It goes on with what the refused one was let through with. Of its places another backend has none.
            let slot = match slot.filter(|_| backend.uid == target.backend.uid) {
                Some(slot) => slot,
                None => target.backend.admit(Instant::now().into_std())?,
            };
            (target.permit, target.slot) = (permit, Some(slot));
            route::by_era(exchange, target).await
        }
    }
}

/// The reply to the request that waits for a call by now.
async fn reply(exchange: &mut Exchange<'_>, binding: Binding, call: Box<Call>) -> Result<Reply, Error> {
    let id = exchange.id()?.owned();
    let direction = Direction::ToLegacy(ToLegacy {
        gateway: Arc::clone(exchange.gateway),
        ttl: exchange.snapshot.config.bridge.parked_ttl,
        max_parked: exchange.snapshot.config.bridge.parked,
        binding,
        call: Some(call),
    });
    let (reply, kind) = Crossing::reply(id, direction).await?;
    exchange.ended_as = kind;
    Ok(reply)
}

/// What became of a retry.
enum Resumed {
    Runs(Box<Call>),
    /// The answers to what was asked are not all there.
    AsksAgain(Box<Reply>),
    /// The backend had refused it until something was done.
    StartsAgain(Box<Call>),
}

fn lapsed() -> Error {
    let what = "`requestState` is not of a call that waits for input here, or no longer; call again without it";
    Error::InvalidParams { what: what.into() }
}

async fn resume(exchange: &Exchange<'_>, modern: &Modern, binding: &Binding) -> Result<Resumed, Error> {
    let state = exchange.params.request_state.and_then(jsonrpc::text).ok_or_else(lapsed)?;
    let parked = &exchange.gateway.parked;
    let waiting = parked.take(&exchange.gateway.sessions, &state, binding).ok_or_else(lapsed)?;
    let Some(asked) = waiting.question.id() else { return Ok(Resumed::StartsAgain(waiting.call)) };
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
            .map_err(|refused| refused.why)?;
        return exchange.result(result.into()).map(|reply| Resumed::AsksAgain(Box::new(reply)));
    };
    let mut call = waiting.call;
    call.serves(exchange, modern);
    if let Some(head) = &mut call.head {
        head.deadline = Instant::now() + head.within;
    }
    let body = jsonrpc::result_body(asked.raw(), answer);
    client::notify(&call.backend, &call.sent.opened, body, Judged::No).await?;
    Ok(Resumed::Runs(call))
}

async fn start(exchange: &Exchange<'_>, modern: &Modern, target: &mut Target<'_>) -> Result<Call, Error> {
    let backend = Arc::clone(target.backend);
    let may_ask = MAY_ASK.contains(&exchange.method);
    let capabilities = if may_ask { modern.capabilities } else { ClientCapabilities::default() };
    let key = PoolKey {
        principal: ANYONE.into(),
        capabilities,
        level: modern.log_level.clone(),
        backend: backend.uid,
        replica: backend.next_replica(),
    };
    let session = Sessions::borrow(exchange.gateway, &backend, key);
    let own_id = OwnedId::integer(client::next_id());
    let (leg, guard) = session.call_on(&backend, own_id.clone())?;
    let body = body(exchange, target, &own_id)?;
    let max = max_answer(exchange);
    let opened = leg.open(&session, None).await?;
    let ear = if session.is_shared() {
        early::refused(&session, &leg, &opened).await;
        None
    } else {
        Ear::open(&session, &leg, &opened).await
    };
    let sent = Sent { leg, opened, id: own_id, session, ear, is_answered: false };
    let mut headers = Vec::new();
    exchange.pass_on(&mut headers);
    let head = Head::new(&backend, &sent, body, (target.timeout, sent.ear.is_some()), headers);
    let mut call = Call {
        head: Some(head),
        answer: None,
        sent,
        uri: None,
        method: exchange.method,
        progress_token: None,
        capabilities,
        log_level: None,
        max,
        holds: target.holds(Some(guard)),
        backend,
    };
    call.serves(exchange, modern);
    Ok(call)
}

impl Head {
    /// Sends a request, and sends it again in a new session if the backend forgot the one it had: it did not run then.
    fn new(
        backend: &Arc<Backend>,
        sent: &Sent,
        body: Bytes,
        (mut timeout, is_heard): (Timeout, bool),
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Self {
        let within = timeout.first_byte;
        if is_heard {
            // The backend may ask first, and a client takes its time: `within` begins anew then.
            timeout.first_byte = LONG;
        }
        let (backend, leg, session) = (Arc::clone(backend), Arc::clone(&sent.leg), Arc::clone(&sent.session));
        let mut opened = Arc::clone(&sent.opened);
        let (of, id) = (Arc::clone(&backend), sent.id.clone());
        let coming = Box::pin(async move {
            for is_last_try in [false, true] {
                let mut request = opened.post(body.clone(), timeout, false);
                request.headers.extend_from_slice(&headers);
                let incoming = backend.send(request).await?;
                match client::verdict_of_call(&backend, opened.session_id.is_some(), id.borrow(), incoming).await? {
                    Verdict::Answer(incoming) => return Ok((opened, incoming)),
                    // An error that came with a status of its own says the same without one.
                    Verdict::Refusal { status, body, .. } => {
                        let body = client::in_band(&backend, status, &body, id.borrow())?;
                        return Ok((opened, Incoming::json(StatusCode::OK, body)));
                    }
                    Verdict::SessionLost if is_last_try => break,
                    Verdict::SessionLost => opened = leg.open(&session, Some(&opened)).await?,
                }
            }
            Err(broken(&backend, "it forgets sessions as soon as they are opened"))
        });
        Self { backend: of, coming, is_heard, within, deadline: Instant::now() + within }
    }

    /// Waits for it. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<(Arc<Opened>, Incoming), Error> {
        if !self.is_heard {
            return (&mut self.coming).await;
        }
        timeout_at(self.deadline, &mut self.coming).await.unwrap_or_else(|_| {
            let (backend, after) = (self.backend.name().clone(), self.within);
            Err(Error::BackendTimeout { backend, phase: Phase::FirstByte, after })
        })
    }
}

/// The request as the backend gets it: its own names, an id and a progress token of the gateway's, no envelope.
fn body(exchange: &Exchange<'_>, target: &Target<'_>, own_id: &OwnedId) -> Result<Bytes, Error> {
    let mut edits = target.edits.clone();
    let mut replace = |part: &str| {
        let span = jsonrpc::span(exchange.body, part);
        edits.extend(span.map(|span| (span, own_id.raw().into())));
    };
    replace(exchange.id()?.raw());
    if let Some(token) = exchange.params.meta.as_ref().and_then(|meta| meta.progress_token) {
        replace(token.get());
    }
    let body = envelope::undress(&route::spliced(exchange.body, &mut edits));
    Ok(without_input(&body).unwrap_or(body))
}

/// A request without what a client gave to have it taken up.
pub(crate) fn without_input(body: &Bytes) -> Option<Bytes> {
    let params = jsonrpc::layout(body)?.params?;
    let cut = jsonrpc::cut(body, &params, |key| matches!(key, "inputResponses" | "requestState"))?;
    (!cut.removed.is_empty()).then(|| {
        let edits: Vec<_> = cut.removed.into_iter().map(|range| (range, &b""[..])).collect();
        jsonrpc::splice(body, &edits)
    })
}

/// What a client is to do before the call is sent again, where its backend has refused it for that.
fn urls_wanted(response: &Response<'_>) -> Option<Question> {
    let is_refusal = response.error && client::error_code(response.value) == Some(URL_ELICITATION_REQUIRED);
    is_refusal.then(|| Question::urls(response.value.get())).flatten()
}

impl Call {
    /// Notes what the request says that waits for the answer now: a retry has a progress token of its own.
    fn serves(&mut self, exchange: &Exchange<'_>, modern: &Modern) {
        let meta = exchange.params.meta.as_ref();
        let level = modern.log_level.as_deref().map(|level| level.trim_matches('"'));
        self.uri = exchange.params.uri().map(|uri| uri.as_ref().into());
        self.progress_token = meta.and_then(|meta| meta.progress_token).map(|token| token.get().into());
        self.log_level = level.and_then(Severity::read);
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Waits for what happens next; `client` is the client's id for it. Dropping the future loses nothing.
    async fn step(&mut self, client: &OwnedId) -> Result<Step, Error> {
        loop {
            let Some(data) = self.hear().await? else {
                return Err(match &self.answer {
                    Some(answer) => answer.ended(),
                    None => broken(&self.backend, "it gave no answer"),
                });
            };
            match jsonrpc::parse(&data) {
                Ok(Message::Response(response))
                    if response.id == Some(self.sent.id.borrow()) || response.id.is_none() =>
                {
                    self.sent.is_answered = true;
                    return match urls_wanted(&response) {
                        Some(question) if self.capabilities.can("elicitation/create", Some("url")) => {
                            Ok(Step::Asks(question))
                        }
                        Some(_) => Ok(Step::Done(shape::lacks_urls(client, &response))),
                        None => shape::to_modern(self.method, self.uri.as_deref(), client, &response)
                            .map(Step::Done)
                            .ok_or_else(|| shape::no_object(&self.backend)),
                    };
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

    /// The next message of the answer or of the session's own stream; nothing at the answer's end. Dropping the future loses
    /// nothing.
    async fn hear(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let answering = async {
                if let Some(head) = &mut self.head {
                    let (opened, incoming) = head.next().await?;
                    self.head = None;
                    self.answer = Some(Answer::new(&self.backend, Some(Arc::clone(&opened)), incoming, self.max)?);
                    if !Arc::ptr_eq(&opened, &self.sent.opened) {
                        return Ok(Heard::Elsewhere(opened));
                    }
                }
                let Some(answer) = &mut self.answer else { return Err(broken(&self.backend, "it gave no answer")) };
                answer.next().await.map(Heard::Answer)
            };
            let Some(ear) = &mut self.sent.ear else {
                match answering.await? {
                    Heard::Answer(data) => return Ok(data),
                    Heard::Elsewhere(opened) => self.sent.opened = opened,
                }
                continue;
            };
            tokio::select! {
                biased;
                heard = answering => match heard? {
                    Heard::Answer(data) => return Ok(data),
                    Heard::Elsewhere(opened) => {
                        self.sent.opened = Arc::clone(&opened);
                        ear.follow(&self.sent.leg, &opened).await;
                    }
                },
                data = ear.next() => return Ok(Some(data)),
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
                let level = Severity::read(&level)?;
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
        if let Some(ear) = self.ear.take().filter(|_| self.is_answered) {
            ear.rest();
        }
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

/// A call on a legacy backend, until it is over or parked.
pub(super) struct ToLegacy {
    gateway: Arc<Gateway>,
    ttl: Duration,
    max_parked: u32,
    binding: Binding,
    call: Option<Box<Call>>,
}

impl ToLegacy {
    /// What goes to the client next; `id` is the client's for the call.
    pub(super) async fn advance(&mut self, id: &OwnedId) -> Result<crossing::Step, Error> {
        loop {
            let Some(call) = &mut self.call else { return Err(Error::Cancelled) };
            match call.step(id).await? {
                Step::Event(event) => return Ok(crossing::Step::Event(event)),
                Step::Done(shaped) => {
                    self.call = None;
                    return Ok(crossing::Step::Last(shaped));
                }
                Step::Asks(question) => {
                    let Some(call) = self.call.take() else { return Err(Error::Cancelled) };
                    let limits = (self.ttl, self.max_parked);
                    match self.gateway.parked.park(&self.gateway.sessions, &self.binding, call, question, limits) {
                        Ok(result) => {
                            let body = jsonrpc::result_body(id.raw(), &result);
                            return Ok(crossing::Step::Last(Shaped { body, kind: Kind::Ok, status: StatusCode::OK }));
                        }
                        Err(refused) => {
                            let Refused { call, why, told } = *refused;
                            if told.is_none() {
                                return Err(why);
                            }
                            call.refuse(told);
                            self.call = Some(call);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn stop(&mut self) {
        self.call = None;
    }
}
