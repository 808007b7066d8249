//! Calls of modern clients on legacy backends: their sessions, streams, ends, results and errors.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{cancellations, in_modern_words, legacy, params};
use crate::support::backend::spoken;
use crate::support::{Answer, Call, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, within};

/// Method table: `notifications/{tools,prompts,resources}/list_changed`.
#[tokio::test]
async fn a_change_told_to_a_shared_session_alone_is_listed() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.modern().call("a__x").await.result();

    backend.add_tool("y");
    backend.tell_last(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).await;

    proxy.until_tools(&backend, 2).await;
}

#[tokio::test]
async fn a_call_whose_backend_says_nothing_is_kept_alive_all_the_same() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).listener("keep_alive: 1s").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.modern();
    let (mut opened, call) = tokio::join!(client.open("tools/call", params()), backend.next_call());

    assert_eq!(opened.chunk().await.unwrap().unwrap(), ": keep-alive\n\n");
    call.result(&spoken("ask"));

    assert_eq!(opened.message().await.unwrap()["result"]["content"], spoken("ask")["content"]);
}

/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn a_modern_client_that_leaves_before_the_answer_cancels_at_the_legacy_backend() {
    let (backend, proxy) = legacy().await;
    for client in [proxy.modern(), proxy.askable()] {
        let before = cancellations(&backend).len();
        let running = client.start("tools/call", params());
        let call = backend.next_call().await;
        let id: Value = serde_json::from_str(&call.id()).unwrap();

        running.abort();

        within(call.disconnected()).await;
        backend.until(|backend| cancellations(backend).len() > before).await;
        assert_eq!(cancellations(&backend)[before], id);
        assert_eq!(backend.all("notifications/cancelled")[before].session, call.seen.session);
    }
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn a_modern_client_that_leaves_within_a_stream_cancels_its_call_and_nobody_elses() {
    let (backend, proxy) = legacy().await;
    let client = proxy.modern().at_level("info");
    let other = client.start("tools/call", params());
    let others = backend.next_call().await;
    let opening = client.open("tools/call", params());
    let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": 1 } });
    let (mut opened, stream) = tokio::join!(opening, async {
        let stream = backend.next_call().await.stream();
        stream.event(&log).await;
        stream
    });
    assert_eq!(opened.message().await.unwrap(), log);

    drop(opened);

    backend.until(|backend| !cancellations(backend).is_empty()).await;
    let id: Value = serde_json::from_str(&stream.id).unwrap();
    assert_ne!(id, serde_json::from_str::<Value>(&others.id()).unwrap());
    assert_eq!(cancellations(&backend), [id]);
    // Both were in one session, and it lives on.
    let calls = backend.all("tools/call");
    assert_eq!(calls[0].session, calls[1].session);
    others.finish();
    assert_eq!(within(other).await.unwrap().result()["resultType"], "complete");
}

#[tokio::test]
async fn clients_that_can_be_asked_nothing_share_a_session_and_others_have_their_own() {
    let (backend, proxy) = legacy().await;
    let in_session = async |client: ModernClient| -> (JoinHandle<Answer>, Call) {
        let running = client.start("tools/call", params());
        (running, backend.next_call().await)
    };
    let mut calls = Vec::new();
    for client in [proxy.modern(), proxy.modern(), proxy.askable(), proxy.askable(), proxy.modern().at_level("info")] {
        calls.push(in_session(client).await);
    }
    let sessions: Vec<_> = calls.iter().map(|(_, call)| call.seen.session.clone().unwrap()).collect();
    assert_eq!(sessions[0], sessions[1]);
    let mut distinct = sessions.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{sessions:?}");
    for (running, call) in calls {
        call.finish();
        within(running).await.unwrap().result();
    }

    // One that is free again is used again.
    let (running, call) = in_session(proxy.askable()).await;
    assert!(sessions[2..4].contains(call.seen.session.as_ref().unwrap()));
    call.finish();
    within(running).await.unwrap();
}

/// Method table: `notifications/progress`, `request ids upstream`.
#[tokio::test]
async fn two_clients_with_one_id_and_one_token_in_one_session_do_not_clash() {
    let (backend, proxy) = legacy().await;
    let client = proxy.modern();
    let body = |x: i64| {
        let params =
            client.params(json!({ "name": "a__ask", "arguments": { "x": x }, "_meta": { "progressToken": 1 } }));
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
    };
    let post = |body: String| {
        let client = client.clone();
        tokio::spawn(async move { client.post(&body).await })
    };
    let first = post(body(1));
    let call_1 = backend.next_call().await;
    let second = post(body(2));
    let call_2 = backend.next_call().await;
    assert_eq!(call_1.seen.session, call_2.seen.session);
    let token = |call: &Call| call.seen.json()["params"]["_meta"]["progressToken"].clone();
    let (token_1, token_2) = (token(&call_1), token(&call_2));
    assert_ne!(token_1, token_2);
    assert_ne!(call_1.id(), call_2.id());

    let progress = |token: &Value, progress: i64| {
        let params = json!({ "progressToken": token, "progress": progress });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    };
    let (stream_1, stream_2) = (call_1.stream(), call_2.stream());
    // What is said of the other's on the wrong stream is for nobody.
    stream_1.event(&progress(&token_2, 9)).await;
    stream_2.event(&progress(&token_2, 2)).await;
    stream_1.event(&progress(&token_1, 1)).await;
    stream_2.finish().await;
    stream_1.finish().await;

    for (running, expected) in [(first, 1), (second, 2)] {
        let messages = within(running).await.unwrap().messages();
        assert_eq!(messages[0]["params"], json!({ "progressToken": 1, "progress": expected }));
        assert_eq!((messages.len(), &messages[1]["id"]), (2, &json!(1)));
    }
}

#[tokio::test]
async fn a_stream_that_the_backend_breaks_off_is_asked_for_again() {
    let backend = FakeBackend::named("a").held("ask").streams().resumable().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.modern();
    let running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    let (id, response) = (stream.id.clone(), stream.response());
    stream.send("id: e-1\nretry: 10\ndata: \n\n").await;
    drop(stream);

    let resumed = backend.next_call().await;
    assert_eq!(resumed.seen.verb, http::Method::GET);
    assert_eq!(resumed.seen.headers["last-event-id"], "e-1");
    assert_eq!(resumed.seen.session, backend.all("tools/call")[0].session);
    let stream = resumed.stream();
    stream.send("id: e-2\ndata: \n\n").await;
    drop(stream);
    let resumed = backend.next_call().await;
    assert_eq!(resumed.seen.headers["last-event-id"], "e-2");
    let stream = resumed.stream();
    stream.send(format!("data: {response}\n\n")).await;

    let answer = within(running).await.unwrap();
    in_modern_words(&answer);
    assert_eq!(answer.result()["resultType"], "complete", "{id}");
}

#[tokio::test]
async fn a_stream_that_cannot_be_asked_for_again_is_an_error() {
    let (backend, proxy) = legacy().await;
    let client = proxy.modern();
    let running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    stream.send(": nothing\n\n").await;
    drop(stream);

    let answer = within(running).await.unwrap();

    assert_eq!((answer.status, answer.code()), (200, 502));
}

#[tokio::test]
async fn errors_of_a_legacy_backend_come_in_modern_words() {
    let (backend, proxy) = legacy().await;
    let client = proxy.modern();
    let url = json!({ "elicitations": [{ "mode": "url", "elicitationId": "e", "url": "https://x.example/" }] });
    for (code, data, status, expected) in [
        (-32002, Value::Null, 200, -32602),
        (-32042, url, 400, -32021),
        (-32000, json!(7), 200, -32000),
        (-32001, Value::Null, 200, -32001),
        (-32019, Value::Null, 200, -32019),
        (-32020, Value::Null, 200, 502),
        (-32050, json!(7), 200, 502),
        (-32099, Value::Null, 200, 502),
        (-32100, Value::Null, 200, -32100),
        (-32602, json!({ "a": 1e10 }), 200, -32602),
        (-32603, Value::Null, 200, -32603),
        (17, json!("mine"), 200, 17),
        (-32601, Value::Null, 404, -32601),
    ] {
        for in_events in [false, true] {
            let running = client.start("tools/call", params());
            let call = backend.next_call().await;
            let mut error = json!({ "code": code, "message": "é no" });
            if !data.is_null() {
                error["data"] = data.clone();
            }
            if in_events {
                let id: Value = serde_json::from_str(&call.id()).unwrap();
                let stream = call.stream();
                stream.event(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
            } else {
                call.error(&error);
            }
            let answer = within(running).await.unwrap();
            in_modern_words(&answer);
            assert_eq!((answer.status, answer.code()), (status, expected), "{code} {in_events}");
            assert_eq!(answer.message(), "é no");
        }
    }
}

#[tokio::test]
async fn a_result_of_a_legacy_backend_keeps_all_it_has_and_gets_what_modern_clients_want() {
    let (backend, proxy) = legacy().await;
    let running = proxy.modern().start("tools/call", params());
    let call = backend.next_call().await;
    let id = call.id();
    call.json(format!(
        "{{\"result\":{{\"content\":[],\"structuredContent\":{{\"n\":12345678901234567890,\"e\":1.50,\"u\":\"\\u00e9\"}},\"x\":[ ],\"ttlMs\":5}},\"id\":{id},\"jsonrpc\":\"2.0\"}}"
    ));

    let answer = within(running).await.unwrap();

    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(r#""structuredContent":{"n":12345678901234567890,"e":1.50,"u":"\u00e9"}"#), "{text}");
    assert!(text.contains(r#""x":[ ]"#) && text.contains(r#""resultType":"complete""#), "{text}");
    assert!(!text.contains("ttlMs"), "{text}");
    assert_eq!(answer.result()["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "toolgate");
}

#[tokio::test]
async fn a_result_with_a_meta_of_its_own_keeps_it() {
    let (backend, proxy) = legacy().await;
    let running = proxy.modern().start("tools/call", params());
    backend.next_call().await.result(&json!({ "content": [], "_meta": { "mine": 1 } }));

    let meta = within(running).await.unwrap().result()["_meta"].clone();

    assert_eq!(meta["mine"], 1);
    assert_eq!(meta["io.modelcontextprotocol/serverInfo"]["name"], "toolgate");
}

/// Cap: the size of one message that is made over for another era.
#[tokio::test]
async fn a_message_that_is_too_long_to_be_made_over_is_an_error() {
    let old = FakeBackend::with_held_tool("old", "ask").await;
    let new = FakeModern::with_held_tool("new", "ask").await;
    let setup = Setup::fronting(&[&old]).backend(&new, "").section("bridge", "{ max_answer: 4KiB }");
    let proxy = setup.start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    let big = json!({ "content": [{ "type": "text", "text": "x".repeat(8192) }] });
    for in_events in [false, true] {
        let answer = async |call: Call| {
            if in_events {
                let id: Value = serde_json::from_str(&call.id()).unwrap();
                let stream = call.stream();
                stream.event(&json!({ "jsonrpc": "2.0", "id": id, "result": big })).await;
            } else {
                call.result(&big);
            }
        };
        let modern = proxy.modern().start_call("old__ask");
        answer(old.next_call().await).await;
        let told = within(modern).await.unwrap();
        assert_eq!(told.code(), 502);
        assert!(
            told.message().contains("longer than 4096 bytes, the most that `bridge.max_answer` allows"),
            "{told:?}"
        );

        let legacy = proxy.client().await.start_call("new__ask");
        answer(new.next_call().await).await;
        let told = within(legacy).await.unwrap();
        assert_eq!(told.code(), 502);
        assert!(
            told.message().contains("longer than 4096 bytes, the most that `bridge.max_answer` allows"),
            "{told:?}"
        );
    }
}
