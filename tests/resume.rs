//! Streams that break off and are taken up again (2025-11-25): event ids, `retry`, polling.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::{Seen, spoken};
use crate::support::client::Opened;
use crate::support::{Client, FakeBackend, TestProxy, never_within, within};

async fn resumable(name: &'static str) -> FakeBackend {
    FakeBackend::named(name).tool("x").held("ask").streams().resumable().start().await
}

/// The polls that a backend has seen, by the ids that they name.
fn polls(backend: &FakeBackend) -> Vec<String> {
    let id = |seen: &Seen| Some(seen.headers.get("last-event-id")?.to_str().unwrap().to_owned());
    backend.seen().iter().filter(|seen| seen.verb == Method::GET).filter_map(id).collect()
}

/// The id of an event.
fn id_of(block: &str) -> Option<&str> {
    block.lines().find_map(|line| line.strip_prefix("id: "))
}

#[tokio::test]
async fn event_ids_name_their_backend_and_everything_else_of_the_stream_stays() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    for backend in [&a, &b] {
        let name = backend.name();
        let (opened, stream) = client.open_stream(&format!("{name}__ask"), backend).await;
        let text = |tag: &str| {
            let response = stream.response();
            format!(
                "id: {tag}1/é\nretry: 250\ndata: \n\n: comment\n\nevent: message\nid:{tag}2\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"x\"}}\n\nid\ndata: {response}\n\n"
            )
        };
        stream.send(text("")).await;
        let expected = text(&format!("c/{name}/"));
        drop(stream);

        assert_eq!(String::from_utf8(opened.whole().await.body.to_vec()).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_stream_that_ends_after_priming_passes_on_and_its_rest_comes_from_the_same_place() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    client.call("b__x").await.result();
    let (mut opened, stream) = client.open_stream("a__ask", &a).await;
    let response = stream.response();
    stream.send("id: 7\nretry: 10\ndata: \n\n").await;
    drop(stream);
    let primed = opened.block().await.unwrap();
    assert_eq!(primed, "id: c/a/7\nretry: 10\ndata: ");
    assert_eq!(opened.block().await, None);

    let (mut again, stream) = client.come_back("c/a/7", &a).await;
    stream.send("id: 8\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n").await;
    let first = again.block().await.unwrap();
    assert_eq!(id_of(&first), Some("c/a/8"));
    drop(stream);
    assert_eq!(again.block().await, None);

    let (again, stream) = client.come_back("c/a/8", &a).await;
    stream.send(format!("id: 9\ndata: {response}\n\n")).await;
    drop(stream);
    assert_eq!(again.whole().await.response()["result"], spoken("ask"));

    assert_eq!(polls(&a), ["7", "8"]);
    assert_eq!(polls(&b), [""; 0]);
    let call = a.only_call();
    for seen in a.seen().iter().filter(|seen| seen.headers.contains_key("last-event-id")) {
        assert_eq!(seen.session, call.session);
        assert_eq!(seen.headers["mcp-protocol-version"], "2025-11-25");
    }
}

#[tokio::test]
async fn an_answer_can_be_taken_up_in_the_middle_of_a_stream_that_was_cut() {
    for is_cut_by_backend in [false, true] {
        let backend = resumable("a").await;
        let proxy = TestProxy::fronting(&[&backend]).await;
        let client = proxy.client().await;
        let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
        let response = stream.response();
        stream.send("id: x y/z\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n").await;
        let block = opened.block().await.unwrap();
        let last = id_of(&block).unwrap().to_owned();
        if is_cut_by_backend {
            stream.cut().await;
            assert_eq!(opened.block().await, None);
        } else {
            drop(opened);
            within(stream.disconnected()).await;
        }

        let (again, stream) = client.come_back(&last, &backend).await;
        assert_eq!(polls(&backend), ["x y/z"]);
        stream.send(format!("data: {response}\n\n")).await;
        drop(stream);

        assert_eq!(again.whole().await.response()["result"], spoken("ask"));
    }
}

#[tokio::test]
async fn questions_and_changes_on_the_rest_of_a_stream_are_treated_as_before() {
    let backend = resumable("a").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (opened, stream) = client.open_stream("a__ask", &backend).await;
    let response = stream.response();
    stream.send("id: 1\ndata: \n\n").await;
    drop(stream);
    opened.whole().await;

    let (mut again, stream) = client.come_back("c/a/1", &backend).await;
    stream.event(&json!({ "jsonrpc": "2.0", "id": 0, "method": "roots/list" })).await;
    let asked = again.message().await.unwrap();
    assert_eq!(asked["method"], "roots/list");
    client.reply(&asked["id"], json!({ "roots": [] })).await;
    let expected = json!({ "jsonrpc": "2.0", "id": 0, "result": { "roots": [] } });
    backend.until(|backend| backend.responses().contains(&expected)).await;
    stream.send(format!("data: {response}\n\n")).await;
    drop(stream);
    assert_eq!(again.message().await.unwrap()["result"], spoken("ask"));
}

#[tokio::test]
async fn ids_that_cannot_be_resumed_from_are_refused() {
    let (a, b) = (resumable("a").await, FakeBackend::named("b").tool("x").start().await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    client.call("b__x").await.result();

    // Nobody's; of no backend; of one that the session never used; of one that has no streams; not ours at all.
    for last in ["c/nobody/1", "c/a/1", "c/b/1", "c/b/", "garbage", "7", "x/a/1"] {
        let answer = client.resume(last).await.whole().await;
        assert_eq!(answer.status, 400, "{last}: {answer:?}");
        assert_eq!(answer.code(), -32600);
    }
    assert_eq!(polls(&a), [""; 0]);
}

#[tokio::test]
async fn the_backends_refusal_to_resume_is_told_as_400() {
    let backend = resumable("a").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.call("a__x").await.result();

    for status in [404, 400, 405, 500] {
        let (opened, ()) = tokio::join!(client.resume("c/a/lost"), async {
            backend.next_call().await.respond(status, "text/plain", "no");
        });
        assert_eq!(opened.whole().await.status, 400, "{status}");
    }
    client.call("a__x").await.result();
}

#[tokio::test]
async fn another_sessions_stream_cannot_be_resumed() {
    let backend = resumable("a").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, stranger) = (proxy.client().await, proxy.client().await);
    let (opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.send("id: secret\ndata: \n\n").await;
    drop(stream);
    opened.whole().await;

    assert_eq!(stranger.resume("c/a/secret").await.whole().await.status, 400);
    stranger.call("a__x").await.result();
    let (opened, ()) = tokio::join!(stranger.resume("c/a/secret"), async {
        let call = backend.next_call().await;
        // Where it asks, it is somebody else: the backend decides.
        assert_ne!(call.seen.session, backend.by_clients("tools/call")[0].session);
        call.respond(404, "text/plain", "");
    });
    assert_eq!(opened.whole().await.status, 400);
}

#[tokio::test]
async fn a_clients_own_stream_is_resumed_where_it_was_left_and_others_go_on() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    client.call("a__x").await.result();
    client.call("b__x").await.result();
    let mut stream = client.listen().await;
    a.until(|a| a.client_streams() == 1).await;
    b.until(|b| b.client_streams() == 1).await;
    let note = |n: i64| json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "n": n } });
    a.say_to_clients(&format!("id: 5\ndata: {}\n\n", note(1))).await;
    let block = stream.block().await.unwrap();
    assert_eq!(id_of(&block), Some("n/a/5"));
    drop(stream);
    proxy.until_metric("toolgate_streams{kind=\"client\"}", 0.0).await;

    let mut again = client.resume("n/a/5").await;
    let poll = a.next_call().await;
    assert_eq!(poll.seen.headers["last-event-id"], "5");
    let rest = poll.stream();
    rest.send(format!("id: 6\ndata: {}\n\n", note(2))).await;
    let block = again.block().await.unwrap();
    assert_eq!(id_of(&block), Some("n/a/6"));

    // The other backend is listened to anew, without an id that is not its own.
    assert_eq!(polls(&b), [""; 0]);
    let mut heard = None;
    for _ in 0..50 {
        b.tell_clients(&note(3)).await;
        if let Ok(block) = tokio::time::timeout(Duration::from_millis(200), again.message()).await {
            heard = block;
            break;
        }
    }
    assert_eq!(heard, Some(note(3)));
}

/// Backends that tell on their own streams, each heard for one client.
async fn heard(backends: [&FakeBackend; 2]) -> (TestProxy, Client, Opened) {
    let proxy = TestProxy::fronting(&backends).await;
    let client = proxy.client().await;
    for backend in backends {
        client.call(&format!("{}__x", backend.name())).await.result();
    }
    let stream = client.listen().await;
    for backend in backends {
        backend.until(|backend| backend.client_streams() == 1).await;
    }
    (proxy, client, stream)
}

#[tokio::test]
async fn what_primes_a_backends_own_stream_comes_on_the_clients_and_names_the_backend() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let (_proxy, client, mut stream) = heard([&a, &b]).await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });

    for (said, passed) in [
        ("id: 1\nretry: 250\ndata: \n\n".to_owned(), "id: n/a/1\nretry: 250\ndata: ".to_owned()),
        ("id: é/2\ndata:\n\n".to_owned(), "id: n/a/é/2\ndata: ".to_owned()),
        ("retry: 500\n\n".to_owned(), "retry: 500".to_owned()),
        (format!("retry: 600\ndata: {note}\n\n"), format!("id: n/a/é/2\nretry: 600\ndata: {note}")),
        // A change is told when it is one, and by the gateway; that is no reason to wait less long.
        (format!("id: 3\nretry: 700\ndata: {changed}\n\n"), "retry: 700".to_owned()),
        // What comes back for it comes back for the others' news too.
        ("retry: 86400000\n\n".to_owned(), "retry: 30000".to_owned()),
        ("id: 4\ndata: \n\n".to_owned(), "id: n/a/4\ndata: ".to_owned()),
    ] {
        a.say_to_clients(&said).await;
        assert_eq!(stream.block().await.unwrap(), passed, "{said}");
    }
    b.say_to_clients("id: 9\ndata: \n\n").await;
    assert_eq!(stream.block().await.unwrap(), "id: n/b/9\ndata: ");
    drop(stream);

    let _again = client.resume("n/b/9").await;
    assert_eq!(b.next_call().await.seen.headers["last-event-id"], "9");
    a.until(|a| a.client_streams() == 1).await;
    assert_eq!(polls(&a), [""; 0]);
}

#[tokio::test]
async fn a_backend_that_does_not_know_the_last_event_is_listened_to_anew() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let (proxy, client, stream) = heard([&a, &b]).await;
    drop(stream);
    proxy.until_metric("toolgate_streams{kind=\"client\"}", 0.0).await;
    a.end_streams();

    let mut again = client.resume("n/a/forgotten").await;
    a.next_call().await.respond(400, "text/plain", "what event?");
    a.until(|a| a.client_streams() == 1).await;
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    a.tell_clients(&note).await;

    assert_eq!(again.message().await.unwrap(), note);
}

#[tokio::test]
async fn a_backends_own_stream_is_not_opened_again_before_it_wants_to_be() {
    let (a, b) = (resumable("a").await, resumable("b").await);
    let (_proxy, _client, mut stream) = heard([&a, &b]).await;
    a.say_to_clients("retry: 3000\n\n").await;
    assert_eq!(stream.block().await.unwrap(), "retry: 3000");

    a.end_streams();
    never_within(Duration::from_secs(2), a.until(|a| a.client_streams() == 1)).await;

    a.until(|a| a.client_streams() == 1).await;
}

#[tokio::test]
async fn a_last_event_id_of_a_modern_client_means_nothing() {
    let backend = resumable("a").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 2).await;
    let modern = proxy.modern();
    let body = modern.message("tools/call", json!({ "name": "a__x" }));
    let mut request = modern.request(&body);
    request.headers_mut().insert("last-event-id", "c/a/1".parse().unwrap());

    let answer = modern.http.send(request).await;

    assert_eq!(answer.result()["resultType"], "complete");
    assert_eq!(answer.result()["isError"], Value::Null);
    assert_eq!(polls(&backend), [""; 0]);
}

/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn a_call_between_two_polls_can_be_cancelled() {
    let backend = resumable("a").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let (opened, stream) = client.open_stream("a__ask", &backend).await;
    let id: Value = serde_json::from_str(&stream.id).unwrap();
    stream.send("id: 1\ndata: \n\n").await;
    drop(stream);
    opened.whole().await;

    client.notify("notifications/cancelled", json!({ "requestId": id })).await;

    backend.until(|backend| !backend.by_clients("notifications/cancelled").is_empty()).await;
    let told = backend.by_clients("notifications/cancelled").remove(0);
    assert_eq!((&told.json()["params"]["requestId"], &told.session), (&id, &backend.only_call().session));
}
