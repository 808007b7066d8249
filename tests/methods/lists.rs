//! The lists of what there is.

use serde_json::{Value, json};

use super::{everything, prompt, resource, template, world};
use crate::support::{FakeBackend, FakeModern, Setup};

fn names(result: &Value, kind: &str, key: &str) -> Vec<String> {
    let entries = result[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {result}"));
    entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

/// Method table: `tools/list`.
#[tokio::test]
async fn tools_list_joins_both_eras_for_both_in_the_order_of_the_configuration() {
    let world = world().await;

    for client in world.clients().await {
        let result = client.result("tools/list", json!({})).await;
        assert_eq!(names(&result, "tools", "name"), ["old__echo", "old__ask", "new__echo", "new__ask"]);
        assert_eq!(result["nextCursor"], Value::Null);
        if client.is_modern() {
            // A legacy backend never says how long anything holds.
            assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")));
        }
        let again = client.result("tools/list", json!({})).await;
        assert_eq!(again, result);
    }
}

/// Method table: `tools/list`, `cursor to client`.
/// Complaint 6: Pagination dropped.
#[tokio::test]
async fn tools_list_has_every_page_of_both_eras_and_one_page_itself() {
    let (mut old, mut new) = (FakeBackend::named("old").pages_of(2), FakeModern::named("new").pages_of(3));
    for tool in ["a", "b", "c", "d", "e", "f", "g"] {
        (old, new) = (old.tool(tool), new.tool(tool));
    }
    let (old, new) = (old.start().await, new.start().await);
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 7).await;
    proxy.until_tools(&new, 7).await;

    let (legacy, modern) = (proxy.client().await, proxy.modern());

    for result in [legacy.list().await, modern.ask("tools/list", json!({})).await.result()] {
        assert_eq!(names(&result, "tools", "name").len(), 14);
        assert_eq!(result["nextCursor"], Value::Null);
    }
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let outdated = json!({ "cursor": "2" });
        assert_eq!(legacy.ask(method, outdated.clone()).await.code(), -32602);
        assert_eq!(modern.ask(method, outdated).await.code(), -32602);
    }
}

/// Method table: `tools/list`.
#[tokio::test]
async fn tools_list_holds_as_long_as_the_shortest_lived_part_and_for_the_fewest() {
    let fake = |name| {
        let (uri, pattern) = (format!("{name}:/a"), format!("{name}:{{x}}"));
        FakeModern::named(name).tool("x").prompt(&prompt("p")).resource(&resource(&uri)).template(&template(&pattern))
    };
    let long = fake("long").cached(90_000, "public").start().await;
    let short = fake("short").cached(20_000, "public").start().await;
    let own = fake("own").cached(60_000, "private").start().await;
    for (backends, scope) in [(vec![&long, &short], "public"), (vec![&long, &short, &own], "private")] {
        let setup = backends.iter().fold(Setup::new(), |setup, backend| setup.backend(*backend, ""));
        let proxy = setup.start().await;
        for backend in &backends {
            proxy.until_tools(*backend, 1).await;
        }

        for method in ["prompts/list", "resources/list", "resources/templates/list", "server/discover", "tools/list"] {
            let result = proxy.modern().ask(method, json!({})).await.result();
            // What the gateway has had it for is over.
            let left = result["ttlMs"].as_u64().unwrap();
            assert!((1..20_000).contains(&left), "{left}");
            assert_eq!(result["cacheScope"], scope, "{method}");
        }
    }
}

/// Method table: `tools/list`.
#[tokio::test]
async fn tools_list_keeps_header_annotations_and_what_only_one_era_can_use_from_the_other() {
    let annotated =
        r#"{"name":"sized","inputSchema":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}"#;
    let bad =
        r#"{"name":"bad","inputSchema":{"type":"object","properties":{"n":{"type":"number","x-mcp-header":"N"}}}}"#;
    let array = r#"{"name":"many","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#;
    let old = FakeBackend::named("old").defined("bad", bad).start().await;
    let new = FakeModern::named("new").defined("sized", annotated).defined("many", array).start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 2).await;

    let legacy = proxy.client().await.list().await;
    let modern = proxy.modern().ask("tools/list", json!({})).await.result();

    assert_eq!(names(&legacy, "tools", "name"), ["old__bad", "new__sized", "new__many"]);
    assert_eq!(names(&modern, "tools", "name"), ["new__sized", "new__many"]);
    assert_eq!(modern["tools"][0]["inputSchema"]["properties"]["n"]["x-mcp-header"], "N");
    assert_eq!(modern["tools"][1]["outputSchema"], json!({ "type": "array" }));
    assert_eq!(legacy["tools"][2]["outputSchema"], Value::Null);
}

/// Method table: `prompts/list`.
#[tokio::test]
async fn prompts_list_joins_both_eras_for_both() {
    let world = world().await;

    for client in world.clients().await {
        let result = client.result("prompts/list", json!({})).await;
        assert_eq!(names(&result, "prompts", "name"), ["old__greet", "new__greet"]);
    }
}

/// Method table: `prompts/list`.
/// Complaint 9: Name collisions, length and charset limits.
#[tokio::test]
async fn prompts_list_gives_a_name_that_two_have_to_the_first_and_says_so() {
    let old = FakeBackend::named("old").tool("x").prompt(&prompt("p")).declares(everything()).start().await;
    let new = FakeModern::named("new").tool("y").prompt(&prompt("p")).prompt(&prompt("q")).start().await;
    let setup = Setup::new().backend(&new, "prefix: \"\"").backend(&old, "prefix: \"\"");
    let proxy = setup.start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;

    let result = proxy.client().await.ask("prompts/list", json!({})).await.result();

    assert_eq!(names(&result, "prompts", "name"), ["p", "q"]);
    let got = proxy.modern().ask("prompts/get", json!({ "name": "p" })).await.result();
    assert_eq!(got["messages"][0]["content"]["text"], "prompt p");
    assert_eq!(new.by_clients("prompts/get").len(), 1);
    assert!(old.all("prompts/get").is_empty());
    assert_eq!(proxy.metric("toolgate_catalog_collisions").await, Some(1.0));
}

/// Method table: `resources/list`.
#[tokio::test]
async fn resources_list_joins_both_eras_and_leaves_uris_as_they_are() {
    let world = world().await;

    for client in world.clients().await {
        let result = client.result("resources/list", json!({})).await;
        assert_eq!(names(&result, "resources", "uri"), ["old:1", "new:1"]);
    }
}

/// Method table: `resources/list`.
/// Complaint 9: Name collisions, length and charset limits.
#[tokio::test]
async fn resources_list_gives_a_uri_that_two_have_to_the_first() {
    let old = FakeBackend::named("old").tool("x").resource(&resource("same:1")).declares(everything()).start().await;
    let new = FakeModern::named("new").tool("x").resource(&resource("same:1")).start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;

    let result = proxy.modern().ask("resources/list", json!({})).await.result();
    let read = proxy.modern().ask("resources/read", json!({ "uri": "same:1" })).await.result();

    assert_eq!(names(&result, "resources", "uri"), ["same:1"]);
    assert_eq!(read["contents"][0]["text"], "read same:1");
    assert_eq!((old.all("resources/read").len(), new.by_clients("resources/read").len()), (1, 0));
}

/// Method table: `resources/templates/list`.
#[tokio::test]
async fn resources_templates_list_joins_both_eras_for_both() {
    let world = world().await;

    for client in world.clients().await {
        let result = client.result("resources/templates/list", json!({})).await;
        assert_eq!(names(&result, "resourceTemplates", "uriTemplate"), ["old:{x}/part", "new:{x}/part"]);
    }
}
