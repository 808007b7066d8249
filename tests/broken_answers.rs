//! Answers that break the protocol: what of them the client gets, and what the operator is told.

use serde_json::{Value, json};

use crate::support::backend::{event, response, spoken};
use crate::support::{Client, FakeBackend, FakeModern, Process, Setup, within};

/// Calls `a__x` of a backend of the client's era, once for each of these bodies of JSON, `ID` in them being the request's id.
/// Returns what its client got, and the line of the log.
async fn told(bodies: &[(&str, &str)]) -> Vec<(Value, Value)> {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await;
    let mut told = Vec::new();
    for (number, (media_type, body)) in bodies.iter().enumerate() {
        let name = format!("call-{number}-");
        let (running, call) = client.with_header("x-request-id", &name).pending_call("a__x", &backend).await;
        let body = body.replace("ID", &call.id());
        call.respond(200, media_type, body);
        let answer = within(running).await.unwrap();
        let messages = answer.messages();
        told.push((json!(messages), line(&gateway, &name).await));
    }
    told
}

async fn line(gateway: &Process, name: &str) -> Value {
    serde_json::from_str(&gateway.logged(name).await).unwrap()
}

#[tokio::test]
async fn json_with_another_id_is_not_taken_for_the_answer() {
    for body in [r#"{"jsonrpc":"2.0","id":"other","result":{}}"#, r#"{"result":{},"jsonrpc":"2.0"}"#] {
        let [(messages, line)] = &told(&[("application/json", body)]).await[..] else { panic!() };
        assert_eq!(messages[0]["error"]["code"], 502, "{messages}");
        assert!(messages[0]["error"]["message"].as_str().unwrap().contains("backend `a` broke the protocol"));
        assert!(messages[0]["error"]["message"].as_str().unwrap().contains("`id`"), "{messages}");
        assert_eq!((&line["outcome"], &line["error"]), (&json!("upstream_error"), &messages[0]["error"]["message"]));
    }
}

#[tokio::test]
async fn json_of_the_wrong_shape_passes_and_is_told_to_the_operator() {
    let (not_object, both) = (
        r#"{"jsonrpc":"2.0","id":ID,"result":[ 1 ]}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1,"message":"x"}}"#,
    );

    let told = told(&[("application/json", not_object), ("application/json", both)]).await;

    for ((messages, line), says) in told.iter().zip(["its result is not an object", "both a result and an error"]) {
        assert!(messages[0].get("result").is_some(), "{messages}");
        assert_eq!((&line["outcome"], &line["level"]), (&json!("upstream_error"), &json!("WARN")), "{line}");
        assert!(line["error"].as_str().unwrap().contains("backend `a`"), "{line}");
        assert!(line["error"].as_str().unwrap().contains(says), "{line}");
    }
}

#[tokio::test]
async fn a_long_answer_with_another_id_passes_and_is_told_to_the_operator() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await.with_header("x-request-id", "long-one");

    let (first, rest) = (r#"{"jsonrpc":"2.0","id":"other","#, r#""result":{}}"#);
    let (mut opened, pieces) = tokio::join!(client.open_call("a__x"), async {
        let pieces = backend.next_call().await.pieces();
        pieces.send(first).await;
        pieces
    });
    assert_eq!(opened.chunk().await.unwrap().unwrap(), first);
    pieces.send(rest).await;
    drop(pieces);

    assert_eq!(opened.whole().await.body, rest);
    let line = line(&gateway, "long-one").await;
    assert_eq!(line["outcome"], "upstream_error", "{line}");
    assert!(line["error"].as_str().unwrap().contains("another `id`"), "{line}");
}

#[tokio::test]
async fn an_answer_to_another_request_on_a_stream_leaves_the_call_to_end_with_an_error() {
    let stray = r#"{"jsonrpc":"2.0","id":"other","result":{"content":[]}}"#;
    let stream = format!("data: {stray}\n\n");

    let [(messages, line)] = &told(&[("text/event-stream", &stream)]).await[..] else { panic!() };

    assert_eq!(messages[0]["id"], "other", "it passes as it is");
    assert_ne!(messages[1]["id"], "other");
    assert!(messages[1]["error"]["message"].as_str().unwrap().contains("another `id`"), "{messages}");
    assert_eq!((&line["outcome"], &line["error"]), (&json!("upstream_error"), &messages[1]["error"]["message"]));
}

#[tokio::test]
async fn a_stream_with_ids_and_the_answer_to_another_request_is_not_left_to_be_resumed() {
    let stream = "id: 1\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"other\",\"result\":{}}\n\n";

    let [(messages, line)] = &told(&[("text/event-stream", stream)]).await[..] else { panic!() };

    assert_eq!(messages[1]["error"]["code"], 502, "{messages}");
    assert_eq!(line["outcome"], "upstream_error", "{line}");
}

#[tokio::test]
async fn two_answers_on_a_stream_pass_and_are_told_to_the_operator() {
    let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{}}\n\n";
    let stray = "data: {\"jsonrpc\":\"2.0\",\"id\":\"other\",\"result\":{}}\n\n";

    let told =
        told(&[("text/event-stream", &answer.repeat(2)), ("text/event-stream", &[stray, answer].concat())]).await;

    for ((messages, line), says) in told.iter().zip(["more than once", "another `id`"]) {
        assert_eq!(messages.as_array().unwrap().len(), 2, "{messages}");
        assert_eq!(messages[1]["result"], json!({}));
        assert_eq!(line["outcome"], "upstream_error", "{line}");
        assert!(line["error"].as_str().unwrap().contains(says), "{line}");
    }
}

#[tokio::test]
async fn a_modern_answer_with_another_id_is_not_taken_for_the_answer_either() {
    let backend = FakeModern::with_held_tool("m", "x").await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    let running = proxy.modern().start_call("m__x");

    backend.next_call().await.json(response("\"other\"", &spoken("x")));
    let answer = within(running).await.unwrap();

    assert_eq!((answer.status, answer.code()), (200, 502));
    assert!(answer.message().contains("backend `m` broke the protocol"), "{answer:?}");
    let series = "toolgate_tool_calls_total{backend=\"m\",outcome=\"upstream_error\",tool=\"m__x\"}";
    proxy.until_metric(series, 1.0).await;
}

/// What a client of each era is told by a backend of the other one for each of these answers.
async fn across(media_type: &str, body: &str) -> [String; 2] {
    let (legacy, modern) = (FakeBackend::with_held_tool("l", "x").await, FakeModern::with_held_tool("m", "x").await);
    let proxy = Setup::fronting(&[&legacy]).backend(&modern, "").start().await;
    let client: Client = proxy.client().await;

    let (to_legacy, to_modern) = (proxy.modern().start_call("l__x"), client.start_call("m__x"));
    let (call, other) = (legacy.next_call().await, modern.next_call().await);
    let (one, two) = (body.replace("ID", &call.id()), body.replace("ID", &other.id()));
    call.respond(200, media_type, one);
    other.respond(200, media_type, two);
    [within(to_legacy).await.unwrap().message(), within(to_modern).await.unwrap().message()]
}

#[tokio::test]
async fn what_is_no_answer_is_told_as_what_it_is_across_eras() {
    for (media_type, body, says) in [
        ("application/json", "{}", "its answer is not a response to the request"),
        ("application/json", r#"{"jsonrpc":"2.0","id":"other","result":{}}"#, "not a response to the request"),
        ("text/event-stream", ": nothing\n\n", "its event stream ended without a response to the request"),
        ("application/json", r#"{"jsonrpc":"2.0","id":ID,"result":7}"#, "its result is not an object"),
    ] {
        for (message, name) in across(media_type, body).await.iter().zip(["l", "m"]) {
            assert!(message.contains(says) && message.contains(&format!("backend `{name}`")), "{says}: {message}");
        }
    }
}

#[tokio::test]
async fn what_is_told_within_a_stream_stands_in_the_log() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::new().backend(&backend, "timeout: { idle: 300ms }");
    let gateway = Process::start_logging_json(&setup).await;
    let client = gateway.client().await.with_header("x-request-id", "too-slow");
    let (mut opened, stream) = client.open_stream("a__x", &backend).await;
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });

    stream.send(event(&progress)).await;
    assert_eq!(opened.message().await.unwrap(), progress);
    let last = opened.message().await.unwrap();
    assert_eq!(opened.message().await, None);

    let line = line(&gateway, "too-slow").await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("timeout"), &last["error"]["message"]), "{line}");
    assert_eq!(line["level"], "WARN");
}

#[tokio::test]
async fn what_is_told_of_an_element_of_a_batch_stands_in_the_log() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = Client::stranger(gateway.address).started("2025-03-26").await;
    let client = client.with_header("x-request-id", "batched");
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "a__x" } });

    let (opened, ()) =
        tokio::join!(client.open(client.request(http::Method::POST, json!([call]).to_string())), async {
            let pieces = backend.next_call().await.pieces();
            pieces.send("{\"jsonrpc\":").await;
            pieces.cut().await;
        });

    let line = line(&gateway, "batched").await;
    assert_eq!(line["outcome"], "upstream_error", "{line}");
    assert!(line["error"].as_str().unwrap().contains("backend `a` closed the connection"), "{line}");
    drop(opened);
}

#[tokio::test]
async fn a_call_that_is_cut_within_its_stream_is_told_and_logged_so() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 300ms }");
    let mut gateway = Process::start_logging_json(&setup).await;
    let client = gateway.client().await.with_header("x-request-id", "cut-me");
    let (mut opened, stream) = client.open_stream("a__x", &backend).await;
    stream.send(": begun\n\n").await;

    gateway.signal("TERM").await;
    let last = opened.message().await.unwrap();

    let line = line(&gateway, "cut-me").await;
    assert_eq!((&line["outcome"], &line["error"]), (&json!("internal"), &last["error"]["message"]), "{line}");
    gateway.ended().await;
}

#[tokio::test]
async fn calls_that_a_second_signal_cuts_are_told_and_logged_so() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 1h, timeout: 1h }");
    let mut gateway = Process::start_logging_json(&setup).await;
    let client = gateway.client().await;
    let named = |name: &str| client.with_header("x-request-id", name);
    let (running, _call) = named("cut-one").pending_call("a__x", &backend).await;
    let (mut opened, stream) = named("cut-two").open_stream("a__x", &backend).await;
    stream.send(": begun\n\n").await;
    opened.block().await;

    gateway.signal("TERM").await;
    gateway.logged("LameDuck").await;
    gateway.signal("TERM").await;

    assert_eq!(within(running).await.unwrap().code(), 503);
    assert_eq!(opened.message().await.unwrap()["error"]["code"], 503);
    for name in ["cut-one", "cut-two"] {
        let line = line(&gateway, name).await;
        assert_eq!(line["outcome"], "internal", "{line}");
        assert!(line["error"].as_str().unwrap().contains("shutting down"), "{line}");
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
}
