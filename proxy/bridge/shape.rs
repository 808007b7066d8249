//! Answers of one era in the shape of the other.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;

use super::answer::broken;
use crate::backend::{Backend, client};
use crate::error::{
    Error, HEADER_MISMATCH, INVALID_PARAMS, Kind, METHOD_NOT_FOUND, MISSING_CAPABILITY, RESOURCE_NOT_FOUND,
    UNSUPPORTED_VERSION,
};
use crate::jsonrpc::{self, OwnedId, Response, json_string};
use crate::scan::Fault;

/// What stands in the `_meta` of every modern result that the gateway makes or reshapes.
pub(crate) const SERVER_INFO: &str = concat!(
    "\"io.modelcontextprotocol/serverInfo\":{\"name\":\"toolgate\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\"}"
);

/// The key of it.
const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";

/// Keys of results that only modern clients know.
const MODERN_ONLY: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];

/// An answer in the client's shape.
pub(crate) struct Shaped {
    pub(crate) body: Bytes,
    pub(crate) kind: Kind,
    pub(crate) status: StatusCode,
}

/// A legacy backend's response, for a modern client. Nothing where its result is no object: that cannot say what every result
/// must, nor can it be cleared of what its client does not know.
pub(crate) fn to_modern(method: &str, uri: Option<&str>, id: &OwnedId, response: &Response<'_>) -> Option<Shaped> {
    let value = response.value.get();
    if !response.error {
        return modern_result(method, value).map(|result| shaped(id, value, &result));
    }
    let code = client::error_code(response.value).unwrap_or(0);
    let (code, data, status) = match code {
        // "Not found" has a code of its own in the legacy era only, and names the resource in the modern one.
        RESOURCE_NOT_FOUND => {
            (INVALID_PARAMS, uri.map(|uri| format!("{{\"uri\":{}}}", json_string(uri))), StatusCode::OK)
        }
        // Codes that are the specification's own in the modern era, given out already or not, and must not be sent by others
        // (2026-07-28, Overview, Error codes). The rest of what JSON-RPC leaves to servers is the backend's to use.
        -32099..=-32020 => (OF_BACKEND, None, StatusCode::OK),
        METHOD_NOT_FOUND => (code, None, StatusCode::NOT_FOUND),
        _ => (code, None, StatusCode::OK),
    };
    Some(Shaped { body: error_body(id, value, code, data.as_deref()), kind: Kind::RpcError, status })
}

/// A legacy backend's refusal for a modern client that cannot do what the backend wants first, visit a URL (2026-07-28,
/// Error codes).
pub(crate) fn lacks_urls(id: &OwnedId, response: &Response<'_>) -> Shaped {
    const NEEDED: &str = r#"{"requiredCapabilities":{"elicitation":{"url":{}}}}"#;
    let body = error_body(id, response.value.get(), MISSING_CAPABILITY, Some(NEEDED));
    Shaped { body, kind: Kind::RpcError, status: StatusCode::BAD_REQUEST }
}

/// The code of a backend's error whose own code would mean something else to the client: HTTP's "bad gateway".
const OF_BACKEND: i64 = 502;

/// A result in its new shape.
fn shaped(id: &OwnedId, value: &str, result: &str) -> Shaped {
    Shaped { body: jsonrpc::result_body(id.raw(), result), kind: kind_of(value), status: StatusCode::OK }
}

/// What is said of a result that has no other shape.
pub(crate) fn no_object(backend: &Backend) -> Error {
    broken(backend, Fault::Result.what())
}

/// A result with all that a modern one must have. What the backend said itself stays. `None` for what is no object.
fn modern_result(method: &str, result: &str) -> Option<String> {
    let members = jsonrpc::members(result)?;
    let has = |key: &str| members.iter().any(|(name, _)| name == key);
    let mut shaped = String::from("{\"resultType\":\"complete\"");
    if method == "resources/read" {
        // How long it holds, and for whom, a legacy backend does not say.
        shaped.push_str(",\"ttlMs\":0,\"cacheScope\":\"private\"");
    }
    if !has("_meta") {
        shaped.push_str(&format!(",\"_meta\":{{{SERVER_INFO}}}"));
    }
    for (key, value) in members.iter().filter(|(key, _)| !MODERN_ONLY.contains(&&**key)) {
        shaped.push_str(&format!(",{}:", json_string(key)));
        match value.strip_prefix('{').filter(|_| key == "_meta") {
            Some(rest) if jsonrpc::member(value, SERVER_INFO_KEY).is_none() => {
                let comma = if rest.trim_ascii_start() == "}" { "" } else { "," };
                shaped.push_str(&format!("{{{SERVER_INFO}{comma}{rest}"));
            }
            _ => shaped.push_str(value),
        }
    }
    shaped.push('}');
    Some(shaped)
}

/// A modern backend's complete response, for a legacy client. Nothing where its result is no object.
pub(crate) fn to_legacy(method: &str, id: &OwnedId, response: &Response<'_>) -> Option<Shaped> {
    let value = response.value.get();
    if !response.error {
        return legacy_result(value).map(|result| shaped(id, value, &result));
    }
    let code = client::error_code(response.value).unwrap_or(0);
    let has_uri = || jsonrpc::member(value, "data").and_then(|data| jsonrpc::member(data, "uri")).is_some();
    let code = match code {
        INVALID_PARAMS if method == "resources/read" && has_uri() => RESOURCE_NOT_FOUND,
        HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION => OF_BACKEND,
        _ => code,
    };
    Some(Shaped { body: error_body(id, value, code, None), kind: Kind::RpcError, status: StatusCode::OK })
}

/// A result without what only modern clients know. Structured content that is no object has no place in a legacy one; its
/// text stands beside it (2026-07-28, Tools, structured content). `None` for what is no object.
fn legacy_result(result: &str) -> Option<String> {
    let members = jsonrpc::members(result)?;
    let stays = |(key, value): &(Cow<'_, str>, &str)| {
        !MODERN_ONLY.contains(&&**key) && (key != "structuredContent" || value.starts_with('{'))
    };
    let kept: Vec<_> = members.into_iter().filter(stays).collect();
    Some(without_protocol_meta(&jsonrpc::object(kept.iter().map(|(key, value)| (&**key, *value)))))
}

/// An object whose `_meta` has no keys of the modern protocol, and is not there when nothing else was in it, or when it cannot
/// be told what is.
fn without_protocol_meta(json: &str) -> String {
    let Some(members) = jsonrpc::members(json) else { return json.to_owned() };
    let meta = members.iter().rfind(|(key, _)| key == "_meta").map(|(_, meta)| {
        let meta = jsonrpc::members(meta).unwrap_or_default();
        let is_protocol = |key: &str| key.starts_with("io.modelcontextprotocol/");
        jsonrpc::object(meta.iter().filter(|(key, _)| !is_protocol(key)).map(|(key, value)| (&**key, *value)))
    });
    jsonrpc::object(members.iter().filter_map(|(key, value)| match (&**key, meta.as_deref()) {
        ("_meta", Some("{}")) => None,
        ("_meta", Some(meta)) => Some(("_meta", meta)),
        (key, _) => Some((key, *value)),
    }))
}

/// The `params` of a question as a legacy client has to have them: an elicitation by URL has an id there.
pub(crate) fn legacy_question<'a>(method: &str, params: &'a str, id: &OwnedId) -> Cow<'a, str> {
    let lacks_id =
        || jsonrpc::member(params, "mode") == Some("\"url\"") && jsonrpc::member(params, "elicitationId").is_none();
    if method != "elicitation/create" || !lacks_id() {
        return params.into();
    }
    let members = jsonrpc::members(params).unwrap_or_default();
    let members = members.iter().map(|(key, value)| (&**key, *value));
    jsonrpc::object(members.chain([("elicitationId", id.raw())])).into()
}

/// A notification without the id of the subscription that it came by.
pub(crate) fn without_subscription(notification: &[u8]) -> Bytes {
    let Ok(text) = std::str::from_utf8(notification) else { return Bytes::new() };
    let Some(members) = jsonrpc::members(text) else { return Bytes::copy_from_slice(notification) };
    let params = jsonrpc::member(text, "params").map(without_protocol_meta);
    let members = members.iter().map(|(key, value)| match (&**key, params.as_deref()) {
        ("params", Some(params)) => ("params", params),
        (key, _) => (key, *value),
    });
    jsonrpc::object(members).into()
}

/// The backend's error under another id, and another code where one is given; `data` takes the place of its own.
fn error_body(id: &OwnedId, error: &str, code: i64, data: Option<&str>) -> Bytes {
    let code = code.to_string();
    let members = jsonrpc::members(error).unwrap_or_default();
    let message = members.iter().find(|(key, _)| key == "message").map_or("\"\"", |(_, value)| *value);
    let own_data = members.iter().find(|(key, _)| key == "data").map(|(_, value)| *value);
    let mut object = vec![("code", &*code), ("message", message)];
    object.extend(data.or(own_data).map(|data| ("data", data)));
    let body = jsonrpc::object([("jsonrpc", "\"2.0\""), ("id", id.raw()), ("error", &*jsonrpc::object(object))]);
    body.into()
}

/// How a call with this result ended.
pub(crate) fn kind_of(result: &str) -> Kind {
    if jsonrpc::member(result, "isError") == Some("true") { Kind::ToolError } else { Kind::Ok }
}

/// The kind of a modern result: `complete` where it does not say.
pub(crate) fn result_type(result: &RawValue) -> String {
    let found = jsonrpc::member(result.get(), "resultType").and_then(|raw| serde_json::from_str(raw).ok());
    found.unwrap_or_else(|| "complete".to_owned())
}
