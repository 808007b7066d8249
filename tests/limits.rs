//! Limits: who is counted together, what a refusal looks like, and what counts.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::support::backend::spoken;
use crate::support::{Answer, FakeBackend, Mood, Setup, TestProxy, within};

/// A backend with a tool that answers and one that is held, behind these limits.
async fn limited(limits: &str) -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::named("a").tool("echo").held("slow").start().await;
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    (backend, proxy)
}

/// Whether this is a refusal, told as a tool's result.
fn is_refused(answer: &Answer) -> bool {
    answer.result()["isError"] == json!(true)
}

#[tokio::test]
async fn a_refusal_is_a_result_that_an_agent_can_read() {
    let (backend, proxy) = limited("[{ name: slowly, tools: [\"a__e*\"], rate: 2/h }]").await;
    let client = proxy.client().await;

    let answers = [client.call("a__echo").await, client.call("a__echo").await, client.call("a__echo").await];

    assert_eq!(answers[..2].iter().map(Answer::result).collect::<Vec<_>>(), [spoken("echo"), spoken("echo")]);
    let result = answers[2].result();
    assert_eq!((answers[2].status, &result["isError"]), (200, &json!(true)));
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("`slowly`") && text.contains("retry in"), "{text}");
    assert_eq!(result["_meta"]["toolgate/limit"], "slowly");
    assert!((1..=1_800_000).contains(&result["_meta"]["retryAfterMs"].as_u64().unwrap()), "{result}");
    assert_eq!(backend.calls().len(), 2);
    let refusals = "toolgate_limit_refusals_total{kind=\"rate\",limit=\"slowly\"}";
    assert_eq!(proxy.metric(refusals).await, Some(1.0));
}

#[tokio::test]
async fn a_refusal_can_be_http_instead() {
    let (_backend, proxy) = limited("[{ name: slowly, rate: 1/h, refusal: http }]").await;
    let client = proxy.client().await;
    client.call("a__echo").await.result();

    let answer =
        client.post(r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"name":"a__echo"}}"#).await;

    assert_eq!((answer.status, &answer.json()["id"]), (429, &json!("mine")));
    let seconds: u64 = answer.header("retry-after").parse().unwrap();
    let millis = answer.error()["data"]["retryAfterMs"].as_u64().unwrap();
    assert!((millis.div_ceil(1000)..=3600).contains(&seconds), "{answer:?}");
    assert!(!(-32768..=-32000).contains(&answer.code()), "{answer:?}");
    assert_eq!(answer.error()["data"]["limit"], "slowly");
}

#[tokio::test]
async fn who_waits_as_long_as_told_is_let_through() {
    let (_backend, proxy) = limited("[{ name: slowly, rate: 1/s, burst: 1 }]").await;
    let client = proxy.client().await;

    for _ in 0..2 {
        let refused = loop {
            let answer = client.call("a__echo").await;
            if is_refused(&answer) {
                break answer;
            }
        };
        let wait = refused.result()["_meta"]["retryAfterMs"].as_u64().unwrap();
        assert!(wait <= 1000, "{wait}");
        sleep(Duration::from_millis(wait)).await;
        assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
    }
}

#[tokio::test]
async fn sessions_are_counted_apart() {
    let (_backend, proxy) = limited("[{ name: each, key: session, rate: 1/h }]").await;

    for client in [proxy.client().await, proxy.client().await] {
        assert!(!is_refused(&client.call("a__echo").await));
        assert!(is_refused(&client.call("a__echo").await));
    }
}

#[tokio::test]
async fn everybody_is_counted_together() {
    for key in ["global", "ip"] {
        let (_backend, proxy) = limited(&format!("[{{ name: all, key: {key}, rate: 1/h }}]")).await;
        let (first, second) = (proxy.client().await, proxy.client().await);

        assert!(!is_refused(&first.call("a__echo").await), "{key}");
        assert!(is_refused(&second.call("a__echo").await), "{key}");
    }
}

#[tokio::test]
async fn a_limit_covers_the_tools_and_backends_it_names() {
    let a = FakeBackend::named("a").tool("x").tool("y").start().await;
    let b = FakeBackend::named("b").tool("x").start().await;
    let limits = "[{ name: one, tools: [\"*__x\"], backends: [a], rate: 1/h }]";
    let proxy = Setup::fronting(&[&a, &b]).section("limits", limits).start().await;
    let client = proxy.client().await;

    assert!(!is_refused(&client.call("a__x").await));
    assert!(is_refused(&client.call("a__x").await));

    for tool in ["a__y", "b__x"] {
        for _ in 0..3 {
            assert!(!is_refused(&client.call(tool).await), "{tool}");
        }
    }
}

#[tokio::test]
async fn a_call_under_way_counts_until_its_stream_has_ended() {
    let (backend, proxy) = limited("[{ name: one, concurrency: 1 }]").await;
    let client = proxy.client().await;
    let (mut opened, stream) = client.open_stream("a__slow", &backend).await;
    stream.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} })).await;
    opened.message().await.unwrap();

    let during = client.call("a__echo").await;
    stream.finish().await;
    opened.whole().await;
    let after = client.call("a__echo").await;

    assert!(is_refused(&during), "{during:?}");
    assert!(during.result()["_meta"]["retryAfterMs"].as_u64() > Some(0));
    assert_eq!(after.result(), spoken("echo"));
}

#[tokio::test]
async fn no_limit_is_charged_when_another_refuses() {
    let limits = "[{ name: rate, tools: [\"*\"], rate: 2/h }, { name: one, tools: [a__slow], concurrency: 1 }]";
    let (backend, proxy) = limited(limits).await;
    let client = proxy.client().await;
    let (running, call) = client.pending_call("a__slow", &backend).await;

    for _ in 0..5 {
        assert_eq!(client.call("a__slow").await.result()["_meta"]["toolgate/limit"], "one");
    }
    call.finish();
    within(running).await.unwrap().result();
    let (second, third) = (client.call("a__echo").await, client.call("a__echo").await);

    assert_eq!(second.result(), spoken("echo"));
    assert_eq!(third.result()["_meta"]["toolgate/limit"], "rate");
}

#[tokio::test]
async fn what_does_not_get_to_a_backend_is_not_charged() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let health = "{ interval: 100ms, timeout: 100ms, fall: 1, rise: 1, max_backoff: 100ms }";
    let setup = Setup::fronting(&[&backend]).section("limits", "[{ name: one, rate: 1/h }]").section("health", health);
    let proxy = setup.start().await;
    let client = proxy.client().await;

    backend.set_mood(Mood::Status(503));
    proxy.until_state(&backend, "unhealthy").await;
    for tool in ["a__echo", "a__nope", "a__echo"] {
        assert!(client.call(tool).await.response()["error"].is_object());
    }
    backend.set_mood(Mood::Well);
    proxy.until_state(&backend, "healthy").await;

    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
    assert!(is_refused(&client.call("a__echo").await));
}

#[tokio::test]
async fn counts_outlive_a_reload_that_leaves_their_limit_alone() {
    let backend = FakeBackend::named("a").tool("echo").held("slow").start().await;
    let more = FakeBackend::with_tool("more", "x").await;
    let rate = "{ name: rate, tools: [a__echo], rate: 1/h }";
    let one = "{ name: one, tools: [a__slow], concurrency: 1 }";
    let setup = Setup::fronting(&[&backend]).section("limits", &format!("[{rate}, {one}]"));
    let proxy = setup.start().await;
    let client = proxy.client().await;
    client.call("a__echo").await.result();
    let (running, call) = client.pending_call("a__slow", &backend).await;

    proxy.apply(&setup.clone().backend(&more, "").section("limits", &format!("[{one}, {rate}]"))).await;

    assert!(is_refused(&client.call("a__echo").await));
    assert!(is_refused(&client.call("a__slow").await));
    call.finish();
    within(running).await.unwrap().result();
    proxy.apply(&setup.section("limits", "[{ name: rate, tools: [a__echo], rate: 2/h }]")).await;
    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn limits_hold_within_a_batch() {
    let (_backend, proxy) = limited("[{ name: one, rate: 1/h, refusal: http }]").await;
    let client = proxy.client_of("2025-03-26").await;

    let answer = client
        .post(
            r#"[{"jsonrpc":"2.0","id":80,"method":"tools/call","params":{"name":"a__echo"}},
                {"jsonrpc":"2.0","id":81,"method":"tools/call","params":{"name":"a__echo"}}]"#,
        )
        .await;

    let messages = answer.messages();
    assert_eq!(messages[0]["result"], spoken("echo"));
    assert_eq!(messages[1]["error"]["data"]["limit"], "one");
}
