//! A legacy client's request on a modern backend.
//!
//! What its session knows of the client goes with every request, in `_meta` and headers. A backend that needs input says so in
//! its answer; the client is then asked by requests on the call's own stream, and the call is sent again with what it said.

mod round;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method};
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use toolgate_config::Timeout;

use self::round::{Open, Round};
use super::answer::{Answer, broken, max_answer};
use super::crossing::{Crossing, Direction, Step};
use super::envelope::{self, Envelope};
use super::shape::{self, Shaped};
use super::{Verdict, params, question, verdict};
use crate::backend::client;
use crate::backend::{Backend, Incoming, Outgoing};
use crate::catalog;
use crate::dispatch::Exchange;
use crate::error::{Error, HEADER_MISMATCH, Kind, MaxBytes, UNSUPPORTED_VERSION};
use crate::jsonrpc::{self, ErrorObject, Message, OwnedId};
use crate::relay::Holds;
use crate::reply::Reply;
use crate::route::{self, Target};
use crate::session::{Asker, CallGuard, Session};
use crate::snapshot::Snapshot;

/// How often a backend may ask for more before it answers a call.
const MAX_ROUNDS: u32 = 64;
/// Questions of one round.
const MAX_QUESTIONS: usize = 16;
/// How long a call goes on whose client has left: it has not been cancelled by that (2025-11-25, Transports), but nobody can
/// have the answer either.
const LEFT_ALONE: Duration = Duration::from_mins(5);

/// A call on a modern backend.
struct Call {
    backend: Arc<Backend>,
    session: Arc<Session>,
    method: &'static str,
    /// The request in its backend's dress, under the client's id.
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Timeout,
    id: OwnedId,
    /// The id of the request under way.
    own_id: OwnedId,
    max: MaxBytes,
    /// Until the first request is on its way.
    anew: Option<Anew>,
    sending: Option<BoxFuture<'static, Result<Sent, Error>>>,
    answer: Option<Answer>,
    round: Option<Round>,
    rounds: u32,
    answer_within: Duration,
    ready: VecDeque<Bytes>,
    holds: Holds,
}

/// Sends a request on.
pub(crate) async fn call(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let session = Arc::clone(exchange.session()?);
    let backend = Arc::clone(target.backend);
    let id = exchange.id()?.owned();
    let level = session.level();
    let capabilities = session.capabilities.json();
    let envelope =
        Envelope { client_info: session.client_info(), capabilities: &capabilities, log_level: level.as_deref() };
    let body = envelope::dress(&route::spliced(exchange.body, &mut target.edits), &envelope);
    let mut headers = envelope::headers(exchange.method, target.name.as_deref());
    headers.extend(params::headers(target.header_params, exchange.params.arguments)?);
    exchange.pass_on(&mut headers);
    let guard = session.call(&backend, id.clone())?;
    let timeout = target.timeout;
    let bridge = &exchange.snapshot.config.bridge;
    let mut call = Call {
        method: exchange.method,
        max: max_answer(exchange),
        answer_within: bridge.parked_ttl,
        holds: target.holds(Some(guard)),
        own_id: id.clone(),
        anew: Anew::of(exchange),
        sending: None,
        answer: None,
        round: None,
        rounds: 0,
        ready: VecDeque::new(),
        session,
        backend,
        body,
        headers,
        timeout,
        id,
    };
    call.send(call.body.clone());
    let id = call.id.clone();
    let bridged = ToModern { call: Some(Box::new(call)) };
    let (reply, kind) = Crossing::reply(id, Direction::ToModern(bridged)).await?;
    exchange.ended_as = kind;
    Ok(reply)
}

/// What came of a request, and the headers that it was sent with.
type Sent = (Verdict, Vec<(HeaderName, HeaderValue)>);

/// What it takes to make the headers of a tool's arguments anew: the schema that says which of them are headers may have changed
/// (2026-07-28, Streamable HTTP, client behavior).
struct Anew {
    snapshot: Arc<Snapshot>,
    /// The tool's public name.
    name: String,
    /// As JSON.
    arguments: Option<Box<RawValue>>,
}

impl Anew {
    fn of(exchange: &Exchange<'_>) -> Option<Self> {
        (exchange.method == "tools/call").then(|| Self {
            snapshot: Arc::clone(exchange.snapshot),
            name: exchange.params.name().unwrap_or_default().into_owned(),
            arguments: exchange.params.arguments.map(ToOwned::to_owned),
        })
    }

    /// Puts the headers of the newest schema in the place of those that the backend did not accept.
    async fn make(self, backend: &Arc<Backend>, headers: &mut Vec<(HeaderName, HeaderValue)>) -> Result<(), Error> {
        let catalog = route::listed_anew(&self.snapshot, backend).await;
        if let Some(route) = catalog.route(&self.name) {
            headers.retain(|(name, _)| !name.as_str().starts_with("mcp-param-"));
            headers.extend(params::headers(&route.header_params, self.arguments.as_deref())?);
        }
        Ok(())
    }
}

impl Call {
    /// Begins to send a request. The first one is sent again, once, if the backend wants other headers.
    fn send(&mut self, body: Bytes) {
        let (backend, timeout, anew) = (Arc::clone(&self.backend), self.timeout, self.anew.take());
        let id = self.own_id.clone();
        let mut headers = std::mem::take(&mut self.headers);
        self.sending = Some(Box::pin(async move {
            let first = sent(&backend, &headers, (&id, &body), timeout).await?;
            let wants_others =
                matches!(&first, Verdict::Refusal { status, code: HEADER_MISMATCH, .. } if status.is_client_error());
            let Some(anew) = anew.filter(|_| wants_others) else { return Ok((first, headers)) };
            anew.make(&backend, &mut headers).await?;
            Ok((sent(&backend, &headers, (&id, &body), timeout).await?, headers))
        }));
    }

    fn cancelled(&self) -> Option<Arc<tokio::sync::Notify>> {
        self.holds.call.as_ref().map(CallGuard::cancelled)
    }

    /// Takes in what a backend made of a request.
    fn take(&mut self, verdict: Verdict) -> Result<(), Error> {
        let incoming = match verdict {
            Verdict::Answer(incoming) => incoming,
            Verdict::Refusal { status, code: UNSUPPORTED_VERSION, .. } if status.is_client_error() => {
                // What it speaks is found out anew with its next listing.
                self.backend.relist.notify_one();
                return Err(broken(&self.backend, "it does not speak the protocol version any more that it did"));
            }
            Verdict::Refusal { status, body, .. } => {
                let body = client::in_band(&self.backend, status, &body, self.own_id.borrow())?;
                Incoming::json(http::StatusCode::OK, body)
            }
        };
        self.answer = Some(Answer::new(&self.backend, None, incoming, self.max)?);
        Ok(())
    }

    /// Waits for what happens next. Dropping the future loses nothing.
    async fn step(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Step::Event(event));
            }
            let cancelled = self.cancelled();
            if let Some(sending) = &mut self.sending {
                let sent = until_cancelled(cancelled.as_ref(), sending).await;
                self.sending = None;
                let (verdict, headers) = sent?;
                self.headers = headers;
                self.take(verdict)?;
            } else if let Some(round) = &mut self.round {
                if let Some(failed) = until_cancelled(cancelled.as_ref(), round.wait()).await? {
                    return Ok(Step::Last(self.refused(&failed)));
                }
                self.again();
            } else {
                let Some(answer) = &mut self.answer else { return Err(broken(&self.backend, "it gave no answer")) };
                let Some(data) = until_cancelled(cancelled.as_ref(), answer.next()).await? else {
                    return Err(answer.ended());
                };
                if let Some(step) = self.message(&data)? {
                    return Ok(step);
                }
            }
        }
    }

    /// Decides about a message of the backend.
    fn message(&mut self, data: &Bytes) -> Result<Option<Step>, Error> {
        match jsonrpc::parse(data) {
            Ok(Message::Response(response)) => {
                if response.id.is_some_and(|id| id != self.own_id.borrow()) {
                    return Ok(None);
                }
                let result_type =
                    if response.error { "complete".to_owned() } else { shape::result_type(response.value) };
                match &*result_type {
                    "complete" => {
                        self.answer = None;
                        let shaped = shape::to_legacy(self.method, &self.id, &response);
                        shaped.map(|last| Some(Step::Last(last))).ok_or_else(|| shape::no_object(&self.backend))
                    }
                    "input_required" => {
                        self.answer = None;
                        self.ask(response.value)?;
                        Ok(None)
                    }
                    _ => Err(broken(&self.backend, "its result is of a type that was not offered to it")),
                }
            }
            Ok(Message::Notification(notification)) => match &*notification.method {
                "notifications/progress" | "notifications/message" => Ok(Some(Step::Event(data.clone()))),
                method => {
                    if catalog::is_list_change(method) {
                        self.backend.relist.notify_one();
                    }
                    Ok(None)
                }
            },
            Ok(Message::Request(_)) | Err(_) => Ok(None),
        }
    }

    /// Asks the client for what the backend needs.
    fn ask(&mut self, result: &RawValue) -> Result<(), Error> {
        self.rounds += 1;
        if self.rounds > MAX_ROUNDS {
            return Err(broken(&self.backend, "it asks for input again and again"));
        }
        let requests = jsonrpc::member(result.get(), "inputRequests").and_then(jsonrpc::members).unwrap_or_default();
        if requests.len() > MAX_QUESTIONS {
            return Err(broken(&self.backend, "it asks too many questions at once"));
        }
        let mut questions = Vec::with_capacity(requests.len());
        for (key, request) in requests {
            let method = jsonrpc::member(request, "method").and_then(|raw| serde_json::from_str::<String>(raw).ok());
            let method = method.unwrap_or_default();
            let params = jsonrpc::member(request, "params");
            let mode = params.and_then(|params| jsonrpc::member(params, "mode")).map(|mode| mode.trim_matches('"'));
            if !self.session.capabilities.can(&method, mode) {
                return Err(broken(&self.backend, "it asks for input that its client did not offer"));
            }
            questions.push((key, method, params));
        }
        let mut open = VecDeque::new();
        // All of them or none: a client is not asked in vain.
        for (key, method, params) in questions {
            let (sender, answer) = oneshot::channel();
            let (id, oldest) = self.session.ask(Asker::Bridge(sender), None);
            question::put_off(oldest);
            let params = params.map(|params| shape::legacy_question(&method, params, &id));
            self.ready.push_back(jsonrpc::request_body(id.raw(), &method, params.as_deref()));
            open.push_back(Open { key: key.into_owned(), method, id, answer });
        }
        self.round = Some(Round {
            open,
            answers: Vec::new(),
            state: jsonrpc::member(result.get(), "requestState").map(str::to_owned),
            deadline: Instant::now() + self.answer_within,
        });
        Ok(())
    }

    /// Sends the call again, with what the client has said, under an id that was never used before.
    fn again(&mut self) {
        let Some(round) = self.round.take() else { return };
        self.own_id = OwnedId::integer(client::next_id());
        let mut more = String::new();
        if !round.answers.is_empty() {
            let answers = jsonrpc::object(round.answers.iter().map(|(key, answer)| (&**key, &**answer)));
            more.push_str(&format!(",\"inputResponses\":{answers}"));
        }
        if let Some(state) = round.state {
            more.push_str(&format!(",\"requestState\":{state}"));
        }
        let body = retry(&self.body, &self.own_id, &more).unwrap_or_else(|| self.body.clone());
        self.send(body);
    }

    /// What the client gets whose user would not give what the backend needs.
    fn refused(&mut self, error: &ErrorObject) -> Shaped {
        self.round = None;
        let body = jsonrpc::error_body(Some(self.id.raw()), error);
        Shaped { body, kind: Kind::RpcError, status: http::StatusCode::OK }
    }
}

/// Sends a request and looks at the head of its answer.
async fn sent(
    backend: &Backend,
    headers: &[(HeaderName, HeaderValue)],
    (id, body): (&OwnedId, &Bytes),
    timeout: Timeout,
) -> Result<Verdict, Error> {
    let (headers, body) = (headers.to_vec(), body.clone());
    let request = Outgoing { verb: Method::POST, headers, body, timeout, repeatable: false, replica: None };
    verdict(backend, id.borrow(), backend.send(request).await?).await
}

/// The request with another id and more in its `params`, which the envelope has put there.
fn retry(body: &Bytes, id: &OwnedId, more: &str) -> Option<Bytes> {
    let Ok(Message::Request(request)) = jsonrpc::parse(body) else { return None };
    let id_span = jsonrpc::span(body, request.id.raw())?;
    let params = jsonrpc::layout(body)?.params?;
    let end = params.end.checked_sub(1)?;
    let mut edits = [(id_span, id.raw().into()), (end..end, more.into())];
    Some(route::spliced(body, &mut edits))
}

/// Waits, unless the call is cancelled first.
async fn until_cancelled<T>(
    cancelled: Option<&Arc<tokio::sync::Notify>>,
    waiting: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let Some(cancelled) = cancelled else { return waiting.await };
    tokio::select! {
        biased;
        done = waiting => done,
        () = cancelled.notified() => Err(Error::Cancelled),
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nobody waits for these any more.
        for open in self.round.iter().flat_map(|round| &round.open) {
            self.session.answered(&open.id);
        }
    }
}

/// A call on a modern backend, until it is over.
pub(super) struct ToModern {
    call: Option<Box<Call>>,
}

impl ToModern {
    /// What goes to the client next.
    pub(super) async fn advance(&mut self) -> Result<Step, Error> {
        let Some(call) = &mut self.call else { return Err(Error::Cancelled) };
        let step = call.step().await;
        if !matches!(step, Ok(Step::Event(_)))
            && let Some(mut call) = self.call.take()
            && let Some(guard) = &mut call.holds.call
        {
            guard.answered();
        }
        step
    }

    pub(super) fn stop(&mut self) {
        // Dropped as it is, its connection is closed.
        self.call = None;
    }
}

impl Drop for ToModern {
    /// The client has left; its call goes on for a while.
    fn drop(&mut self) {
        let Some(mut call) = self.call.take() else { return };
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        tokio::spawn(async move {
            let finishing = async { while let Ok(Step::Event(_)) = call.step().await {} };
            let _ = timeout(LEFT_ALONE, finishing).await;
        });
    }
}
