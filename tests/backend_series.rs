//! The series of backends that come and go with reloads.

use crate::support::{FakeBackend, Setup, TestProxy, eventually, within};

/// The lines of `/metrics` that are about a backend.
async fn series(proxy: &TestProxy, backend: &str) -> Vec<String> {
    let page = proxy.page("/metrics").await;
    let text = String::from_utf8(page.body.to_vec()).expect("UTF-8");
    let label = format!("backend=\"{backend}\"");
    text.lines().filter(|line| line.contains(&label)).map(str::to_owned).collect()
}

/// How often calls of `b__y` ended well.
const CALLS: &str = "toolgate_tool_calls_total{backend=\"b\",outcome=\"ok\",tool=\"b__y\"}";

#[tokio::test]
async fn those_of_a_backend_that_is_removed_end_with_its_last_call() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_held_tool("b", "y").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    // What it was before lives on in the streams that it opened.
    let _stream = client.listen().await;
    let (running, call) = client.pending_call("b__y", &b).await;
    call.finish();
    within(running).await.unwrap().result();
    proxy.until_metric(CALLS, 1.0).await;
    let (running, call) = client.pending_call("b__y", &b).await;

    proxy.apply(&Setup::fronting(&[&a])).await;

    b.until(|b| b.gateway_sessions() == 0).await;
    assert_eq!(proxy.metric(CALLS).await, Some(1.0));
    assert_eq!(proxy.metric("toolgate_upstream_inflight{backend=\"b\"}").await, Some(1.0));
    assert_eq!(proxy.metric("toolgate_backend_up{backend=\"b\"}").await, None);
    call.finish();
    within(running).await.unwrap().result();
    eventually(async || series(&proxy, "b").await.is_empty()).await;
    client.call("a__x").await.result();
    assert!(!series(&proxy, "a").await.is_empty());
}

#[tokio::test]
async fn those_of_a_backend_that_comes_back_begin_at_0() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "y").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    client.call("b__y").await.result();
    client.call("b__y").await.result();
    proxy.apply(&Setup::fronting(&[&a])).await;
    eventually(async || series(&proxy, "b").await.is_empty()).await;

    proxy.apply(&Setup::fronting(&[&a, &b])).await;
    proxy.until_tools(&b, 1).await;
    client.call("b__y").await.result();

    proxy.until_metric(CALLS, 1.0).await;
    proxy.until_metric("toolgate_catalog_refreshes_total{backend=\"b\",result=\"ok\"}", 1.0).await;
    assert_eq!(proxy.metric("toolgate_upstream_inflight{backend=\"b\"}").await, Some(0.0));
}

#[tokio::test]
async fn those_of_a_backend_whose_section_changes_go_on() {
    let b = FakeBackend::with_tool("b", "y").await;
    let proxy = Setup::fronting(&[&b]).start().await;
    let client = proxy.client().await;
    client.call("b__y").await.result();
    proxy.until_metric(CALLS, 1.0).await;

    proxy.apply(&Setup::new().backend(&b, "max_inflight: 7")).await;
    client.call("b__y").await.result();

    proxy.until_metric(CALLS, 2.0).await;
}
