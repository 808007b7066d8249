//! `resources/read`, `resources/subscribe`, `resources/unsubscribe`. URIs stay what they are; the catalog knows whose they are.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::backend::Backend;
use crate::bridge::to_legacy;
use crate::dispatch::{Client, Exchange};
use crate::era::Era;
use crate::error::Error;
use crate::reply::{Reply, peek};
use crate::route::{self, Target};
use crate::session::MAX_SUBSCRIPTIONS;

/// Backends that are asked for a resource which none of them lists.
const MAX_ASKED: usize = 16;

/// To the backend that lists the resource, or a template that it fits; else to each until one knows it.
pub(super) fn read<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let uri = uri(exchange)?;
        let catalog = exchange.snapshot.catalog();
        if let Some(owner) = catalog.resource(&uri) {
            return to(exchange, owner, &uri).await;
        }
        if route::was_parked(exchange) {
            return Box::pin(to_legacy::take_up(exchange, None)).await;
        }
        // A tool may have linked to it without its backend listing it.
        let owners = catalog.resource_owners(&uri).into_iter().filter(|backend| !starts_process(exchange, backend));
        let owners: Vec<_> = owners.take(MAX_ASKED).map(Arc::clone).collect();
        if let [only] = &*owners {
            return to(exchange, only, &uri).await;
        }
        for backend in owners {
            let Ok(reply) = to(exchange, &backend, &uri).await else { continue };
            // Whatever one says that does not have it, another one may.
            if let Some(reply) = peek(reply).await {
                return Ok(reply);
            }
        }
        exchange.ended_as = None;
        not_found(exchange, &uri)
    }
    .boxed()
}

/// Whether a process would have to be started to ask a backend: on a mere guess none is.
fn starts_process(exchange: &Exchange<'_>, backend: &Backend) -> bool {
    let has_leg = match &exchange.client {
        Client::Legacy(session) => session.as_ref().is_some_and(|session| session.leg_of(backend).is_some()),
        Client::Modern(_) => false,
    };
    let is_legacy = backend.era_for(exchange.era()) != Some(Era::Modern);
    backend.is_run() && is_legacy && !has_leg
}

async fn to(exchange: &mut Exchange<'_>, backend: &Arc<Backend>, uri: &str) -> Result<Reply, Error> {
    let mut target = Target::new(exchange, backend)?;
    target.name = Some(Cow::Owned(uri.to_owned()));
    route::send(exchange, &mut target).await
}

/// The error of the client's era.
fn not_found(exchange: &Exchange<'_>, uri: &str) -> Result<Reply, Error> {
    Err(Error::ResourceNotFound { uri: uri.to_owned(), legacy: exchange.era() == Era::Legacy })
}

/// A backend that has subscriptions of its own is subscribed to in the client's session; the streams of the session hear of
/// the rest by listening.
pub(super) fn subscribe<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let uri = uri(exchange)?;
        let catalog = exchange.snapshot.catalog();
        let Some(owner) = catalog.resource(&uri) else { return not_found(exchange, &uri) };
        let Client::Legacy(Some(session)) = &exchange.client else { return Err(Error::SessionMissing) };
        // First of all: a session that is opened is told of all else that its client is subscribed to.
        let era = route::era_of(exchange, owner).await?;
        let _subscribing = session.subscribing(&uri);
        if !session.subscribe(&uri, owner) {
            return Err(Error::TooManySubscriptions { max: MAX_SUBSCRIPTIONS });
        }
        match era {
            Era::Modern => exchange.result(Bytes::from_static(b"{}")),
            Era::Legacy => to(exchange, owner, &uri).await,
        }
    }
    .boxed()
}

pub(super) fn unsubscribe<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let uri = uri(exchange)?;
        let Client::Legacy(Some(session)) = &exchange.client else { return Err(Error::SessionMissing) };
        session.unsubscribe(&uri);
        let catalog = exchange.snapshot.catalog();
        match catalog.resource(&uri) {
            Some(owner) if route::era_of(exchange, owner).await? == Era::Legacy => to(exchange, owner, &uri).await,
            _ => exchange.result(Bytes::from_static(b"{}")),
        }
    }
    .boxed()
}

fn uri(exchange: &Exchange<'_>) -> Result<String, Error> {
    let missing = || Error::InvalidParams { what: "`params.uri` must be a string".into() };
    exchange.params.uri().map(Cow::into_owned).ok_or_else(missing)
}
