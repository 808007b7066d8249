//! `tools/call`: what reaches the backend, and what comes back.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::support::backend::{event, response, spoken};
use crate::support::{FakeBackend, Setup, TestProxy, eventually, never_within, within, within_for};

/// Within this time a backend has to learn that its client left.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn routes_a_call_to_the_backend_owning_the_tool() {
    let github = FakeBackend::with_tool("github", "search").await;
    let files = FakeBackend::with_tool("files", "read").await;
    let proxy = TestProxy::fronting(&[&github, &files]).await;

    let answer = proxy.client().await.call("files__read").await;

    assert_eq!(answer.result(), spoken("read"));
    assert_eq!(files.only_call().json()["params"]["name"], "read");
    assert!(github.calls().is_empty());
}

#[tokio::test]
async fn a_call_reaches_the_backend_with_nothing_but_the_name_changed() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let bodies = [
        r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"a__echo","arguments":{}}}"#,
        " { \"params\" :\t{\"arguments\":{\"z\":1.0,\"a\":12345678901234567890.10,\"name\":\"a__echo\"},\r\n \
         \"name\" : \"a__echo\" } , \"id\":\"\\u0041\",\"method\":\"tools\\/call\",\"jsonrpc\":\"2.0\" }\n",
        r#"{"id":-7,"params":{"name":"a_\u005fech\u006f","_meta":{"progressToken":0}},"jsonrpc":"2.0","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":12,"method":"tools/call","params":{"arguments":{"é":"é\u00e9\ud83d\ude00😀\/\\\""},"x":[-0,1E+2],"name":"a__echo"},"y":null}"#,
    ];

    for body in bodies {
        assert_eq!(client.post(body).await.result(), spoken("echo"));
    }

    let arrived: Vec<_> =
        backend.calls().into_iter().map(|call| String::from_utf8(call.body.to_vec()).unwrap()).collect();
    let expected = bodies.map(|body| match body.rfind("\"name\" : \"a__echo\"") {
        Some(_) => body.replace("\"name\" : \"a__echo\"", "\"name\" : \"echo\""),
        None => body.replace("\"a__echo\"", "\"echo\"").replace(r#""a_\u005fech\u006f""#, "\"echo\""),
    });
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn an_answer_in_json_comes_back_byte_for_byte() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (running, call) = proxy.client().await.pending_call("a__echo", &backend).await;
    let body = format!(
        "\n {{\"result\" : {{ \"content\":[], \"n\":1.000000000000000000001,\t\"e\":\"\\u00e9\\/é\" }},\"id\":{}, \"x\":[], \
         \"jsonrpc\":\"2.0\"}}\r\n",
        call.id()
    );

    call.json(body.clone());
    let answer = within(running).await.unwrap();

    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(String::from_utf8(answer.body.to_vec()).unwrap(), body);
}

#[tokio::test]
async fn an_event_stream_comes_back_byte_for_byte_but_for_the_ids_of_its_events() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let (opened, stream) = client.open_stream("a__echo", &backend).await;
    let text = format!(
        ": hello\n\nid: 1\r\ndata:\r\n\r\nretry: 10\nevent: message\ndata: {{\"jsonrpc\":\"2.0\",\ndata: \
         \"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"data\":\"é\\u00e9\"}}}}\nid: 2\n\n: between\r\
         data:{}\r\r:after\n",
        stream.response()
    );

    stream.send(text.clone()).await;
    drop(stream);
    let answer = opened.whole().await;

    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    let text = text.replace("\nid: ", "\nid: c/a/");
    assert_eq!(String::from_utf8(answer.body.to_vec()).unwrap(), text);
}

/// Complaint 14: SSE buffered or cut when idle; no keep-alive.
#[tokio::test]
async fn an_event_arrives_before_the_next_one_is_sent() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__echo", &backend).await;

    for step in 1..=3 {
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                               "params": { "progressToken": "t", "progress": step } });
        stream.event(&progress).await;
        assert_eq!(opened.message().await.unwrap(), progress);
    }
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("echo"));
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn json_arrives_as_it_is_written() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let open = client.open_call("a__echo");
    let (mut opened, pieces) = tokio::join!(open, async {
        let pieces = backend.next_call().await.pieces();
        pieces.send("{\"jsonrpc\":\"2.0\",").await;
        pieces
    });

    let first = opened.chunk().await.unwrap().unwrap();
    pieces.send(format!("\"id\":{},\"result\":{{}}}}", pieces.id)).await;
    drop(pieces);
    let rest = opened.whole().await;

    assert_eq!(first, "{\"jsonrpc\":\"2.0\",");
    assert!(rest.body.ends_with(b"\"result\":{}}"), "{rest:?}");
}

#[tokio::test]
async fn an_answer_of_single_bytes_is_put_together() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (opened, stream) = proxy.client().await.open_stream("a__echo", &backend).await;
    let log = event(
        &json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "x" } }),
    );
    let text = [&*log, format!("data: {}\r\n\r\n", stream.response()).as_bytes()].concat();

    let writing = async {
        for byte in text.clone() {
            stream.send(vec![byte]).await;
        }
        drop(stream);
    };
    let (answer, ()) = tokio::join!(opened.whole(), writing);

    assert_eq!(answer.body, text);
}

#[tokio::test]
async fn an_event_of_8_mb_passes_whole() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (opened, stream) = proxy.client().await.open_stream("a__echo", &backend).await;
    let big = response(&stream.id, &json!({ "content": [{ "type": "text", "text": "x".repeat(8 << 20) }] }));
    let text = format!("data: {big}\n\n");

    let (answer, ()) = tokio::join!(opened.whole(), async {
        stream.send(text.clone()).await;
        drop(stream);
    });

    assert!(answer.body == text, "{} bytes instead of {}", answer.body.len(), text.len());
}

/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn a_cancellation_goes_to_the_backend_that_runs_the_call_and_only_there() {
    let a = FakeBackend::with_held_tool("a", "slow").await;
    let b = FakeBackend::with_held_tool("b", "slow").await;
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    let (at_a, call_a) = client.pending_call("a__slow", &a).await;
    let (at_b, call_b) = client.pending_call("b__slow", &b).await;

    let cancelled = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"reason":"enough"}}}}"#,
        call_b.id()
    );
    let accepted = client.post(cancelled.clone()).await;
    b.until(|b| !b.by_clients("notifications/cancelled").is_empty()).await;
    call_a.finish();
    call_b.finish();

    assert_eq!((accepted.status, &*accepted.body), (202, &b""[..]));
    assert_eq!(b.by_clients("notifications/cancelled")[0].body, cancelled);
    assert_eq!(within(at_a).await.unwrap().result(), spoken("slow"));
    assert_eq!(within(at_b).await.unwrap().result(), spoken("slow"));
    assert!(a.by_clients("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_cancellation_of_another_sessions_call_goes_nowhere() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (victim, stranger) = (proxy.client().await, proxy.client().await);
    let (running, call) = victim.pending_call("a__slow", &backend).await;

    let cancelled =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#, call.id());
    let accepted = stranger.post(cancelled).await;
    call.finish();
    within(running).await.unwrap();

    assert_eq!(accepted.status, 202);
    assert!(backend.by_clients("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_cancelled_call_of_a_backend_without_sessions_is_ended_and_nobody_elses() {
    let backend = FakeBackend::named("a").held("slow").sessionless().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (first, second) = (proxy.client().await, proxy.client().await);
    let call = r#"{"jsonrpc":"2.0","id":"same","method":"tools/call","params":{"name":"a__slow"}}"#;
    let at_first = first.start_post(call);
    let firsts = backend.next_call().await;
    let _at_second = second.start_post(call);
    let seconds = backend.next_call().await;

    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"same"}}"#;
    assert_eq!(first.post(cancelled).await.status, 202);

    within_for(AT_ONCE, firsts.disconnected()).await;
    never_within(Duration::from_millis(200), seconds.disconnected()).await;
    assert!(backend.by_clients("notifications/cancelled").is_empty());
    at_first.abort();
}

#[tokio::test]
async fn a_cancellation_reaches_a_backend_that_is_full() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "max_inflight: 1").start().await;
    let client = proxy.client().await;
    let (running, call) = client.pending_call("a__slow", &backend).await;

    let cancelled =
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{}}}}}"#, call.id());
    client.post(cancelled).await;

    backend.until(|backend| !backend.by_clients("notifications/cancelled").is_empty()).await;
    call.finish();
    within(running).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_seen_to_by_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let limits = "[{ name: one, tools: [\"*\"], concurrency: 1 }]";
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    let client = proxy.client().await;
    let (running, call) = client.pending_call("a__slow", &backend).await;

    running.abort();

    within_for(AT_ONCE, call.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
    let (again, call) = client.pending_call("a__slow", &backend).await;
    call.finish();
    assert_eq!(within(again).await.unwrap().result(), spoken("slow"));
}

#[tokio::test]
async fn a_client_that_leaves_within_a_stream_is_seen_to_by_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let limits = "[{ name: one, tools: [\"*\"], concurrency: 1 }]";
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    let client = proxy.client().await;
    let (mut opened, stream) = client.open_stream("a__slow", &backend).await;
    stream.send(": one\n\n").await;
    opened.block().await.unwrap();

    drop(opened);

    within_for(AT_ONCE, stream.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
    let (again, call) = client.pending_call("a__slow", &backend).await;
    call.finish();
    assert_eq!(within(again).await.unwrap().result(), spoken("slow"));
}

#[tokio::test]
async fn an_unknown_tool_is_an_error_after_one_look_at_its_backend() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    eventually(async || proxy.metric("toolgate_catalog_age_seconds{backend=\"a\"}").await >= Some(0.6)).await;
    let before = backend.by_gateway("tools/list").len();

    let answer = client.call("a__nope").await;

    assert_eq!((answer.status, answer.code()), (200, -32602));
    assert_eq!(answer.message(), "Unknown tool: a__nope");
    assert_eq!(backend.by_gateway("tools/list").len(), before + 1);
}

#[tokio::test]
async fn a_tool_added_a_moment_ago_is_found() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    eventually(async || proxy.metric("toolgate_catalog_age_seconds{backend=\"a\"}").await >= Some(0.6)).await;

    backend.add_tool("new");
    let answer = client.call("a__new").await;

    assert_eq!(answer.result(), spoken("new"));
}

#[tokio::test]
async fn a_name_that_only_looks_like_one_of_ours_is_unknown() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    for name in ["echo", "a__", "A__echo", "a__echo ", "b__echo", "a__a__echo", ""] {
        assert_eq!(client.call(name).await.code(), -32602, "{name}");
    }

    assert_eq!(
        client.post(r#"{"jsonrpc":"2.0","id":90,"method":"tools/call","params":{"name":1}}"#).await.code(),
        -32602
    );
    assert_eq!(client.post(r#"{"jsonrpc":"2.0","id":91,"method":"tools/call"}"#).await.code(), -32602);
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn the_backends_own_error_passes_untouched() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    for status in [200, 400, 404, 422] {
        let (running, call) = client.pending_call("a__echo", &backend).await;
        let id = call.id();
        let body =
            format!("{{\"error\": {{\"message\":\"é\",\"code\":-1,\"data\":[1.0]}} ,\"id\":{id},\"jsonrpc\":\"2.0\"}}");
        call.respond(status, "application/json", body.clone());
        let answer = within(running).await.unwrap();
        assert_eq!(answer.body, body, "HTTP {status}");
        // By the book 404 says that the session is gone, which this answer does not.
        assert_eq!(answer.status, if status == 404 { 200 } else { status });
    }
}

#[tokio::test]
async fn questions_of_a_backend_are_answered_for_the_client() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__ask", &backend).await;

    stream.event(&json!({ "jsonrpc": "2.0", "id": 7, "method": "ping" })).await;
    stream.event(&json!({ "jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {} })).await;
    backend.until(|backend| backend.responses().len() == 2).await;
    stream.finish().await;

    let answered =
        |id: serde_json::Value| backend.responses().into_iter().find(|response| response["id"] == id).unwrap();
    assert_eq!(answered(json!(7))["result"], json!({}));
    assert_eq!(answered(json!("s"))["error"]["code"], -32601);
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn a_tools_own_timeout_outranks_its_backends() {
    let backend = FakeBackend::named("a").held("quick").held("slow").start().await;
    let timeout = "timeout: { first_byte: 400ms, tools: [{ match: [\"sl*\"], first_byte: 30s }] }";
    let proxy = Setup::new().backend(&backend, timeout).start().await;
    let client = proxy.client().await;
    let (slow, slow_call) = client.pending_call("a__slow", &backend).await;

    let (quick, quick_call) = client.pending_call("a__quick", &backend).await;
    let timed_out = within(quick).await.unwrap();
    within(quick_call.disconnected()).await;
    slow_call.finish();

    assert!(timed_out.message().contains("`a` took longer than 0.4s"), "{timed_out:?}");
    assert_eq!(within(slow).await.unwrap().result(), spoken("slow"));
}

#[tokio::test]
async fn calls_beyond_max_inflight_are_refused_until_one_ends() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "max_inflight: 2").start().await;
    let client = proxy.client().await;
    let (mut first, stream) = client.open_stream("a__slow", &backend).await;
    let (second, call) = client.pending_call("a__slow", &backend).await;

    let refused = client.call("a__slow").await;
    stream.finish().await;
    first.message().await.unwrap();
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 1.0).await;
    let (third, third_call) = client.pending_call("a__slow", &backend).await;

    assert_eq!(refused.status, 200);
    assert!(refused.message().contains("backend `a` has 2 requests under way"), "{refused:?}");
    for (running, call) in [(second, call), (third, third_call)] {
        call.finish();
        assert_eq!(within(running).await.unwrap().result(), spoken("slow"));
    }
}

#[tokio::test]
async fn the_request_id_is_the_clients_own_here_and_there() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await.with_header("x-request-id", "trace-7");

    let (running, call) = client.pending_call("a__echo", &backend).await;
    let forwarded = call.seen.headers.get("x-request-id").cloned();
    call.finish();
    let answer = within(running).await.unwrap();

    assert_eq!(forwarded.unwrap(), "trace-7");
    assert_eq!(answer.header("x-request-id"), "trace-7");
    assert_eq!(client.send(client.request(Method::DELETE, "")).await.header("x-request-id"), "trace-7");
}
