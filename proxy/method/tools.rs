//! `tools/list` and `tools/call`.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use http::{HeaderName, HeaderValue};
use tokio::time::timeout;
use toolgate_config::Refusal;

use crate::backend::client::{Opened, Verdict, verdict};
use crate::catalog::refresh::FLOOR;
use crate::catalog::{Merged, Route};
use crate::dispatch::Exchange;
use crate::error::{Error, Kind};
use crate::jsonrpc;
use crate::limit::{self, Caller, Exceeded, ExceededKind};
use crate::metrics::OTHER;
use crate::relay::{Holds, Relay};
use crate::reply::{Body, Reply, Source};
use crate::session::Leg;

/// How long a call of a tool nobody knows waits for the lists that may have it by now.
const MISS_WAIT: Duration = Duration::from_secs(2);
/// How much of a name that nobody knows is repeated to who typed it.
const MAX_QUOTED: usize = 128;

/// Answered from memory, in one page.
pub(super) fn list<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        if exchange.params.cursor.is_some() {
            return Err(Error::InvalidParams { what: "`cursor` is not one of ours: the list has one page".into() });
        }
        exchange.snapshot.settle().await;
        // The revision first: a change between the two lines is then told again rather than missed.
        let revision = *exchange.gateway.revision.borrow();
        let result = exchange.snapshot.catalog().result.clone();
        exchange.session()?.listed.store(revision, Ordering::Relaxed);
        exchange.result(result)
    }
    .boxed()
}

/// To the backend that owns the tool, under its own name there, and nothing else changed.
pub(super) fn call<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let name = exchange.params.name().ok_or_else(no_name)?;
        let mut catalog = exchange.snapshot.catalog();
        if catalog.route(&name).is_none() {
            catalog = look_again(exchange, &name).await;
        }
        let Some(route) = catalog.route(&name) else {
            if let Some(error) = owner_is_away(exchange, &name) {
                return Err(error);
            }
            exchange.record.calls(OTHER, OTHER, exchange.gateway.metrics.other_tool());
            let name = name.chars().take(MAX_QUOTED).collect();
            return Err(Error::UnknownTool { name });
        };
        let metrics = route.metrics(&exchange.gateway.metrics);
        exchange.record.calls(route.backend.name().as_str(), &route.public, metrics);
        // A backend that is down refuses before a limit is charged.
        let slot = route.backend.admit(Instant::now())?;
        let session = Arc::clone(exchange.session()?);
        let caller = Caller { session: Some(session.id()), ip: exchange.request.client };
        let permit = limit::admit(&route.rules, &caller).map_err(|exceeded| refused(exchange, &exceeded))?;
        let leg = session.leg(&route.backend);
        let call = session.call(exchange.id()?.owned(), &leg);
        let cancelled = call.cancelled();
        let holds = Holds { _permit: permit, _slot: slot, call };
        let running = async {
            let opened = leg.open(&session, None).await?;
            run(exchange, route, &leg, opened, holds).await
        };
        tokio::select! {
            biased;
            reply = running => reply,
            () = cancelled.notified() => Err(Error::Cancelled),
        }
    }
    .boxed()
}

/// Waits for fresh lists of the backends that may have the tool, if theirs are not fresh already.
async fn look_again(exchange: &Exchange<'_>, name: &str) -> Arc<Merged> {
    exchange.snapshot.settle().await;
    let may_have = exchange.snapshot.backends.iter().filter(|backend| {
        let is_stale = backend.listing.load().as_ref().is_none_or(|listing| listing.fetched.elapsed() >= FLOOR);
        name.starts_with(&*backend.config.prefix) && is_stale && backend.health.allows_calls()
    });
    let waits = may_have.map(|backend| {
        let mut listings = backend.listings.subscribe();
        listings.mark_unchanged();
        backend.relist.notify_one();
        async move { listings.changed().await.is_ok() }
    });
    let _ = timeout(MISS_WAIT, join_all(waits)).await;
    exchange.snapshot.catalog()
}

/// The error of a call whose tool is not listed because its backend has been away for too long: its prefix tells which.
fn owner_is_away(exchange: &Exchange<'_>, name: &str) -> Option<Error> {
    let owners = exchange.snapshot.backends.iter().filter(|backend| {
        let prefix = &*backend.config.prefix;
        !prefix.is_empty() && name.starts_with(prefix) && backend.listing.load().is_none()
    });
    let owner = owners.max_by_key(|backend| backend.config.prefix.len())?;
    let failure = owner.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
    Some(Error::BackendUnavailable { backend: owner.name().clone(), down_for: failure.since.elapsed() })
}

/// Sends the call, and sends it again in a new session if the backend forgot the one it had: it did not run then.
async fn run(
    exchange: &mut Exchange<'_>,
    route: &Route,
    leg: &Arc<Leg>,
    mut opened: Arc<Opened>,
    holds: Holds,
) -> Result<Reply, Error> {
    let session = Arc::clone(exchange.session()?);
    let body = renamed(exchange, route)?;
    let overhead = exchange.record.started.elapsed();
    exchange.gateway.metrics.overhead_seconds.observe(overhead.as_secs_f64());
    for is_last_try in [false, true] {
        let mut request = opened.post(body.clone(), route.timeout, false);
        if let Ok(id) = HeaderValue::from_str(&exchange.request.request_id) {
            request.headers.push((HeaderName::from_static("x-request-id"), id));
        }
        let incoming = route.backend.send(request).await?;
        match verdict(&route.backend, &opened, incoming).await? {
            Verdict::Answer(incoming) => {
                let id = exchange.id()?.owned();
                let length = incoming.headers.get(http::header::CONTENT_LENGTH).cloned();
                let relay = Relay::new(&route.backend, opened, incoming, id, holds).await?;
                return Ok(relayed(relay, length));
            }
            Verdict::Refusal { status, body, .. } => {
                let mut reply = Reply::json(vec![body]);
                reply.status = status;
                exchange.ended_as = Some(Kind::RpcError);
                return Ok(reply);
            }
            Verdict::SessionLost if is_last_try => break,
            Verdict::SessionLost => opened = leg.open(&session, Some(&opened)).await?,
        }
    }
    let what = Cow::Borrowed("it forgets sessions as soon as they are opened");
    Err(Error::BackendProtocol { backend: route.backend.name().clone(), what })
}

fn no_name() -> Error {
    Error::InvalidParams { what: "`params.name` must be a string".into() }
}

/// The body with the backend's own name for the tool in it.
fn renamed(exchange: &Exchange<'_>, route: &Route) -> Result<Bytes, Error> {
    let name = exchange.params.name.ok_or_else(no_name)?;
    if name.get() == &*route.own_json {
        return Ok(exchange.body.clone());
    }
    let span = jsonrpc::span(exchange.body, name.get()).ok_or_else(no_name)?;
    Ok(jsonrpc::splice(exchange.body, &[(span, route.own_json.as_bytes())]))
}

fn relayed(relay: Relay, length: Option<HeaderValue>) -> Reply {
    if relay.is_event_stream() {
        return Reply::events(Source::Relay(relay));
    }
    let mut reply = Reply::json(Vec::new());
    // The backend's own length lets a client see a body that was cut short.
    reply.headers.extend(length.map(|length| (http::header::CONTENT_LENGTH, length)));
    reply.body = Body::Stream(Box::new(Source::Relay(relay)));
    reply
}

fn refused(exchange: &Exchange<'_>, exceeded: &Exceeded) -> Error {
    let (kind, rule) = match exceeded.kind {
        ExceededKind::Rate => ("rate", "too many calls of this tool"),
        ExceededKind::Concurrency => ("concurrency", "too many calls of this tool at once"),
    };
    exchange.gateway.metrics.limit_refused(exceeded.rule.name(), kind);
    Error::Limited {
        limit: exceeded.rule.name().to_owned(),
        rule: rule.to_owned(),
        retry_after: exceeded.retry_after,
        in_band: exceeded.rule.refusal() == Refusal::ToolError,
    }
}
