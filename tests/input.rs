//! What a backend needs of the client of another era before it answers, where something comes between: a cap, a reload, an
//! answer that is none.

use serde_json::{Value, json};

use crate::support::backend::modern::complete;
use crate::support::{CallStream, FakeBackend, FakeModern, ModernClient, Setup, within};

const URL: &str = "https://sign.example/in";

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
