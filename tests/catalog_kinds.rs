//! Prompts, resources and resource templates beside tools, of backends of both eras.

use serde_json::{Value, json};

use crate::support::{FakeBackend, FakeModern, Setup, TestProxy, eventually};

/// Listed again this often.
const QUICK: &str = "{ refresh: 600ms, stale_for: 1h, timeout: 2s }";
/// Listed once, and then when something says so.
const ONCE: &str = "{ refresh: 1h, timeout: 5s }";

fn prompt(name: &str) -> String {
    json!({ "name": name, "arguments": [{ "name": "a" }] }).to_string()
}

fn resource(uri: &str) -> String {
    json!({ "uri": uri, "name": "r" }).to_string()
}

fn template(uri_template: &str) -> String {
    json!({ "uriTemplate": uri_template, "name": "t" }).to_string()
}

/// What legacy servers with everything declare.
fn everything() -> Value {
    json!({ "tools": { "listChanged": true }, "prompts": {}, "resources": {} })
}

async fn catalog(proxy: &TestProxy) -> Value {
    proxy.page("/catalog").await.json()
}

/// What all of a kind are known by.
async fn known(proxy: &TestProxy, kind: &str) -> Vec<String> {
    let key = match kind {
        "tools" | "prompts" => "name",
        "resources" => "uri",
        _ => "uriTemplate",
    };
    let catalog = catalog(proxy).await;
    let entries = catalog[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {catalog}"));
    entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_kind_of_either_era_is_listed_with_all_its_pages() {
    let (prompts, uris) = ([prompt("p1"), prompt("p2"), prompt("p3")], ["a:1", "a:2", "a:3"]);
    let mut legacy = FakeBackend::named("legacy").tool("t1").tool("t2").declares(everything()).pages_of(2);
    let mut modern = FakeModern::named("modern").tool("t1").tool("t2").pages_of(2);
    for (prompt, uri) in prompts.iter().zip(uris) {
        legacy = legacy.prompt(prompt).resource(&resource(uri)).template(&template(&format!("{uri}/{{x}}")));
        let uri = uri.replace('a', "b");
        modern = modern.prompt(prompt).resource(&resource(&uri)).template(&template(&format!("{uri}/{{x}}")));
    }
    let (legacy, modern) = (legacy.start().await, modern.in_events().start().await);

    let proxy = Setup::new().backend(&legacy, "").backend(&modern, "").section("catalog", ONCE).start().await;

    eventually(async || known(&proxy, "tools").await.len() == 4).await;
    let prompts = ["legacy__p1", "legacy__p2", "legacy__p3", "modern__p1", "modern__p2", "modern__p3"];
    assert_eq!(known(&proxy, "prompts").await, prompts);
    assert_eq!(known(&proxy, "resources").await, ["a:1", "a:2", "a:3", "b:1", "b:2", "b:3"]);
    let templates = ["a:1/{x}", "a:2/{x}", "a:3/{x}", "b:1/{x}", "b:2/{x}", "b:3/{x}"];
    assert_eq!(known(&proxy, "resourceTemplates").await, templates);
    for kind in ["prompts", "resources", "resourceTemplates"] {
        let series = format!("toolgate_catalog_entries{{backend=\"modern\",kind=\"{kind}\"}}");
        assert_eq!(proxy.metric(&series).await, Some(3.0));
    }
}

#[tokio::test]
async fn what_is_not_declared_is_not_asked_for() {
    let none = FakeBackend::named("none").tool("x").declares(json!({})).start().await;
    let prompts = FakeModern::named("prompts").prompt(&prompt("p")).declares(json!({ "prompts": {} })).start().await;
    let proxy = Setup::new().backend(&none, "").backend(&prompts, "").start().await;

    // Each is listed in its own time.
    eventually(async || known(&proxy, "prompts").await == ["prompts__p"]).await;
    eventually(async || known(&proxy, "tools").await == ["none__x"]).await;

    assert!(none.by_gateway("prompts/list").is_empty() && none.by_gateway("resources/list").is_empty());
    assert!(prompts.by_gateway("resources/list").is_empty());
}

#[tokio::test]
async fn of_two_with_one_name_the_first_has_it() {
    let first = FakeBackend::named("first").tool("x").declares(everything());
    let first = first.prompt(&prompt("p")).resource(&resource("a:1")).template(&template("a:{x}"));
    let second = FakeModern::named("second").tool("y").prompt(&prompt("p")).prompt(&prompt("q"));
    let second = second.resource(&resource("a:1")).template(&template("a:{x}")).template(&template("a:{y}"));
    let (first, second) = (first.start().await, second.start().await);

    let proxy = Setup::new().backend(&first, "prefix: \"\"").backend(&second, "prefix: \"\"").start().await;

    eventually(async || known(&proxy, "tools").await == ["x", "y"]).await;
    assert_eq!(known(&proxy, "prompts").await, ["p", "q"]);
    assert_eq!(known(&proxy, "resources").await, ["a:1"]);
    assert_eq!(known(&proxy, "resourceTemplates").await, ["a:{x}", "a:{y}"]);
    let left_out = catalog(&proxy).await["backends"][1]["leftOut"].clone();
    let expected = json!([
        { "prompt": "p", "why": "backend `first` already has a prompt `p`", "owner": "first" },
        { "resource": "a:1", "why": "backend `first` already has a resource `a:1`", "owner": "first" },
        { "resourceTemplate": "a:{x}", "why": "backend `first` already has a resourceTemplate `a:{x}`", "owner": "first" },
    ]);
    assert_eq!(left_out, expected);
    assert_eq!(proxy.metric("toolgate_catalog_collisions").await, Some(3.0));
}

#[tokio::test]
async fn a_kind_that_fails_stays_as_it_was_and_harms_no_other() {
    let backend = FakeBackend::named("a").tool("x").declares(everything()).prompt(&prompt("p"));
    let backend = backend.resource(&resource("a:1")).start().await;
    let proxy = Setup::fronting(&[&backend]).section("catalog", QUICK).start().await;
    eventually(async || known(&proxy, "resources").await == ["a:1"]).await;

    backend.break_lists(&["prompts/list"]);
    backend.add_tool("y");
    eventually(async || known(&proxy, "tools").await == ["a__x", "a__y"]).await;
    let failures = proxy.page("/backends").await.json()["backends"][0]["listing"]["failures"].clone();
    let prompts = known(&proxy, "prompts").await;
    backend.break_lists(&[]);

    assert_eq!(failures, json!({ "prompts": "it answered `prompts/list` with error -32603" }));
    assert_eq!(prompts, ["a__p"]);
    let healed = async || proxy.page("/backends").await.json()["backends"][0]["listing"]["failures"] == json!({});
    eventually(healed).await;
}

#[tokio::test]
async fn tools_that_fail_fail_the_listing() {
    let backend = FakeModern::named("a").tool("x").prompt(&prompt("p")).start().await;
    backend.break_methods(&["tools/list"]);
    let proxy = Setup::new().backend(&backend, "").section("catalog", QUICK).start().await;
    let listing = async || proxy.page("/backends").await.json()["backends"][0]["listing"].clone();

    eventually(async || listing().await["failure"] == "it answered `tools/list` with error -32603").await;
    backend.break_methods(&[]);

    eventually(async || known(&proxy, "prompts").await == ["a__p"]).await;
    assert_eq!(listing().await["failure"], Value::Null);
}

#[tokio::test]
async fn definitions_that_would_break_clients_are_left_out() {
    let mut backend = FakeModern::named("a").tool("good").prompt(&prompt("good")).resource(&resource("good:1"));
    for bad in ["7", "{}", r#"{"name":""}"#, r#"{"name":"x","arguments":{}}"#] {
        backend = backend.prompt(bad);
    }
    for bad in ["[]", r#"{"uri":"a:b"}"#, r#"{"uri":5,"name":"x"}"#, r#"{"uri":"","name":"x"}"#] {
        backend = backend.resource(bad);
    }
    let params = r#""inputSchema":{"type":"object","properties":{"n":{"type":"number","x-mcp-header":"N"}}}"#;
    let backend = backend
        .defined("task", r#"{"name":"task","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}"#)
        .defined("param", &format!("{{\"name\":\"param\",{params}}}"))
        .start()
        .await;

    let proxy = Setup::new().backend(&backend, "").start().await;

    eventually(async || known(&proxy, "tools").await == ["a__good"]).await;
    assert_eq!(known(&proxy, "prompts").await, ["a__good"]);
    assert_eq!(known(&proxy, "resources").await, ["good:1"]);
    let left_out = catalog(&proxy).await["backends"][0]["leftOut"].as_array().unwrap().clone();
    assert_eq!(left_out.len(), 10, "{left_out:?}");
    let why = |tool: &str| left_out.iter().find(|one| one["tool"] == tool).unwrap()["why"].clone();
    assert_eq!(why("task"), "it can only be called as a task, which is not spoken here");
    assert!(why("param").as_str().unwrap().starts_with("`x-mcp-header` stands on a property that"), "{left_out:?}");
}

#[tokio::test]
async fn a_legacy_servers_bad_header_annotations_concern_modern_clients_only() {
    let definition =
        r#"{"name":"x","inputSchema":{"type":"object","properties":{"n":{"type":"number","x-mcp-header":"N"}}}}"#;
    let backend = FakeBackend::named("a").defined("x", definition).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    assert_eq!(client.tools().await, ["a__x"]);
    client.call("a__x").await.result();

    let why = catalog(&proxy).await["backends"][0]["leftOut"][0]["why"].clone();
    assert!(why.as_str().unwrap().starts_with("not shown to clients of 2026-07-28"), "{why}");
}

#[tokio::test]
async fn an_output_that_legacy_clients_cannot_read_is_kept_from_them() {
    let definition = r#"{"name":"x","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#;
    let backend = FakeModern::named("a").defined("x", definition).start().await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    let client = proxy.client().await;

    let list = client.list().await;

    assert_eq!(list["tools"], json!([{ "name": "a__x", "inputSchema": { "type": "object" } }]));
}

#[tokio::test]
async fn a_modern_server_is_listened_to_for_what_it_tells_of() {
    let declared = json!({ "tools": { "listChanged": true }, "prompts": { "listChanged": true }, "resources": {} });
    let backend = FakeModern::named("a").tool("x").declares(declared).start().await;
    let proxy = Setup::new().backend(&backend, "").section("catalog", ONCE).start().await;
    backend.until(|backend| !backend.heard().is_empty()).await;
    eventually(async || known(&proxy, "tools").await == ["a__x"]).await;

    backend.add_tool("y");
    backend.announce_change("tools").await;
    eventually(async || known(&proxy, "tools").await == ["a__x", "a__y"]).await;
    backend.add_prompt(&prompt("p"));
    backend.announce_change("prompts").await;
    eventually(async || known(&proxy, "prompts").await == ["a__p"]).await;

    assert_eq!(backend.heard(), [json!({ "toolsListChanged": true, "promptsListChanged": true })]);
    let revisions = catalog(&proxy).await["revisions"].clone();
    assert_eq!(revisions, json!({ "tools": 3, "prompts": 2, "resources": 1 }));
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_and_nothing_missed() {
    let backend = FakeModern::with_tool("a", "x").await;
    let proxy = Setup::new().backend(&backend, "").section("catalog", ONCE).start().await;
    for (name, graceful) in [("y", true), ("z", false)] {
        backend.until(|backend| !backend.heard().is_empty()).await;

        backend.add_tool(name);
        if graceful {
            backend.end_streams().await
        } else {
            backend.cut_streams()
        }

        eventually(async || known(&proxy, "tools").await.contains(&format!("a__{name}"))).await;
    }
    backend.until(|backend| !backend.heard().is_empty()).await;
}

#[tokio::test]
async fn a_stream_that_is_not_acknowledged_is_not_believed() {
    let backend = FakeModern::named("a").tool("x").unacknowledging().start().await;
    let proxy = Setup::new().backend(&backend, "").section("catalog", ONCE).start().await;
    backend.until(|backend| !backend.heard().is_empty()).await;

    backend.announce_change("tools").await;

    backend.until(|backend| backend.by_gateway("subscriptions/listen").len() >= 2).await;
    assert_eq!(known(&proxy, "tools").await, ["a__x"]);
}

#[tokio::test]
async fn a_server_that_begins_to_tell_of_more_is_listened_to_for_that() {
    let backend = FakeModern::named("a").tool("x").declares(json!({ "tools": {} })).start().await;
    let proxy = Setup::new().backend(&backend, "").section("catalog", QUICK).start().await;
    eventually(async || known(&proxy, "tools").await == ["a__x"]).await;
    assert!(backend.by_gateway("subscriptions/listen").is_empty());

    backend.set_declares(json!({ "tools": { "listChanged": true } }));

    backend.until(|backend| backend.heard() == [json!({ "toolsListChanged": true })]).await;
}

#[tokio::test]
async fn a_legacy_servers_stream_tells_of_all_kinds() {
    let backend = FakeBackend::named("a").tool("x").declares(everything()).streams().start().await;
    let proxy = Setup::fronting(&[&backend]).section("catalog", ONCE).start().await;
    backend.until(FakeBackend::is_heard).await;
    proxy.until_state(&backend, "healthy").await;

    for kind in ["prompts", "resources", "tools"] {
        backend.add_prompt(&prompt(kind));
        backend.announce(&json!({ "jsonrpc": "2.0", "method": format!("notifications/{kind}/list_changed") })).await;

        eventually(async || known(&proxy, "prompts").await.contains(&format!("a__{kind}"))).await;
    }
}
