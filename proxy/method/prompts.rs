//! `prompts/get` and `completion/complete`.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{MAX_QUOTED, no_name};
use crate::bridge::to_legacy;
use crate::dispatch::Exchange;
use crate::error::Error;
use crate::jsonrpc;
use crate::reply::Reply;
use crate::route::{self, Target};

/// To the backend that owns the prompt, under its own name there.
pub(super) fn get<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let name = exchange.params.name().ok_or_else(no_name)?;
        let mut catalog = exchange.snapshot.catalog();
        if catalog.prompt(&name).is_none() && route::was_parked(exchange) {
            return Box::pin(to_legacy::take_up(exchange, None)).await;
        }
        if catalog.prompt(&name).is_none() {
            let is_like = |backend: &crate::backend::Backend| name.starts_with(&*backend.config.prefix);
            catalog = Box::pin(route::look_again(exchange, is_like)).await;
        }
        let Some(prompt) = catalog.prompt(&name) else { return Err(unknown(&name)) };
        let mut target = Target::new(exchange, &prompt.backend)?;
        let given = exchange.params.name.ok_or_else(no_name)?;
        if given.get() != &*prompt.own_json {
            target
                .edits
                .extend(jsonrpc::span(exchange.body, given.get()).map(|span| (span, (&*prompt.own_json).into())));
        }
        target.name = Some((&*prompt.own).into());
        route::send(exchange, &mut target).await
    }
    .boxed()
}

/// To the backend that owns the prompt or the resource template.
pub(super) fn complete<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let bad = || Error::InvalidParams {
            what: "`ref` must be a `ref/prompt` with `name` or a `ref/resource` with `uri`".into(),
        };
        let reference = exchange.params.reference.ok_or_else(bad)?.get();
        let text = |key: &str| {
            let raw = jsonrpc::member(reference, key)?;
            serde_json::from_str::<String>(raw).ok().map(|text| (raw, text))
        };
        let catalog = exchange.snapshot.catalog();
        let (_, kind) = text("type").ok_or_else(bad)?;
        let mut target = match &*kind {
            "ref/prompt" => {
                let (raw, name) = text("name").ok_or_else(bad)?;
                let prompt = catalog.prompt(&name).ok_or_else(|| unknown(&name))?;
                let mut target = Target::new(exchange, &prompt.backend)?;
                if raw != &*prompt.own_json {
                    target
                        .edits
                        .extend(jsonrpc::span(exchange.body, raw).map(|span| (span, (&*prompt.own_json).into())));
                }
                target
            }
            "ref/resource" => {
                let (_, uri) = text("uri").ok_or_else(bad)?;
                let owner = catalog.template(&uri).or_else(|| catalog.resource(&uri));
                let unknown = || Error::InvalidParams {
                    what: format!("Unknown resource template: {}", uri.chars().take(MAX_QUOTED).collect::<String>())
                        .into(),
                };
                Target::new(exchange, owner.ok_or_else(unknown)?)?
            }
            _ => return Err(bad()),
        };
        route::send(exchange, &mut target).await
    }
    .boxed()
}

fn unknown(name: &str) -> Error {
    let name: String = name.chars().take(MAX_QUOTED).collect();
    Error::InvalidParams { what: format!("Unknown prompt: {name}").into() }
}
