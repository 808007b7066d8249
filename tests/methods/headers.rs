//! The headers and the envelope of modern requests.

use serde_json::{Value, json};

use super::world;
use crate::support::modern_client::{MODERN, header_text};
use crate::support::{Answer, FakeModern, Setup, TestProxy};

/// A modern request whose headers are the test's.
async fn with_headers(proxy: &TestProxy, body: &str, headers: &[(&str, &str)]) -> Answer {
    let client = headers.iter().fold(proxy.stranger(), |client, (name, value)| client.with_header(name, value));
    client.post(body.to_owned()).await
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_of_a_modern_request_must_repeat_its_body() {
    let world = world().await;
    let body = world.proxy.modern().message("tools/call", json!({ "name": "old__echo" }));
    let id = serde_json::from_str::<Value>(&body).unwrap()["id"].clone();
    let (version, method, name) =
        (("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "old__echo"));

    for headers in [
        vec![method, name],
        vec![("mcp-protocol-version", "2025-11-25"), method, name],
        vec![version, name],
        vec![version, ("mcp-method", "TOOLS/CALL"), name],
        vec![version, ("mcp-method", "tools/list"), name],
        vec![version, method],
        vec![version, method, ("mcp-name", "old__Echo")],
        vec![version, method, ("mcp-name", "=?base64?b2xkX19lY2h?=")],
        vec![version, method, ("mcp-name", "=?BASE64?b2xkX19lY2hv?=")],
    ] {
        let answer = with_headers(&world.proxy, &body, &headers).await;
        assert_eq!((answer.status, answer.code()), (400, -32020), "{headers:?}");
        assert_eq!(answer.response()["id"], id, "{headers:?}");
    }
    for headers in [
        vec![version, method, name],
        vec![version, method, ("mcp-name", "=?base64?b2xkX19lY2hv?=")],
        vec![version, ("mcp-method", " tools/call "), name],
        vec![version, method, name, ("mcp-param-unknown", "x"), ("mcp-session-id", "dead"), ("last-event-id", "7")],
    ] {
        let answer = with_headers(&world.proxy, &body, &headers).await;
        assert_eq!(answer.result()["resultType"], "complete", "{headers:?}");
        assert_eq!(answer.header("mcp-session-id"), "");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_that_come_twice_are_refused_even_when_both_are_right() {
    let world = world().await;
    let modern = world.proxy.modern();
    for name in ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"] {
        let body = modern.message("tools/call", json!({ "name": "old__echo" }));
        let mut request = modern.request(&body);
        let value = request.headers()[name].clone();
        request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value);
        let answer = modern.http.send(request).await;
        assert_eq!((answer.status, answer.code()), (400, -32020), "{name}");
        assert_eq!(answer.error()["data"]["header"], name);
        let id = serde_json::from_str::<Value>(&body).unwrap()["id"].clone();
        assert_eq!(answer.response()["id"], id, "{name}");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_of_arguments_must_repeat_them_numbers_by_value() {
    let definition = r#"{"name":"put","inputSchema":{"type":"object","properties":{
        "region":{"type":"string","x-mcp-header":"Region"},
        "size":{"type":"integer","x-mcp-header":"Size"},
        "dry":{"type":"boolean","x-mcp-header":"Dry"}}}}"#;
    let new = FakeModern::named("new").defined("put", &definition.replace('\n', "")).start().await;
    let proxy = Setup::new().backend(&new, "").start().await;
    proxy.until_tools(&new, 1).await;
    let modern = proxy.modern();
    let arguments = json!({ "region": "Zürich", "size": 42, "dry": true });
    let body = modern.message("tools/call", json!({ "name": "new__put", "arguments": arguments }));
    let region = header_text("Zürich");
    let base = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "new__put")];

    for (headers, is_right) in [
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], true),
        (vec![("mcp-param-region", "Zurich"), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "43"), ("mcp-param-dry", "true")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42"), ("mcp-param-dry", "True")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42")], false),
        (vec![("mcp-param-region", "=?base64?%?="), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], false),
    ] {
        let headers: Vec<_> = base.iter().copied().chain(headers).collect();
        let answer = with_headers(&proxy, &body, &headers).await;
        match is_right {
            true => assert_eq!(answer.result()["resultType"], "complete", "{headers:?}"),
            false => {
                assert_eq!((answer.status, answer.code()), (400, -32020), "{headers:?}");
                assert!(answer.message().starts_with("header `Mcp-Param-"), "{answer:?}");
            }
        }
    }
    let headers: Vec<_> = base
        .iter()
        .copied()
        .chain([("mcp-param-region", &*region), ("mcp-param-size", "42.0"), ("mcp-param-dry", "true")])
        .collect();
    assert_eq!(with_headers(&proxy, &body, &headers).await.result()["resultType"], "complete");
    // The fake compares as text.
    new.take_faults();
}

/// Method table: `server/discover`.
#[tokio::test]
async fn an_unknown_version_is_answered_with_those_that_are_served() {
    let world = world().await;
    let body = world.proxy.modern().message("server/discover", json!({})).replace(MODERN, "2027-01-01");
    let headers = [("mcp-protocol-version", "2027-01-01"), ("mcp-method", "server/discover")];

    let answer = with_headers(&world.proxy, &body, &headers).await;

    assert_eq!((answer.status, answer.code()), (400, -32022));
    assert_eq!(answer.error()["data"]["supported"], json!([MODERN]));
    assert_eq!(answer.error()["data"]["requested"], "2027-01-01");
}

/// Method table: `server/discover`.
#[tokio::test]
async fn an_envelope_that_is_not_whole_is_refused_by_name() {
    let world = world().await;
    let modern = world.proxy.modern();
    for (key, value) in [
        ("clientCapabilities", Value::Null),
        ("clientCapabilities", json!([])),
        ("logLevel", json!("loud")),
        ("clientInfo", json!("me")),
    ] {
        let mut meta = modern.meta();
        let key = format!("io.modelcontextprotocol/{key}");
        if value.is_null() {
            meta.as_object_mut().unwrap().remove(&key);
        } else {
            meta[&key] = value;
        }
        let body = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/list", "params": { "_meta": meta } });
        let answer = modern.post(&body.to_string()).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{key}");
        assert!(answer.message().contains(&key), "{answer:?}");
        assert_eq!(answer.response()["id"], "x");
    }
}
