//! What modern backends require of their clients before a call goes on.

use serde_json::{Value, json};

use super::{LONG_ENOUGH, in_legacy_words, modern, params_of, yes};
use crate::support::backend::modern::complete;
use crate::support::backend::spoken;
use crate::support::client::Opened;
use crate::support::proxy::VERSION;
use crate::support::{Client, FakeModern, Setup, never_within, within};

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
