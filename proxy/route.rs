//! To the one backend that a request belongs to: in the client's own era where the backend speaks it, by the bridge where it
//! does not.

use std::borrow::Cow;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::timeout;
use toolgate_config::Timeout;

use crate::backend::client::{self, Opened};
use crate::backend::{Backend, Incoming, Outgoing, Slot};
use crate::bridge::answer::{broken, poll};
use crate::bridge::question::Asked;
use crate::bridge::{self, envelope, to_legacy, to_modern};
use crate::catalog::Merged;
use crate::catalog::param::HeaderParam;
use crate::dispatch::Exchange;
use crate::era::Era;
use crate::error::{Error, INVALID_REQUEST, Kind, UNSUPPORTED_VERSION};
use crate::gateway;
use crate::jsonrpc;
use crate::limit::Permit;
use crate::news::early;
use crate::relay::{EventId, Holds, Relay, Side};
use crate::reply::{Body, Reply, Source};
use crate::session::{CallGuard, Leg, Session, StreamGuard};
use crate::snapshot::Snapshot;
use crate::trace;

/// How long a request for something nobody knows waits for the lists that may have it by now.
const MISS_WAIT: Duration = Duration::from_secs(2);
/// The extension that is not carried: a client that declares it must not be given a task it could not ask after.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Where a request goes, and what changes on the way.
pub(crate) struct Target<'t> {
    pub(crate) backend: &'t Arc<Backend>,
    /// Spans of the client's body, and the JSON that takes their place.
    pub(crate) edits: Vec<(Range<usize>, Cow<'t, str>)>,
    /// What `Mcp-Name` says to the backend.
    pub(crate) name: Option<Cow<'t, str>>,
    pub(crate) timeout: Timeout,
    pub(crate) header_params: &'t [HeaderParam],
    pub(crate) permit: Option<Permit>,
    /// None where the request takes up a call that has one.
    pub(crate) slot: Option<Slot>,
}

impl<'t> Target<'t> {
    /// A backend that is asked for something as the client calls it.
    ///
    /// # Errors
    /// When the backend is down or has no room.
    pub(crate) fn new(exchange: &Exchange<'_>, backend: &'t Arc<Backend>) -> Result<Self, Error> {
        Ok(Self {
            backend,
            edits: Vec::new(),
            name: None,
            timeout: backend.config.timeout,
            header_params: &[],
            permit: None,
            slot: slot(exchange, backend)?,
        })
    }

    /// What is held until the answer is out, and by nobody else from now on.
    pub(crate) fn holds(&mut self, call: Option<CallGuard>) -> Holds {
        Holds { _permit: self.permit.take(), _slot: self.slot.take(), call }
    }
}

/// Whether a request brings what a call was parked for: that one has its place and its permit still.
pub(crate) fn takes_up(exchange: &Exchange<'_>, backend: &Backend) -> bool {
    let is_retry = exchange.params.request_state.is_some() && exchange.era() == Era::Modern;
    is_retry && (backend.era_for(Era::Modern) == Some(Era::Legacy) || was_parked(exchange))
}

/// Whether a request names a call that was parked here. A reload may have taken the backend away since, or put another one in its
/// place.
pub(crate) fn was_parked(exchange: &Exchange<'_>) -> bool {
    let state = exchange.params.request_state.filter(|_| exchange.era() == Era::Modern).and_then(jsonrpc::text);
    state.is_some_and(|state| exchange.gateway.parked.knows(&exchange.gateway.sessions, &state))
}

/// A place among the backend's requests under way, for a request that needs one.
///
/// # Errors
/// When the backend is down or has no room.
pub(crate) fn slot(exchange: &Exchange<'_>, backend: &Arc<Backend>) -> Result<Option<Slot>, Error> {
    if takes_up(exchange, backend) { Ok(None) } else { backend.admit(exchange.record.started).map(Some) }
}

/// Sends a request and returns the reply that relays its answer.
pub(crate) async fn send(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let overhead = exchange.record.started.elapsed();
    exchange.gateway.metrics.overhead_seconds.observe(overhead.as_secs_f64());
    trace::sent(exchange, target);
    let reply = match was_parked(exchange) {
        true => Box::pin(to_legacy::take_up(exchange, Some(target))).await,
        false => by_era(exchange, target).await,
    };
    if let (Ok(_), Some(span)) = (&reply, &mut exchange.record.span) {
        span.answered();
    }
    reply
}

/// The same for a request that takes nothing up.
pub(crate) async fn by_era(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let era = era_of(exchange, target.backend).await?;
    // What is rarer is boxed: a future is as large as the largest way through it, and moved as a whole.
    match (exchange.era(), era) {
        (Era::Legacy, Era::Legacy) => legacy(exchange, target).await,
        (Era::Modern, Era::Modern) => {
            without_tasks(exchange, target);
            modern(exchange, target).await
        }
        (Era::Modern, Era::Legacy) => Box::pin(to_legacy::call(exchange, target)).await,
        (Era::Legacy, Era::Modern) => Box::pin(to_modern::call(exchange, target)).await,
    }
}

/// The era in which a backend is spoken to for this client: the client's own where the backend speaks it, and offers there what
/// it is asked for. Many modern backends
/// that speak legacy too do not say so; that shows when a legacy client needs a session with one.
pub(crate) async fn era_of(exchange: &Exchange<'_>, backend: &Arc<Backend>) -> Result<Era, Error> {
    let client = exchange.era();
    let era = match backend.era_for(client) {
        Some(era) => era,
        None => {
            // Its section has just changed, and what it speaks with it.
            Box::pin(listed_anew(exchange.snapshot, backend)).await;
            let unknown = || Error::BackendUnavailable { backend: backend.name().clone(), down_for: Duration::ZERO };
            backend.era_for(client).ok_or_else(unknown)?
        }
    };
    if client != Era::Legacy || era != Era::Legacy || backend.spoken().is_none_or(|spoken| !spoken.modern) {
        return Ok(era);
    }
    let session = exchange.session()?;
    match session.leg(backend).open(session, None).await {
        // Without sessions it could not tell one client of the legacy era from another, nor ask any of them.
        Ok(opened) if opened.session_id.is_none() && backend.refused_legacy() => Ok(Era::Modern),
        Ok(opened) if backend.offers_in_modern_only(exchange.method, &opened) => Ok(Era::Modern),
        Ok(_) => Ok(Era::Legacy),
        Err(Error::BackendProtocol { .. } | Error::BackendStatus { status: 400..500, .. })
            if backend.refused_legacy() =>
        {
            session.changed();
            Ok(Era::Modern)
        }
        Err(error) => Err(error),
    }
}

/// In the client's own session with the backend.
async fn legacy(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let session = Arc::clone(exchange.session()?);
    let (leg, call) = session.call_on(target.backend, exchange.id()?.owned())?;
    let cancelled = call.cancelled();
    let running = pin!(async {
        let opened = leg.open(&session, None).await?;
        run(exchange, target, &leg, opened, call).await
    });
    tokio::select! {
        biased;
        reply = running => reply,
        () = cancelled.notified() => Err(Error::Cancelled),
    }
}

/// Sends the request, and sends it again in a new session if the backend forgot the one it had: it did not run then.
async fn run(
    exchange: &mut Exchange<'_>,
    target: &mut Target<'_>,
    leg: &Arc<Leg>,
    mut opened: Arc<Opened>,
    call: CallGuard,
) -> Result<Reply, Error> {
    let session = Arc::clone(exchange.session()?);
    let (backend, id) = (target.backend, exchange.id()?);
    let body = spliced(exchange.body, &mut target.edits);
    for is_last_try in [false, true] {
        early::heard(&session, leg, &opened).await;
        let mut request = opened.post(body.clone(), target.timeout, false);
        exchange.pass_on(&mut request.headers);
        let incoming = backend.send(request).await?;
        match client::verdict_of_call(backend, opened.session_id.is_some(), id, incoming).await? {
            client::Verdict::Answer(incoming) => {
                let side = Side::Legacy(Asked::new(&session, leg, opened, Some(call.ticket())));
                return relayed(exchange, incoming, side, target, Some(call)).await;
            }
            client::Verdict::Refusal { status, code: UNSUPPORTED_VERSION, .. } if status.is_client_error() => {
                // It speaks legacy no more, and has not run the request.
                drop(call);
                let broken = broken(backend, "it does not speak the protocol version any more that it did");
                return Box::pin(modern_by_now(exchange, target, &session, broken)).await;
            }
            // To the client it would say that its session is gone, which is not what this error says.
            client::Verdict::Refusal { status: status @ StatusCode::NOT_FOUND, code, body } => {
                let body = client::in_band(backend, status, &body, id)?;
                return Ok(refusal(exchange, StatusCode::OK, code, body));
            }
            client::Verdict::Refusal { status, code, body } => return Ok(refusal(exchange, status, code, body)),
            client::Verdict::SessionLost if is_last_try => break,
            client::Verdict::SessionLost => match leg.open(&session, Some(&opened)).await {
                Ok(anew) => opened = anew,
                Err(refused @ (Error::BackendProtocol { .. } | Error::BackendStatus { status: 400..500, .. })) => {
                    drop(call);
                    return Box::pin(modern_by_now(exchange, target, &session, refused)).await;
                }
                Err(error) => return Err(error),
            },
        }
    }
    Err(broken(backend, "it forgets sessions as soon as they are opened"))
}

/// A legacy client's request to a backend that may be a legacy one no more; `refused` if it still is.
async fn modern_by_now(
    exchange: &mut Exchange<'_>,
    target: &mut Target<'_>,
    session: &Arc<Session>,
    refused: Error,
) -> Result<Reply, Error> {
    let backend = target.backend;
    backend.doubt_era();
    listed_anew(exchange.snapshot, backend).await;
    if !backend.refused_legacy() {
        return Err(refused);
    }
    tokio::spawn(gateway::close(session.take_legs(|leg| leg.backend.uid == backend.uid)));
    session.changed();
    to_modern::call(exchange, target).await
}

/// As it came, names apart.
async fn modern(exchange: &mut Exchange<'_>, target: &mut Target<'_>) -> Result<Reply, Error> {
    let (backend, id) = (target.backend, exchange.id()?);
    let mut headers = envelope::headers(exchange.method, target.name.as_deref());
    headers.extend(exchange.request.headers.params.iter().cloned());
    exchange.pass_on(&mut headers);
    let mut body = spliced(exchange.body, &mut target.edits);
    if was_parked(exchange) {
        // What was given for a call of a backend that was here before means nothing to this one.
        body = to_legacy::without_input(&body).unwrap_or(body);
    }
    let request =
        Outgoing { verb: Method::POST, headers, body, timeout: target.timeout, repeatable: false, replica: None };
    let incoming = backend.send(request).await?;
    match bridge::verdict(backend, id, incoming).await? {
        bridge::Verdict::Answer(incoming) => relayed(exchange, incoming, Side::Modern, target, None).await,
        bridge::Verdict::Refusal { status, code: UNSUPPORTED_VERSION, .. } if status.is_client_error() => {
            backend.relist.notify_one();
            Err(broken(backend, "it does not speak the protocol version any more that it did"))
        }
        bridge::Verdict::Refusal { status, code, body } => Ok(refusal(exchange, status, code, body)),
    }
}

async fn relayed(
    exchange: &Exchange<'_>,
    incoming: Incoming,
    side: Side,
    target: &mut Target<'_>,
    call: Option<CallGuard>,
) -> Result<Reply, Error> {
    let length = incoming.headers.get(http::header::CONTENT_LENGTH).cloned();
    let backend = target.backend;
    let id = exchange.id()?.owned();
    let relay = Relay::new(backend, side, incoming, id, target.holds(call)).await?;
    if relay.is_event_stream() {
        return Ok(Reply::events(Source::Relay(relay)));
    }
    let mut reply = Reply::json(Vec::new());
    // The backend's own length lets a client see a body that was cut short.
    reply.headers.extend(length.map(|length| (http::header::CONTENT_LENGTH, length)));
    reply.body = Body::Stream(Source::Relay(relay));
    Ok(reply)
}

/// A JSON-RPC error of the backend, as it came.
fn refusal(exchange: &mut Exchange<'_>, status: StatusCode, code: i64, body: Bytes) -> Reply {
    let mut reply = Reply::json(vec![body]);
    reply.status = status;
    exchange.ended_as = Some(Kind::RpcError);
    exchange.record.refused(code);
    reply
}

/// What a client is told that came back for a stream which there is no more of, or never was.
pub(crate) fn gone() -> Error {
    Error::Malformed {
        code: INVALID_REQUEST,
        reason: "`Last-Event-ID` is not of a stream that can be resumed; call again".into(),
        id: None,
    }
}

/// The rest of a backend's stream that a legacy client came back for (2025-11-25, Transports, Resumability).
///
/// # Errors
/// When it is not a stream that there could be more of.
pub(crate) async fn resume(snapshot: &Snapshot, last: &EventId<'_>, guard: StreamGuard) -> Result<Source, Error> {
    let backend = snapshot.backends.iter().find(|backend| backend.name().as_str() == last.backend).ok_or_else(gone)?;
    let leg = guard.session.leg_of(backend).ok_or_else(gone)?;
    let opened = leg.current().ok_or_else(gone)?;
    let id = HeaderValue::from_str(last.own).map_err(|_| gone())?;
    let incoming = poll(backend, &opened, id).await?;
    if !incoming.status.is_success() || !incoming.is_event_stream() {
        return Err(gone());
    }
    let call = guard.session.take_up(&leg, last.own);
    let within = call.as_ref().map_or_else(|| guard.ticket(), CallGuard::ticket);
    let asked = Asked::new(&guard.session, &leg, opened, Some(within));
    let holds = Holds { _permit: None, _slot: None, call };
    Ok(Source::Relay(Relay::resumed(backend, asked, incoming.body, holds, guard)))
}

/// Takes the tasks extension out of what the client declares.
fn without_tasks(exchange: &Exchange<'_>, target: &mut Target<'_>) {
    let declared = exchange.params.meta.as_ref().and_then(|meta| meta.client_capabilities);
    let Some(declared) = declared.filter(|declared| declared.get().contains(TASKS)) else { return };
    let (Some(span), Some(members)) = (jsonrpc::span(exchange.body, declared.get()), jsonrpc::members(declared.get()))
    else {
        return;
    };
    let extensions = jsonrpc::member(declared.get(), "extensions").and_then(jsonrpc::members).unwrap_or_default();
    let rest = extensions.iter().filter(|(key, _)| key != TASKS).map(|(key, value)| (&**key, *value));
    let rest = jsonrpc::object(rest);
    let without = members.iter().map(|(key, value)| (&**key, if key == "extensions" { &*rest } else { *value }));
    target.edits.push((span, jsonrpc::object(without).into()));
}

/// The body with these spans replaced, in whatever order they are given.
pub(crate) fn spliced(body: &Bytes, edits: &mut [(Range<usize>, Cow<'_, str>)]) -> Bytes {
    match edits {
        [] => body.clone(),
        [(span, with)] => jsonrpc::splice(body, &[(span.clone(), with.as_bytes())]),
        several => {
            several.sort_by_key(|(span, _)| span.start);
            let edits: Vec<_> = several.iter().map(|(span, with)| (span.clone(), with.as_bytes())).collect();
            jsonrpc::splice(body, &edits)
        }
    }
}

/// Waits for a fresh list of a backend.
pub(crate) async fn listed_anew(snapshot: &Snapshot, backend: &Arc<Backend>) -> Arc<Merged> {
    wait_for_lists(std::iter::once(backend)).await;
    snapshot.catalog()
}

/// Waits for fresh lists of the backends that may have something nobody knows, if theirs are not fresh already.
pub(crate) async fn look_again(exchange: &Exchange<'_>, may_have: impl Fn(&Backend) -> bool) -> Arc<Merged> {
    exchange.snapshot.settle().await;
    let is_stale = |backend: &Backend| !backend.is_listed() && may_have(backend) && backend.health.allows_calls();
    let stale = exchange.snapshot.backends.iter().filter(|backend| is_stale(backend));
    wait_for_lists(stale).await;
    exchange.snapshot.catalog()
}

async fn wait_for_lists<'b>(backends: impl Iterator<Item = &'b Arc<Backend>>) {
    let waits = backends.map(|backend| {
        let mut listings = backend.listings.subscribe();
        listings.mark_unchanged();
        backend.relist.notify_one();
        async move { listings.changed().await.is_ok() }
    });
    let _ = timeout(MISS_WAIT, join_all(waits)).await;
}
