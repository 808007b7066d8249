//! `initialize`, `ping`, `logging/setLevel`: about the session itself.

use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::dispatch::Exchange;
use crate::era::{LOG_LEVELS, Version};
use crate::error::Error;
use crate::jsonrpc::{self, Params};
use crate::reply::Reply;
use crate::session::ANYONE;

/// Starts a session. The version is the client's if it is known; backends are negotiated with apart.
pub(super) fn initialize(exchange: &mut Exchange<'_>) -> Result<Reply, Error> {
    let asked = exchange
        .params
        .protocol_version()
        .ok_or_else(|| Error::InvalidParams { what: "`params.protocolVersion` must be a string".into() })?;
    let version = Version::read(&asked).unwrap_or(Version::LATEST);
    let token = exchange.gateway.sessions.start(version, exchange.params, ANYONE)?;
    let catalog = exchange.snapshot.catalog();
    let capabilities: Value = serde_json::from_str(&catalog.capabilities).unwrap_or_default();
    let mut result = json!({
        "protocolVersion": version.as_str(),
        "capabilities": capabilities,
        "serverInfo": { "name": "toolgate", "version": env!("CARGO_PKG_VERSION") },
    });
    if let Some(instructions) = &catalog.instructions {
        result["instructions"] = json!(instructions);
    }
    let mut reply = exchange.result(result.to_string().into())?;
    let token =
        HeaderValue::from_str(&token).map_err(|_| Error::InvalidParams { what: "`clientInfo` is too long".into() })?;
    reply.headers.push((HeaderName::from_static("mcp-session-id"), token));
    Ok(reply)
}

/// What a modern client would otherwise find out by trying. Always answered here: a client takes an odd answer for an era.
pub(super) fn discover(exchange: &mut Exchange<'_>) -> Result<Reply, Error> {
    exchange.result_of(exchange.snapshot.catalog().discovered(Instant::now()))
}

/// The gateway is alive; whether a backend is, its tools tell.
pub(super) fn ping(exchange: &mut Exchange<'_>) -> Result<Reply, Error> {
    exchange.result(Bytes::from_static(b"{}"))
}

/// Remembers the level for backend sessions opened later, and passes it on to those that are open.
pub(super) fn set_level<'a>(exchange: &'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>> {
    async move {
        let level = read_level(exchange.params)?;
        let session = exchange.session()?;
        session.set_level(&level);
        for leg in session.legs() {
            // Nobody waits: a slow backend must not hold the others up.
            leg.tell_level(session);
        }
        exchange.result(Bytes::from_static(b"{}"))
    }
    .boxed()
}

/// A valid `logging/setLevel` level, as JSON (RFC 5424's eight).
fn read_level(params: &Params<'_>) -> Result<String, Error> {
    match params.level() {
        Some(level) if LOG_LEVELS.contains(&&*level) => Ok(jsonrpc::json_string(&level)),
        _ => Err(Error::InvalidParams { what: format!("`level` must be one of {}", LOG_LEVELS.join(", ")).into() }),
    }
}
