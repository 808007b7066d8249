//! Clients of one era on backends of the other: what is asked, what is answered, what is cancelled, and what never crosses.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::backend::modern::complete;
use crate::support::backend::{event, spoken};
use crate::support::client::Opened;
use crate::support::modern_client::header_text;
use crate::support::proxy::VERSION;
use crate::support::{
    Answer, Call, CallStream, Client, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, eventually,
    never_within, within,
};

/// Time for what should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

fn question(id: &Value, method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "message": "Really?" } })
}

fn elicitation(id: &Value) -> Value {
    question(id, "elicitation/create")
}

fn cancellations(backend: &FakeBackend) -> Vec<Value> {
    backend.all("notifications/cancelled").iter().map(|seen| seen.json()["params"]["requestId"].clone()).collect()
}

/// Whether there is nothing in it that only legacy clients know.
#[track_caller]
fn in_modern_words(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body);
    for word in ["-32002", "-32042", "\"method\":\"sampling/createMessage\",\"id\"", "mcp-session-id"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(answer.header("mcp-session-id"), "");
    for message in answer.messages() {
        assert!(message["method"].is_null() || message["id"].is_null(), "a request: {message}");
    }
}

/// Whether there is nothing in it that only modern clients know.
#[track_caller]
fn in_legacy_words(text: &str) {
    for word in
        ["resultType", "ttlMs", "cacheScope", "-32020", "-32021", "-32022", "io.modelcontextprotocol/", "requestState"]
    {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

// === modern clients on legacy backends ===

/// A legacy backend with a held tool, and the gateway before it.
async fn legacy() -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    (backend, proxy)
}

fn params() -> Value {
    json!({ "name": "a__ask", "arguments": { "x": 1.5, "y": ["é"] } })
}

/// Begins a call and has the backend ask for something: the answer, and the stream that it waits on.
async fn parked(client: &ModernClient, backend: &FakeBackend, id: &Value) -> (Value, CallStream) {
    let running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    stream.event(&elicitation(id)).await;
    let answer = within(running).await.unwrap();
    in_modern_words(&answer);
    let result = answer.result();
    assert_eq!(result["resultType"], "input_required", "{answer:?}");
    (result, stream)
}

/// The same request with an answer to what was asked.
fn retry(asked: &Value, answer: &Value) -> Value {
    let mut params = params();
    let requests = asked["inputRequests"].as_object().unwrap();
    assert_eq!(requests.len(), 1);
    let key = requests.keys().next().unwrap();
    params["inputResponses"] = json!({ key: answer });
    params["requestState"] = asked["requestState"].clone();
    params
}

fn yes() -> Value {
    json!({ "action": "accept", "content": { "sure": true } })
}

#[tokio::test]
async fn a_question_parks_the_call_and_a_retry_takes_it_up() {
    let (backend, proxy) = legacy().await;
    let client = proxy.askable();
    for own_id in [json!(0), json!("q\"1")] {
        let (asked, stream) = parked(&client, &backend, &own_id).await;
        let request = asked["inputRequests"].as_object().unwrap().values().next().unwrap();
        assert_eq!(*request, json!({ "method": "elicitation/create", "params": { "message": "Really?" } }));
        assert!(asked["requestState"].is_string());
        proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 1.0).await;

        let again = client.start("tools/call", retry(&asked, &yes()));
        let expected = json!({ "jsonrpc": "2.0", "id": own_id, "result": yes() });
        backend.until(|backend| backend.responses().contains(&expected)).await;
        stream.finish().await;
        let answer = within(again).await.unwrap();

        in_modern_words(&answer);
        assert_eq!(answer.result()["content"], spoken("ask")["content"]);
        assert_eq!(answer.result()["resultType"], "complete");
    }
    assert_eq!(backend.all("tools/call").len(), 2);
    assert_eq!(cancellations(&backend), [Value::Null; 0]);
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

#[tokio::test]
async fn questions_can_follow_each_other_with_progress_in_between() {
    let (backend, proxy) = legacy().await;
    let client = proxy.askable();
    let with_token = |mut params: Value| {
        params["_meta"] = json!({ "progressToken": "t" });
        params
    };
    let running = client.start("tools/call", with_token(params()));
    let call = backend.next_call().await;
    let token = call.seen.json()["params"]["_meta"]["progressToken"].clone();
    let stream = call.stream();
    stream.event(&elicitation(&json!(0))).await;
    let mut asked = within(running).await.unwrap().result();

    for round in 1..=3 {
        let again =
            client.start("tools/call", with_token(retry(&asked, &json!({ "action": "accept", "round": round }))));
        backend.until(|backend| backend.responses().len() == round).await;
        let told = json!({ "progressToken": token, "progress": round });
        stream.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": told })).await;
        stream.event(&question(&json!(round), "roots/list")).await;
        let answer = within(again).await.unwrap();
        let messages = answer.messages();
        assert_eq!(messages[0]["params"], json!({ "progressToken": "t", "progress": round }));
        assert_ne!(messages[1]["result"]["requestState"], asked["requestState"]);
        asked = messages[1]["result"].clone();
        assert_eq!(asked["inputRequests"].as_object().unwrap().values().next().unwrap()["method"], "roots/list");
    }
    let again = client.start("tools/call", with_token(retry(&asked, &json!({ "roots": [] }))));
    backend.until(|backend| backend.responses().len() == 4).await;
    stream.finish().await;

    assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
    let ids: Vec<_> = backend.responses().iter().map(|response| response["id"].clone()).collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    assert_eq!(backend.all("tools/call").len(), 1);
}

#[tokio::test]
async fn what_is_not_answered_is_asked_again() {
    let (backend, proxy) = legacy().await;
    let client = proxy.askable();
    let (asked, stream) = parked(&client, &backend, &json!(0)).await;

    let mut without = retry(&asked, &yes());
    without["inputResponses"] = json!({ "something else": yes() });
    let again = client.ask("tools/call", without).await.result();
    assert_eq!((&again["resultType"], &again["inputRequests"]), (&json!("input_required"), &asked["inputRequests"]));
    let mut none = retry(&again, &yes());
    none.as_object_mut().unwrap().remove("inputResponses");
    let again = client.ask("tools/call", none).await.result();
    assert_eq!(again["resultType"], "input_required");
    assert_eq!(backend.responses(), [Value::Null; 0]);

    let at_last = client.start("tools/call", retry(&again, &yes()));
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;
    assert_eq!(within(at_last).await.unwrap().result()["resultType"], "complete");
}

#[tokio::test]
async fn a_state_that_is_not_the_one_of_this_request_is_refused_and_harms_nothing() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    // Of replicas with the same keys each reads what the other has sealed.
    let keys = "{ keys: [{ value: \"Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=\" }] }";
    let replica = async || Setup::fronting(&[&backend]).section("sessions", keys).start().await;
    let (proxy, elsewhere) = (replica().await, replica().await);
    let client = proxy.askable();
    proxy.until_tools(&backend, 1).await;
    elsewhere.until_tools(&backend, 1).await;
    let (foreign, foreign_stream) = parked(&elsewhere.askable(), &backend, &json!(9)).await;
    let (asked, stream) = parked(&client, &backend, &json!(0)).await;
    let good = retry(&asked, &yes());
    let with = |key: &str, value: Value| {
        let mut params = good.clone();
        params[key] = value;
        params
    };
    let mut tampered = asked["requestState"].as_str().unwrap().to_owned();
    let last = if tampered.ends_with('A') { 'B' } else { 'A' };
    tampered.replace_range(4..5, if &tampered[4..5] == "x" { "y" } else { "x" });
    let mut cut = asked["requestState"].as_str().unwrap().to_owned();
    cut.pop();
    cut.push(last);

    for bad in [
        with("requestState", json!(tampered)),
        with("requestState", json!("")),
        with("requestState", json!("made up")),
        with("requestState", json!(7)),
        with("requestState", foreign["requestState"].clone()),
        with("arguments", json!({ "x": 2 })),
        with("arguments", Value::Null),
    ] {
        let answer = client.ask("tools/call", bad.clone()).await;
        assert_eq!((answer.status, answer.code()), (200, -32602), "{bad}");
        assert!(answer.message().ends_with("call again without it"), "{bad}: {answer:?}");
    }
    assert_eq!(backend.responses(), [Value::Null; 0]);
    assert_eq!(backend.all("tools/call").len(), 2);

    let again = client.start("tools/call", good.clone());
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;
    assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
    // It is good once.
    assert_eq!(client.ask("tools/call", good).await.code(), -32602);
    drop(foreign_stream);
}

#[tokio::test]
async fn a_state_is_good_however_the_client_prints_its_arguments() {
    let (backend, proxy) = legacy().await;
    let client = proxy.askable();
    let (asked, stream) = parked(&client, &backend, &json!(0)).await;
    let state = &asked["requestState"];
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let meta = client.meta();
    let body = format!(
        r#"{{"id":"again","params":{{"requestState":{state},"inputResponses":{{"{key}":{}}},"arguments":{{ "y":["\u00e9"], "x" : 1.50 }},"name":"a\u005f_ask","_meta":{meta}}},"method":"tools/call","jsonrpc":"2.0"}}"#,
        yes()
    );

    let again = tokio::spawn({
        let client = client.clone();
        async move { client.post(&body).await }
    });
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;

    let answer = within(again).await.unwrap();
    assert_eq!((&answer.response()["id"], &answer.result()["resultType"]), (&json!("again"), &json!("complete")));
}

#[tokio::test]
async fn a_call_whose_client_never_comes_back_is_cancelled_at_its_backend() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let setup = Setup::fronting(&[&backend]).section("bridge", "{ parked_ttl: 300ms }");
    let proxy = setup.start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();

    let (asked, stream) = parked(&client, &backend, &json!(0)).await;
    let id: Value = serde_json::from_str(&stream.id).unwrap();
    within(stream.disconnected()).await;
    backend.until(|backend| !backend.all("notifications/cancelled").is_empty()).await;

    assert_eq!(cancellations(&backend), [id]);
    let (call, cancelled) = (&backend.all("tools/call")[0], &backend.all("notifications/cancelled")[0]);
    assert_eq!(call.session, cancelled.session);
    assert_eq!(client.ask("tools/call", retry(&asked, &yes())).await.code(), -32602);
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

/// Method table: `roots/list` from backend.
/// Complaint 21: Server-to-client requests dropped.
#[tokio::test]
async fn a_question_on_the_stream_of_a_shared_session_is_refused_at_once() {
    let backend = FakeBackend::named("a").held("ask").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let answer = proxy.modern().start_call("a__ask");
    let call = within(backend.next_call()).await;

    backend.announce(&question(&json!(5), "roots/list")).await;
    let refused = |message: &Value| message["id"] == 5 && message["error"]["code"] == -32601;
    backend.until(|backend| backend.responses().iter().any(refused)).await;
    call.result(&spoken("ask"));

    assert_eq!(within(answer).await.unwrap().result()["content"], spoken("ask")["content"]);
}

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

/// Cap: calls that wait for input.
#[tokio::test]
async fn beyond_the_cap_of_parked_calls_the_backend_is_told_and_the_call_goes_on() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).section("bridge", "{ parked: 1 }").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let (asked, first) = parked(&client, &backend, &json!(0)).await;

    let second = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    stream.event(&elicitation(&json!(5))).await;
    backend.until(|backend| !backend.responses().is_empty()).await;
    let refused = backend.responses().remove(0);
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(5), &json!(503)));
    stream.finish().await;

    assert_eq!(within(second).await.unwrap().result()["resultType"], "complete");
    let again = client.start("tools/call", retry(&asked, &yes()));
    backend.until(|backend| backend.responses().len() == 2).await;
    first.finish().await;
    assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
}

#[tokio::test]
async fn a_parked_call_is_charged_once_and_keeps_its_permit() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let limits = "[{ name: few, tools: [\"*\"], rate: 2/h }, { name: one, tools: [\"*\"], concurrency: 1 }]";
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let (asked, stream) = parked(&client, &backend, &json!(0)).await;

    let meanwhile = client.ask("tools/call", params()).await.result();
    assert_eq!((&meanwhile["isError"], &meanwhile["_meta"]["toolgate/limit"]), (&json!(true), &json!("one")));
    let again = client.start("tools/call", retry(&asked, &yes()));
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;
    assert_eq!(within(again).await.unwrap().result()["isError"], Value::Null);

    eventually(async || proxy.metric("toolgate_upstream_inflight{backend=\"a\"}").await == Some(0.0)).await;
    let second = client.start("tools/call", params());
    backend.next_call().await.finish();
    assert_eq!(within(second).await.unwrap().result()["isError"], Value::Null);
    let third = client.ask("tools/call", params()).await.result();
    assert_eq!(third["_meta"]["toolgate/limit"], "few");
}

#[tokio::test]
async fn a_retry_needs_no_place_beside_the_one_its_call_has() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "max_inflight: 1").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let (asked, stream) = parked(&client, &backend, &json!(0)).await;

    let again = client.start("tools/call", retry(&asked, &yes()));
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;

    assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
}

#[tokio::test]
async fn prompts_and_resources_can_be_asked_about_too() {
    let prompt = json!({ "name": "p" }).to_string();
    let resource = json!({ "uri": "a:1", "name": "r" }).to_string();
    let declared = json!({ "tools": {}, "prompts": {}, "resources": {} });
    let backend = FakeBackend::named("a").tool("x").prompt(&prompt).resource(&resource).declares(declared);
    let backend = backend.holding("prompts/get").holding("resources/read").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    for (method, named, key) in [("prompts/get", "a__p", "name"), ("resources/read", "a:1", "uri")] {
        let mut params = json!({ key: named });
        let running = client.start(method, params.clone());
        let stream = backend.next_call().await.stream();
        stream.event(&question(&json!(0), "sampling/createMessage")).await;
        let asked = within(running).await.unwrap().result();
        let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
        params["inputResponses"] = json!({ key: { "role": "assistant" } });
        params["requestState"] = asked["requestState"].clone();

        let before = backend.responses().len();
        let again = client.start(method, params);
        backend.until(|backend| backend.responses().len() > before).await;
        stream.finish().await;

        assert_eq!(within(again).await.unwrap().result()["resultType"], "complete", "{method}");
    }
}

#[tokio::test]
async fn what_a_modern_client_did_not_declare_is_refused_to_the_backend() {
    let (backend, proxy) = legacy().await;
    let client = proxy.modern().declaring(json!({ "roots": {} }));
    let running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();

    stream.event(&elicitation(&json!(1))).await;
    stream.event(&json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" })).await;
    backend.until(|backend| backend.responses().len() == 2).await;
    stream.finish().await;

    let answer = |id: i64| backend.responses().into_iter().find(|response| response["id"] == id).unwrap();
    assert_eq!((&answer(1)["error"]["code"], &answer(2)["result"]), (&json!(-32601), &json!({})));
    let answer = within(running).await.unwrap();
    in_modern_words(&answer);
    assert_eq!(answer.result()["resultType"], "complete");
    let capabilities: Vec<_> =
        backend.all("initialize").iter().map(|seen| seen.json()["params"]["capabilities"].clone()).collect();
    assert_eq!(capabilities.last(), Some(&json!({ "roots": {} })));
}

#[tokio::test]
async fn a_question_on_the_sessions_own_stream_parks_the_call_too() {
    let backend = FakeBackend::named("a").held("ask").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let running = client.start("tools/call", params());
    let call = backend.next_call().await;

    // The gateway's own stream answers for itself.
    backend.announce(&elicitation(&json!("s"))).await;
    let asked = within(running).await.unwrap().result();
    assert_eq!(asked["resultType"], "input_required");
    let again = client.start("tools/call", retry(&asked, &yes()));
    let expected = json!({ "jsonrpc": "2.0", "id": "s", "result": yes() });
    backend.until(|backend| backend.responses().contains(&expected)).await;
    call.finish();

    assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
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

/// A backend that finds out late that a stream is closed would take the next one for it.
#[tokio::test]
async fn a_sessions_own_stream_goes_on_to_the_next_call_and_what_is_asked_between_them_is_refused() {
    let backend = FakeBackend::named("a").held("ask").streams().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    for n in [1, 2] {
        let running = client.start("tools/call", params());
        let call = backend.next_call().await;
        let asked_between = |backend: &FakeBackend| backend.responses().iter().any(|said| said["id"] == "between");
        if n == 2 {
            backend.until(asked_between).await;
        }
        backend.tell_last(&elicitation(&json!(n))).await;
        let asked = within(running).await.unwrap().result();
        let again = client.start("tools/call", retry(&asked, &yes()));
        let expected = json!({ "jsonrpc": "2.0", "id": n, "result": yes() });
        backend.until(|backend| backend.responses().contains(&expected)).await;
        call.finish();
        assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
        if n == 1 {
            backend.tell_last(&elicitation(&json!("between"))).await;
            proxy.until_metric("toolgate_questions", 1.0).await;
        }
    }

    let session = &backend.all("tools/call")[1].session;
    let streams = backend.seen().into_iter().filter(|seen| seen.verb == "GET" && seen.session == *session).count();
    assert_eq!(streams, 1);
    let refused = backend.responses().into_iter().find(|said| said["id"] == "between").unwrap();
    assert_eq!(refused["error"]["code"], -32601);
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

// === legacy clients on modern backends ===

/// A modern backend with a held tool, and the gateway before it.
async fn modern() -> (FakeModern, TestProxy) {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    (backend, proxy)
}

fn required(requests: &Value, state: Option<&str>) -> Value {
    let mut result = complete(json!({ "inputRequests": requests }));
    result["resultType"] = json!("input_required");
    if let Some(state) = state {
        result["requestState"] = json!(state);
    }
    result
}

fn ask_for(method: &str) -> Value {
    json!({ "method": method, "params": { "message": "Really?" } })
}

/// Begins a call and has the backend require this; the client's stream.
async fn asked(client: &Client, backend: &FakeModern, required: &Value) -> Opened {
    let (opened, ()) = tokio::join!(client.open_call("a__ask"), async { backend.next_call().await.result(required) });
    opened
}

fn params_of(call: &Call) -> Value {
    call.seen.json()["params"].clone()
}

#[tokio::test]
async fn a_legacy_clients_request_is_dressed_in_what_its_session_knows() {
    let (backend, proxy) = modern().await;
    let client = proxy.stranger().started_with("2025-03-26", json!({ "sampling": {} })).await;
    let running = client.start_post(
        r#"{"jsonrpc":"2.0","id":"7","method":"tools/call","params":{"arguments":{"z":1e400,"a":1.0},"name":"a__ask","_meta":{"progressToken":5,"io.modelcontextprotocol/logLevel":"debug"}}}"#,
    );
    let call = backend.next_call().await;

    let text = String::from_utf8(call.seen.body.to_vec()).unwrap();
    assert!(text.contains(r#""arguments":{"z":1e400,"a":1.0},"name":"ask""#), "{text}");
    let meta = params_of(&call)["_meta"].clone();
    let key = |key: &str| meta[format!("io.modelcontextprotocol/{key}")].clone();
    assert_eq!((key("protocolVersion"), key("clientInfo")["name"].clone()), (json!("2026-07-28"), json!("tester")));
    assert_eq!((key("clientCapabilities"), key("logLevel")), (json!({ "sampling": {} }), Value::Null));
    assert_eq!(meta["progressToken"], 5);
    assert_eq!(call.seen.headers["mcp-name"], "ask");
    assert!(!call.seen.headers.contains_key("mcp-session-id"));
    call.finish();
    let answer = within(running).await.unwrap();
    assert_eq!((&answer.response()["id"], &answer.result()), (&json!("7"), &spoken("ask")));
    in_legacy_words(&String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn names_and_arguments_that_a_header_cannot_carry_are_wrapped() {
    let tool = r#"{"name":"put","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"}}}}"#;
    let resource = json!({ "uri": "a:größe", "name": "r" }).to_string();
    let backend = FakeModern::named("a").defined("put", tool).resource(&resource).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;

    client.call_with("a__put", json!({ "region": " Zürich ", "n": 42, "free": "é" })).await.result();
    client.call_with("a__put", json!({ "region": null })).await.result();
    client.ask("resources/read", json!({ "uri": "a:größe" })).await.result();

    let calls = backend.calls();
    assert_eq!(backend.by_clients("resources/read")[0].headers["mcp-name"], &*header_text("a:größe"));
    assert_eq!(calls[0].headers["mcp-param-region"], &*header_text(" Zürich "));
    assert_eq!(calls[0].headers["mcp-param-n"], "42");
    assert!(!calls[1].headers.contains_key("mcp-param-region"));
}

#[tokio::test]
async fn half_a_surrogate_pair_is_no_text_for_a_header_and_of_no_matter_elsewhere() {
    let tool = r#"{"name":"put","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}"#;
    let backend = FakeModern::named("a").defined("put", tool).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let legacy = |arguments: &str| {
        let params = format!(r#"{{"name":"a__put","arguments":{arguments}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    };
    let client = proxy.client().await;

    client.post(legacy(r#"{"\ud800":1,"region":"eu","other":"\udc00"}"#)).await;
    let refused = client.post(legacy(r#"{"region":"\ud800"}"#)).await;

    assert_eq!(refused.code(), -32602, "{refused:?}");
    assert!(refused.message().contains("`Mcp-Param-Region`"), "{refused:?}");
    let seen = backend.seen();
    let calls: Vec<_> = seen.iter().filter(|seen| seen.headers.contains_key("mcp-name")).collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].headers["mcp-param-region"], "eu");
    // The fake cannot read such a body either.
    backend.take_faults();
}

fn sized(header: &str) -> String {
    let schema = json!({ "type": "object", "properties": { "size": { "type": "integer", "x-mcp-header": header } } });
    json!({ "name": "put", "inputSchema": schema }).to_string()
}

const MISMATCH: &str = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32020,"message":"Mcp-Param-New is missing","data":{"header":"Mcp-Param-New"}}}"#;

#[tokio::test]
async fn headers_that_the_backend_does_not_accept_are_made_anew_once() {
    let backend = FakeModern::named("a").held_as("put", &sized("Old")).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;
    let start =
        || client.start_post(&client.message("tools/call", &json!({ "name": "a__put", "arguments": { "size": 3 } })));
    let mismatch = |call: Call| {
        let body = MISMATCH.replace("$ID", &call.id());
        call.respond(400, "application/json", body);
    };

    let running = start();
    let first = backend.next_call().await;
    assert_eq!(first.seen.headers["mcp-param-old"], "3");
    backend.redefine("put", &sized("New"));
    let lists = backend.by_gateway("tools/list").len();
    mismatch(first);
    let second = backend.next_call().await;
    assert_eq!(backend.by_gateway("tools/list").len(), lists + 1);
    assert_eq!(second.seen.headers["mcp-param-new"], "3");
    assert!(!second.seen.headers.contains_key("mcp-param-old"));
    second.finish();
    assert_eq!(within(running).await.unwrap().result()["isError"], Value::Null);

    let running = start();
    mismatch(backend.next_call().await);
    mismatch(backend.next_call().await);
    let answer = within(running).await.unwrap();
    in_legacy_words(&String::from_utf8_lossy(&answer.body));
    assert_eq!((answer.status, answer.code()), (200, 502));
    assert_eq!(backend.calls().len(), 4);
}

#[tokio::test]
async fn a_call_whose_modern_backend_says_nothing_is_kept_alive_all_the_same() {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "").listener("keep_alive: 1s").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;
    let (mut opened, call) = tokio::join!(client.open_call("a__ask"), backend.next_call());

    assert_eq!((opened.status, opened.header("content-type")), (200, "text/event-stream"));
    assert_eq!(opened.chunk().await.unwrap().unwrap(), ": keep-alive\n\n");
    call.finish();

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn headers_are_made_anew_for_a_client_that_has_its_status_too() {
    let backend = FakeModern::named("a").held_as("put", &sized("Old")).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.client().await;
    let message = client.message("tools/call", &json!({ "name": "a__put", "arguments": { "size": 3 } }));
    let (mut opened, first) =
        tokio::join!(client.open(client.request(http::Method::POST, message)), backend.next_call());

    backend.redefine("put", &sized("New"));
    let body = MISMATCH.replace("$ID", &first.id());
    first.respond(400, "application/json", body);
    let second = backend.next_call().await;
    assert_eq!(second.seen.headers["mcp-param-new"], "3");
    second.finish();

    assert_eq!(opened.message().await.unwrap()["result"]["isError"], Value::Null);
}

#[tokio::test]
async fn what_a_modern_backend_requires_is_asked_on_the_calls_stream_and_sent_with_the_call_again() {
    let (backend, proxy) = modern().await;
    let client = proxy.asked_client().await;
    let requests = json!({ "k 1": ask_for("elicitation/create"), "é": ask_for("sampling/createMessage"), "r": { "method": "roots/list" } });
    let raw = r#"{"jsonrpc":"2.0","id":$ID,"result":{"requestState":"s\u0074ate\/\u00e9 =","inputRequests":$REQUESTS,"resultType":"input_required"}}"#;
    let (mut opened, ()) = tokio::join!(client.open_call("a__ask"), async {
        let call = backend.next_call().await;
        let body = raw.replace("$ID", &call.id()).replace("$REQUESTS", &requests.to_string());
        call.json(body);
    });

    let mut asked = Vec::new();
    for _ in 0..3 {
        let block = opened.block().await.unwrap();
        in_legacy_words(&block);
        let message: Value = serde_json::from_str(block.rsplit_once("data: ").unwrap().1).unwrap();
        asked.push(message);
    }
    // Answered in another order than they were asked.
    for message in asked.iter().rev() {
        let method = message["method"].as_str().unwrap();
        client.reply(&message["id"], json!({ "of": method, "n": 1.0 })).await;
    }
    let again = backend.next_call().await;
    let first = &backend.calls()[0];

    let text = String::from_utf8(again.seen.body.to_vec()).unwrap();
    assert!(text.contains(r#""requestState":"s\u0074ate\/\u00e9 =""#), "{text}");
    assert!(text.contains("\"n\":1.0"), "{text}");
    let params = params_of(&again);
    for (key, method) in [("k 1", "elicitation/create"), ("é", "sampling/createMessage"), ("r", "roots/list")] {
        assert_eq!(params["inputResponses"][key], json!({ "of": method, "n": 1.0 }));
    }
    assert_eq!(params["inputResponses"].as_object().unwrap().len(), 3);
    assert_ne!(again.seen.json()["id"], first.json()["id"]);
    let without = |params: &Value| {
        let mut params = params.clone();
        params.as_object_mut().unwrap().retain(|key, _| key != "inputResponses" && key != "requestState");
        params
    };
    assert_eq!(without(&params), without(&first.json()["params"]));
    again.finish();
    let last = opened.message().await.unwrap();
    assert_eq!((&last["id"], &last["result"]), (&first.json()["id"], &spoken("ask")));
}

#[tokio::test]
async fn several_rounds_carry_only_the_answers_and_the_state_of_the_last_one() {
    let (backend, proxy) = modern().await;
    let client = proxy.asked_client().await;
    let one = |key: &str| json!({ key: ask_for("elicitation/create") });
    let mut opened = asked(&client, &backend, &required(&one("k0"), Some("s0"))).await;
    let mut ids = vec![backend.calls()[0].json()["id"].clone()];

    for round in 0..3 {
        let question = opened.message().await.unwrap();
        client.reply(&question["id"], json!({ "round": round })).await;
        let again = backend.next_call().await;
        let params = params_of(&again);
        assert_eq!(params["inputResponses"], json!({ format!("k{round}"): { "round": round } }));
        assert_eq!(params["requestState"], format!("s{round}"));
        let id = again.seen.json()["id"].clone();
        assert!(!ids.contains(&id), "{ids:?} {id}");
        ids.push(id);
        match round {
            2 => again.finish(),
            _ => again.result(&required(&one(&format!("k{}", round + 1)), Some(&format!("s{}", round + 1)))),
        }
    }

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn a_state_without_questions_is_sent_back_at_once() {
    let (backend, proxy) = modern().await;
    let client = proxy.client().await;
    let running = client.start_call("a__ask");
    let mut first = complete(json!({ "requestState": "only" }));
    first["resultType"] = json!("input_required");
    backend.next_call().await.result(&first);

    let again = backend.next_call().await;
    let params = params_of(&again);
    assert_eq!((&params["requestState"], &params["inputResponses"]), (&json!("only"), &Value::Null));
    again.finish();

    assert_eq!(within(running).await.unwrap().result(), spoken("ask"));
}

#[tokio::test]
async fn a_client_that_declines_has_answered_and_one_that_fails_at_an_elicitation_has_cancelled_it() {
    let (backend, proxy) = modern().await;
    let client = proxy.asked_client().await;
    let requests = json!({ "k": ask_for("elicitation/create") });
    for (answer, expected) in [
        (json!({ "result": { "action": "decline" } }), json!({ "action": "decline" })),
        (json!({ "error": { "code": -32603, "message": "broken" } }), json!({ "action": "cancel" })),
    ] {
        let mut opened = asked(&client, &backend, &required(&requests, None)).await;
        let mut response = answer;
        response["jsonrpc"] = json!("2.0");
        response["id"] = opened.message().await.unwrap()["id"].clone();
        client.respond(response).await;

        let again = backend.next_call().await;
        assert_eq!(params_of(&again)["inputResponses"], json!({ "k": expected }));
        again.finish();
        assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    }
}

#[tokio::test]
async fn a_client_that_fails_at_another_question_gets_its_own_error_as_the_answer() {
    let (backend, proxy) = modern().await;
    let client = proxy.asked_client().await;
    let requests = json!({ "k": ask_for("sampling/createMessage") });
    let mut opened = asked(&client, &backend, &required(&requests, None)).await;
    let id = opened.message().await.unwrap()["id"].clone();

    client.respond(json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -1, "message": "User rejected" } })).await;

    let last = opened.message().await.unwrap();
    assert_eq!(last["error"], json!({ "code": -1, "message": "User rejected" }));
    assert_eq!(opened.message().await, None);
    assert_eq!(backend.calls().len(), 1);
}

#[tokio::test]
async fn a_question_that_its_client_never_answers_ends_the_call() {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let setup = Setup::new().backend(&backend, "").section("bridge", "{ parked_ttl: 300ms }");
    let proxy = setup.start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.asked_client().await;
    let requests = json!({ "k": ask_for("sampling/createMessage") });
    let mut opened = asked(&client, &backend, &required(&requests, None)).await;
    let id = opened.message().await.unwrap()["id"].clone();

    assert_eq!(opened.message().await.unwrap()["error"]["code"], 408);
    client.reply(&id, json!({})).await;
    assert_eq!(backend.calls().len(), 1);
}

#[tokio::test]
async fn what_a_legacy_client_did_not_declare_is_never_asked() {
    let (backend, proxy) = modern().await;
    let client = proxy.stranger().started_with(VERSION, json!({ "elicitation": {} })).await;
    let missing = r#"{"jsonrpc":"2.0","id":$ID,"error":{"code":-32021,"message":"needs sampling","data":{"requiredCapabilities":{"sampling":{}}}}}"#;

    let running = client.start_call("a__ask");
    let requests = json!({ "e": ask_for("elicitation/create"), "s": ask_for("sampling/createMessage") });
    backend.next_call().await.result(&required(&requests, None));
    let answer = within(running).await.unwrap();
    assert_eq!((answer.messages().len(), answer.code()), (1, 502), "{answer:?}");

    let running = client.start_call("a__ask");
    let call = backend.next_call().await;
    let body = missing.replace("$ID", &call.id());
    call.respond(400, "application/json", body);
    let answer = within(running).await.unwrap();
    in_legacy_words(&String::from_utf8_lossy(&answer.body));
    assert_eq!((answer.status, answer.code()), (200, 502));
    assert_eq!(answer.message(), "needs sampling");
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_its_client_is_asked_is_not_sent_again() {
    let (backend, proxy) = modern().await;
    let client = proxy.asked_client().await;
    let requests = json!({ "k": ask_for("elicitation/create") });
    let mut opened = asked(&client, &backend, &required(&requests, None)).await;
    let id = opened.message().await.unwrap()["id"].clone();

    let request_id = backend.calls()[0].json()["id"].clone();
    client.notify("notifications/cancelled", json!({ "requestId": request_id })).await;

    assert_eq!(opened.message().await.unwrap()["error"]["code"], 499);
    client.reply(&id, yes()).await;
    never_within(LONG_ENOUGH, backend.next_call()).await;
}

#[tokio::test]
async fn a_legacy_client_that_leaves_before_the_answer_has_not_cancelled() {
    let (backend, proxy) = modern().await;
    let client = proxy.client().await;
    let running = client.start_call("a__ask");
    let call = backend.next_call().await;

    running.abort();
    never_within(LONG_ENOUGH, call.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 1.0).await;
    call.finish();

    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

#[tokio::test]
async fn a_legacy_client_that_leaves_within_a_stream_has_not_cancelled_until_it_says_so() {
    let (backend, proxy) = modern().await;
    let client = proxy.client().await;
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                           "params": { "progressToken": 1, "progress": 1 } });
    let (mut opened, stream) = tokio::join!(client.open_call("a__ask"), async {
        let stream = backend.next_call().await.stream();
        stream.event(&progress).await;
        stream
    });
    assert_eq!(opened.message().await.unwrap(), progress);

    drop(opened);
    never_within(LONG_ENOUGH, stream.disconnected()).await;
    let id: Value = serde_json::from_str(&stream.id).unwrap();
    client.notify("notifications/cancelled", json!({ "requestId": id })).await;

    within(stream.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

#[tokio::test]
async fn results_of_a_modern_backend_come_in_legacy_words() {
    let (backend, proxy) = modern().await;
    let client = proxy.client().await;
    let text = json!([{ "type": "text", "text": "[1]" }]);
    for (own, expected) in [
        (json!({ "structuredContent": [1], "content": text }), json!({ "content": text })),
        (json!({ "structuredContent": "é", "content": text }), json!({ "content": text })),
        (json!({ "structuredContent": null, "content": text }), json!({ "content": text })),
        (
            json!({ "structuredContent": { "a": 1 }, "content": text, "isError": true, "x": 1 }),
            json!({ "structuredContent": { "a": 1 }, "content": text, "isError": true, "x": 1 }),
        ),
    ] {
        for in_events in [false, true] {
            let running = client.start_call("a__ask");
            let call = backend.next_call().await;
            let id: Value = serde_json::from_str(&call.id()).unwrap();
            let mut result = complete(own.clone());
            (result["ttlMs"], result["cacheScope"]) = (json!(5), json!("public"));
            let mut expected = expected.clone();
            if in_events {
                result["_meta"]["mine"] = json!(1);
                expected["_meta"] = json!({ "mine": 1 });
                let stream = call.stream();
                stream.event(&json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
            } else {
                call.result(&result);
            }
            let answer = within(running).await.unwrap();
            in_legacy_words(&String::from_utf8_lossy(&answer.body));
            assert_eq!(answer.result(), expected);
        }
    }
}

#[tokio::test]
async fn errors_of_a_modern_backend_come_in_legacy_words() {
    let (backend, proxy) = modern().await;
    let client = proxy.client().await;
    for (status, code, expected) in [
        (400, -32021, 502),
        (200, -32050, -32050),
        (200, -32602, -32602),
        (404, -32601, -32601),
        (200, 17, 17),
        (400, -32603, -32603),
    ] {
        let running = client.start_call("a__ask");
        let call = backend.next_call().await;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"no"}}}}"#, call.id());
        call.respond(status, "application/json", body);
        let answer = within(running).await.unwrap();
        in_legacy_words(&String::from_utf8_lossy(&answer.body));
        assert_eq!((answer.status, answer.code()), (200, expected), "{code}");
    }
    for result in [json!({ "resultType": "task", "taskId": "t" }), json!({ "resultType": "odd" })] {
        let running = client.start_call("a__ask");
        backend.next_call().await.result(&result);
        let answer = within(running).await.unwrap();
        in_legacy_words(&String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.code(), 502);
    }
}

#[tokio::test]
async fn requests_of_a_modern_backend_reach_nobody() {
    let (backend, proxy) = modern().await;
    for is_modern in [false, true] {
        let running = match is_modern {
            true => proxy.askable().start_call("a__ask"),
            false => proxy.asked_client().await.start_call("a__ask"),
        };
        let stream = backend.next_call().await.stream();
        stream.send(event(&elicitation(&json!(1)))).await;
        stream.finish().await;
        let answer = within(running).await.unwrap();
        assert_eq!(answer.messages().len(), 1, "{answer:?}");
    }
}

// === modern clients on modern backends ===

#[tokio::test]
async fn what_a_modern_backend_requires_of_a_modern_client_passes_byte_for_byte_and_so_does_the_answer() {
    let (backend, proxy) = modern().await;
    let client = proxy.askable();
    let result = r#"{"resultType":"input_required","inputRequests":{"k\u0031":{"method":"roots/list"}},"requestState":"s\/\u00e9"}"#;
    let running = client.start_call("a__ask");
    let call = backend.next_call().await;
    let body = format!(r#"{{"jsonrpc":"2.0","result":{result},"id":{}}}"#, call.id());
    call.json(body.clone());
    assert_eq!(within(running).await.unwrap().body, body);

    let meta = client.meta();
    let retry = format!(
        r#"{{"jsonrpc":"2.0","id":"n","method":"tools/call","params":{{"name":"a__ask","requestState":"s\/\u00e9","inputResponses":{{"k\u0031":{{"roots":[1e400]}}}},"_meta":{meta}}}}}"#
    );
    let mut request = client.request(&retry.replace("1e400", "1"));
    *request.body_mut() = http_body_util::Full::from(retry.clone());
    let running = tokio::spawn({
        let http = client.http.clone();
        async move { http.send(request).await }
    });
    let again = backend.next_call().await;
    assert_eq!(String::from_utf8(again.seen.body.to_vec()).unwrap(), retry.replace("a__ask", "ask"));
    again.finish();
    assert_eq!(within(running).await.unwrap().result()["resultType"], "complete");
}

#[tokio::test]
async fn a_modern_client_that_leaves_closes_the_stream_of_a_modern_backend() {
    let (backend, proxy) = modern().await;
    let running = proxy.modern().start_call("a__ask");
    let call = backend.next_call().await;
    running.abort();
    within(call.disconnected()).await;

    let client = proxy.modern();
    let (opened, stream) = tokio::join!(client.open("tools/call", json!({ "name": "a__ask" })), async {
        backend.next_call().await.stream()
    });
    drop(opened);
    within(stream.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}
