//! The operator's pages, and the numbers on them.

use http::Method;
use serde_json::json;

use crate::support::backend::response;
use crate::support::proxy::page;
use crate::support::{FakeBackend, Mood, Setup, TestProxy, eventually, within};

/// How often calls of `a__x` ended like this.
fn calls(outcome: &str) -> String {
    format!("toolgate_tool_calls_total{{backend=\"a\",outcome=\"{outcome}\",tool=\"a__x\"}}")
}

#[tokio::test]
async fn every_page_is_there() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.client().await.call("a__x").await.result();
    proxy.until_state(&backend, "healthy").await;

    for (path, media_type) in [
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/config", "application/json"),
        ("/backends", "application/json"),
        ("/catalog", "application/json"),
        ("/drift", "application/json"),
    ] {
        let answer = proxy.page(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media_type), "{path}");
        let head = page(proxy.admin_address(), Method::HEAD, path).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(page(proxy.admin_address(), Method::POST, path).await.status, 405, "{path}");
    }
    let missing = proxy.page("/nothing").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["pages"].as_array().unwrap().contains(&json!("/metrics")), "{missing:?}");
    assert_eq!(proxy.page("/reload").await.header("allow"), "POST");
}

#[tokio::test]
async fn the_pages_tell_what_runs() {
    let a = FakeBackend::named("a").tool("x").tool("not ok").start().await;
    let (url, _port) = FakeBackend::dead();
    let proxy = Setup::fronting(&[&a]).backend_at("b", &url, "").start().await;
    let client = proxy.client().await;
    client.call("a__x").await.result();
    proxy.until_state(&a, "healthy").await;

    let backends = proxy.page("/backends").await.json()["backends"].clone();
    let catalog = proxy.page("/catalog").await.json();

    assert_eq!((&backends[0]["name"], &backends[0]["state"]), (&json!("a"), &json!("healthy")));
    assert_eq!((&backends[0]["sessions"], &backends[0]["listing"]["tools"]), (&json!(1), &json!(2)).clone());
    assert_eq!(backends[0]["protocolVersion"], "2025-11-25");
    let at = url.strip_prefix("http://").unwrap().strip_suffix("/mcp").unwrap();
    let refused = format!("cannot be reached at {at}: Connection refused (os error 111)");
    assert_eq!(backends[1]["lastError"]["what"], refused);
    assert_eq!(backends[1]["listing"]["failure"], format!("backend `b`: {refused}"));
    assert_eq!(backends[0]["lastError"], json!(null));
    assert_eq!(backends[1]["lastFailure"]["kind"], "connect");
    let names: Vec<_> = catalog["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(names, ["a__x"]);
    assert_eq!(catalog["backends"][0]["leftOut"][0]["tool"], "not ok");
    assert_eq!(catalog["backends"][1]["state"], "missing");
}

#[tokio::test]
async fn no_secret_is_shown_anywhere() {
    let backend = FakeBackend::named("a").tool("x").takes_header("authorization").start().await;
    let key = "Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=";
    let headers = "headers: { Authorization: \"Bearer s3cr3t\", X-Key: { value: s3cr3t-too } }";
    let sessions = format!("{{ keys: [{{ value: \"{key}\" }}] }}");
    let proxy = Setup::new().backend(&backend, headers).section("sessions", &sessions).start().await;
    let client = proxy.client().await;
    client.call("a__x").await.result();
    backend.set_mood(Mood::LoginPage(401));
    client.call("a__x").await.error();

    for path in ["/config", "/backends", "/catalog", "/metrics", "/readyz", "/nothing"] {
        let page = proxy.page(path).await;
        let text = String::from_utf8_lossy(&page.body);
        assert!(!text.contains("s3cr3t") && !text.contains(key), "{path}: {text}");
        assert!(!text.contains(client.session.as_deref().unwrap()), "{path}");
    }
    let config = proxy.page("/config").await.json();
    assert_eq!(config["backends"][0]["headers"]["authorization"], "***", "{config}");
    assert_eq!(config["backends"][0]["url"], backend.url());
}

#[tokio::test]
async fn a_gateway_without_a_file_has_none_to_read_again() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    let answer = page(proxy.admin_address(), Method::POST, "/reload").await;

    assert_eq!((answer.status, &answer.json()["outcome"]), (409, &json!("rejected")));
}

#[tokio::test]
async fn the_operators_listener_speaks_no_mcp() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    assert_eq!(page(proxy.admin_address(), Method::POST, "/mcp").await.status, 405);
    assert_eq!(page(proxy.admin_address(), Method::GET, "/mcp").await.status, 404);
}

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::new().backend(&backend, "timeout: { first_byte: 1s }").start().await;
    let client = proxy.client().await;
    let json = "application/json";

    for (status, media_type, body, outcome) in [
        (200, json, r#""result":{"content":[]}"#, "ok"),
        (200, json, r#""result":{"content":[],"isError":true}"#, "tool_error"),
        (
            200,
            json,
            r#""result":{"content":[{"isError":true}],"isError":false,"structuredContent":{"isError":true}}"#,
            "ok",
        ),
        (200, json, r#""error":{"code":-32603,"message":"no"}"#, "rpc_error"),
        (400, json, r#""error":{"code":-32602,"message":"no"}"#, "rpc_error"),
        (500, json, r#""error":{"code":-32603,"message":"no"}"#, "rpc_error"),
        (500, json, r#""result":{"content":[]}"#, "upstream_error"),
        (200, "text/html", "", "upstream_error"),
    ] {
        let before = proxy.metric(&calls(outcome)).await.unwrap_or(0.0);
        let (running, call) = client.pending_call("a__x", &backend).await;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},{body}}}"#, call.id());
        call.respond(status, media_type, body);
        within(running).await.unwrap();
        proxy.until_metric(&calls(outcome), before + 1.0).await;
    }
    let (running, _call) = client.pending_call("a__x", &backend).await;
    within(running).await.unwrap();
    proxy.until_metric(&calls("timeout"), 1.0).await;
}

#[tokio::test]
async fn streamed_calls_are_counted_by_how_they_ended() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    let (opened, stream) = client.open_stream("a__x", &backend).await;
    let failed = response(&stream.id, &json!({ "content": [], "isError": true }));
    stream.send(format!("data: {failed}\n\n")).await;
    drop(stream);
    opened.whole().await;
    proxy.until_metric(&calls("tool_error"), 1.0).await;
    let (opened, stream) = client.open_stream("a__x", &backend).await;
    drop(stream);
    opened.whole().await;
    proxy.until_metric(&calls("upstream_error"), 1.0).await;
    let (opened, stream) = client.open_stream("a__x", &backend).await;
    drop(opened);
    within(stream.disconnected()).await;
    proxy.until_metric(&calls("client_closed"), 1.0).await;
    let (running, call) = client.pending_call("a__x", &backend).await;
    running.abort();
    within(call.disconnected()).await;
    proxy.until_metric(&calls("client_closed"), 2.0).await;

    assert_eq!(proxy.metric(&calls("ok")).await, None);
}

#[tokio::test]
async fn a_client_that_leaves_after_its_answer_left_nothing_unfinished() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__x", &backend).await;
    let answer = format!("data: {}\n\n", stream.response());

    stream.send(answer).await;
    opened.message().await.unwrap();
    drop(opened);

    within(stream.disconnected()).await;
    proxy.until_metric(&calls("ok"), 1.0).await;
    assert_eq!(proxy.metric(&calls("client_closed")).await, None);
}

#[tokio::test]
async fn messages_are_counted_by_method_and_unknown_ones_together() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.list().await;
    for method in ["made/up", "another/one"] {
        client.ask(method, json!({})).await;
    }
    client.call("a__made_up").await;

    let requests = |method: &str, outcome: &str| {
        format!("toolgate_requests_total{{era=\"legacy\",method=\"{method}\",outcome=\"{outcome}\"}}")
    };
    proxy.until_metric(&requests("initialize", "ok"), 1.0).await;
    proxy.until_metric(&requests("tools/list", "ok"), 1.0).await;
    proxy.until_metric(&requests("_OTHER", "rpc_error"), 2.0).await;
    proxy.until_metric(&requests("tools/call", "rpc_error"), 1.0).await;
    let metrics = proxy.page("/metrics").await;
    assert!(!String::from_utf8_lossy(&metrics.body).contains("made"));
}

#[tokio::test]
async fn what_is_open_is_counted_until_it_closes() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let connections = format!("toolgate_connections{{listener=\"{}\"}}", proxy.address());
    let (first, second) = (proxy.client().await, proxy.client().await);
    first.call("a__x").await.result();

    let streams = (first.listen().await, second.listen().await);
    proxy.until_metric(&connections, 2.0).await;
    proxy.until_metric("toolgate_streams{kind=\"client\"}", 2.0).await;
    assert_eq!(proxy.metric("toolgate_sessions").await, Some(2.0));
    assert_eq!(proxy.metric("toolgate_backend_sessions{backend=\"a\"}").await, Some(1.0));
    drop(streams);
    first.delete().await;
    second.delete().await;

    proxy.until_metric(&connections, 0.0).await;
    proxy.until_metric("toolgate_streams{kind=\"client\"}", 0.0).await;
    proxy.until_metric("toolgate_backend_sessions{backend=\"a\"}", 0.0).await;
    eventually(async || proxy.metric("toolgate_sessions").await == Some(0.0)).await;
}
