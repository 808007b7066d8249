//! `tools/call`.

use std::sync::PoisonError;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use toolgate_config::Refusal;

use super::{MAX_QUOTED, no_name};
use crate::bridge::{params, to_legacy};
use crate::dispatch::{Client, Exchange};
use crate::error::Error;
use crate::jsonrpc;
use crate::limit::{self, Caller, Exceeded, ExceededKind, Permit};
use crate::payload::Payload;
use crate::reply::Reply;
use crate::route::{self, Target};

/// To the backend that owns the tool, under its own name there, and nothing else changed.
pub(super) fn call<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        exchange.record.payload = Payload::of(&exchange.snapshot.config, exchange.params.arguments);
        let name = exchange.params.name().ok_or_else(no_name)?;
        let mut catalog = exchange.snapshot.catalog();
        if catalog.route(&name).is_none() && route::was_parked(exchange) {
            exchange.record.calls_unknown(exchange.gateway.metrics.other_tool());
            return Box::pin(to_legacy::take_up(exchange, None)).await;
        }
        if catalog.route(&name).is_none() {
            let is_like = |backend: &crate::backend::Backend| name.starts_with(&*backend.config.prefix);
            catalog = Box::pin(route::look_again(exchange, is_like)).await;
        }
        if catalog.route(&name).is_none() {
            if let Some(error) = owner_is_away(exchange, &name) {
                return Err(error);
            }
            // Its owner is there: it may have been listed since.
            catalog = exchange.snapshot.catalog();
        }
        let Some(route) = catalog.route(&name) else {
            exchange.record.calls_unknown(exchange.gateway.metrics.other_tool());
            let name = name.chars().take(MAX_QUOTED).collect();
            return Err(Error::UnknownTool { name });
        };
        let counted = route.counted(&exchange.gateway.metrics);
        exchange.record.calls(route.backend.name(), &route.public, counted);
        if let Client::Modern(_) = &exchange.client {
            params::check(&route.header_params, exchange.params.arguments, &exchange.request.headers.params)?;
        }
        // A backend that is down refuses before a limit is charged.
        let slot = route::slot(exchange, &route.backend)?;
        let permit = admitted(exchange, route)?;
        let given = exchange.params.name.ok_or_else(no_name)?;
        let mut target = Target {
            backend: &route.backend,
            edits: Vec::new(),
            name: Some((&*route.own).into()),
            timeout: route.timeout,
            header_params: &route.header_params,
            permit,
            slot,
        };
        if given.get() != &*route.own_json {
            let span = jsonrpc::span(exchange.body, given.get());
            target.edits.extend(span.map(|span| (span, (&*route.own_json).into())));
        }
        route::send(exchange, &mut target).await
    }
    .boxed()
}

/// The permit of every limit that covers the call. One that brings what it was asked for was let through before, and still
/// has its permit.
fn admitted(exchange: &Exchange<'_>, route: &crate::catalog::Route) -> Result<Option<Permit>, Error> {
    let session = match &exchange.client {
        Client::Legacy(session) => session.as_ref().map(|session| session.id()),
        Client::Modern(_) => None,
    };
    if route::takes_up(exchange, &route.backend) {
        return Ok(None);
    }
    let caller = Caller { session, ip: exchange.request.client };
    limit::admit(&route.rules, &caller).map(Some).map_err(|exceeded| refused(exchange, &exceeded))
}

/// The error of a call whose tool is not listed because its backend has been away for too long: its prefix tells which.
fn owner_is_away(exchange: &Exchange<'_>, name: &str) -> Option<Error> {
    let owners = exchange.snapshot.backends.iter().filter(|backend| {
        let prefix = &*backend.config.prefix;
        !prefix.is_empty() && name.starts_with(prefix) && !backend.is_known()
    });
    let owner = owners.max_by_key(|backend| backend.config.prefix.len())?;
    let failure = owner.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // One that has not failed has not been listed yet: a process may take long to start.
    let since = failure.map_or_else(|| owner.health.since(), |failure| failure.since);
    Some(Error::BackendUnavailable { backend: owner.name().clone(), down_for: since.elapsed() })
}

fn refused(exchange: &Exchange<'_>, exceeded: &Exceeded) -> Error {
    let (kind, rule) = match exceeded.kind {
        ExceededKind::Rate => ("rate", "too many calls"),
        ExceededKind::Concurrency => ("concurrency", "too many calls at once"),
    };
    exchange.gateway.metrics.limit_refused(exceeded.rule.name(), kind);
    Error::Limited {
        limit: exceeded.rule.name().to_owned(),
        rule: rule.to_owned(),
        retry_after: exceeded.retry_after,
        in_band: exceeded.rule.refusal() == Refusal::ToolError,
    }
}
