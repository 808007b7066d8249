//! `tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`: answered from memory, in one page.

use std::time::Instant;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::catalog::Kind;
use crate::dispatch::{Client, Exchange};
use crate::error::Error;
use crate::reply::Reply;

pub(super) fn tools<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    list(exchange, Kind::Tools).boxed()
}

pub(super) fn prompts<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    list(exchange, Kind::Prompts).boxed()
}

pub(super) fn resources<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    list(exchange, Kind::Resources).boxed()
}

pub(super) fn templates<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    list(exchange, Kind::Templates).boxed()
}

async fn list(exchange: &Exchange<'_>, kind: Kind) -> Result<Reply, Error> {
    if exchange.params.cursor.is_some() {
        return Err(Error::InvalidParams { what: "`cursor` is not one of ours: the list has one page".into() });
    }
    exchange.snapshot.settle().await;
    // The revisions first: a change between the two lines is then told again rather than missed.
    let revisions = *exchange.gateway.revision.borrow();
    let pieces = exchange.snapshot.catalog().answer(kind, exchange.era(), Instant::now());
    if let Client::Legacy(Some(session)) = &exchange.client {
        session.note_listed(|listed| match kind {
            Kind::Tools => listed.tools = revisions.tools,
            Kind::Prompts => listed.prompts = revisions.prompts,
            Kind::Resources | Kind::Templates => listed.resources = revisions.resources,
        });
    }
    exchange.result_of(pieces)
}
