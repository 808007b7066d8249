//! Which era a request belongs to, told a second time from `serde_json`'s values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::era::{self, Era, LOG_LEVELS, McpHeaders};
use crate::error::{Error, HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, UNSUPPORTED_VERSION};
use crate::jsonrpc::{self, Id, Malformed, Message};
use crate::reply::{Body, Reply};

const MODERN: &str = "2026-07-28";
const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// One request: lines of headers, a blank line and the body.
pub fn ladder(bytes: &[u8]) {
    let (head, body) = super::parted(bytes);
    let map = super::headers(head);
    let headers = McpHeaders::read(&map.clone().into());
    verbs(&map, &headers);
    let message = match jsonrpc::parse(body) {
        Ok(message) => message,
        Err(malformed) => return unreadable(body, malformed),
    };
    let id = match &message {
        Message::Notification(_) => None,
        Message::Request(request) => Some(request.id),
        Message::Response(response) => response.id,
    };
    let era = era::of_message(&message, &headers);
    if let Err(error) = &era {
        assert!(matches!(
            error,
            Error::HeaderMismatch { .. } | Error::Malformed { .. } | Error::UnsupportedVersion { .. }
        ));
        if let Error::Malformed { id: own, .. } = error {
            assert_eq!(own.as_ref().map(|own| own.borrow()), id);
        }
        answered(error, id);
    }
    if let Some(oracle) = super::oracle(body) {
        assert_eq!(era.map_err(|error| error.object().code), expected(&oracle, &map));
    }
}

/// What headers alone decide: nothing is said twice, and GET and DELETE are for the legacy era.
fn verbs(map: &HeaderMap, headers: &McpHeaders) {
    const ONCE: [&str; 5] = ["mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"];
    let is_ours = |name: &str| ONCE.contains(&name) || name.starts_with("mcp-param-");
    let is_repeated = map.keys().any(|name| is_ours(name.as_str()) && map.get_all(name).iter().count() > 1);
    let version = map.get("mcp-protocol-version").map(lossy);
    for verb in [Method::POST, Method::GET, Method::DELETE] {
        let expected = match version.as_deref() {
            // In the words of the era that the first copy is of.
            Some(version) if is_repeated && !LEGACY.contains(&version) && version >= MODERN => {
                Err((StatusCode::BAD_REQUEST, HEADER_MISMATCH))
            }
            _ if is_repeated => Err((StatusCode::BAD_REQUEST, INVALID_REQUEST)),
            None => Ok(()),
            Some(_) if verb == Method::POST => Ok(()),
            Some(version) if LEGACY.contains(&version) => Ok(()),
            Some(version) if version >= MODERN => Err((StatusCode::METHOD_NOT_ALLOWED, 405)),
            Some(_) => Err((StatusCode::BAD_REQUEST, unknown_version(map))),
        };
        let found = era::of_verb(&verb, headers);
        assert_eq!(found.map_err(|error| (error.status(), error.object().code)), expected, "{verb}");
    }
}

/// A client with a session is a legacy one, and is told nothing in the words of the modern era.
fn unknown_version(map: &HeaderMap) -> i64 {
    if map.contains_key("mcp-session-id") { INVALID_REQUEST } else { UNSUPPORTED_VERSION }
}

fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A body that is no message is answered under its id where there is one, and one only.
fn unreadable(body: &[u8], malformed: Malformed) {
    let members = std::str::from_utf8(body).ok().and_then(jsonrpc::members).unwrap_or_default();
    let ids: Vec<&str> = members.iter().filter(|(key, _)| key == "id").map(|(_, id)| *id).collect();
    let own = malformed.id.clone();
    match (malformed.code, &ids[..]) {
        (Malformed::INVALID_REQUEST, [id]) => assert_eq!(own.as_ref().map(|own| own.borrow()), Id::read(id)),
        _ => assert_eq!(own, None),
    }
    answered(&malformed.into(), own.as_ref().map(|own| own.borrow()));
}

/// The client gets a JSON-RPC error under the id of its message.
fn answered(error: &Error, id: Option<Id<'_>>) {
    const CODES: [i64; 5] =
        [HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, Malformed::NOT_JSON, UNSUPPORTED_VERSION];
    let reply = Reply::error(error, id.map(Id::owned).as_ref(), Era::Legacy);
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let Body::Whole(pieces) = reply.body else { return assert_eq!(reply.status, StatusCode::OK, "an error is whole") };
    let body = pieces.concat();
    let parsed = jsonrpc::parse(&body);
    assert!(matches!(&parsed, Ok(Message::Response(response)) if response.error && response.id == id), "{parsed:?}");
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    assert!(body["error"]["code"].as_i64().is_some_and(|code| CODES.contains(&code)), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

/// The era, or the code of the refusal.
fn expected(body: &Value, map: &HeaderMap) -> Result<Era, i64> {
    let header = map.get("mcp-protocol-version").map(lossy);
    let header = header.as_deref();
    let is_legacy = header.is_none_or(|header| LEGACY.contains(&header));
    let is_modern = header.is_some_and(|header| header >= MODERN);
    let claim = body["params"]["_meta"].get("io.modelcontextprotocol/protocolVersion");
    let claimed = claim.and_then(Value::as_str);
    let is_request = body.get("id").is_some();
    if body.get("method").is_some() && claim.is_some_and(|claim| !claim.is_string()) {
        return Err(INVALID_PARAMS);
    }
    match body.get("method").map(|method| (method, claimed)) {
        _ if is_legacy && claimed.is_none() => Ok(Era::Legacy),
        None if is_legacy => Ok(Era::Legacy),
        None if is_modern => Err(INVALID_REQUEST),
        None => Err(unknown_version(map)),
        Some((_, Some(_))) if header != claimed => Err(HEADER_MISMATCH),
        Some((_, Some(MODERN))) if is_request => whole(body, map),
        Some((_, Some(MODERN))) => Ok(Era::Modern),
        Some((_, Some(_))) => Err(UNSUPPORTED_VERSION),
        Some((_, None)) if header == Some(MODERN) && !is_request => Ok(Era::Modern),
        Some((_, None)) if is_modern && !map.contains_key("mcp-session-id") => Err(INVALID_PARAMS),
        Some((method, None)) if method == "initialize" && !is_modern => Ok(Era::Legacy),
        Some((_, None)) => Err(unknown_version(map)),
    }
}

/// A modern request repeats itself in its headers and says all that it must.
fn whole(body: &Value, map: &HeaderMap) -> Result<Era, i64> {
    let (method, params) = (body["method"].as_str().unwrap_or_default(), &body["params"]);
    let named = match method {
        "tools/call" | "prompts/get" => params["name"].as_str(),
        "resources/read" => params["uri"].as_str(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params["taskId"].as_str(),
        _ => None,
    };
    let says = |header: &str, text: &str| map.get(header).is_some_and(|value| stands_for(value, text));
    if !says("mcp-method", method) || !named.is_none_or(|named| says("mcp-name", named)) {
        return Err(HEADER_MISMATCH);
    }
    let member = |key: &str| params["_meta"].get(format!("io.modelcontextprotocol/{key}"));
    let is_level = |level: &Value| level.as_str().is_some_and(|level| LOG_LEVELS.contains(&level));
    let is_whole = member("clientCapabilities").is_some_and(Value::is_object)
        && member("clientInfo").is_none_or(Value::is_object)
        && member("logLevel").is_none_or(is_level);
    if is_whole { Ok(Era::Modern) } else { Err(INVALID_PARAMS) }
}

/// There are two ways to write a text in a header, and the plain one is not for what looks like the other.
fn stands_for(value: &HeaderValue, text: &str) -> bool {
    let value = value.as_bytes().trim_ascii();
    let looks_wrapped = text.len() >= 11 && text.starts_with("=?base64?") && text.ends_with("?=");
    let wrapped = format!("=?base64?{}?=", STANDARD.encode(text));
    value == wrapped.as_bytes() || value == text.as_bytes() && !looks_wrapped
}
