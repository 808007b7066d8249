//! What crosses from one era to the other: nothing is lost, and nothing is left of the era that it came from.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use serde_json::value::RawValue;

use crate::bridge::envelope::{self, Envelope, dress, undress};
use crate::bridge::shape::{self, SERVER_INFO, Shaped};
use crate::era::{self, Era, McpHeaders};
use crate::error::{INVALID_PARAMS, Kind, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND};
use crate::fields::Fields;
use crate::jsonrpc::{self, Message, OwnedId, Params, Request, Response};

const ENVELOPE: Envelope<'_> =
    Envelope { client_info: r#"{"name":"f","version":"1"}"#, capabilities: "{}", log_level: Some("\"info\"") };
const DRESS: [&str; 4] = ["protocolVersion", "clientInfo", "clientCapabilities", "logLevel"];
const PROTOCOL: &str = "io.modelcontextprotocol/";
const MODERN_ONLY: [&str; 3] = ["resultType", "ttlMs", "cacheScope"];
/// The code of an error that a backend may not give a client.
const OF_BACKEND: i64 = 502;

/// Members in order, values as they were written.
type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// One body: a request is dressed and undressed, an answer gets the shape of either era, and of a notification the
/// subscription is taken out.
pub fn bridge(body: &[u8]) {
    let bytes = Bytes::copy_from_slice(body);
    match jsonrpc::parse(&bytes) {
        Ok(Message::Notification(notification)) => notified(&bytes, &notification.method),
        Ok(Message::Request(request)) => {
            dresses(&bytes, &request);
            undresses(&bytes);
        }
        Ok(Message::Response(response)) => {
            for (method, uri) in [("tools/call", None), ("resources/read", Some("file:///\u{e9}\"")), ("", Some(""))] {
                for id in [OwnedId::integer(7), OwnedId::string("c")] {
                    modern(method, uri, &id, &response);
                    legacy(method, &id, &response);
                }
            }
        }
        Err(_) => {
            dress(&bytes, &ENVELOPE);
            undress(&bytes);
        }
    }
}

fn members(json: &str) -> Members<'_> {
    jsonrpc::members(json).unwrap_or_default()
}

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap_or_default()
}

// === requests ===

/// A dressed request is a modern one, and the same request.
fn dresses(body: &Bytes, request: &Request<'_>) {
    let dressed = dress(body, &ENVELOPE);
    let parsed = jsonrpc::parse(&dressed);
    assert!(matches!(parsed, Ok(Message::Request(_))), "{parsed:?}");
    let Ok(message @ Message::Request(of_dressed)) = &parsed else { return };
    assert_eq!((of_dressed.id, &of_dressed.method), (request.id, &request.method));
    let name = named(&request.method, &request.params);
    let headers: Fields = envelope::headers(&request.method, name.as_deref()).into_iter().collect();
    // A method that a header cannot carry as it is has no modern request.
    let is_carried = headers.get(HeaderName::from_static("mcp-method")).is_some_and(|value| *value == *request.method);
    let era = era::of_message(message, &McpHeaders::read(&headers)).ok();
    assert_eq!(era, is_carried.then_some(Era::Modern));
    assert_eq!(dress(&dressed, &ENVELOPE), dressed, "once is enough");
    assert_eq!(parts(text(&undress(&dressed))), parts(text(body)));
}

fn named<'a>(method: &str, params: &Params<'a>) -> Option<Cow<'a, str>> {
    match method {
        "tools/call" | "prompts/get" => params.name(),
        "resources/read" => params.uri(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id(),
        _ => None,
    }
}

/// The members of a request, of its `params` and of its `_meta`, without the dress.
fn parts(body: &str) -> [Members<'_>; 3] {
    let [mut message, mut params, mut meta] = [members(body), Vec::new(), Vec::new()];
    message.retain(|(key, value)| key != "params" || (params.splice(.., members(value)).count(), false).1);
    params.retain(|(key, value)| key != "_meta" || (meta.splice(.., members(value)).count(), false).1);
    meta.retain(|(key, _)| !key.strip_prefix(PROTOCOL).is_some_and(|key| DRESS.contains(&key)));
    [message, params, meta]
}

/// Outside `_meta` every byte stays, and inside it those of what is no dress.
fn undresses(body: &Bytes) {
    let undressed = undress(body);
    let back = undress(&dress(&undressed, &ENVELOPE));
    assert!(jsonrpc::parse(&undressed).is_ok());
    let layout = jsonrpc::layout(body).unwrap_or_default();
    let expected = match (layout.params, layout.meta) {
        (_, Some(meta)) => {
            let after = body.len() - meta.end;
            assert_eq!(body[..meta.start], undressed[..meta.start]);
            assert_eq!(body[meta.end..], undressed[undressed.len() - after..]);
            undressed
        }
        (Some(params), None) => {
            let first = params.start + 1;
            let is_empty = body[first..params.end - 1].trim_ascii().is_empty();
            let added: &[u8] = if is_empty { b"\"_meta\":{}" } else { b"\"_meta\":{}," };
            jsonrpc::splice(body, &[(first..first, added)])
        }
        (None, None) => jsonrpc::splice(body, &[(layout.end..layout.end, b",\"params\":{\"_meta\":{}}")]),
    };
    assert_eq!(back, expected);
}

// === answers ===

/// For a modern client.
fn modern(method: &str, uri: Option<&str>, id: &OwnedId, response: &Response<'_>) {
    let Some(shaped) = shape::to_modern(method, uri, id, response) else { return is_no_object(response) };
    let Some(result) = result(&shaped, id, response) else {
        let code = |code| match code {
            RESOURCE_NOT_FOUND => INVALID_PARAMS,
            -32099..=-32020 => OF_BACKEND,
            code => code,
        };
        let is_lost = own_code(response.value) == RESOURCE_NOT_FOUND && uri.is_some();
        let found = error(&shaped, response, code, is_lost);
        return assert_eq!(shaped.status == StatusCode::NOT_FOUND, found == METHOD_NOT_FOUND);
    };
    assert_eq!(shaped.status, StatusCode::OK);
    let is_added = |key: &str| MODERN_ONLY.contains(&key);
    let (added, kept): (Members<'_>, Members<'_>) =
        members(result.get()).into_iter().partition(|(key, _)| is_added(key));
    let mut expected = vec![("resultType".into(), "\"complete\"")];
    if method == "resources/read" {
        expected.extend([("ttlMs".into(), "0"), ("cacheScope".into(), "\"private\"")]);
    }
    assert_eq!(added, expected);
    let mut own = members(response.value.get());
    own.retain(|(key, _)| !is_added(key));
    let is_new = !own.iter().any(|(key, _)| key == "_meta");
    assert!(!is_new || kept.first().is_some_and(|(key, _)| key == "_meta"));
    assert_eq!(kept.len(), own.len() + usize::from(is_new));
    for ((key, value), (own_key, own_value)) in kept[usize::from(is_new)..].iter().zip(&own) {
        assert_eq!(key, own_key);
        // Who the gateway is stands before what the backend says of itself.
        match value.strip_prefix(&["{", SERVER_INFO].concat()).filter(|_| key == "_meta" && value != own_value) {
            Some(rest) => assert_eq!(rest.strip_prefix(',').unwrap_or(rest), &own_value[1..]),
            None => assert_eq!(value, own_value),
        }
    }
}

/// For a legacy client.
fn legacy(method: &str, id: &OwnedId, response: &Response<'_>) {
    let Some(shaped) = shape::to_legacy(method, id, response) else { return is_no_object(response) };
    assert_eq!(shaped.status, StatusCode::OK);
    let Some(result) = result(&shaped, id, response) else {
        let uri = || jsonrpc::member(response.value.get(), "data").and_then(|data| jsonrpc::member(data, "uri"));
        let code = |code| match code {
            INVALID_PARAMS if method == "resources/read" && uri().is_some() => RESOURCE_NOT_FOUND,
            -32022..=-32020 => OF_BACKEND,
            code => code,
        };
        error(&shaped, response, code, false);
        return;
    };
    let found = members(result.get());
    for (key, value) in &found {
        assert!(!MODERN_ONLY.contains(&&**key), "{key}");
        assert!(key != "structuredContent" || value.starts_with('{'));
        assert!(key != "_meta" || members(value).iter().all(|(key, _)| !key.starts_with(PROTOCOL)), "{value}");
        assert!(key != "_meta" || !members(value).is_empty());
    }
    let own = members(response.value.get());
    if let [meta] = values(&own, "_meta")[..] {
        let mut meta = members(meta);
        meta.retain(|(key, _)| !key.starts_with(PROTOCOL));
        assert_eq!(values(&found, "_meta").first().map(|meta| members(meta)).unwrap_or_default(), meta);
    }
    assert_eq!(of_both_eras(found), of_both_eras(own));
}

/// The one answer that has no other shape.
fn is_no_object(response: &Response<'_>) {
    assert!(!response.error && jsonrpc::members(response.value.get()).is_none(), "{response:?}");
}

fn values<'a>(members: &Members<'a>, key: &str) -> Vec<&'a str> {
    members.iter().filter(|(own, _)| own == key).map(|(_, value)| *value).collect()
}

/// The members that both eras know, `_meta` apart.
fn of_both_eras(mut members: Members<'_>) -> Members<'_> {
    members.retain(|(key, value)| match &**key {
        "_meta" => false,
        "structuredContent" => value.starts_with('{'),
        key => !MODERN_ONLY.contains(&key),
    });
    members
}

/// The result of what a client gets. An error stays one.
fn result<'a>(shaped: &'a Shaped, id: &OwnedId, response: &Response<'_>) -> Option<&'a RawValue> {
    let parsed = jsonrpc::parse(&shaped.body);
    assert!(matches!(parsed, Ok(Message::Response(_))), "{parsed:?}");
    let Ok(Message::Response(found)) = parsed else { return None };
    assert_eq!(found.id, Some(id.borrow()));
    assert_eq!(found.error, response.error);
    let kind = match response.error {
        false if jsonrpc::member(response.value.get(), "isError") == Some("true") => Kind::ToolError,
        false => Kind::Ok,
        true => Kind::RpcError,
    };
    assert_eq!(shaped.kind, kind);
    (!found.error).then_some(found.value)
}

fn own_code(error: &RawValue) -> i64 {
    let [code] = values(&members(error.get()), "code")[..] else { return 0 };
    code.parse().unwrap_or(0)
}

/// An error says what it said under a code that its client knows. Returns the code.
fn error(shaped: &Shaped, response: &Response<'_>, code: impl Fn(i64) -> i64, is_lost: bool) -> i64 {
    let body = text(&shaped.body);
    let found = jsonrpc::member(body, "error").unwrap_or_default();
    let of = |key: &str| jsonrpc::member(found, key);
    let found_code = of("code").and_then(|code| code.parse().ok()).unwrap_or(i64::MIN);
    let first = |key: &str| members(response.value.get()).into_iter().find(|(own, _)| own == key).map(|(_, raw)| raw);
    assert_eq!(found_code, code(own_code(response.value)));
    assert_eq!(of("message"), Some(first("message").unwrap_or("\"\"")));
    assert!(is_lost || of("data") == first("data"), "{body}");
    found_code
}

// === notifications ===

/// Nothing is left of the protocol's own metadata, and nothing else is missing.
fn notified(body: &Bytes, method: &str) {
    let out = shape::without_subscription(body);
    let parsed = jsonrpc::parse(&out);
    assert!(matches!(&parsed, Ok(Message::Notification(of_out)) if of_out.method == method), "{parsed:?}");
    let [message, params, meta] = parts(text(&out));
    let [own_message, own_params, mut own_meta] = parts(text(body));
    own_meta.retain(|(key, _)| !key.starts_with(PROTOCOL));
    assert_eq!([message, params, meta], [own_message, own_params, own_meta]);
}
