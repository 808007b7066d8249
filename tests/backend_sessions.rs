//! Sessions that the gateway holds with backends on behalf of clients.

use std::time::Duration;

use serde_json::json;

use crate::support::backend::{Forgets, spoken};
use crate::support::{FakeBackend, Mood, Setup, TestProxy, eventually_for, within};

/// How often the gateway looks for what is idle, and some time.
const SWEPT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn ending_a_session_ends_those_with_backends() {
    let (a, b) = (FakeBackend::with_tool("a", "echo").await, FakeBackend::with_tool("b", "echo").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let (client, other) = (proxy.client().await, proxy.client().await);
    for tool in ["a__echo", "b__echo"] {
        client.call(tool).await.result();
    }
    other.call("a__echo").await.result();

    client.delete().await;

    a.until(|a| a.client_sessions() == 1).await;
    b.until(|b| b.client_sessions() == 0).await;
    assert_eq!(other.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn a_backend_session_is_opened_by_the_first_call_and_serves_all() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.list().await;
    assert!(backend.by_clients("initialize").is_empty());

    for _ in 0..3 {
        client.call("a__echo").await.result();
    }

    assert_eq!(backend.by_clients("initialize").len(), 1);
    assert_eq!(backend.by_clients("notifications/initialized").len(), 1);
    assert_eq!(backend.client_sessions(), 1);
}

#[tokio::test]
async fn calls_at_once_share_one_handshake() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    let calls: Vec<_> = (0..10).map(|_| client.start_call("a__echo")).collect();
    for call in calls {
        assert_eq!(within(call).await.unwrap().result(), spoken("echo"));
    }

    assert_eq!(backend.by_clients("initialize").len(), 1);
}

#[tokio::test]
async fn each_client_has_a_backend_session_of_its_own() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    for client in [proxy.client().await, proxy.client().await, proxy.client().await] {
        client.call("a__echo").await.result();
        client.call("a__echo").await.result();
    }

    let mut sessions: Vec<_> = backend.calls().into_iter().map(|call| call.session.unwrap()).collect();
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "{sessions:?}");
    assert_eq!(proxy.metric("toolgate_backend_sessions{backend=\"a\"}").await, Some(3.0));
}

#[tokio::test]
async fn a_backend_is_told_the_clients_name_and_version_and_what_it_can_be_asked() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let params = json!({
        "protocolVersion": "2025-06-18",
        "capabilities": { "sampling": {}, "roots": { "listChanged": true }, "tasks": {}, "experimental": { "x": {} } },
        "clientInfo": { "name": "editor", "title": "Editor", "version": "9" },
    });
    let stranger = proxy.stranger();
    let client = stranger.in_session_of(&stranger.ask("initialize", params).await);

    client.call("a__echo").await.result();

    let told = backend.by_clients("initialize")[0].json()["params"].clone();
    assert_eq!(told["protocolVersion"], "2025-06-18");
    assert_eq!(told["capabilities"], json!({ "sampling": {}, "roots": { "listChanged": true } }));
    assert_eq!(told["clientInfo"], json!({ "name": "editor", "title": "Editor", "version": "9" }));
    assert_eq!(backend.only_call().headers["mcp-protocol-version"], "2025-06-18");
}

#[tokio::test]
async fn each_side_is_spoken_to_in_its_own_version() {
    let old = FakeBackend::named("old").tool("echo").speaks("2024-11-05").start().await;
    let new = FakeBackend::named("new").tool("echo").speaks("2025-11-25").start().await;
    let proxy = TestProxy::fronting(&[&old, &new]).await;

    for version in ["2024-11-05", "2025-03-26", "2025-11-25"] {
        let client = proxy.client_of(version).await.with_header("mcp-protocol-version", version);
        assert_eq!(client.call("old__echo").await.result(), spoken("echo"));
        assert_eq!(client.call("new__echo").await.result(), spoken("echo"));
    }

    // A header of another version would have been a fault.
    assert!(old.calls().iter().all(|call| call.headers["mcp-protocol-version"] == "2024-11-05"));
}

#[tokio::test]
async fn a_backend_of_an_unknown_version_is_named() {
    let backend = FakeBackend::named("a").tool("echo").speaks("2099-01-01").start().await;
    let well = FakeBackend::with_tool("well", "echo").await;
    let proxy = TestProxy::fronting(&[&backend, &well]).await;

    assert_eq!(proxy.client().await.tools().await, ["well__echo"]);
    let failure = proxy.page("/backends").await.json()["backends"][0]["listing"]["failure"].clone();
    assert!(failure.as_str().unwrap().contains("protocol version"), "{failure}");
}

/// Complaint 2: The gateway never re-initializes a lost upstream session.
#[tokio::test]
async fn a_forgotten_backend_session_is_opened_again_and_the_call_comes_once_more() {
    for forgets in [Forgets::NotFound, Forgets::BadRequest] {
        let backend = FakeBackend::named("a").tool("echo").logging().forgets(forgets).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;
        let client = proxy.client().await;
        client.ask("logging/setLevel", json!({ "level": "warning" })).await.result();
        client.call("a__echo").await.result();

        backend.forget_sessions();
        let answer = client.call("a__echo").await;

        assert_eq!(answer.result(), spoken("echo"), "{forgets:?}");
        assert_eq!(backend.seen().iter().filter(|seen| seen.method == "tools/call").count(), 3);
        assert_eq!(backend.by_clients("initialize").len(), 2);
        let levels: Vec<_> =
            backend.by_clients("logging/setLevel").iter().map(|seen| seen.json()["params"].clone()).collect();
        assert_eq!(levels, [json!({ "level": "warning" }), json!({ "level": "warning" })]);
        let reopened = "toolgate_backend_sessions_reopened_total{backend=\"a\",result=\"ok\"}";
        assert_eq!(proxy.metric(reopened).await, Some(1.0));
    }
}

/// Complaint 2: The gateway never re-initializes a lost upstream session.
#[tokio::test]
async fn calls_at_once_open_a_forgotten_session_again_only_once() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.call("a__echo").await.result();

    backend.forget_sessions();
    let calls: Vec<_> = (0..10).map(|_| client.start_call("a__echo")).collect();
    for call in calls {
        assert_eq!(within(call).await.unwrap().result(), spoken("echo"));
    }

    assert_eq!(backend.by_clients("initialize").len(), 2);
    assert_eq!(backend.client_sessions(), 1);
}

#[tokio::test]
async fn a_session_forgotten_during_a_call_leaves_that_call_alone() {
    let backend = FakeBackend::named("a").held("slow").tool("echo").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let (slow, call) = client.pending_call("a__slow", &backend).await;

    backend.forget_sessions();
    let echo = client.call("a__echo").await;
    call.finish();

    assert_eq!(echo.result(), spoken("echo"));
    assert_eq!(within(slow).await.unwrap().result(), spoken("slow"));
}

#[tokio::test]
async fn a_backend_that_forgets_at_once_is_named_and_not_asked_for_ever() {
    for forgets in [Forgets::NotFound, Forgets::BadRequest] {
        let backend = FakeBackend::named("a").tool("echo").forgets(forgets).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;
        let client = proxy.client().await;

        backend.set_mood(Mood::Forgetful);
        let answer = client.call("a__echo").await;

        assert_eq!(answer.status, 200);
        assert!(
            answer.message().contains("backend `a`") && answer.message().contains("forgets sessions"),
            "{answer:?}"
        );
        assert_eq!(backend.seen().iter().filter(|seen| seen.method == "tools/call").count(), 2);
        assert_eq!(backend.by_clients("initialize").len(), 2);
    }
}

#[tokio::test]
async fn an_error_that_answers_the_call_is_no_lost_session() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    for (status, code) in [(400, -32000), (404, -32601), (404, -32000)] {
        for is_modern in [false, true] {
            let running = if is_modern { proxy.modern().start_call("a__x") } else { client.start_call("a__x") };
            let call = backend.next_call().await;
            let error = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"ran"}}}}"#, call.id());
            call.respond(status, "application/json", error);
            let answer = within(running).await.unwrap();
            assert_eq!((answer.code(), answer.message()), (code, "ran".to_owned()), "{status} {is_modern}");
        }
    }
    assert_eq!(backend.seen().iter().filter(|seen| seen.method == "tools/call").count(), 6);
}

#[tokio::test]
async fn a_backend_without_sessions_is_called_without_one() {
    let backend = FakeBackend::named("a").tool("echo").sessionless().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
    assert_eq!(client.delete().await.status, 204);

    assert!(backend.seen().iter().all(|seen| seen.session.is_none()));
}

#[tokio::test]
async fn a_backend_that_answers_in_events_is_understood() {
    let backend = FakeBackend::named("a").tool("echo").tool("more").pages_of(1).in_events().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    assert_eq!(client.tools().await, ["a__echo", "a__more"]);
    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn a_log_level_reaches_the_backends_that_take_one() {
    let a = FakeBackend::named("a").tool("echo").logging().start().await;
    let b = FakeBackend::with_tool("b", "echo").await;
    let c = FakeBackend::named("c").tool("echo").logging().start().await;
    let proxy = TestProxy::fronting(&[&a, &b, &c]).await;
    let client = proxy.client().await;
    for tool in ["a__echo", "b__echo"] {
        client.call(tool).await.result();
    }

    let answer = client.ask("logging/setLevel", json!({ "level": "error" })).await;
    a.until(|a| a.by_clients("logging/setLevel").len() == 1).await;
    client.call("c__echo").await.result();

    assert_eq!(answer.result(), json!({}));
    assert_eq!(c.by_clients("logging/setLevel")[0].json()["params"], json!({ "level": "error" }));
    assert!(b.by_clients("logging/setLevel").is_empty());
    for level in [json!({}), json!({ "level": "loud" }), json!({ "level": 1 })] {
        assert_eq!(client.ask("logging/setLevel", level).await.code(), -32602);
    }
}

/// A call that overtakes its session's level is logged at the level before.
#[tokio::test]
async fn a_call_does_not_overtake_the_level_that_was_set_before_it() {
    let backend = FakeBackend::named("a").tool("echo").logging().holding("logging/setLevel").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, other) = (proxy.client().await, proxy.client().await);
    client.call("a__echo").await.result();
    let calls = backend.calls().len();

    client.ask("logging/setLevel", json!({ "level": "error" })).await.result();
    let telling = backend.next_call().await;
    let call = client.start_call("a__echo");
    // Whose level nobody set does not wait.
    other.call("a__echo").await.result();
    assert_eq!(backend.calls().len(), calls + 1);

    telling.result(&json!({}));
    assert_eq!(call.await.unwrap().result(), spoken("echo"));
    assert_eq!(backend.calls().len(), calls + 2);
}

#[tokio::test]
async fn what_is_held_for_an_idle_session_is_released_and_made_anew() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ idle: 100ms }").start().await;
    let client = proxy.client().await;
    client.call("a__echo").await.result();
    assert_eq!(backend.client_sessions(), 1);

    eventually_for(SWEPT, async || backend.client_sessions() == 0).await;

    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
    assert_eq!(backend.by_clients("initialize").len(), 2);
}

#[tokio::test]
async fn a_session_with_a_call_or_a_stream_is_not_idle() {
    let backend = FakeBackend::named("a").held("slow").tool("echo").start().await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ idle: 100ms }").start().await;
    let (calling, listening, idle) = (proxy.client().await, proxy.client().await, proxy.client().await);
    let (running, call) = calling.pending_call("a__slow", &backend).await;
    listening.call("a__echo").await.result();
    let _stream = listening.listen().await;
    idle.call("a__echo").await.result();

    eventually_for(SWEPT, async || backend.client_sessions() == 2).await;
    call.finish();

    assert_eq!(within(running).await.unwrap().result(), spoken("slow"));
    assert_eq!(backend.by_clients("initialize").len(), 3);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_leaves_nothing_behind() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    backend.hold_handshakes();
    let running = client.start_call("a__echo");
    backend.until(|backend| backend.by_clients("initialize").len() == 1).await;

    running.abort();
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
    backend.shake_hands();
    proxy.until_metric("toolgate_backend_sessions{backend=\"a\"}", 1.0).await;
    client.delete().await;

    backend.until(|backend| backend.client_sessions() == 0).await;
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn a_session_that_ends_during_a_handshake_leaves_nothing_behind() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    backend.hold_handshakes();
    let running = client.start_call("a__echo");
    backend.until(|backend| backend.by_clients("initialize").len() == 1).await;

    client.delete().await;
    running.abort();
    backend.shake_hands();
    backend.until(|backend| !backend.by_clients("notifications/initialized").is_empty()).await;

    backend.until(|backend| backend.client_sessions() == 0).await;
}

#[tokio::test]
async fn a_handshake_that_fails_is_an_error_that_names_the_backend_and_can_be_tried_again() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    backend.set_mood(Mood::LoginPage(200));
    let refused = client.call("a__echo").await;
    backend.set_mood(Mood::Well);
    let answer = client.call("a__echo").await;

    assert!(refused.message().contains("backend `a`"), "{refused:?}");
    assert_eq!(answer.result(), spoken("echo"));
}
