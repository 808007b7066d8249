//! Backends that speak HTTP+SSE, the transport of 2024-11-05.

use serde_json::json;

use crate::support::backend::spoken;
use crate::support::sse_backend::SseBackend;
use crate::support::{Setup, TestProxy, eventually};

async fn fronting(backend: &SseBackend, keys: &str) -> TestProxy {
    let keys = format!("transport: sse{}{keys}", if keys.is_empty() { "" } else { ", " });
    Setup::new().backend_at("old", &backend.url(), &keys).start().await
}

#[tokio::test]
async fn calls_are_posted_to_where_the_stream_says_and_answered_on_it() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "headers: { X-Key: k }").await;

    let answer = proxy.client().await.call("old__echo").await;

    assert_eq!(answer.result(), spoken("echo"));
    let calls = backend.posted("tools/call");
    assert_eq!(calls.len(), 1);
    assert!(calls[0].uri.starts_with("/v1/messages/?session="), "{calls:?}");
    assert_eq!(calls[0].headers["x-key"], "k");
    assert!(!calls[0].headers.contains_key("mcp-session-id"), "{calls:?}");
}

#[tokio::test]
async fn each_session_has_a_stream_of_its_own_which_ends_with_it() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "").await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    alice.call("old__echo").await.result();
    bob.call("old__echo").await.result();
    let calls = backend.posted("tools/call");
    assert_ne!(calls[0].uri, calls[1].uri);
    // The probe's is closed by itself.
    backend.until(|backend| backend.streams() == 3).await;

    alice.delete().await;

    backend.until(|backend| backend.streams() == 2).await;
    bob.call("old__echo").await.result();
}

#[tokio::test]
async fn a_session_that_the_backend_lost_is_opened_again() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "").await;
    let client = proxy.client().await;
    client.call("old__echo").await.result();

    backend.forget_sessions();

    eventually(async || client.call("old__echo").await.response().get("result").is_some()).await;
}

#[tokio::test]
async fn a_stream_that_ends_fails_the_calls_that_wait_for_it() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "").await;
    let client = proxy.client().await;
    let params = json!({ "name": "old__echo", "arguments": { "hold": true } });
    let held = client.start_post(&client.message("tools/call", &params));
    backend.until(|backend| !backend.posted("tools/call").is_empty()).await;

    backend.forget_sessions();

    assert_eq!(held.await.unwrap().code(), 502);
}

#[tokio::test]
async fn an_event_that_is_too_long_ends_the_stream_and_says_so() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "").await;
    let client = proxy.client().await;
    let params = json!({ "name": "old__echo", "arguments": { "hold": true } });
    let held = client.start_post(&client.message("tools/call", &params));
    backend.until(|backend| !backend.posted("tools/call").is_empty()).await;

    backend.say(&json!({ "jsonrpc": "2.0", "method": "x", "params": { "x": "x".repeat(17 << 20) } })).await;

    let answer = held.await.unwrap();
    assert_eq!(answer.code(), 502);
    let most = "an event of its stream is longer than 16777216 bytes, the most that the gateway takes";
    assert!(answer.message().contains(most), "{}", answer.message());
    assert!(proxy.metric("toolgate_caps_reached_total{cap=\"event\"}").await >= Some(1.0));
}

#[tokio::test]
async fn what_belongs_to_a_call_comes_on_its_stream() {
    let backend = SseBackend::start().await;
    let proxy = fronting(&backend, "").await;
    let client = proxy.client().await;
    let params = json!({ "name": "old__echo", "arguments": { "hold": true }, "_meta": { "progressToken": "mine" } });
    let held = client.start_post(&client.message("tools/call", &params));
    backend.until(|backend| !backend.posted("tools/call").is_empty()).await;
    let call = backend.posted("tools/call").remove(0).message;

    let token = &call["params"]["_meta"]["progressToken"];
    let progress = |token| {
        let params = json!({ "progressToken": token, "progress": 1 });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    };
    backend.say(&progress(token)).await;
    backend.say(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": spoken("echo") })).await;

    let messages = held.await.unwrap().messages();
    assert_eq!(messages[0], progress(&json!("mine")));
    assert_eq!(messages[1]["result"], spoken("echo"));
}

#[tokio::test]
async fn a_backend_that_tells_to_post_to_another_server_is_refused() {
    for endpoint in [
        "event: endpoint\ndata: http://127.0.0.1:1/messages/?session=SESSION\n\n",
        "event: endpoint\ndata: https://HERE/messages/?session=SESSION\n\n",
        "event: endpoint\ndata: //evil.example/messages\n\n",
    ] {
        let backend = SseBackend::telling(endpoint).await;
        let proxy = fronting(&backend, "").await;
        let page = async || String::from_utf8_lossy(&proxy.page("/backends").await.body).into_owned();

        eventually(async || page().await.contains("is not on the same server")).await;

        assert!(backend.posted("initialize").is_empty(), "{endpoint}");
    }
}

#[tokio::test]
async fn a_backend_whose_stream_begins_otherwise_is_refused() {
    let backend = SseBackend::telling("data: {}\n\n").await;
    let proxy = fronting(&backend, "").await;
    let page = async || String::from_utf8_lossy(&proxy.page("/backends").await.body).into_owned();

    eventually(async || page().await.contains("does not begin with `endpoint`")).await;
}
