//! Which eras a backend is found to speak, and what is made of that.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::{FakeBackend, FakeModern, Mood, Server, Setup, TestProxy, eventually, never_within};

/// Listed again this often.
const QUICK: &str = "{ refresh: 600ms, stale_for: 1h, timeout: 2s }";
/// Probes that find things out within the patience of a test.
const PROBING: &str = "{ interval: 200ms, timeout: 200ms, rise: 1, fall: 3, max_backoff: 400ms }";
const JSON: &str = "application/json";

/// What the operator is told of the first backend.
async fn first(proxy: &TestProxy) -> Value {
    proxy.page("/backends").await.json()["backends"][0].clone()
}

async fn listed(proxy: &TestProxy, name: &str) {
    let series = format!("toolgate_catalog_refreshes_total{{backend=\"{name}\",result=\"ok\"}}");
    eventually(async || proxy.metric(&series).await.is_some()).await;
}

fn error(code: &str, data: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":$ID,"error":{{"code":{code},"message":"no"{data}}}}}"#)
}

fn discovered(versions: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":$ID,"result":{{"supportedVersions":{versions},"capabilities":{{"tools":{{}}}}}}}}"#
    )
}

#[tokio::test]
async fn what_is_not_modern_is_legacy() {
    let legacy_only = r#","data":{"supported":["2025-11-25"],"requested":"2026-07-28"}"#;
    for (status, media_type, body) in [
        // TypeScript's first SDK; Python's, with sessions and without.
        (400, JSON, r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#.to_owned()),
        (400, JSON, r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#.to_owned()),
        (400, JSON, error("-32600", "")),
        // Go's with sessions, before and after it knew how to say so.
        (200, JSON, discovered(r#"["2025-11-25","2025-06-18"]"#)),
        (400, JSON, error("-32022", legacy_only)),
        // Everything else that was seen in the wild.
        (200, JSON, error("-32601", "")),
        (404, JSON, error("-32601", "")),
        (200, JSON, error("-32700", "")),
        (200, JSON, r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#.to_owned()),
        (400, JSON, error("\"invalid\"", "")),
        (400, JSON, error("-32022", "")),
        (400, JSON, "{}".to_owned()),
        (400, "text/plain", "Bad Request".to_owned()),
        (404, "text/plain", "404 page not found".to_owned()),
        (405, "text/plain", String::new()),
        (200, "text/html", "<html></html>".to_owned()),
        (202, "text/plain", String::new()),
        (200, JSON, r#"{"jsonrpc":"2.0","id":$ID,"result":{}}"#.to_owned()),
        (200, JSON, discovered("[]")),
        (200, JSON, discovered(r#"["2099-01-01"]"#)),
        (200, "text/event-stream", format!("data: {}\n\n", error("-32601", ""))),
    ] {
        let backend = FakeBackend::named("a").tool("x").discovered(status, media_type, &body).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;

        listed(&proxy, "a").await;

        let shown = first(&proxy).await;
        assert_eq!((&shown["eras"], &shown["versions"]), (&json!(["legacy"]), &json!(["2025-11-25"])), "{status} {body}");
        let info = "toolgate_backend_info{backend=\"a\",era=\"legacy\",version=\"2025-11-25\"}";
        assert_eq!(proxy.metric(info).await, Some(1.0));
    }
}

#[tokio::test]
async fn what_lists_the_modern_version_is_modern() {
    let all = r#"["2024-11-05","2025-11-25","2026-07-28"]"#;
    let supported = r#","data":{"supported":["2026-07-28"],"requested":"x"}"#;
    for (status, body, eras) in [
        (200, discovered(r#"["2026-07-28"]"#), json!(["modern"])),
        (200, discovered(all), json!(["legacy", "modern"])),
        (400, error("-32022", supported), json!(["modern"])),
    ] {
        // Of modern it knows how to be found only.
        let backend = FakeBackend::named("a").tool("x").discovered(status, JSON, &body).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;

        eventually(async || first(&proxy).await["eras"] == eras).await;

        eventually(async || backend.gateway_sessions() == 0).await;
        drop(backend.take_faults());
    }
}

#[tokio::test]
async fn what_says_nothing_about_the_era_is_an_error() {
    for (status, body) in [
        (401, String::new()),
        (403, String::new()),
        (500, String::new()),
        (503, error("-32601", "")),
        (404, error("-32001", "")),
        (400, error("-32020", "")),
        (400, error("-32021", "")),
        (302, String::new()),
    ] {
        let backend = FakeBackend::named("a").tool("x").discovered(status, JSON, &body).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;
        let failed = "toolgate_catalog_refreshes_total{backend=\"a\",result=\"failed\"}";

        eventually(async || proxy.metric(failed).await.is_some()).await;

        let shown = first(&proxy).await;
        assert_eq!(shown["eras"], Value::Null, "{status} {body}");
        assert!(shown["listing"]["failure"].is_string(), "{shown}");
        assert!(backend.by_gateway("initialize").is_empty(), "{status} {body}");
    }
}

#[tokio::test]
async fn silence_says_nothing_either() {
    for mood in [Mood::Closing, Mood::Stalled] {
        let backend = FakeModern::named("a").tool("x").mood(mood).start().await;
        let setup = Setup::new().backend(&backend, "").section("catalog", "{ refresh: 600ms, timeout: 1s }");
        let proxy = setup.start().await;
        let failed = "toolgate_catalog_refreshes_total{backend=\"a\",result=\"failed\"}";
        eventually(async || proxy.metric(failed).await.is_some()).await;
        assert_eq!(first(&proxy).await["eras"], Value::Null, "{mood:?}");

        backend.set_mood(Mood::Well);

        eventually(async || first(&proxy).await["eras"] == json!(["modern"])).await;
    }
}

#[tokio::test]
async fn a_modern_server_is_asked_whether_it_speaks_legacy_too_when_a_legacy_client_calls() {
    let modern = FakeModern::with_tool("modern", "x").await;
    let both = FakeModern::named("both").tool("y").also_legacy().start().await;
    let proxy = Setup::new().backend(&modern, "").backend(&both, "").section("catalog", QUICK).start().await;
    let client = proxy.client().await;
    eventually(async || client.tools().await == ["modern__x", "both__y"]).await;
    let eras = async || {
        let backends = proxy.page("/backends").await.json()["backends"].clone();
        (backends[0]["eras"].clone(), backends[1]["eras"].clone(), backends[1]["versions"].clone())
    };
    assert_eq!(eras().await, (json!(["modern"]), json!(["modern"]), json!(["2026-07-28"])));
    assert!(both.by_clients("initialize").is_empty() && both.by_gateway("initialize").is_empty());

    for _ in 0..2 {
        client.call("modern__x").await.result();
        // Of the legacy era the fake knows the handshake only.
        client.call("both__y").await;
    }
    both.take_faults();

    assert_eq!(eras().await, (json!(["modern"]), json!(["legacy", "modern"]), json!(["2025-11-25", "2026-07-28"])));
    assert_eq!((both.by_clients("initialize").len(), modern.by_clients("initialize").len()), (1, 1));
    for (era, version) in [("legacy", "2025-11-25"), ("modern", "2026-07-28")] {
        let info = format!("toolgate_backend_info{{backend=\"both\",era=\"{era}\",version=\"{version}\"}}");
        assert_eq!(proxy.metric(&info).await, Some(1.0));
    }
    // It spoke both all the time.
    assert_eq!(proxy.metric("toolgate_backend_era_changes_total{backend=\"both\"}").await, Some(0.0));
}

#[tokio::test]
async fn what_a_backend_offers_in_the_modern_era_only_is_there_for_legacy_clients_too() {
    let both = FakeModern::named("both").resource(r#"{"uri":"both:1","name":"one"}"#);
    let both = both.also_legacy_declaring(json!({ "resources": {} })).start().await;
    let proxy = Setup::new().backend(&both, "").start().await;
    listed(&proxy, "both").await;
    let client = proxy.client().await;
    let mut stream = client.listen().await;

    client.ask("resources/subscribe", json!({ "uri": "both:1" })).await.result();
    both.until(|both| both.heard().contains(&json!({ "resourceSubscriptions": ["both:1"] }))).await;
    both.announce_update("both:1").await;
    let reference = json!({ "type": "ref/resource", "uri": "both:1" });
    let argument = json!({ "name": "x", "value": "y" });
    let completed = client.ask("completion/complete", json!({ "ref": reference, "argument": argument })).await;
    let told = stream.message().await.unwrap();
    client.ask("resources/unsubscribe", json!({ "uri": "both:1" })).await.result();

    assert_eq!(completed.result()["completion"]["values"], json!(["done"]));
    assert_eq!(told["method"], "notifications/resources/updated");
    both.until(|both| !both.heard().contains(&json!({ "resourceSubscriptions": ["both:1"] }))).await;
    // Its sessions have no stream of their own.
    assert!(both.take_faults().iter().all(|fault| fault.contains("verb: GET")));
}

#[tokio::test]
async fn a_server_that_lists_legacy_versions_is_not_asked() {
    let backend = FakeModern::named("a").tool("x").supports(&["2025-06-18", "2026-07-28"]).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;

    listed(&proxy, "a").await;

    assert_eq!(first(&proxy).await["versions"], json!(["2025-06-18", "2026-07-28"]));
    assert!(backend.by_gateway("initialize").is_empty());
}

#[tokio::test]
async fn the_configuration_leaves_nothing_to_ask() {
    let legacy = FakeBackend::with_tool("legacy", "x").await;
    let modern = FakeModern::with_tool("modern", "y").await;
    let setup = Setup::new().backend(&legacy, "protocol: legacy").backend(&modern, "protocol: modern");
    let proxy = setup.section("health", PROBING).start().await;
    let client = proxy.client().await;
    eventually(async || client.tools().await == ["legacy__x", "modern__y"]).await;

    proxy.until_state(&legacy, "healthy").await;
    proxy.until_state(&modern, "healthy").await;

    assert!(legacy.by_gateway("server/discover").is_empty());
    assert!(modern.by_gateway("initialize").is_empty());
    let backends = proxy.page("/backends").await.json()["backends"].clone();
    assert_eq!((&backends[0]["eras"], &backends[1]["eras"]), (&json!(["legacy"]), &json!(["modern"])));
}

#[tokio::test]
async fn a_backend_that_refuses_the_configured_era_is_unhealthy_and_says_what_to_set() {
    let modern = FakeModern::with_tool("a", "x").await;
    let mut cases = vec![(modern.url(), "legacy", "modern")];
    let mut legacy = Vec::new();
    for (status, body) in
        [(200, error("-32601", "")), (404, error("-32601", "")), (404, error("-32001", "")), (405, String::new())]
    {
        legacy.push(FakeBackend::named("a").tool("x").discovered(status, JSON, &body).start().await);
    }
    cases.extend(legacy.iter().map(|backend| (backend.url(), "modern", "legacy")));
    for (url, protocol, other) in cases {
        let setup = Setup::new().backend_at("a", &url, &format!("protocol: {protocol}"));
        let setup = setup.section("catalog", QUICK).section("health", PROBING);
        let proxy = setup.start().await;

        eventually(async || first(&proxy).await["state"] == "unhealthy").await;

        let text = first(&proxy).await["listing"]["failure"].to_string();
        assert!(text.contains(&format!("set `protocol: auto` or `{other}`")), "{text}");
        for from in ["unknown", "degraded", "unhealthy"] {
            let healed = format!("toolgate_backend_transitions_total{{backend=\"a\",from=\"{from}\",to=\"healthy\"}}");
            assert_eq!(proxy.metric(&healed).await, None, "{protocol} {text}");
        }
    }
    modern.take_faults();
}

#[tokio::test]
async fn a_backend_that_learns_the_modern_era_is_found_out() {
    let modern = FakeModern::named("a").tool("x").supports(&["2025-11-25"]).also_legacy().start().await;
    // As long as it hides what it is, its legacy half is too little to be listed, which keeps it in doubt.
    let proxy = Setup::new().backend(&modern, "").section("catalog", QUICK).start().await;
    let client = proxy.client().await;
    eventually(async || first(&proxy).await["eras"] == json!(["legacy"])).await;

    modern.take_faults();
    modern.set_supported(&["2026-07-28"]);

    eventually(async || client.tools().await == ["a__x"]).await;
    assert_eq!(first(&proxy).await["eras"], json!(["modern"]));
    // Of the legacy era the fake knows the handshake only; that it still does is no further change.
    client.call("a__x").await;
    assert_eq!(first(&proxy).await["eras"], json!(["legacy", "modern"]));
    assert_eq!(proxy.metric("toolgate_backend_era_changes_total{backend=\"a\"}").await, Some(1.0));
    modern.take_faults();
}

#[tokio::test]
async fn it_takes_a_handshake_to_make_a_modern_backend_a_legacy_one() {
    let backend = FakeModern::named("a").tool("x").also_legacy().start().await;
    let proxy = Setup::new().backend(&backend, "").section("catalog", QUICK).start().await;
    eventually(async || first(&proxy).await["eras"] == json!(["modern"])).await;

    backend.set_mood(Mood::LoginPage(404));
    eventually(async || first(&proxy).await["listing"]["failure"].is_string()).await;
    assert_eq!(first(&proxy).await["eras"], json!(["modern"]));
    backend.set_mood(Mood::Well);
    backend.set_supported(&["2025-11-25"]);

    eventually(async || first(&proxy).await["eras"] == json!(["legacy"])).await;
    assert_eq!(proxy.metric("toolgate_backend_era_changes_total{backend=\"a\"}").await, Some(1.0));
    let gone = "toolgate_backend_info{backend=\"a\",era=\"modern\",version=\"2026-07-28\"}";
    assert_eq!(proxy.metric(gone).await, None);
    backend.take_faults();
}

#[tokio::test]
async fn a_session_outlives_the_era_that_it_was_opened_in() {
    let backend = FakeModern::named("a").tool("x").also_legacy().start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;
    // Opens the session; the fake does no more in it.
    client.call("a__x").await;
    assert_eq!(backend.legacy_sessions(), 1);

    backend.stop_legacy();

    let answer = client.call("a__x").await;
    assert_eq!(answer.result(), spoken("x"));
    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    backend.take_faults();
}

#[tokio::test]
async fn a_modern_server_is_probed_in_its_own_words() {
    let backend = FakeModern::with_tool("a", "x").await;
    let proxy = Setup::new().backend(&backend, "").section("health", PROBING).start().await;

    proxy.until_state(&backend, "healthy").await;
    backend.set_mood(Mood::Status(503));
    proxy.until_state(&backend, "unhealthy").await;
    backend.set_mood(Mood::LoginPage(401));
    eventually(async || first(&proxy).await["credentialsRefused"] == true).await;
    backend.set_mood(Mood::Well);
    proxy.until_state(&backend, "healthy").await;

    assert!(backend.by_gateway("initialize").is_empty());
    assert_eq!(backend.legacy_sessions(), 0);
}

#[tokio::test]
async fn a_server_without_tools_is_healthy() {
    let backend = FakeModern::named("a").declares(json!({ "prompts": {} })).start().await;
    let proxy = Setup::new().backend(&backend, "").section("health", PROBING).start().await;

    proxy.until_state(&backend, "healthy").await;
    never_within(Duration::from_millis(500), proxy.until_state(&backend, "unhealthy")).await;

    assert_eq!(backend.name(), "a");
}

#[tokio::test]
async fn what_a_backend_speaks_is_asked_for_once() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (legacy, modern) = (proxy.client().await, proxy.modern());
    for tools in 2..5 {
        proxy.until_tools(&backend, tools - 1).await;
        legacy.call("a__x").await.result();
        modern.call("a__x").await.result();
        backend.until(FakeBackend::is_heard).await;
        backend.add_tool(&format!("x{tools}"));
        backend.announce_change().await;
    }
    proxy.until_tools(&backend, 4).await;

    assert_eq!(backend.all("server/discover").len(), 1);
}

/// Of one that speaks both, the configuration says in which era: so a tool that asks in modern words works for legacy clients.
#[tokio::test]
async fn what_protocol_says_holds_for_clients_of_the_other_era_too() {
    let backend = FakeModern::named("a").tool("x").also_legacy().start().await;
    let proxy = Setup::new().backend(&backend, "protocol: modern").start().await;
    proxy.until_tools(&backend, 1).await;

    proxy.client().await.call("a__x").await.result();
    proxy.modern().call("a__x").await.result();

    let versions: Vec<_> = backend.calls().iter().map(|call| call.header_text("mcp-protocol-version")).collect();
    assert_eq!(versions, ["2026-07-28"; 2]);
    assert_eq!(backend.legacy_sessions(), 0);
}
