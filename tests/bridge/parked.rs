//! What legacy backends ask modern clients: the call is parked, and a retry takes it up.

use serde_json::{Value, json};

use super::{cancellations, elicitation, in_modern_words, legacy, params, question, yes};
use crate::support::backend::spoken;
use crate::support::{CallStream, FakeBackend, ModernClient, Setup, TestProxy, eventually, within};

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
