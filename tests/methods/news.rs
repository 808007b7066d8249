//! What backends tell without being asked.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::{World, prompt, resource, world};
use crate::support::{FakeBackend, FakeModern, Setup, eventually, never_within, within};

/// Time for what should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// Method table: `notifications/roots/list_changed`.
#[tokio::test]
async fn notifications_roots_list_changed_goes_to_every_legacy_session_of_the_client_and_to_no_modern_backend() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "x").await);
    let unused = FakeBackend::with_tool("c", "x").await;
    let new = FakeModern::with_tool("new", "x").await;
    let proxy = Setup::fronting(&[&a, &b, &unused]).backend(&new, "").start().await;
    let (client, other) = (proxy.asked_client().await, proxy.asked_client().await);
    proxy.until_tools(&new, 1).await;
    for tool in ["a__x", "b__x", "new__x"] {
        client.call(tool).await.result();
    }
    other.call("a__x").await.result();

    client.notify("notifications/roots/list_changed", json!({})).await;

    for backend in [&a, &b] {
        backend.until(|backend| !backend.by_clients("notifications/roots/list_changed").is_empty()).await;
        assert_eq!(backend.by_clients("notifications/roots/list_changed").len(), 1);
    }
    assert!(unused.by_clients("notifications/roots/list_changed").is_empty());
    assert!(new.by_clients("notifications/roots/list_changed").is_empty());
}

/// Method table: `notifications/{tools,prompts,resources}/list_changed`.
/// Complaint 5: `tools/list_changed` not propagated / stale catalogs.
#[tokio::test]
async fn notifications_list_changed_of_each_kind_come_once_to_clients_of_both_eras() {
    let world = world().await;
    let client = world.proxy.client().await;
    for method in ["tools/list", "prompts/list", "resources/list"] {
        client.ask(method, json!({})).await.result();
    }
    let mut legacy = client.listen().await;
    let all = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
    let (mut modern, honoured) = world.proxy.modern().listen(all.clone()).await;
    assert_eq!(honoured, all);

    for (kind, from_old) in
        [("tools", true), ("prompts", true), ("tools", false), ("prompts", false), ("resources", false)]
    {
        let method = format!("notifications/{kind}/list_changed");
        if from_old {
            world.old.add_tool(kind);
            world.old.add_prompt(&prompt(&format!("p-{kind}")));
            // Whatever it says that changed, the gateway looks at all: here two kinds did.
            world.old.announce(&json!({ "jsonrpc": "2.0", "method": method })).await;
            let told = [legacy.message().await.unwrap(), legacy.message().await.unwrap()];
            assert!(told.iter().any(|told| told["method"] == "notifications/tools/list_changed"), "{told:?}");
            assert!(told.iter().any(|told| told["method"] == "notifications/prompts/list_changed"), "{told:?}");
            modern.message().await.unwrap();
            modern.message().await.unwrap();
            continue;
        }
        match kind {
            "tools" => world.new.add_tool("more"),
            "prompts" => world.new.add_prompt(&prompt("more")),
            _ => world.new.add_resource(&resource("new:more")),
        }
        world.new.announce_change(kind).await;
        assert_eq!(legacy.message().await.unwrap(), json!({ "jsonrpc": "2.0", "method": method }));
        let told = modern.message().await.unwrap();
        assert_eq!(told["method"], json!(method));
        assert!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_u64(), "{told}");
    }

    never_within(LONG_ENOUGH, async {
        tokio::select! { _ = legacy.message() => {}, _ = modern.message() => {} }
    })
    .await;
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn subscriptions_listen_tells_what_was_asked_for_and_nothing_else() {
    let world = world().await;
    let filter = json!({ "promptsListChanged": true, "toolsListChanged": false, "taskIds": ["t"],
                         "resourceSubscriptions": ["nobody:1", "new:1"] });
    let (mut opened, honoured) = world.proxy.modern().listen(filter).await;

    assert_eq!(honoured, json!({ "promptsListChanged": true, "resourceSubscriptions": ["new:1"] }));
    assert_eq!(opened.header("content-type"), "text/event-stream");
    world.new.add_tool("more");
    world.new.announce_change("tools").await;
    never_within(LONG_ENOUGH, opened.message()).await;
    world.new.add_prompt(&prompt("more"));
    world.new.announce_change("prompts").await;
    assert_eq!(opened.message().await.unwrap()["method"], "notifications/prompts/list_changed");
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn subscriptions_listen_without_a_filter_begins_no_stream_and_leaves_out_what_nobody_has() {
    let world = world().await;
    let client = world.proxy.modern();

    for params in [
        json!({}),
        json!({ "notifications": null }),
        json!({ "notifications": ["toolsListChanged"] }),
        json!({ "notifications": { "toolsListChanged": "yes" } }),
        json!({ "notifications": { "resourceSubscriptions": "new:1" } }),
    ] {
        let bad = client.ask("subscriptions/listen", params.clone()).await;
        assert_eq!((bad.status, bad.code()), (400, -32602), "{params}");
    }

    let (_opened, honoured) = client.listen(json!({ "resourceSubscriptions": ["nobody:1"] })).await;
    assert_eq!(honoured, json!({}));
    let (_opened, honoured) = client.listen(json!({})).await;
    assert_eq!(honoured, json!({}));
}

/// Method table: `subscriptions/listen`.
#[tokio::test]
async fn subscriptions_listen_speaks_under_the_id_of_its_request_and_ends_with_a_result() {
    let world = world().await;
    let client = world.proxy.modern();
    for id in [json!("sub-1"), json!(41)] {
        let params = client.params(json!({ "notifications": { "toolsListChanged": true } }));
        let body =
            json!({ "jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params }).to_string();
        let mut opened = client.http.open(client.request(&body)).await;
        let acknowledged = opened.message().await.unwrap();
        assert_eq!(acknowledged["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], id);
    }
    let legacy = world.proxy.client().await.ask("subscriptions/listen", json!({ "notifications": {} })).await;
    assert_eq!((legacy.status, legacy.code()), (200, -32601));

    let (mut opened, _) = client.listen(json!({ "toolsListChanged": true })).await;
    let stopped = world.proxy.stop();
    let last = opened.message().await.unwrap();
    assert_eq!(last["result"]["resultType"], "complete");
    assert!(last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_u64(), "{last}");
    assert_eq!(opened.message().await, None);
    within(stopped).await.unwrap();
}

/// Method table: `notifications/resources/updated`.
#[tokio::test]
async fn notifications_resources_updated_reach_subscribers_in_all_four_cells() {
    let world = world().await;
    let uris = json!(["old:1", "new:1"]);
    let (mut modern, honoured) = world.proxy.modern().listen(json!({ "resourceSubscriptions": uris })).await;
    assert_eq!(honoured["resourceSubscriptions"], uris);
    let client = world.proxy.client().await;
    let mut legacy = client.listen().await;
    for uri in ["old:1", "new:1"] {
        assert_eq!(client.ask("resources/subscribe", json!({ "uri": uri })).await.result(), json!({}));
    }
    world.old.until(|old| old.client_streams() == 1 && old.all("resources/subscribe").len() >= 2).await;
    let wants =
        |new: &FakeModern| new.heard().iter().filter(|f| f["resourceSubscriptions"] == json!(["new:1"])).count();
    world.new.until(|new| wants(new) == 2).await;
    let updated =
        |uri: &str| json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } });

    // The gateway's own stream with the backend, those of the two clients: all hear it, each client once.
    eventually(async || {
        world.old.announce(&updated("old:1")).await;
        tokio::time::timeout(Duration::from_millis(200), modern.message()).await.is_ok()
    })
    .await;
    assert_eq!(legacy.message().await.unwrap(), updated("old:1"));
    world.new.announce_update("new:1").await;
    loop {
        let told = legacy.message().await.unwrap();
        if told == updated("new:1") {
            break;
        }
        assert_eq!(told, updated("old:1"));
    }
    let told = loop {
        let told = modern.message().await.unwrap();
        if told["params"]["uri"] == "new:1" {
            break told;
        }
    };
    assert_eq!(told["method"], "notifications/resources/updated");
    assert!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].is_u64(), "{told}");
}

/// Method table: `notifications/resources/updated`, `upstream session lost`.
/// Complaint 2: The gateway never re-initializes a lost upstream session.
#[tokio::test]
async fn notifications_resources_updated_reach_a_modern_client_when_the_legacy_backend_has_started_anew() {
    let world = world().await;
    let (mut opened, _) = world.proxy.modern().listen(json!({ "resourceSubscriptions": ["old:1"] })).await;
    world.old.until(|old| old.all("resources/subscribe").len() == 1).await;
    let streams = |old: &FakeBackend| old.seen().iter().filter(|seen| seen.verb == Method::GET).count();
    world.old.until(|old| streams(old) == 2).await;

    world.old.forget_everything();
    world.old.until(|old| old.all("resources/subscribe").len() == 2).await;
    let updated =
        json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "old:1" } });
    let heard = async {
        loop {
            let told = opened.message().await.unwrap();
            if told["params"]["uri"] == "old:1" {
                return;
            }
        }
    };
    tokio::pin!(heard);
    eventually(async || {
        world.old.announce(&updated).await;
        tokio::time::timeout(Duration::from_millis(200), &mut heard).await.is_ok()
    })
    .await;
    world.old.take_faults();
}

/// What a client is told of a resource, once it is.
async fn told_of(opened: &mut crate::support::client::Opened, uri: &str) {
    loop {
        let told = opened.message().await.unwrap();
        if told["params"]["uri"] == uri {
            return;
        }
    }
}

/// Reloads with other sections for both backends, which makes them new to the gateway, and waits until they are listed.
async fn reload(world: &World) {
    let setup = Setup::new().backend(&world.old, "max_inflight: 7").backend(&world.new, "max_inflight: 7");
    world.proxy.apply(&setup).await;
    world.proxy.until_tools(&world.old, 2).await;
    world.proxy.until_tools(&world.new, 2).await;
}

async fn updates_arrive(world: &World, opened: &mut crate::support::client::Opened, uri: &str) {
    let updated = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } });
    let told = told_of(opened, uri);
    tokio::pin!(told);
    eventually(async || {
        match uri.starts_with("old") {
            true => world.old.announce(&updated).await,
            false => world.new.announce_update(uri).await,
        }
        tokio::time::timeout(Duration::from_millis(100), &mut told).await.is_ok()
    })
    .await;
}

/// Method table: `notifications/resources/updated`, after a reload.
#[tokio::test]
async fn notifications_resources_updated_reach_a_modern_client_after_its_backends_were_reconfigured() {
    for uri in ["old:1", "new:1"] {
        let world = world().await;
        let (mut opened, _) = world.proxy.modern().listen(json!({ "resourceSubscriptions": [uri] })).await;
        updates_arrive(&world, &mut opened, uri).await;

        reload(&world).await;

        updates_arrive(&world, &mut opened, uri).await;
        world.old.take_faults();
    }
}

/// Method table: `notifications/resources/updated`, after a reload.
#[tokio::test]
async fn notifications_resources_updated_reach_a_legacy_client_after_its_backends_were_reconfigured() {
    for uri in ["old:1", "new:1"] {
        let world = world().await;
        let client = world.proxy.client().await;
        let mut opened = client.listen().await;
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
        updates_arrive(&world, &mut opened, uri).await;

        reload(&world).await;

        updates_arrive(&world, &mut opened, uri).await;
        world.old.take_faults();
    }
}

/// Method table: `resources/subscribe`.
#[tokio::test]
async fn resources_subscribe_holds_for_the_session_with_a_backend_that_was_reconfigured() {
    let world = world().await;
    let client = world.proxy.client().await;
    let _stream = client.listen().await;
    for uri in ["old:1", "new:1"] {
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
    }
    let wants =
        |new: &FakeModern| new.heard().iter().filter(|f| f["resourceSubscriptions"] == json!(["new:1"])).count();
    world.new.until(|new| wants(new) == 1).await;
    let before = world.old.by_clients("resources/subscribe").len();
    let sessions = world.old.by_clients("initialize").len();

    reload(&world).await;
    client.call("old__echo").await.result();

    assert_eq!(world.old.by_clients("initialize").len(), sessions + 1);
    let again = world.old.by_clients("resources/subscribe");
    assert_eq!(again.len(), before + 1);
    assert_eq!(again.last().unwrap().json()["params"]["uri"], "old:1");
    client.call("new__echo").await.result();
    eventually(async || wants(&world.new) == 1).await;
}

/// Method table: `notifications/resources/updated`.
#[tokio::test]
async fn notifications_resources_updated_need_no_call_after_a_backend_was_reconfigured() {
    let world = world().await;
    let client = world.proxy.client().await;
    let _stream = client.listen().await;
    for uri in ["old:1", "new:1"] {
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
    }
    let told = world.old.by_clients("resources/subscribe").len();

    reload(&world).await;

    world.old.until(|old| old.by_clients("resources/subscribe").len() > told).await;
}

/// Method table: `resources/subscribe`.
#[tokio::test]
async fn resources_subscribe_is_told_again_to_a_session_that_was_lost() {
    let world = world().await;
    let client = world.proxy.client().await;
    client.ask("resources/subscribe", json!({ "uri": "old:1" })).await.result();
    let before = world.old.by_clients("resources/subscribe").len();

    world.old.forget_sessions();
    client.call("old__echo").await.result();

    let again = world.old.by_clients("resources/subscribe");
    assert_eq!(again.len(), before + 1);
    assert_eq!(again.last().unwrap().json()["params"]["uri"], "old:1");
}

/// Method table: `resources/subscribe`.
#[tokio::test]
async fn resources_subscribe_is_sent_once_in_a_session_that_it_opens() {
    let world = world().await;
    let client = world.proxy.client().await;

    client.ask("resources/subscribe", json!({ "uri": "old:1" })).await.result();
    assert_eq!(world.old.by_clients("resources/subscribe").len(), 1);

    world.old.forget_sessions();
    client.ask("resources/subscribe", json!({ "uri": "old:1" })).await.result();
    // Once in the session that is lost, once in the new one.
    assert_eq!(world.old.by_clients("resources/subscribe").len(), 3);
}

/// Method table: `resources/subscribe`.
#[tokio::test]
async fn resources_subscribe_to_what_nobody_has_is_refused_and_unknown_to_modern_clients() {
    let world = world().await;

    let unknown = world.proxy.client().await.ask("resources/subscribe", json!({ "uri": "nobody:1" })).await;
    assert_eq!((unknown.status, unknown.code()), (200, -32002));
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        let removed = world.proxy.modern().ask(method, json!({ "uri": "old:1" })).await;
        assert_eq!((removed.status, removed.code()), (404, -32601), "{method}");
    }
}

/// Method table: `resources/unsubscribe`.
#[tokio::test]
async fn resources_unsubscribe_reaches_a_legacy_backend_and_ends_listening_to_a_modern_one() {
    let world = world().await;
    let client = world.proxy.client().await;
    let _stream = client.listen().await;
    for uri in ["old:1", "new:1"] {
        client.ask("resources/subscribe", json!({ "uri": uri })).await.result();
    }
    let wants = |new: &FakeModern| new.heard().iter().any(|filter| filter["resourceSubscriptions"].is_array());
    world.new.until(wants).await;

    for uri in ["old:1", "new:1", "nobody:1"] {
        assert_eq!(client.ask("resources/unsubscribe", json!({ "uri": uri })).await.result(), json!({}));
    }

    assert_eq!(world.old.by_clients("resources/unsubscribe").len(), 1);
    eventually(async || !wants(&world.new)).await;
}

/// Method table: `notifications/elicitation/complete`.
#[tokio::test]
async fn notifications_elicitation_complete_reaches_a_legacy_client_and_no_modern_one() {
    let world = world().await;
    let complete = json!({ "jsonrpc": "2.0", "method": "notifications/elicitation/complete",
                           "params": { "elicitationId": "e-1" } });
    let client = world.proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("old__ask", &world.old).await;
    stream.event(&complete).await;
    assert_eq!(opened.message().await.unwrap(), complete);
    stream.finish().await;

    let modern = world.proxy.askable();
    let (answer, ()) = tokio::join!(modern.call("old__ask"), async {
        let stream = world.old.next_call().await.stream();
        stream.event(&complete).await;
        stream.finish().await;
    });
    assert_eq!(answer.messages().len(), 1, "{answer:?}");
}
