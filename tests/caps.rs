//! What there is only so much of: each is refused clearly, counted, and there again when something was given back.

use http::Method;
use serde_json::{Value, json};

use crate::support::proxy::VERSION;
use crate::support::stdio::{running, text};
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, eventually};

/// How often a cap was reached.
async fn reached(proxy: &TestProxy, cap: &str) -> f64 {
    proxy.metric(&format!("toolgate_caps_reached_total{{cap=\"{cap}\"}}")).await.unwrap_or(0.0)
}

fn sampling(id: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "sampling/createMessage", "params": {} })
}

/// Cap: calls under way of one session.
#[tokio::test]
async fn calls_beyond_256_of_one_session_are_refused_and_other_sessions_have_their_own() {
    let old = FakeBackend::with_held_tool("old", "ask").await;
    let new = FakeModern::with_held_tool("new", "ask").await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    let (client, other) = (proxy.client().await, proxy.client().await);
    let mut running: Vec<_> = (0..255).map(|_| client.start_call("old__ask")).collect();
    old.until(|old| old.calls().len() == 255).await;
    running.push(client.start_call("new__ask"));
    new.until(|new| new.calls().len() == 1).await;

    for tool in ["old__ask", "new__ask"] {
        let refused = client.call(tool).await;
        assert_eq!((refused.status, refused.code()), (200, 429));
        assert!(refused.message().contains("256 calls under way"), "{refused:?}");
    }
    assert_eq!(reached(&proxy, "calls").await, 2.0);
    running.push(other.start_call("old__ask"));
    old.until(|old| old.calls().len() == 256).await;
    running.swap_remove(0).abort();

    // A place is there again when the one that left is gone.
    eventually(async || {
        running.push(client.start_call("old__ask"));
        old.calls().len() > 256
    })
    .await;
}

/// Cap: event streams of one session.
#[tokio::test]
async fn streams_beyond_16_of_one_session_are_refused_and_other_sessions_have_their_own() {
    let backend = FakeBackend::named("a").tool("x").held("ask").streams().resumable().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, other) = (proxy.client().await, proxy.client().await);
    client.call("a__x").await.result();
    let (resumed, rest) = tokio::join!(client.resume("c/a/1"), async { backend.next_call().await.stream() });
    let mut streams = Vec::new();
    for _ in 0..15 {
        streams.push(client.listen().await);
    }

    let refused = client.send(client.request(Method::GET, "")).await;
    assert_eq!((refused.status, refused.code()), (429, 429));
    assert!(refused.message().contains("16"), "{refused:?}");
    assert_eq!(client.resume("c/a/1").await.status, 429);
    assert_eq!(reached(&proxy, "streams").await, 2.0);
    let theirs = other.listen().await;
    drop((resumed, rest, theirs));

    eventually(async || client.open(client.request(Method::GET, "")).await.status == 200).await;
}

/// Cap: client sessions that something is held for.
#[tokio::test]
async fn sessions_beyond_the_most_are_refused_while_all_are_busy() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ max: 1 }").start().await;
    let client = proxy.client().await;
    let other = proxy.client().await;
    let (running, call) = client.pending_call("a__ask", &backend).await;

    let refused = other.list_answer().await;
    let not_begun = proxy.stranger().initialize(VERSION).await;
    for refused in [&refused, &not_begun] {
        assert_eq!((refused.status, refused.header("retry-after"), refused.code()), (503, "1", 503));
        assert!(refused.message().contains("sessions.max"), "{refused:?}");
    }
    assert!(!not_begun.headers.contains_key("mcp-session-id"), "{not_begun:?}");
    assert_eq!(reached(&proxy, "sessions").await, 2.0);
    for method in ["tools/list", "initialize"] {
        let refused = format!("{{era=\"legacy\",method=\"{method}\",outcome=\"limited\"}}");
        assert_eq!(proxy.metric(&format!("toolgate_requests_total{refused}")).await, Some(1.0));
    }
    call.finish();
    running.await.unwrap().result();

    eventually(async || other.list_answer().await.status == 200).await;
    // The one that is held is idle, and gives way.
    assert_eq!(proxy.stranger().initialize(VERSION).await.status, 200);
    // Modern clients have no sessions that could be too many.
    proxy.modern().ask("tools/list", json!({})).await.result();
}

fn resources(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("a:{n}")).collect()
}

/// Cap: resources of one session or stream.
#[tokio::test]
async fn subscriptions_beyond_1024_are_refused_in_both_eras() {
    let uris = resources(1025);
    let mut backend = FakeModern::named("a").tool("x");
    for uri in &uris {
        backend = backend.resource(&json!({ "uri": uri, "name": "r" }).to_string());
    }
    let backend = backend.start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;
    let subscribe = async |uri: &str| client.ask("resources/subscribe", json!({ "uri": uri })).await;
    for uri in &uris[..1024] {
        assert_eq!(subscribe(uri).await.result(), json!({}));
    }

    let refused = subscribe(&uris[1024]).await;
    assert_eq!((refused.status, refused.code()), (200, 429));
    assert!(refused.message().contains("1024"), "{refused:?}");
    // One more of the same is none more.
    assert_eq!(subscribe(&uris[7]).await.result(), json!({}));
    client.ask("resources/unsubscribe", json!({ "uri": uris[7] })).await.result();
    assert_eq!(subscribe(&uris[1024]).await.result(), json!({}));

    let modern = proxy.modern();
    let (_stream, honoured) = modern.listen(json!({ "resourceSubscriptions": uris[..1024] })).await;
    assert_eq!(honoured["resourceSubscriptions"].as_array().unwrap().len(), 1024);
    let refused =
        modern.ask("subscriptions/listen", json!({ "notifications": { "resourceSubscriptions": uris } })).await;
    assert_eq!(refused.code(), 429);
    assert_eq!(reached(&proxy, "subscriptions").await, 2.0);
}

/// Cap: bytes of one event that is held back to be looked at.
#[tokio::test]
async fn an_event_that_is_no_answer_and_longer_than_4_mb_ends_the_stream_in_both_eras() {
    let old = FakeBackend::with_held_tool("old", "ask").await;
    let new = FakeModern::with_held_tool("new", "ask").await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    let big = json!({ "jsonrpc": "2.0", "method": "x", "params": { "x": "x".repeat(5 << 20) } });

    let legacy = proxy.client().await.start_call("old__ask");
    old.next_call().await.stream().event(&big).await;
    let modern = proxy.modern().start_call("new__ask");
    new.next_call().await.stream().event(&big).await;

    for running in [legacy, modern] {
        let answer = running.await.unwrap();
        assert_eq!(answer.code(), 502);
        let most = "an event of its answer is longer than 4194304 bytes, the most that the gateway takes";
        assert!(answer.message().contains(most), "{}", answer.message());
    }
    assert_eq!(reached(&proxy, "event").await, 2.0);
}

/// Cap: calls that wait for input; questions that one client has yet to answer.
#[tokio::test]
async fn parked_calls_and_open_questions_are_counted_where_they_are_too_many() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).section("bridge", "{ parked: 0 }").start().await;
    proxy.until_tools(&backend, 1).await;
    let running = proxy.askable().start_call("a__ask");
    let stream = backend.next_call().await.stream();
    stream.event(&sampling(1)).await;
    backend.until(|backend| backend.responses().len() == 1).await;
    assert_eq!(backend.responses()[0]["error"]["code"], 503);
    stream.finish().await;
    running.await.unwrap().result();
    assert_eq!(reached(&proxy, "parked").await, 1.0);

    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    for id in 0..65 {
        stream.event(&sampling(id)).await;
        opened.message().await.unwrap();
    }
    backend.until(|backend| backend.responses().len() == 2).await;
    let put_off = backend.responses()[1].clone();
    assert_eq!((&put_off["id"], &put_off["error"]["code"]), (&json!(0), &json!(429)));
    assert!(put_off["error"]["message"].as_str().unwrap().contains("64 questions"), "{put_off}");
    assert_eq!(reached(&proxy, "questions").await, 1.0);
    proxy.until_metric("toolgate_questions", 64.0).await;
    stream.finish().await;
    proxy.until_metric("toolgate_questions", 0.0).await;
}

/// Cap: requests under way to one backend.
#[tokio::test]
async fn requests_beyond_max_inflight_are_counted_in_both_eras() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "max_inflight: 1").start().await;
    let client = proxy.client().await;
    assert_eq!(reached(&proxy, "inflight").await, 0.0);
    let (running, call) = client.pending_call("a__ask", &backend).await;

    for refused in [client.call("a__ask").await, proxy.modern().call("a__ask").await] {
        assert_eq!(refused.code(), 503);
        assert!(refused.message().contains("`max_inflight`"), "{refused:?}");
    }

    assert_eq!(reached(&proxy, "inflight").await, 2.0);
    call.finish();
    running.await.unwrap().result();
}

/// Cap: bytes of one request.
#[tokio::test]
async fn bodies_beyond_max_body_are_counted_and_name_it() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("max_body: 64KiB").start().await;
    let client = proxy.client().await;
    assert_eq!(reached(&proxy, "body").await, 0.0);

    let refused = client.call_with("a__echo", json!({ "pad": "x".repeat(64 << 10) })).await;

    assert_eq!(refused.status, 413);
    assert!(refused.message().contains("65536 bytes, the most that `max_body` allows"), "{refused:?}");
    assert_eq!(reached(&proxy, "body").await, 1.0);
}

/// Cap: processes of one backend.
#[tokio::test]
async fn processes_beyond_max_instances_are_counted() {
    // One is the gateway's own, which lists the tools; a probe has another for a moment.
    let proxy = running(&[], "max_instances: 2").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    eventually(async || alice.call("a__pid").await.response().get("result").is_some()).await;
    let before = reached(&proxy, "instances").await;

    let refused = bob.call("a__pid").await;

    assert_eq!(refused.code(), 503);
    assert!(refused.message().contains("as many processes as `max_instances` allows (2)"), "{refused:?}");
    assert_eq!(reached(&proxy, "instances").await, before + 1.0);
}

/// Cap: bytes of one message of a process.
#[tokio::test]
async fn messages_beyond_max_line_are_counted_once_however_many_calls_end_with_them() {
    let proxy = running(&[], "instances: shared, max_line: 64KiB").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    assert_eq!(text(&alice.call_with("a__long", json!({ "bytes": 60_000 })).await).len(), 60_000);
    assert_eq!(reached(&proxy, "line").await, 0.0);
    let waiting = bob.start_call("a__hold");
    eventually(async || alice.read_by_process().await.iter().any(|m| m["params"]["name"] == "hold")).await;

    let refused = alice.call_with("a__long", json!({ "bytes": 200_000 })).await;

    assert!(refused.message().contains("`max_line`"), "{refused:?}");
    assert_eq!(waiting.await.unwrap().code(), 502);
    assert_eq!(reached(&proxy, "line").await, 1.0);
}
