//! Calls of legacy clients on modern backends: their headers, ends, results and errors.

use serde_json::{Value, json};

use super::{LONG_ENOUGH, elicitation, in_legacy_words, modern, params_of};
use crate::support::backend::modern::complete;
use crate::support::backend::{event, spoken};
use crate::support::modern_client::header_text;
use crate::support::{Call, FakeModern, Setup, never_within, within};

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
