//! News of resources: a client hears of what it is subscribed to, at the backend that it is subscribed at, and of parts of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::backend::spoken;
use crate::support::client::Opened;
use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, eventually, within};

fn resource(uri: &str) -> String {
    json!({ "uri": uri, "name": uri }).to_string()
}

fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } })
}

struct World {
    old: FakeBackend,
    new: FakeModern,
    proxy: TestProxy,
}

async fn world() -> World {
    let declared = json!({ "tools": {}, "resources": { "subscribe": true } });
    let old = FakeBackend::named("old").held("ask").resource(&resource("old:/a")).resource(&resource("old:/b"));
    let old = old.declares(declared).streams().start().await;
    let new = FakeModern::named("new").tool("x").resource(&resource("new:/a")).resource(&resource("new:/b"));
    let new = new.start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    World { old, new, proxy }
}

impl World {
    /// Has a backend say that a resource changed, whoever asked for it.
    async fn says(&self, backend: &str, uri: &str) {
        match backend {
            "old" => self.old.announce(&updated(uri)).await,
            _ => self.new.announce_update_to_all(uri).await,
        }
    }

    /// What a client hears of these, which a backend says of its own accord; it is subscribed to `<backend>:/a`.
    async fn heard(&self, opened: &mut Opened, backend: &str, uris: &[&str]) -> Vec<String> {
        let own = format!("{backend}:/a");
        eventually(async || {
            self.says(backend, &own).await;
            // Dropped, it loses nothing.
            timeout(Duration::from_millis(100), opened.message()).await.is_ok()
        })
        .await;
        for uri in uris {
            self.says(backend, uri).await;
        }
        let last = format!("{backend}:/a#last");
        self.says(backend, &last).await;
        let mut heard = Vec::new();
        loop {
            let told = within(opened.message()).await.unwrap();
            let uri = told["params"]["uri"].as_str().unwrap().to_owned();
            if uri == last {
                return heard;
            }
            // It may have been said more than once before the client listened.
            if uri != own {
                heard.push(uri);
            }
        }
    }
}

/// What a backend that is subscribed to at `<backend>:/a` says besides, and what of it is heard.
fn said(backend: &str, other: &str) -> (Vec<String>, Vec<String>) {
    let part = [format!("{backend}:/a/1"), format!("{backend}:/a?q=1")];
    let not = ["b", "ab", ""].map(|path| format!("{backend}:/{path}"));
    let foreign = [format!("{other}:/a"), format!("{other}:/b"), "nobody:/a".to_owned()];
    let said = [&not[..], &part[..1], &foreign, &part[1..]].concat();
    (said, part.to_vec())
}

/// Method table: `notifications/resources/updated`.
#[tokio::test]
async fn a_legacy_client_hears_of_what_it_is_subscribed_to_and_of_nothing_else() {
    let world = world().await;
    let client = world.proxy.client().await;
    let mut stream = client.listen().await;
    for (backend, other) in [("old", "new"), ("new", "old")] {
        let uri = format!("{backend}:/a");
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
        let (said, expected) = said(backend, other);
        let said: Vec<_> = said.iter().map(|uri| &**uri).collect();

        assert_eq!(world.proxy.metric("toolgate_subscriptions").await, Some(1.0));
        assert_eq!(world.heard(&mut stream, backend, &said).await, expected, "{backend}");
        client.ask("resources/unsubscribe", json!({ "uri": uri })).await.result();
    }
    world.old.take_faults();
}

/// Method table: `notifications/resources/updated`.
#[tokio::test]
async fn a_modern_client_hears_of_what_it_is_subscribed_to_and_of_nothing_else() {
    let world = world().await;
    for (backend, other) in [("old", "new"), ("new", "old")] {
        let uri = format!("{backend}:/a");
        let (mut stream, _) = world.proxy.modern().listen(json!({ "resourceSubscriptions": [uri] })).await;
        let (said, expected) = said(backend, other);
        let said: Vec<_> = said.iter().map(|uri| &**uri).collect();

        assert_eq!(world.heard(&mut stream, backend, &said).await, expected, "{backend}");
    }
    world.old.take_faults();
}

#[tokio::test]
async fn a_client_that_is_subscribed_at_one_backend_hears_nothing_of_it_from_another() {
    let world = world().await;
    let client = world.proxy.client().await;
    let mut stream = client.listen().await;
    for uri in ["old:/a", "new:/a"] {
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
    }
    for (backend, of_the_other) in [("old", "new:/a"), ("new", "old:/a")] {
        let heard = world.heard(&mut stream, backend, &[of_the_other]).await;
        assert_eq!(heard, [""; 0], "{backend}");
    }
    world.old.take_faults();
}

#[tokio::test]
async fn news_on_the_stream_of_a_call_are_for_who_is_subscribed_too() {
    let world = world().await;
    let client = world.proxy.client().await;
    client.ask("resources/subscribe", json!({ "uri": "old:/a" })).await.result();
    let (mut opened, stream) = client.open_stream("old__ask", &world.old).await;

    for uri in ["old:/b", "new:/a", "old:/a"] {
        stream.event(&updated(uri)).await;
    }
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap(), updated("old:/a"));
    assert_eq!(opened.message().await.unwrap()["result"], spoken("ask"));
    world.old.take_faults();
}

/// Cap: the longest event on a backend's own stream. The stream is opened anew, for clients and for the gateway itself.
#[tokio::test]
async fn an_event_of_more_than_4_mb_costs_its_stream_and_nothing_else() {
    let world = world().await;
    let reached = async || world.proxy.metric("toolgate_caps_reached_total{cap=\"event\"}").await.unwrap();
    let client = world.proxy.client().await;
    let mut stream = client.listen().await;
    for (backend, so_far) in [("old", 0.0), ("new", 2.0)] {
        client.ask("resources/subscribe", json!({ "uri": format!("{backend}:/a") })).await.result();
        assert_eq!(world.heard(&mut stream, backend, &[]).await, [""; 0]);

        // On the client's stream and on the gateway's.
        world.says(backend, &format!("{backend}:/a#{}", "x".repeat(5 << 20))).await;

        eventually(async || reached().await == so_far + 2.0).await;
        assert_eq!(world.heard(&mut stream, backend, &[]).await, [""; 0]);
    }
    world.new.add_tool("later");
    world.new.announce_change("tools").await;
    world.proxy.until_tools(&world.new, 2).await;
    world.old.take_faults();
}
