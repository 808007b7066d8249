//! What a modern client listens to: under the id of its request, kept open, and over when it leaves; and what it may declare.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::client::Opened;
use crate::support::modern_client::ModernClient;
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, eventually, within};

const TASKS: &str = "io.modelcontextprotocol/tasks";

struct World {
    old: FakeBackend,
    new: FakeModern,
    proxy: TestProxy,
}

async fn world(listener: &str) -> World {
    let resource = |uri: &str| json!({ "uri": uri, "name": uri }).to_string();
    let old = FakeBackend::named("old").tool("x").resource(&resource("old:/a")).streams();
    let old = old.declares(json!({ "tools": { "listChanged": true }, "resources": { "subscribe": true } }));
    let old = old.start().await;
    let new = FakeModern::named("new").tool("x").resource(&resource("new:/a")).start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").listener(listener).start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    World { old, new, proxy }
}

fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } })
}

fn everything() -> Value {
    json!({ "toolsListChanged": true, "resourceSubscriptions": ["old:/a", "new:/a"] })
}

/// Has a backend say something until it is heard, for its stream may not be open yet: this method, about this resource.
async fn hears(opened: &mut Opened, what: (&str, Value), mut say: impl AsyncFnMut()) {
    eventually(async || {
        say().await;
        // Dropped, it loses nothing.
        let Ok(told) = timeout(Duration::from_millis(100), opened.message()).await else { return false };
        let told = told.unwrap();
        assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub-1", "{told}");
        (told["method"].as_str().unwrap(), &told["params"]["uri"]) == (what.0, &what.1)
    })
    .await;
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn every_message_of_a_subscription_bears_the_id_of_its_request() {
    let world = world("").await;
    let client = world.proxy.modern();
    let params = client.params(json!({ "notifications": everything() }));
    let body = json!({ "jsonrpc": "2.0", "id": "sub-1", "method": "subscriptions/listen", "params": params });
    let mut opened = client.http.open(client.request(&body.to_string())).await;
    assert_eq!(opened.message().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    let (news, tools) = ("notifications/resources/updated", "notifications/tools/list_changed");
    hears(&mut opened, (news, json!("old:/a")), async || world.old.announce(&updated("old:/a")).await).await;
    hears(&mut opened, (news, json!("new:/a")), async || world.new.announce_update("new:/a").await).await;
    world.old.add_tool("more");
    hears(&mut opened, (tools, Value::Null), async || world.old.announce_change().await).await;

    let stopped = world.proxy.stop();
    let last = loop {
        let last = within(opened.message()).await.unwrap();
        if last.get("id").is_some() {
            break last;
        }
    };
    assert_eq!(last["id"], "sub-1");
    assert_eq!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"], "sub-1", "{last}");
    within(stopped).await.unwrap();
}

/// What changes once the client knows that it listens is heard: said once, at once.
#[tokio::test]
async fn a_client_is_told_that_it_listens_when_it_does() {
    let world = world("").await;
    for _ in 0..10 {
        let (mut opened, _) = world.proxy.modern().listen(json!({ "resourceSubscriptions": ["old:/a"] })).await;

        world.old.tell_last(&updated("old:/a")).await;

        assert_eq!(opened.message().await.unwrap()["params"]["uri"], "old:/a");
    }
}

/// A backend that does not answer holds a client up for a moment only.
#[tokio::test]
async fn a_client_listens_even_where_a_backend_takes_no_subscription() {
    let resource = json!({ "uri": "a:/a", "name": "a" }).to_string();
    let backend = FakeBackend::named("a").resource(&resource).tool("x").holding("resources/subscribe").streams();
    let backend = backend.declares(json!({ "resources": { "subscribe": true }, "tools": {} })).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;

    let (_opened, acknowledged) = proxy.modern().listen(json!({ "resourceSubscriptions": ["a:/a"] })).await;

    assert_eq!(acknowledged, json!({ "resourceSubscriptions": ["a:/a"] }));
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn a_subscription_with_nothing_to_say_is_kept_open() {
    let world = world("keep_alive: 100ms").await;
    let (mut opened, _) = world.proxy.modern().listen(everything()).await;

    for _ in 0..3 {
        assert_eq!(within(opened.block()).await.as_deref(), Some(": keep-alive"));
    }
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn a_client_that_leaves_its_stream_is_listened_for_no_more() {
    let world = world("").await;
    let (opened, _) = world.proxy.modern().listen(everything()).await;
    let wants = |heard: &Value| heard["resourceSubscriptions"] == json!(["new:/a"]);
    world.new.until(|new| new.heard().iter().any(wants)).await;
    // In a session of its own, beside the one that is listed in.
    world.old.until(|old| old.all("resources/subscribe").len() == 1 && old.gateway_sessions() == 2).await;

    drop(opened);

    eventually(async || !world.new.heard().iter().any(wants)).await;
    world.old.until(|old| old.gateway_sessions() == 1).await;
    world.proxy.until_metric("toolgate_streams{kind=\"client\"}", 0.0).await;
}

/// Tasks are not carried: no backend is to begin one, and no client is to hope for one.
#[tokio::test]
async fn the_tasks_extension_reaches_nobody() {
    let offers = json!({ "tools": {}, "tasks": { "list": {} }, "extensions": { TASKS: {} } });
    let old = FakeBackend::named("old").tool("x").declares(offers.clone()).start().await;
    let new = FakeModern::named("new").tool("x").declares(offers).start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;

    let legacy = proxy.stranger().initialize("2025-11-25").await.result()["capabilities"].clone();
    let modern = proxy.modern().ask("server/discover", json!({})).await.result()["capabilities"].clone();
    for told in [legacy, modern] {
        assert_eq!((&told["tasks"], &told["extensions"]), (&Value::Null, &Value::Null), "{told}");
        assert!(told["tools"].is_object(), "{told}");
    }

    let declared =
        r#"{"sampling":{},"extensions":{"io.modelcontextprotocol/tasks":{"a":1},"x/y":{"n":1.50}},"roots":{}}"#;
    let wanted = declared.replace(r#""io.modelcontextprotocol/tasks":{"a":1},"#, "");
    let client: ModernClient = proxy.modern();
    let body = client.message("tools/call", json!({ "name": "new__x", "arguments": {} }));
    let body = body.replace(
        r#""io.modelcontextprotocol/clientCapabilities":{}"#,
        &format!(r#""io.modelcontextprotocol/clientCapabilities":{declared}"#),
    );
    client.post(&body).await.result();

    let seen = String::from_utf8(new.calls()[0].body.to_vec()).unwrap();
    assert_eq!(seen, body.replace(declared, &wanted).replace("new__x", "x"));
}
