//! Elicitation by URL, which each era does in its own way.

use serde_json::{Value, json};

use crate::support::backend::modern::complete;
use crate::support::backend::spoken;
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, within};

const URL: &str = "https://sign.example/in";

fn params() -> Value {
    json!({ "name": "a__ask", "arguments": { "x": 1 } })
}

fn refusal() -> Value {
    let wanted = json!({ "mode": "url", "elicitationId": "e-1", "url": URL, "message": "Sign in" });
    json!({ "code": -32042, "message": "sign in first", "data": { "elicitations": [wanted] } })
}

/// Method table: `error -32042`.
#[tokio::test]
async fn a_legacy_backend_that_wants_a_url_visited_first_gets_the_call_again_when_it_was() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.modern().declaring(json!({ "elicitation": { "url": {} } }));

    let running = client.start("tools/call", params());
    backend.next_call().await.error(&refusal());
    let asked = within(running).await.unwrap().result();
    let (key, request) = asked["inputRequests"].as_object().unwrap().iter().next().unwrap();
    let mut retry = params();
    retry["inputResponses"] = json!({ key: { "action": "accept" } });
    retry["requestState"] = asked["requestState"].clone();
    let again = client.start("tools/call", retry);
    let call = backend.next_call().await;
    let told = call.seen.json()["params"].clone();
    call.finish();

    assert_eq!(asked["resultType"], "input_required");
    assert_eq!((&request["method"], &request["params"]["url"]), (&json!("elicitation/create"), &json!(URL)));
    assert_eq!(
        (&told["arguments"], told.as_object().unwrap().contains_key("requestState")),
        (&json!({ "x": 1 }), false)
    );
    assert!(told.get("inputResponses").is_none());
    let answer = within(again).await.unwrap().result();
    assert_eq!((&answer["resultType"], &answer["content"]), (&json!("complete"), &spoken("ask")["content"]));
    assert_eq!(proxy.metric("toolgate_parked_calls").await, Some(0.0));
}

#[tokio::test]
async fn a_modern_client_that_visits_no_urls_is_told_in_words_of_its_era() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;

    for elicitation in [json!({}), json!({ "elicitation": {} }), json!({ "elicitation": { "form": {} } })] {
        let running = proxy.modern().declaring(elicitation).start("tools/call", params());
        backend.next_call().await.error(&refusal());
        let answer = within(running).await.unwrap();

        let needed = json!({ "requiredCapabilities": { "elicitation": { "url": {} } } });
        assert_eq!(answer.status, 400);
        assert_eq!(answer.error(), json!({ "code": -32021, "message": "sign in first", "data": needed }));
    }
}

#[tokio::test]
async fn a_legacy_client_is_asked_to_visit_a_url_under_an_id() {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": { "elicitation": { "form": {}, "url": {} } },
        "clientInfo": { "name": "c", "version": "1" },
    });
    let stranger = proxy.stranger();
    let client = stranger.in_session_of(&stranger.ask("initialize", params).await);
    let mut required = complete(json!({ "inputRequests": { "k": {
        "method": "elicitation/create", "params": { "mode": "url", "url": URL, "message": "Sign in" },
    } } }));
    required["resultType"] = json!("input_required");

    let (mut opened, ()) =
        tokio::join!(client.open_call("a__ask"), async { backend.next_call().await.result(&required) });
    let question = opened.message().await.unwrap();
    client.reply(&question["id"], json!({ "action": "accept" })).await;
    let again = backend.next_call().await;
    let given = again.seen.json()["params"]["inputResponses"].clone();
    again.finish();

    assert_eq!((&question["method"], &question["params"]["url"]), (&json!("elicitation/create"), &json!(URL)));
    assert!(question["params"]["elicitationId"].as_str().is_some_and(|id| !id.is_empty()));
    assert_eq!(given, json!({ "k": { "action": "accept" } }));
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
}

/// Method table: `elicitation/create` from backend, `error -32042`.
#[tokio::test]
async fn a_legacy_client_that_visits_urls_is_asked_as_its_backend_asks() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let declared = json!({ "elicitation": { "form": {}, "url": {} } });
    let client = proxy.stranger().started_with("2025-11-25", declared).await;
    let wanted = json!({ "mode": "url", "elicitationId": "e-1", "url": URL, "message": "Sign in" });
    let question = json!({ "jsonrpc": "2.0", "id": 3, "method": "elicitation/create", "params": wanted });

    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&question).await;
    let asked = opened.message().await.unwrap();
    client.reply(&asked["id"], json!({ "action": "accept" })).await;
    backend.until(|backend| backend.responses().len() == 1).await;
    stream.finish().await;

    assert_eq!((&asked["method"], &asked["params"]), (&question["method"], &question["params"]));
    assert_eq!(backend.responses()[0], json!({ "jsonrpc": "2.0", "id": 3, "result": { "action": "accept" } }));
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));

    let running = client.start_call("a__ask");
    backend.next_call().await.error(&refusal());
    assert_eq!(within(running).await.unwrap().error(), refusal());
}
