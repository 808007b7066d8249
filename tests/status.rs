//! The operator's status page: what stands in it, and that it is kept up to date. How a browser shows it is seen by
//! `tests/status`.

use std::collections::HashMap;

use http::Method;
use serde_json::{Value, json};

use crate::support::client::Opened;
use crate::support::proxy::page;
use crate::support::{Client, FakeBackend, Setup, TestProxy, eventually};

const QUICK: &str = "{ interval: 100ms, timeout: 100ms, rise: 1, fall: 1, max_backoff: 100ms }";

async fn html(proxy: &TestProxy, path: &str) -> String {
    let answer = proxy.page(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// A page that is kept up to date, as a browser has it.
struct Live {
    stream: Opened,
    parts: HashMap<String, String>,
}

impl Live {
    /// Waits until a part of the page holds a text.
    async fn until(&mut self, id: &str, text: &str) {
        while !self.parts.get(id).is_some_and(|html| html.contains(text)) {
            let block = self.stream.block().await.expect("a stream that goes on");
            let Some(data) = block.strip_prefix("event: part\ndata: ") else { continue };
            let part: Value = serde_json::from_str(data).unwrap();
            let text = |key: &str| part[key].as_str().unwrap().to_owned();
            self.parts.insert(text("id"), text("html"));
        }
    }
}

#[tokio::test]
async fn what_backends_and_clients_wrote_is_text() {
    let evil = "<script>alert(1)</script> \"'><img src=x onerror=alert(2)>";
    let definition = json!({ "name": "x", "description": evil, "inputSchema": { "type": "object", "title": evil } });
    let backend = FakeBackend::named("a").defined("x", &definition.to_string()).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    proxy.client().await.ask("tools/call", json!({ "name": evil })).await;

    let text = html(&proxy, "/").await;
    let answer = proxy.page("/").await;

    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{text}");
    assert!(!text.contains("<script>alert") && !text.contains("<img"), "{text}");
    // The tool that nobody has is among what failed.
    assert!(text.contains("Unknown tool: &lt;script&gt;"), "{text}");
    let policy = answer.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let searched = html(&proxy, "/?q=%22%3E%3Cscript%3E").await;
    assert!(searched.contains("value=\"&quot;&gt;&lt;script&gt;\"") && !searched.contains("value=\"\">"), "{searched}");
}

#[tokio::test]
async fn tools_are_found_by_name_owner_and_words() {
    let a = FakeBackend::named("alpha").tool("one").tool("two").start().await;
    let b = FakeBackend::with_tool("beta", "three").await;
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    proxy.until_tools(&a, 2).await;
    proxy.until_tools(&b, 1).await;

    let found = async |search: &str| {
        let text = html(&proxy, &format!("/?q={search}")).await;
        ["alpha__one", "alpha__two", "beta__three"].map(|tool| text.contains(&format!("<code>{tool}</code>")))
    };

    assert_eq!(found("").await, [true, true, true]);
    assert_eq!(found("ALPHA").await, [true, true, false]);
    assert_eq!(found("does+three").await, [false, false, true]);
    assert_eq!(found("nothing").await, [false, false, false]);
}

#[tokio::test]
async fn the_page_is_told_what_changes() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let limit = "[{ name: once, tools: [a__x], key: session, rate: 1/h }]";
    let setup = Setup::fronting(&[&backend])
        .section("health", QUICK)
        .section("limits", limit)
        .section("catalog", "{ refresh: 500ms }");
    let proxy = setup.start().await;
    proxy.until_state(&backend, "healthy").await;
    let operator = Client::stranger(proxy.admin_address());
    let events = http::Request::get("/status/events").header("host", "localhost").body(Default::default()).unwrap();
    let stream = operator.open(events).await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let mut live = Live { stream, parts: HashMap::new() };
    live.until("backends", "state good").await;

    let client = proxy.client().await;
    live.until("sessions", "<dt>sessions held</dt><dd>1</dd>").await;
    client.call("a__x").await;
    client.call("a__x").await;
    live.until("limits", "a__x").await;
    live.until("errors", "limited").await;
    backend.define_again("x", r#"{"name":"x","inputSchema":{"type":"object","required":["a"]}}"#);
    proxy.apply(&setup.clone().section("limits", &limit.replace("1/h", "2/h"))).await;
    live.until("reload", "limits[once].rate: &quot;1/h&quot; became &quot;2/h&quot;").await;
    live.until("drift", "parameter_required").await;
    let _socket = backend.go_away().await;
    live.until("backends", "state bad").await;
    live.until("gateway", "no backend is usable").await;
    // Whoever looks on is no client.
    assert_eq!(proxy.metric("toolgate_streams{kind=\"client\"}").await, Some(0.0));

    drop(live);
    eventually(async || proxy.metric("toolgate_streams{kind=\"operator\"}").await == Some(0.0)).await;
}

#[tokio::test]
async fn the_page_changes_nothing_and_is_not_there_for_clients() {
    let proxy = TestProxy::fronting(&[&FakeBackend::with_tool("a", "x").await]).await;

    assert_eq!(page(proxy.admin_address(), Method::POST, "/").await.status, 405);
    for path in ["/status.css", "/status.js"] {
        assert_eq!(page(proxy.admin_address(), Method::GET, path).await.status, 200, "{path}");
        assert_eq!(page(proxy.address(), Method::GET, path).await.status, 404, "{path}");
    }
    assert_eq!(page(proxy.address(), Method::GET, "/").await.status, 404);
}
