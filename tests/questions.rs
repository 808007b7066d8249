//! What legacy backends ask legacy clients: on which stream, under which id, and where the answers go.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::proxy::VERSION;
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, never_within, within};

/// A question as a backend writes it.
fn question(id: &Value, method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "n": 1.0, "for": method } })
}

pub(crate) fn sampling(id: &Value) -> Value {
    question(id, "sampling/createMessage")
}

pub(crate) fn said(id: &Value, what: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "said": what } })
}

/// Method table: `sampling/createMessage`, `elicitation/create`, `roots/list` from backend.
/// Complaint 21: Server-to-client requests dropped.
#[tokio::test]
async fn a_question_comes_on_the_calls_own_stream_and_its_answer_goes_back_under_the_backends_id() {
    let backend = FakeBackend::named("a").held("ask").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let mut own = client.listen().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;

    for (id, method) in [
        (json!(0), "sampling/createMessage"),
        (json!("0"), "elicitation/create"),
        (json!(-3), "roots/list"),
        (json!("é \"x\""), "sampling/createMessage"),
        (json!(9_007_199_254_740_993_u64), "roots/list"),
    ] {
        stream.event(&question(&id, method)).await;
        let mut asked = opened.message().await.unwrap();
        let given = asked["id"].take();
        assert!(given.is_string() && given != id, "{given}");
        asked["id"] = id.clone();
        assert_eq!(asked, question(&id, method));

        client.reply(&given, json!({ "said": method })).await;
        backend.until(|backend| backend.responses().contains(&said(&id, method))).await;
    }
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    let posted = backend.seen().into_iter().filter(|seen| seen.method.is_empty() && !seen.body.is_empty());
    let call = backend.only_call();
    for seen in posted {
        assert_eq!(seen.session, call.session);
        assert_eq!(seen.headers["mcp-protocol-version"], VERSION);
    }
    never_within(Duration::from_millis(100), own.message()).await;
}

/// Method table: `sampling/createMessage`, `elicitation/create`, `roots/list` from backend.
#[tokio::test]
async fn two_backends_that_both_count_from_0_are_told_apart() {
    let (a, b) = (FakeBackend::with_held_tool("a", "ask").await, FakeBackend::with_held_tool("b", "ask").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.asked_client().await;
    let (mut at_a, stream_a) = client.open_stream("a__ask", &a).await;
    let (mut at_b, stream_b) = client.open_stream("b__ask", &b).await;

    stream_a.event(&sampling(&json!(0))).await;
    stream_b.event(&sampling(&json!(0))).await;
    let (asked_a, asked_b) = (at_a.message().await.unwrap(), at_b.message().await.unwrap());
    assert_ne!(asked_a["id"], asked_b["id"]);
    client.reply(&asked_b["id"], json!({ "said": "b" })).await;
    client.reply(&asked_a["id"], json!({ "said": "a" })).await;
    a.until(|a| !a.responses().is_empty()).await;
    b.until(|b| !b.responses().is_empty()).await;

    assert_eq!(a.responses(), [said(&json!(0), "a")]);
    assert_eq!(b.responses(), [said(&json!(0), "b")]);
    stream_a.finish().await;
    stream_b.finish().await;
}

/// Method table: `sampling/createMessage`, `elicitation/create`, `roots/list` from backend.
#[tokio::test]
async fn an_error_of_the_client_is_an_answer_too_and_passes_byte_for_byte() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(7))).await;
    let id = opened.message().await.unwrap()["id"].clone();

    let body = |id: &str| {
        format!(
            "{{ \"error\":{{\"code\":-1 ,\"message\":\"\\u006eo\",\"data\":1e400}},\"id\" :{id}, \"jsonrpc\":\"2.0\"}}"
        )
    };
    assert_eq!(client.post(body(&id.to_string())).await.status, 202);

    let sent = async || {
        let seen = backend.seen();
        seen.into_iter().find(|seen| seen.method.is_empty() && seen.body.windows(5).any(|part| part == b"1e400"))
    };
    backend.until(|backend| backend.seen().iter().any(|s| s.body.windows(5).any(|part| part == b"1e400"))).await;
    assert_eq!(String::from_utf8(sent().await.unwrap().body.to_vec()).unwrap(), body("7"));
    stream.finish().await;
}

/// Method table: `sampling/createMessage`, `elicitation/create`, `roots/list` from backend.
#[tokio::test]
async fn an_answer_of_another_session_is_taken_and_dropped() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, stranger) = (proxy.asked_client().await, proxy.asked_client().await);
    stranger.list().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(1))).await;
    let id = opened.message().await.unwrap()["id"].clone();

    stranger.reply(&id, json!({ "said": "mischief" })).await;
    client.reply(&json!("never asked"), json!({ "said": "nothing" })).await;
    client.reply(&id, json!({ "said": "truth" })).await;
    backend.until(|backend| !backend.responses().is_empty()).await;
    client.reply(&id, json!({ "said": "twice" })).await;
    stream.finish().await;
    opened.message().await.unwrap();

    assert_eq!(backend.responses(), [said(&json!(1), "truth")]);
}

/// Method table: `sampling/createMessage`, `elicitation/create`, `roots/list` from backend.
#[tokio::test]
async fn an_answer_that_comes_when_the_call_is_over_is_taken_and_dropped() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(1))).await;
    let id = opened.message().await.unwrap()["id"].clone();
    stream.finish().await;
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(opened.message().await, None);

    client.reply(&id, json!({ "said": "late" })).await;
    client.call_with("a__nope", json!({})).await;

    assert_eq!(backend.responses(), [Value::Null; 0]);
}

/// Method table: `elicitation/create` from backend.
#[tokio::test]
async fn what_the_client_did_not_declare_is_refused_at_once_and_never_seen() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.stranger().started_with(VERSION, json!({ "elicitation": {} })).await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    let url = json!({ "jsonrpc": "2.0", "id": 2, "method": "elicitation/create", "params": { "mode": "url" } });

    stream.event(&sampling(&json!(1))).await;
    stream.event(&url).await;
    stream.event(&question(&json!("r"), "roots/list")).await;
    stream.event(&question(&json!("t"), "tasks/get")).await;
    backend.until(|backend| backend.responses().len() == 4).await;
    for id in [json!(1), json!(2), json!("r"), json!("t")] {
        let refused = backend.responses().into_iter().find(|response| response["id"] == id).unwrap();
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
    }
    stream.event(&question(&json!(3), "elicitation/create")).await;

    let asked = opened.message().await.unwrap();
    assert_eq!(asked["method"], "elicitation/create");
    client.reply(&asked["id"], json!({ "said": "yes" })).await;
    backend.until(|backend| backend.responses().contains(&said(&json!(3), "yes"))).await;
    stream.finish().await;
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
}

/// Method table: `initialize`.
#[tokio::test]
async fn a_backend_is_told_what_its_client_declared_and_no_more() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let declared = json!({ "roots": { "listChanged": true }, "elicitation": { "form": {} } });
    let mut with_more = declared.clone();
    with_more["tasks"] = json!({ "list": {} });
    with_more["experimental"] = json!({ "x": {} });
    let client = proxy.stranger().started_with("2025-06-18", with_more).await;

    client.call("a__x").await.result();

    let params = backend.by_clients("initialize")[0].json()["params"].clone();
    assert_eq!((&params["capabilities"], &params["protocolVersion"]), (&declared, &json!("2025-06-18")));
}

/// Method table: `ping` from backend.
#[tokio::test]
async fn a_ping_within_a_call_is_answered_here() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;

    stream.event(&json!({ "jsonrpc": "2.0", "id": 0, "method": "ping" })).await;
    backend.until(|backend| !backend.responses().is_empty()).await;
    stream.finish().await;

    assert_eq!(backend.responses(), [json!({ "jsonrpc": "2.0", "id": 0, "result": {} })]);
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
}

/// Method table: `notifications/cancelled` from backend.
#[tokio::test]
async fn a_question_that_its_backend_takes_back_is_cancelled_under_the_clients_id() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(0))).await;
    let id = opened.message().await.unwrap()["id"].clone();

    let cancelled = |id: &Value| json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id, "reason": "no" } });
    stream.event(&cancelled(&json!(0))).await;
    assert_eq!(opened.message().await.unwrap(), cancelled(&id));
    // One about what was never asked is for nobody.
    stream.event(&cancelled(&json!(99))).await;
    client.reply(&id, json!({ "said": "too late" })).await;
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(backend.responses(), [Value::Null; 0]);
}

/// Method table: `roots/list` from backend.
#[tokio::test]
async fn a_question_on_a_backends_own_stream_comes_on_the_clients_own() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, other) = (proxy.asked_client().await, proxy.client().await);
    let mut stream = client.listen().await;
    client.call("a__x").await.result();
    other.call("a__x").await.result();
    backend.until(|backend| backend.client_streams() == 1).await;

    backend.tell_clients(&question(&json!(0), "roots/list")).await;
    let asked = stream.message().await.unwrap();
    assert_eq!(asked["method"], "roots/list");
    assert_ne!(asked["id"], 0);
    other.reply(&asked["id"], json!({ "said": "other" })).await;
    client.reply(&asked["id"], json!({ "said": "roots" })).await;
    backend.until(|backend| !backend.responses().is_empty()).await;

    assert_eq!(backend.responses(), [said(&json!(0), "roots")]);
}

/// Method table: `roots/list` from backend.
#[tokio::test]
async fn a_question_that_comes_before_the_client_listens_waits_for_it() {
    let backend = FakeBackend::named("a").held("ask").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (answer, call) = client.pending_call("a__ask", &backend).await;
    assert_eq!(backend.client_streams(), 1, "opened before the call was passed on");

    backend.tell_clients(&question(&json!(7), "roots/list")).await;
    let mut stream = client.listen().await;
    let asked = stream.message().await.unwrap();
    client.reply(&asked["id"], json!({ "said": "roots" })).await;
    backend.until(|backend| backend.responses() == [said(&json!(7), "roots")]).await;
    call.result(&spoken("ask"));

    assert_eq!(within(answer).await.unwrap().result(), spoken("ask"));
    // It is the client's stream from now on.
    backend.tell_clients(&question(&json!(8), "roots/list")).await;
    assert_eq!(stream.message().await.unwrap()["method"], "roots/list");
}

/// Method table: `roots/list` from backend.
#[tokio::test]
async fn a_question_to_a_client_that_never_listens_is_refused() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    client.call("a__x").await.result();

    backend.tell_clients(&question(&json!(7), "roots/list")).await;
    backend.until(|backend| !backend.responses().is_empty()).await;

    let refused = &backend.responses()[0];
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(7), &json!(-32601)));
    assert_eq!(proxy.metric("toolgate_questions").await, Some(0.0));
}

/// Method table: `roots/list` from backend.
#[tokio::test]
async fn of_a_clients_streams_only_one_is_asked() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    client.call("a__x").await.result();
    let (mut first, mut second) = (client.listen().await, client.listen().await);
    backend.until(|backend| backend.client_streams() == 1).await;
    let both = async || tokio::select! { asked = first.message() => asked, asked = second.message() => asked };
    let mut both = both;

    // The stream moves from the older to the newer one; until it has, what is said may be lost on its way.
    let mut asked = None;
    for id in 0..50 {
        backend.tell_clients(&question(&json!(id), "roots/list")).await;
        if let Ok(one) = tokio::time::timeout(Duration::from_millis(200), both()).await {
            asked = one;
            break;
        }
    }

    assert_eq!(asked.unwrap()["method"], "roots/list");
    never_within(Duration::from_millis(300), both()).await;
}

/// Cap: questions that one client has yet to answer.
#[tokio::test]
async fn beyond_64_open_questions_the_oldest_is_put_off() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    let mut asked = Vec::new();
    for id in 0..64 {
        stream.event(&sampling(&json!(id))).await;
        asked.push(opened.message().await.unwrap()["id"].clone());
    }
    assert_eq!(backend.responses(), [Value::Null; 0]);

    stream.event(&sampling(&json!(64))).await;
    asked.push(opened.message().await.unwrap()["id"].clone());
    backend.until(|backend| !backend.responses().is_empty()).await;

    let put_off = backend.responses();
    assert_eq!((&put_off[0]["id"], &put_off[0]["error"]["code"]), (&json!(0), &json!(429)));
    client.reply(&asked[0], json!({ "said": "late" })).await;
    client.reply(&asked[1], json!({ "said": "in time" })).await;
    backend.until(|backend| backend.responses().len() == 2).await;
    assert_eq!(backend.responses()[1], said(&json!(1), "in time"));
    stream.finish().await;
}

/// Cap: questions that one client has yet to answer.
#[tokio::test]
async fn a_question_of_a_modern_backend_puts_off_the_oldest_too_and_its_backend_is_told() {
    let old = FakeBackend::with_held_tool("old", "ask").await;
    let new = FakeModern::with_held_tool("new", "ask").await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&new, 1).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("old__ask", &old).await;
    for id in 0..64 {
        stream.event(&sampling(&json!(id))).await;
        opened.message().await.unwrap();
    }

    let required = json!({ "resultType": "input_required", "inputRequests": { "k": { "method": "roots/list" } } });
    let (mut asked, ()) = tokio::join!(client.open_call("new__ask"), async { new.next_call().await.result(&required) });
    assert_eq!(asked.message().await.unwrap()["method"], "roots/list");

    old.until(|old| !old.responses().is_empty()).await;
    assert_eq!((&old.responses()[0]["id"], &old.responses()[0]["error"]["code"]), (&json!(0), &json!(429)));
    stream.finish().await;
}

/// Method table: `sampling/createMessage` from backend.
#[tokio::test]
async fn a_batch_can_be_asked_and_answered_in_a_batch() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let all = json!({ "roots": {}, "sampling": {} });
    let client = proxy.stranger().started_with("2025-03-26", all).await;
    let call = client.message("tools/call", &json!({ "name": "a__ask" }));
    let opening = client.open(client.request(http::Method::POST, format!("[{call}]")));
    let (mut opened, stream) = tokio::join!(opening, async {
        let stream = backend.next_call().await.stream();
        stream.event(&sampling(&json!(0))).await;
        stream
    });
    let id = opened.message().await.unwrap()["id"].clone();

    let answers = json!([{ "jsonrpc": "2.0", "id": id, "result": { "said": "yes" } }]);
    assert_eq!(client.post(answers.to_string()).await.status, 202);
    backend.until(|backend| backend.responses().contains(&said(&json!(0), "yes"))).await;
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
}
