//! Calls that the gateway makes by itself, to see whether a backend's tools work.

use serde_json::{Value, json};

use crate::support::stdio::running;
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, eventually};

const QUICK: &str = "interval: 100ms";

fn calls(result: &str) -> String {
    format!("toolgate_synthetic_calls_total{{backend=\"a\",result=\"{result}\"}}")
}

async fn until(proxy: &TestProxy, result: &str) {
    eventually(async || proxy.metric(&calls(result)).await.is_some_and(|count| count > 0.0)).await;
}

async fn last(proxy: &TestProxy) -> Value {
    proxy.page("/backends").await.json()["backends"][0]["synthetic"].clone()
}

#[tokio::test]
async fn a_tool_is_called_now_and_then_and_not_counted_as_a_clients() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let keys = format!("synthetic: {{ tool: x, arguments: {{ q: 'a b', n: [1, true, null] }}, expect: x, {QUICK} }}");
    let proxy = Setup::new().backend(&backend, &keys).start().await;

    eventually(async || proxy.metric(&calls("ok")).await.is_some_and(|count| count >= 2.0)).await;

    let seen = backend.by_gateway("tools/call");
    assert_eq!(seen[0].json()["params"], json!({ "name": "x", "arguments": { "q": "a b", "n": [1, true, null] } }));
    assert_eq!(last(&proxy).await["result"], "ok");
    let text = String::from_utf8(proxy.page("/metrics").await.body.to_vec()).unwrap();
    assert!(!text.contains("toolgate_tool_calls_total{backend=\"a\""), "{text}");
    assert!(!text.contains("toolgate_requests_total{"), "{text}");
    assert!(text.contains("toolgate_synthetic_call_duration_seconds_count{backend=\"a\"}"));
    // Each had a session of its own, which is over; one is the listing's.
    eventually(async || backend.gateway_sessions() <= 2).await;
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let read =
        |hints: &str| format!("{{\"name\":\"x\",\"inputSchema\":{{\"type\":\"object\"}},\"annotations\":{{{hints}}}}}");
    for (definition, keys, result, why) in [
        (read(""), "tool: x, expect: sunny", "unexpected", "its text is not what is expected"),
        (read(""), "tool: nosuch", "not_listed", "the backend does not list it"),
        (read("\"readOnlyHint\":false"), "tool: x", "not_read_only", "it says of itself that it is not read-only"),
        (read("\"destructiveHint\": true"), "tool: x", "not_read_only", "it says of itself that it is not read-only"),
    ] {
        let backend = FakeBackend::named("a").defined("x", &definition).start().await;
        let proxy = Setup::new().backend(&backend, &format!("synthetic: {{ {keys}, {QUICK} }}")).start().await;

        until(&proxy, result).await;

        let last = last(&proxy).await;
        assert_eq!((&last["result"], &last["why"]), (&json!(result), &json!(why)), "{keys}");
        assert_eq!(backend.by_gateway("tools/call").is_empty(), result != "unexpected", "{keys}");
        proxy.until_state(&backend, "healthy").await;
    }
}

#[tokio::test]
async fn one_that_fails_or_hangs_is_told_and_the_next_is_made() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let keys = format!("timeout: {{ first_byte: 1s }}, synthetic: {{ tool: x, timeout: 200ms, {QUICK} }}");
    let proxy = Setup::new().backend(&backend, &keys).start().await;

    backend.next_call().await.error(&json!({ "code": -32603, "message": "no" }));
    until(&proxy, "rpc_error").await;
    backend.next_call().await.result(&json!({ "content": [], "isError": true }));
    until(&proxy, "tool_error").await;
    let hanging = backend.next_call().await;
    until(&proxy, "timeout").await;
    backend.next_call().await.result(&json!({ "content": [] }));
    until(&proxy, "ok").await;

    drop(hanging);
    proxy.until_state(&backend, "healthy").await;
}

#[tokio::test]
async fn modern_backends_get_the_headers_that_they_insist_on() {
    let definition = r#"{"name":"x","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}"#;
    let backend = FakeModern::named("a").defined("x", definition).start().await;
    let keys = format!("synthetic: {{ tool: x, arguments: {{ region: eu }}, {QUICK} }}");
    let proxy = Setup::new().backend(&backend, &keys).start().await;

    until(&proxy, "ok").await;
}

#[tokio::test]
async fn a_command_is_called_over_the_process_that_runs() {
    let proxy = running(&[], &format!("max_instances: 1, synthetic: {{ tool: pid, {QUICK} }}")).start().await;

    eventually(async || proxy.metric(&calls("ok")).await.is_some_and(|count| count >= 2.0)).await;
}

#[tokio::test]
async fn a_reload_ends_it_and_its_series() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let keys = format!("synthetic: {{ tool: x, {QUICK} }}");
    let proxy = Setup::new().backend(&backend, &keys).start().await;
    until(&proxy, "ok").await;

    proxy.apply(&Setup::new().backend(&backend, "")).await;

    eventually(async || last(&proxy).await.is_null()).await;
    let other = FakeBackend::with_tool("b", "y").await;
    proxy.apply(&Setup::fronting(&[&other])).await;
    eventually(async || proxy.metric(&calls("ok")).await.is_none()).await;
}
