//! The clients' own streams (GET): what is told there, how often, and what keeps them open.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{FakeBackend, Mood, Setup, TestProxy, eventually, never_within, within};

/// Time for a notification that should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(1200);

fn changed() -> Option<Value> {
    Some(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }))
}

/// A backend that the gateway listens to.
async fn heard() -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    backend.until(FakeBackend::is_heard).await;
    (backend, proxy)
}

/// Complaint 5: `tools/list_changed` not propagated / stale catalogs.
#[tokio::test]
async fn a_change_is_told_once_after_the_list_has_changed() {
    let (backend, proxy) = heard().await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;

    backend.add_tool("new");
    backend.announce_change().await;
    backend.announce_change().await;
    let told = stream.message().await;

    assert_eq!(told, changed());
    assert_eq!(client.tools().await, ["a__x", "a__new"]);
    never_within(LONG_ENOUGH, stream.message()).await;
}

#[tokio::test]
async fn a_tool_that_its_backend_dropped_is_gone() {
    let (backend, proxy) = heard().await;
    let client = proxy.client().await;
    backend.add_tool("new");
    backend.announce_change().await;
    eventually(async || client.tools().await == ["a__x", "a__new"]).await;
    let mut stream = client.listen().await;

    backend.remove_tool("new");
    backend.announce_change().await;

    assert_eq!(stream.message().await, changed());
    assert_eq!(client.tools().await, ["a__x"]);
    assert_eq!(client.call("a__new").await.code(), -32602);
}

#[tokio::test]
async fn nothing_is_told_when_nothing_changed() {
    let (backend, proxy) = heard().await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;
    let before = backend.by_gateway("tools/list").len();

    backend.announce_change().await;
    backend.until(|backend| backend.by_gateway("tools/list").len() > before).await;

    never_within(LONG_ENOUGH, stream.message()).await;
}

#[tokio::test]
async fn a_change_announced_on_a_calls_stream_counts_too_and_stays_there() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;
    let (mut opened, call) = client.open_stream("a__x", &backend).await;

    backend.add_tool("new");
    call.event(&changed().unwrap()).await;
    let told = stream.message().await;
    call.finish().await;

    assert_eq!(told, changed());
    assert!(opened.message().await.unwrap()["result"].is_object());
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn of_a_sessions_streams_only_one_is_told() {
    let (backend, proxy) = heard().await;
    let (client, other) = (proxy.client().await, proxy.client().await);
    let (mut first, mut second) = (client.listen().await, client.listen().await);
    let mut others = other.listen().await;

    backend.add_tool("new");
    backend.announce_change().await;

    assert_eq!(others.message().await, changed());
    let told = tokio::select! {
        told = first.message() => told,
        told = second.message() => told,
    };
    assert_eq!(told, changed());
    never_within(LONG_ENOUGH, async {
        tokio::select! {
            _ = first.message() => {}
            _ = second.message() => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_while_nobody_listened_is_told_at_the_next_stream() {
    let (backend, proxy) = heard().await;
    let client = proxy.client().await;
    client.list().await;

    backend.add_tool("new");
    backend.announce_change().await;
    eventually(async || proxy.metric("toolgate_catalog_tools{backend=\"a\"}").await == Some(2.0)).await;
    let mut stream = client.listen().await;

    assert_eq!(stream.message().await, changed());
}

#[tokio::test]
async fn a_backend_that_goes_and_comes_is_a_change() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let catalog = "{ refresh: 600ms, stale_for: 0s }";
    let proxy = Setup::fronting(&[&backend]).section("catalog", catalog).start().await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;

    backend.set_mood(Mood::Status(500));
    let gone = stream.message().await;
    let without = client.tools().await;
    backend.set_mood(Mood::Well);
    let back = stream.message().await;

    assert_eq!((gone, back), (changed(), changed()));
    assert_eq!(without, [""; 0]);
    assert_eq!(client.tools().await, ["a__x"]);
}

#[tokio::test]
async fn a_stream_of_a_backend_that_ends_is_opened_again() {
    let (backend, proxy) = heard().await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;

    backend.end_streams();
    backend.until(|backend| !backend.is_heard()).await;
    backend.add_tool("new");

    assert_eq!(stream.message().await, changed());
    backend.until(FakeBackend::is_heard).await;
}

#[tokio::test]
async fn questions_on_a_backends_stream_are_answered() {
    let (backend, _proxy) = heard().await;

    backend.announce(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    backend.announce(&json!({ "jsonrpc": "2.0", "id": 2, "method": "roots/list" })).await;
    backend.announce(&json!({ "jsonrpc": "2.0", "id": 3, "method": "sampling/createMessage" })).await;
    backend.until(|backend| backend.responses().len() == 3).await;

    let answers = backend.responses();
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert_eq!(answers[1], json!({ "jsonrpc": "2.0", "id": 2, "result": { "roots": [] } }));
    assert_eq!((&answers[2]["id"], &answers[2]["error"]["code"]), (&json!(3), &json!(-32601)));
}

/// Complaint 14: SSE buffered or cut when idle; no keep-alive.
#[tokio::test]
async fn idle_streams_are_kept_open_with_comments() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).listener("keep_alive: 100ms").start().await;
    let client = proxy.client().await;
    let mut stream = client.listen().await;
    let (mut opened, call) = client.open_stream("a__x", &backend).await;

    for stream in [&mut stream, &mut opened] {
        assert_eq!(stream.header("content-type"), "text/event-stream");
        assert_eq!(stream.header("x-accel-buffering"), "no");
        assert_eq!(stream.header("cache-control"), "no-cache");
        for _ in 0..3 {
            assert!(within(stream.block()).await.unwrap().starts_with(':'));
        }
    }
    call.finish().await;

    assert!(opened.message().await.unwrap()["result"].is_object());
}

#[tokio::test]
async fn comments_to_the_client_do_not_hide_a_silent_backend() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::new().backend(&backend, "timeout: { idle: 600ms }").listener("keep_alive: 100ms");
    let proxy = setup.start().await;
    let (mut opened, call) = proxy.client().await.open_stream("a__x", &backend).await;

    let answer = opened.message().await.unwrap();

    assert_eq!(answer["error"]["code"], 504);
    within(call.disconnected()).await;
}

#[tokio::test]
async fn no_comment_comes_within_an_event() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).listener("keep_alive: 50ms").start().await;
    let (mut opened, call) = proxy.client().await.open_stream("a__x", &backend).await;
    let event = format!("data: {}\n\n", call.response());
    let (start, end) = event.split_at(event.len() - 5);

    call.send(start.to_owned()).await;
    // What has begun to pass is passed on; then it is quiet in the middle of an event.
    while !opened.chunk().await.unwrap().unwrap().starts_with(b"data: ") {}
    never_within(Duration::from_millis(300), opened.chunk()).await;
    call.send(end.to_owned()).await;
    drop(call);

    assert_eq!(opened.chunk().await.unwrap().unwrap(), end);
    assert_eq!(opened.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_session_may_have_many_streams_but_not_any_number() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(client.listen().await);
    }

    let one_more = client.open(client.request(http::Method::GET, "")).await;
    assert_eq!(one_more.status, 429);
    streams.clear();

    eventually(async || client.open(client.request(http::Method::GET, "")).await.status == 200).await;
    proxy.until_metric("toolgate_streams{kind=\"client\"}", 0.0).await;
}
