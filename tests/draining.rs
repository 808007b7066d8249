//! A gateway that drains: what it still takes, what it refuses, and who looks on.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::questions::{said, sampling};
use crate::support::backend::spoken;
use crate::support::proxy::{metric, page};
use crate::support::wire::Http2;
use crate::support::{FakeBackend, Raw, Setup, TestProxy, eventually, never_within, within};

/// One that would drain for long.
async fn patient(backend: &FakeBackend) -> TestProxy {
    Setup::fronting(&[backend]).section("drain", "{ delay: 0s, timeout: 1h }").start().await
}

/// Waits until a gateway drains.
pub(crate) async fn until_draining(admin: SocketAddr) {
    eventually(async || *page(admin, Method::GET, "/readyz").await.body == *b"draining\n").await;
}

async fn draining(proxy: TestProxy) -> JoinHandle<()> {
    let admin = proxy.admin_address();
    let stopped = proxy.stop();
    until_draining(admin).await;
    stopped
}

#[tokio::test]
async fn the_operator_looks_on_until_the_end_and_does_not_put_it_off() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = patient(&backend).await;
    let admin = proxy.admin_address();
    let mut kept = Raw::connect(admin).await;
    let (running, call) = proxy.client().await.pending_call("a__x", &backend).await;
    let scrape = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

    let stopped = draining(proxy).await;
    let ready = page(admin, Method::GET, "/readyz").await;
    let inflight = metric(admin, "toolgate_upstream_inflight{backend=\"a\"}").await;
    let reload = page(admin, Method::POST, "/reload").await;
    for _ in 0..2 {
        kept.write(scrape).await;
        assert_eq!(kept.response().await.status, 200);
    }
    call.finish();

    assert_eq!((ready.status, inflight, reload.status), (503, Some(1.0), 409));
    assert!(String::from_utf8_lossy(&reload.body).contains("shutting down"), "{reload:?}");
    assert_eq!(within(running).await.unwrap().result(), spoken("x"));
    within(stopped).await.unwrap();
    assert!(kept.rest().await.is_empty());
    eventually(async || TcpStream::connect(admin).await.is_err()).await;
}

#[tokio::test]
async fn an_answer_to_what_a_call_asked_is_taken_and_the_call_goes_on() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = patient(&backend).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(1))).await;
    let asked = opened.message().await.unwrap();

    let stopped = draining(proxy).await;
    client.reply(&asked["id"], json!({ "said": "late" })).await;
    backend.until(|backend| backend.responses() == [said(&json!(1), "late")]).await;
    // Asked when the gateway drains already.
    stream.event(&sampling(&json!(2))).await;
    let asked = opened.message().await.unwrap();
    client.reply(&asked["id"], json!({ "said": "later" })).await;
    backend.until(|backend| backend.responses().contains(&said(&json!(2), "later"))).await;
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn an_answer_over_http_2_is_taken_too() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = patient(&backend).await;
    let (client, address) = (proxy.asked_client().await, proxy.address());
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(1))).await;
    let asked = opened.message().await.unwrap();

    let stopped = draining(proxy).await;
    let h2 = Http2::over(within(TcpStream::connect(address)).await.unwrap()).await;
    let taken = h2.send(client.request(Method::POST, said(&asked["id"], "late").to_string())).await;
    backend.until(|backend| backend.responses() == [said(&json!(1), "late")]).await;
    stream.finish().await;

    assert_eq!(taken.status, 202);
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn a_cancellation_is_passed_on() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = patient(&backend).await;
    let client = proxy.client().await;
    let (running, call) = client.pending_call("a__x", &backend).await;

    let stopped = draining(proxy).await;
    client.notify("notifications/cancelled", json!({ "requestId": call.id().parse::<u64>().unwrap() })).await;
    backend.until(|backend| !backend.by_clients("notifications/cancelled").is_empty()).await;

    drop((running, call));
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn a_call_that_waits_for_input_is_taken_up() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = patient(&backend).await;
    proxy.until_tools(&backend, 1).await;
    let client = proxy.askable();
    let mut params = json!({ "name": "a__ask", "arguments": {} });
    let running = client.start("tools/call", params.clone());
    let stream = backend.next_call().await.stream();
    stream.event(&sampling(&json!(1))).await;
    let asked = within(running).await.unwrap().result();
    let key = asked["inputRequests"].as_object().unwrap().keys().next().unwrap();
    params["inputResponses"] = json!({ key: { "said": "late" } });
    params["requestState"] = asked["requestState"].clone();

    let mut stopped = draining(proxy).await;
    never_within(Duration::from_millis(200), &mut stopped).await;
    let mut forged = params.clone();
    forged["requestState"] = json!("forged");
    let refused = client.ask("tools/call", forged).await;
    let again = client.start("tools/call", params);
    backend.until(|backend| backend.responses() == [said(&json!(1), "late")]).await;
    never_within(Duration::from_millis(200), &mut stopped).await;
    stream.finish().await;

    assert_eq!((refused.status, refused.code()), (503, 503));
    assert_eq!(within(again).await.unwrap().result()["content"], spoken("ask")["content"]);
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn new_requests_are_refused_and_told_to_come_back() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = patient(&backend).await;
    let (client, leaving, modern) = (proxy.client().await, proxy.client().await, proxy.modern());
    let (running, call) = client.pending_call("a__x", &backend).await;

    let stopped = draining(proxy).await;
    let refused = [
        client.call("a__x").await,
        client.list_answer().await,
        client.initialize("2025-11-25").await,
        client.open(client.request(Method::GET, "")).await.whole().await,
        modern.call("a__x").await,
    ];
    let ended = leaving.delete().await;
    call.finish();

    for answer in refused {
        assert_eq!((answer.status, answer.code()), (503, 503), "{answer:?}");
        assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"), "{answer:?}");
        assert!(answer.message().contains("takes no new requests"), "{answer:?}");
    }
    assert_eq!(ended.status, 204);
    within(running).await.unwrap();
    assert_eq!(backend.all("tools/call").len(), 1);
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn connections_that_came_late_do_not_put_the_end_off() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 1h }");
    let proxy = setup.listener("timeout: { header: 1h, body: 1h }").start().await;
    let address = proxy.address();
    let (running, call) = proxy.client().await.pending_call("a__x", &backend).await;

    let stopped = draining(proxy).await;
    let _silent = Raw::connect(address).await;
    let mut slow = Raw::connect(address).await;
    slow.write(format!("{}Content-Length: 9\r\n\r\n{{", slow.head())).await;
    call.finish();

    assert_eq!(within(running).await.unwrap().result(), spoken("x"));
    within(stopped).await.unwrap();
    eventually(async || TcpStream::connect(address).await.is_err()).await;
}
