//! What a backend needs of the client of another era before it answers, where something comes between: a cap, a reload, an
//! answer that is none.

use serde_json::{Value, json};

use crate::support::backend::modern::complete;
use crate::support::backend::spoken;
use crate::support::stdio::running;
use crate::support::{CallStream, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, eventually, within};

const URL: &str = "https://sign.example/in";
/// That the backend of the name is known to be modern.
const MODERN: &str = "toolgate_backend_info{backend=\"a\",era=\"modern\",version=\"2026-07-28\"}";

fn params() -> Value {
    json!({ "name": "a__ask", "arguments": { "x": 1 } })
}

fn elicitation() -> Value {
    json!({ "jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": { "message": "Really?" } })
}

/// What a backend refuses a call with until its client has visited a URL.
fn url_first() -> Value {
    let wanted = json!({ "mode": "url", "elicitationId": "e-1", "url": URL, "message": "Sign in" });
    json!({ "code": -32042, "message": "sign in first", "data": { "elicitations": [wanted] } })
}

/// Begins a call that the backend asks something in: what its client gets, and the stream that the backend waits on.
async fn parked(client: &ModernClient, backend: &FakeBackend) -> (Value, CallStream) {
    let running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    stream.event(&elicitation()).await;
    let asked = within(running).await.unwrap().result();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    (asked, stream)
}

/// Begins a call that the backend wants a URL visited for: what its client gets.
async fn put_off(client: &ModernClient, backend: &FakeBackend) -> Value {
    let running = client.start("tools/call", params());
    backend.next_call().await.error(&url_first());
    let asked = within(running).await.unwrap().result();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    asked
}

/// The same request with an answer to what was asked.
fn retry(asked: &Value) -> Value {
    let mut params = params();
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
    params["inputResponses"] = json!({ key: { "action": "accept" } });
    params["requestState"] = asked["requestState"].clone();
    params
}

/// Cap: calls that wait for input.
#[tokio::test]
async fn a_call_that_cannot_wait_is_refused_with_the_cap_and_its_key() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).section("bridge", "{ parked: 1 }").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let (_asked, first) = parked(&client, &backend).await;
    let full = "the gateway has as many calls waiting for input as `bridge.parked` allows (1); try again shortly";

    let second = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    stream.event(&elicitation()).await;
    backend.until(|backend| !backend.responses().is_empty()).await;
    assert_eq!(backend.responses()[0]["error"], json!({ "code": 503, "message": full }));
    stream.finish().await;
    within(second).await.unwrap().result();

    // Nobody waits for an answer there: it is the client that is told.
    let third = client.start("tools/call", params());
    backend.next_call().await.error(&url_first());
    let refused = within(third).await.unwrap();
    assert_eq!((refused.status, refused.error()), (200, json!({ "code": 503, "message": full })));
    assert_eq!(proxy.metric("toolgate_caps_reached_total{cap=\"parked\"}").await, Some(2.0));
    first.finish().await;
}

#[tokio::test]
async fn a_refusal_that_names_no_url_asks_for_nothing() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = Setup::fronting(&[&backend]).start().await;
    proxy.until_tools(&backend, 1).await;
    for client in [proxy.askable(), proxy.modern()] {
        let running = client.start("tools/call", params());
        let nowhere = json!({ "code": -32042, "message": "visit", "data": { "elicitations": [{ "mode": "url" }] } });
        backend.next_call().await.error(&nowhere);

        assert_eq!(within(running).await.unwrap().code(), 502);
    }
}

#[tokio::test]
async fn an_answer_of_a_legacy_client_that_is_no_object_ends_the_call() {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.asked_client().await;
    for (method, answer) in [
        ("elicitation/create", json!("yes")),
        ("sampling/createMessage", json!([{ "role": "assistant" }])),
        ("roots/list", json!(null)),
        ("roots/list", json!(7)),
    ] {
        let asks = json!({ "inputRequests": { "k": { "method": method, "params": { "message": "Really?" } } } });
        let mut required = complete(asks);
        required["resultType"] = json!("input_required");
        let (mut opened, ()) =
            tokio::join!(client.open_call("a__ask"), async { backend.next_call().await.result(&required) });
        let id = opened.message().await.unwrap()["id"].clone();

        client.reply(&id, answer).await;

        let message = format!("the client's answer to `{method}` is not an object; the call has ended, call again");
        let last = within(opened.message()).await.unwrap();
        assert_eq!(last["error"], json!({ "code": -32602, "message": message }));
        assert_eq!(opened.message().await, None);
    }
    assert_eq!(backend.calls().len(), 4);
}

/// A legacy backend with a held tool, one that no test calls, and the gateway before both.
async fn two() -> (FakeBackend, FakeBackend, TestProxy) {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let other = FakeBackend::with_tool("b", "x").await;
    let proxy = Setup::fronting(&[&backend, &other]).start().await;
    proxy.until_tools(&backend, 1).await;
    (backend, other, proxy)
}

/// Answers what was asked in a call, which then ends well.
async fn taken_up(proxy: &TestProxy, asked: &Value, backend: &FakeBackend, stream: CallStream) {
    let again = proxy.askable().start("tools/call", retry(asked));
    let expected = json!({ "jsonrpc": "2.0", "id": 5, "result": { "action": "accept" } });
    backend.until(|backend| backend.responses().contains(&expected)).await;
    stream.finish().await;
    let answer = within(again).await.unwrap().result();
    assert_eq!((&answer["resultType"], &answer["content"]), (&json!("complete"), &spoken("ask")["content"]));
    assert_eq!(backend.all("tools/call").len(), 1);
    assert_eq!(backend.all("notifications/cancelled").len(), 0);
    assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(0.0));
}

#[tokio::test]
async fn a_parked_call_is_taken_up_when_its_backend_is_removed() {
    let (backend, other, proxy) = two().await;
    let (asked, stream) = parked(&proxy.askable(), &backend).await;

    proxy.apply(&Setup::fronting(&[&other])).await;

    assert_eq!(proxy.askable().call("a__ask").await.message(), "Unknown tool: a__ask");
    assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(1.0));
    taken_up(&proxy, &asked, &backend, stream).await;
    proxy.until_metric("toolgate_tool_calls_total{backend=\"_OTHER\",outcome=\"ok\",tool=\"_OTHER\"}", 1.0).await;
    let again = proxy.askable().ask("tools/call", retry(&asked)).await;
    assert_eq!((again.code(), again.message().contains("`requestState`")), (-32602, true), "it is good once");
}

#[tokio::test]
async fn a_parked_call_goes_on_where_it_was_when_another_backend_takes_the_name() {
    let now_modern = FakeModern::with_held_tool("a", "ask").await;
    for modern in [false, true] {
        let (backend, _other, proxy) = two().await;
        let (asked, stream) = parked(&proxy.askable(), &backend).await;
        let setup = Setup::new().section("limits", "[{ name: none, tools: [\"*\"], rate: 1/h }]");
        let setup = match modern {
            false => setup.backend(&backend, "max_inflight: 1"),
            true => setup.backend(&now_modern, ""),
        };

        proxy.apply(&setup).await;
        if modern {
            proxy.until_metric(MODERN, 1.0).await;
        }

        taken_up(&proxy, &asked, &backend, stream).await;
        assert_eq!(now_modern.calls().len(), 0);
        // It was let through before there was a limit.
        proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
        let next = proxy.modern().start_call("a__ask");
        match modern {
            false => backend.next_call().await.finish(),
            true => now_modern.next_call().await.finish(),
        }
        assert_eq!(within(next).await.unwrap().result()["isError"], Value::Null);
        assert_eq!(proxy.modern().call("a__ask").await.result()["_meta"]["toolgate/limit"], "none");
    }
}

#[tokio::test]
async fn parked_prompts_and_resources_are_taken_up_when_their_backend_is_removed() {
    let (prompt, resource) = (json!({ "name": "p" }).to_string(), json!({ "uri": "a:1", "name": "r" }).to_string());
    for (method, named, key) in [("prompts/get", "a__p", "name"), ("resources/read", "a:1", "uri")] {
        let backend = FakeBackend::named("a").tool("x").prompt(&prompt).resource(&resource).holding(method);
        let backend = backend.declares(json!({ "tools": {}, "prompts": {}, "resources": {} })).start().await;
        let (other, third) = (FakeBackend::with_tool("b", "x").await, FakeBackend::with_tool("c", "x").await);
        let proxy = Setup::fronting(&[&backend, &other, &third]).start().await;
        proxy.until_tools(&backend, 1).await;
        let client = proxy.askable();
        let mut params = json!({ key: named });
        let running = client.start(method, params.clone());
        let stream = backend.next_call().await.stream();
        stream.event(&elicitation()).await;
        let asked = within(running).await.unwrap().result();

        proxy.apply(&Setup::fronting(&[&other, &third])).await;
        for key in ["inputResponses", "requestState"] {
            params[key] = retry(&asked)[key].clone();
        }
        let again = client.start(method, params);
        backend.until(|backend| !backend.responses().is_empty()).await;
        stream.finish().await;

        assert_eq!(within(again).await.unwrap().result()["resultType"], "complete", "{method}");
        assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(0.0));
    }
}

#[tokio::test]
async fn a_call_that_was_put_off_says_so_when_there_is_nobody_any_more_to_send_it_to() {
    let (backend, other, proxy) = two().await;
    let asked = put_off(&proxy.askable(), &backend).await;

    proxy.apply(&Setup::fronting(&[&other])).await;
    let refused = proxy.askable().ask("tools/call", retry(&asked)).await;

    let message = "a reload removed backend `a` while the call waited for input: the call has ended and did not run; \
                   list again what there is, and call anew";
    assert_eq!(refused.error(), json!({ "code": 503, "message": message, "data": { "backend": "a" } }));
    assert_eq!(backend.all("tools/call").len(), 1);
    assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(0.0));
}

#[tokio::test]
async fn a_call_that_was_put_off_is_sent_to_who_has_taken_its_backends_name() {
    let now_modern = FakeModern::with_held_tool("a", "ask").await;
    for modern in [false, true] {
        let (backend, _other, proxy) = two().await;
        let asked = put_off(&proxy.askable(), &backend).await;
        match modern {
            false => proxy.apply(&Setup::new().backend(&backend, "max_inflight: 1")).await,
            true => {
                proxy.apply(&Setup::new().backend(&now_modern, "")).await;
                proxy.until_metric(MODERN, 1.0).await;
            }
        }

        let again = proxy.askable().start("tools/call", retry(&asked));
        let call = if modern { now_modern.next_call().await } else { backend.next_call().await };
        let mut told = call.seen.json()["params"].clone();
        told.as_object_mut().unwrap().remove("_meta");
        call.finish();

        assert_eq!(told, json!({ "name": "ask", "arguments": { "x": 1 } }));
        assert_eq!(within(again).await.unwrap().result()["resultType"], "complete");
        proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
    }
}

#[tokio::test]
async fn a_parked_call_is_taken_up_at_its_process_when_that_is_of_a_backend_that_was_removed() {
    for instances in ["instances: session", "instances: shared"] {
        let other = FakeBackend::with_tool("b", "x").await;
        let proxy = running(&[], instances).start().await;
        eventually(async || proxy.modern().ask("tools/list", json!({})).await.result()["tools"] != json!([])).await;
        let client = proxy.askable();
        let mut params = json!({ "name": "a__ask", "arguments": { "method": "elicitation/create" } });
        let asked = client.ask("tools/call", params.clone()).await.result();
        assert_eq!(asked["resultType"], "input_required", "{asked}");

        proxy.apply(&Setup::fronting(&[&other])).await;
        for key in ["inputResponses", "requestState"] {
            params[key] = retry(&asked)[key].clone();
        }
        let answer = client.ask("tools/call", params).await;

        assert_eq!(answer.result()["resultType"], "complete", "{instances}");
        assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(0.0));
    }
}

/// A modern client can be asked in three methods only.
#[tokio::test]
async fn a_method_that_nothing_can_be_asked_in_is_not_parked() {
    let greet = r#"{"name":"greet"}"#;
    let backend = FakeBackend::named("a")
        .declares(json!({ "prompts": {}, "completions": {} }))
        .prompt(greet)
        .holding("completion/complete")
        .start()
        .await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let params =
        json!({ "ref": { "type": "ref/prompt", "name": "a__greet" }, "argument": { "name": "x", "value": "" } });
    let client = proxy.askable();
    eventually(async || client.ask("prompts/get", json!({ "name": "a__greet" })).await.json()["result"].is_object())
        .await;

    let running = client.start("completion/complete", params);
    let call = backend.next_call().await;
    let (id, stream) = (call.seen.json()["id"].clone(), call.stream());
    stream.event(&elicitation()).await;
    backend.until(|backend| backend.responses().iter().any(|answer| answer["id"] == 5)).await;
    stream.event(&json!({ "jsonrpc": "2.0", "id": id, "result": { "completion": { "values": [] } } })).await;

    let answer = within(running).await.unwrap().result();
    assert_eq!(answer["resultType"], "complete", "{answer}");
    assert!(backend.responses()[0]["error"].is_object());
}

/// A call that waits is taken up by its own request only.
#[tokio::test]
async fn a_state_is_good_for_its_method_and_its_parameters_only() {
    let prompt = r#"{"name":"ask"}"#;
    let backend = FakeBackend::named("a").held("ask").held("other").prompt(prompt);
    let backend = backend.declares(json!({ "tools": {}, "prompts": {} })).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 2).await;
    let client = proxy.askable();
    let (asked, stream) = parked(&client, &backend).await;
    let own = retry(&asked);
    let changed = |key: &str, value: Value| {
        let mut other = own.clone();
        other[key] = value;
        other
    };

    for (method, params) in [
        ("prompts/get", own.clone()),
        ("tools/call", changed("name", json!("a__other"))),
        ("tools/call", changed("arguments", json!({ "x": 2 }))),
    ] {
        let refused = client.ask(method, params).await;
        assert_eq!(refused.code(), -32602, "{method}: {refused:?}");
        assert!(refused.message().contains("call again"), "{refused:?}");
    }

    // None of which has done it any harm.
    let again = client.start("tools/call", own);
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;
    assert_eq!(within(again).await.unwrap().result()["content"], spoken("ask")["content"]);
    assert_eq!(backend.all("tools/call").len(), 1);
    assert_eq!(backend.all("prompts/get").len(), 0);
}

/// A legacy backend may ask several things before any is answered; they are asked one after the other.
#[tokio::test]
async fn several_questions_at_once_are_asked_one_after_the_other() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let mut running = client.start("tools/call", params());
    let stream = backend.next_call().await.stream();
    for id in [5, 6] {
        stream.event(&json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" })).await;
    }

    for answered in 1..=2 {
        let asked = within(running).await.unwrap().result();
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        assert_eq!(asked["inputRequests"].as_object().unwrap().keys().collect::<Vec<_>>(), ["toolgate"]);
        running = client.start("tools/call", retry(&asked));
        backend.until(|backend| backend.responses().len() == answered).await;
    }
    stream.finish().await;

    assert_eq!(within(running).await.unwrap().result()["content"], spoken("ask")["content"]);
    let ids: Vec<_> = backend.responses().iter().map(|answer| answer["id"].clone()).collect();
    assert_eq!(ids, [5, 6]);
    assert_eq!(backend.all("tools/call").len(), 1);
}
