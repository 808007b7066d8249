//! Every method that clients and backends may use, for clients of both eras on backends of both.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::modern_client::{MODERN, header_text};
use crate::support::{
    Answer, Client, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, eventually, never_within, within,
};

/// Time for what should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// A legacy server (`old`) and a modern one (`new`) with one of each kind, and the gateway before them.
struct World {
    old: FakeBackend,
    new: FakeModern,
    proxy: TestProxy,
}

fn everything() -> Value {
    json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
    })
}

fn prompt(name: &str) -> String {
    json!({ "name": name, "arguments": [{ "name": "a" }] }).to_string()
}

fn resource(uri: &str) -> String {
    json!({ "uri": uri, "name": "r" }).to_string()
}

fn template(uri: &str) -> String {
    json!({ "uriTemplate": uri, "name": "t" }).to_string()
}

/// What passes between a test and its world before it starts.
async fn world() -> World {
    let old = FakeBackend::named("old").tool("echo").held("ask").prompt(&prompt("greet")).resource(&resource("old:1"));
    let old = old.template(&template("old:{x}/part")).declares(everything()).logging().streams().start().await;
    let new = FakeModern::named("new").tool("echo").held("ask").prompt(&prompt("greet")).resource(&resource("new:1"));
    let new = new.template(&template("new:{x}/part")).start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 2).await;
    proxy.until_tools(&new, 2).await;
    old.until(FakeBackend::is_heard).await;
    new.until(|new| !new.heard().is_empty()).await;
    World { old, new, proxy }
}

/// One client of either era.
enum Either {
    Legacy(Client),
    Modern(ModernClient),
}

impl Either {
    async fn ask(&self, method: &str, params: Value) -> Answer {
        match self {
            Self::Legacy(client) => client.ask(method, params).await,
            Self::Modern(client) => client.ask(method, params).await,
        }
    }

    fn is_modern(&self) -> bool {
        matches!(self, Self::Modern(_))
    }

    /// The answer's result, after a look at whether it is in the client's own words.
    async fn result(&self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params).await;
        let result = answer.result();
        let words = [&result["resultType"], &result["ttlMs"], &result["cacheScope"]];
        if self.is_modern() {
            assert_eq!(result["resultType"], "complete", "{answer:?}");
            assert!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"].is_string(), "{answer:?}");
        } else {
            assert_eq!(words, [&Value::Null; 3], "{answer:?}");
            assert!(!answer.body.windows(23).any(|part| part == b"io.modelcontextprotocol"), "{answer:?}");
        }
        result
    }
}

impl World {
    async fn clients(&self) -> [Either; 2] {
        [Either::Legacy(self.proxy.client().await), Either::Modern(self.proxy.modern())]
    }
}

fn names(result: &Value, kind: &str, key: &str) -> Vec<String> {
    let entries = result[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {result}"));
    entries.iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

// === initialize, notifications/initialized, server/discover, ping ===

/// Method table: `initialize`.
#[tokio::test]
async fn initialize_offers_what_all_backends_have_together_and_never_the_modern_version() {
    let world = world().await;

    let answer = world.proxy.stranger().initialize(MODERN).await;

    let result = answer.result();
    assert_eq!(result["protocolVersion"], "2025-11-25");
    assert_eq!(result["serverInfo"]["name"], "toolgate");
    let expected = json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "logging": {},
    });
    assert_eq!(result["capabilities"], expected);
    assert!(!answer.header("mcp-session-id").is_empty());
}

/// Method table: `initialize`.
#[tokio::test]
async fn initialize_offers_nothing_that_no_backend_has() {
    let plain = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&plain]).await;
    proxy.client().await.list().await;

    let legacy = proxy.stranger().initialize("2025-11-25").await.result()["capabilities"].clone();
    let modern = proxy.modern().ask("server/discover", json!({})).await.result()["capabilities"].clone();

    for capabilities in [legacy, modern] {
        for name in ["completions", "logging", "tasks", "extensions", "experimental"] {
            assert_eq!(capabilities[name], Value::Null, "{capabilities}");
        }
        assert_eq!(capabilities["resources"]["subscribe"], Value::Null, "{capabilities}");
    }
}

/// Method table: `initialize`.
#[tokio::test]
async fn initialize_with_an_envelope_is_a_method_that_is_not_there() {
    let world = world().await;

    let answer = world.proxy.modern().ask("initialize", json!({ "protocolVersion": "2025-11-25" })).await;

    assert_eq!((answer.status, answer.code()), (404, -32601));
    assert_eq!(answer.header("mcp-session-id"), "");
}

/// Method table: `notifications/initialized`.
#[tokio::test]
async fn notifications_initialized_is_taken_and_sent_to_each_legacy_session_after_its_own_handshake() {
    let world = world().await;
    let client = world.proxy.client().await;
    assert!(world.old.by_clients("notifications/initialized").is_empty());

    client.call("old__echo").await.result();
    client.call("new__echo").await.result();

    let order: Vec<_> = world.old.seen().into_iter().filter(|s| s.is_clients()).map(|s| s.method).collect();
    assert_eq!(order[..3], ["initialize", "notifications/initialized", "tools/call"]);
    // The modern fake takes one for a fault.
    assert_eq!(world.new.calls().len(), 1);
}

/// Method table: `server/discover`.
#[tokio::test]
async fn server_discover_is_answered_with_the_modern_versions_and_what_there_is() {
    let world = world().await;

    let result = world.proxy.modern().ask("server/discover", json!({})).await.result();

    assert_eq!(result["supportedVersions"], json!([MODERN]));
    assert_eq!((&result["resultType"], &result["ttlMs"]), (&json!("complete"), &json!(0)));
    assert_eq!(result["cacheScope"], "private");
    assert_eq!(result["capabilities"]["resources"], json!({ "listChanged": true, "subscribe": true }));
    assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "toolgate");
    assert_eq!(result["capabilities"]["extensions"], Value::Null);
}

/// Method table: `server/discover`.
#[tokio::test]
async fn server_discover_is_unknown_to_legacy_clients() {
    let world = world().await;

    let answer = world.proxy.client().await.ask("server/discover", json!({})).await;

    assert_eq!((answer.status, answer.code()), (200, -32601));
}

/// Method table: `ping`.
#[tokio::test]
async fn ping_is_answered_here_to_legacy_clients_and_unknown_to_modern_ones() {
    let world = world().await;
    let before = (world.old.seen().len(), world.new.seen().len());

    assert_eq!(world.proxy.client().await.ask("ping", json!({})).await.result(), json!({}));
    let refused = world.proxy.modern().ask("ping", json!({})).await;

    assert_eq!((refused.status, refused.code()), (404, -32601));
    assert_eq!((world.old.seen().len(), world.new.seen().len()), before);
}

/// Method table: `ping`.
#[tokio::test]
async fn ping_of_a_backend_on_a_clients_own_stream_is_answered_to_it_with_its_own_id() {
    let world = world().await;
    let client = world.proxy.client().await;
    client.call("old__echo").await.result();
    let mut stream = client.listen().await;
    world.old.until(|old| old.client_streams() == 1).await;

    for id in [json!(0), json!("hb-1")] {
        world.old.tell_clients(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })).await;
        let expected = json!({ "jsonrpc": "2.0", "id": id, "result": {} });
        world.old.until(|old| old.responses().contains(&expected)).await;
    }

    never_within(Duration::from_millis(200), stream.message()).await;
}

// === lists ===

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

// === routed requests ===

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_reaches_the_owner_under_its_own_name_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for backend in ["old", "new"] {
            let params = json!({ "name": format!("{backend}__echo"), "arguments": { "a": 1 } });
            let result = client.result("tools/call", params).await;
            assert_eq!(result["content"], spoken("echo")["content"]);
        }
    }

    let old: Vec<_> = world.old.all("tools/call").iter().map(|seen| seen.json()["params"]["name"].clone()).collect();
    let new: Vec<_> = world.new.calls().iter().map(|seen| seen.json()["params"]["name"].clone()).collect();
    assert_eq!((old, new), (vec![json!("echo"); 2], vec![json!("echo"); 2]));
    for seen in world.old.all("tools/call") {
        assert!(!String::from_utf8_lossy(&seen.body).contains("io.modelcontextprotocol"), "{seen:?}");
        assert!(!seen.headers.keys().any(|name| matches!(name.as_str(), "mcp-method" | "mcp-name")), "{seen:?}");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_of_an_unknown_tool_is_the_same_error_in_both_eras() {
    let world = world().await;

    for client in world.clients().await {
        let answer = client.ask("tools/call", json!({ "name": "old__nope" })).await;
        assert_eq!((answer.status, answer.code()), (200, -32602));
        assert_eq!(answer.message(), "Unknown tool: old__nope");
    }
    assert!(world.old.all("tools/call").is_empty());
}

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_beyond_a_limit_is_refused_in_the_words_of_each_era() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let limits = "[{ name: told, tools: [\"*\"], rate: 1/h }]";
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    let (legacy, modern) = (proxy.client().await, proxy.modern());
    proxy.until_tools(&backend, 1).await;
    legacy.call("a__echo").await.result();
    modern.call("a__echo").await;

    let (to_legacy, to_modern) = (legacy.call("a__echo").await, modern.call("a__echo").await);

    assert_eq!((&to_legacy.result()["isError"], &to_legacy.result()["resultType"]), (&json!(true), &Value::Null));
    assert_eq!((&to_modern.result()["isError"], &to_modern.result()["resultType"]), (&json!(true), &json!("complete")));
}

/// Method table: `prompts/get`.
#[tokio::test]
async fn prompts_get_reaches_the_owner_under_its_own_name_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for backend in ["old", "new"] {
            let result = client.result("prompts/get", json!({ "name": format!("{backend}__greet") })).await;
            assert_eq!(result["messages"][0]["content"]["text"], "prompt greet");
        }
        let unknown = client.ask("prompts/get", json!({ "name": "old__nope" })).await;
        assert_eq!((unknown.status, unknown.code()), (200, -32602));
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_goes_by_list_and_by_template_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for uri in ["old:1", "new:1", "old:7/part", "new:7/part"] {
            let result = client.result("resources/read", json!({ "uri": uri })).await;
            assert_eq!(result["contents"], json!([{ "uri": uri, "text": format!("read {uri}") }]));
            if client.is_modern() {
                assert!(result["ttlMs"].is_u64() && result["cacheScope"].is_string(), "{result}");
            }
        }
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_of_what_nobody_has_is_an_error_of_the_clients_own_era() {
    let world = world().await;
    for client in world.clients().await {
        // Of neither; of the legacy backend's template, which does not have it; of the modern one's.
        for uri in ["nobody:1", "old:9/part", "new:9/part"] {
            let answer = client.ask("resources/read", json!({ "uri": uri })).await;
            if uri != "nobody:1" {
                assert_eq!(answer.response()["error"], Value::Null, "{answer:?}");
                continue;
            }
            assert_eq!(answer.status, 200);
            assert_eq!(answer.code(), if client.is_modern() { -32602 } else { -32002 });
            assert_eq!(answer.error()["data"]["uri"], uri);
        }
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_translates_the_owners_own_not_found() {
    let old = FakeBackend::named("old").tool("x").resource(&resource("old:1")).declares(everything());
    let old = old.holding("resources/read").start().await;
    let new = FakeModern::named("new").tool("x").resource(&resource("new:1")).holding("resources/read").start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    let (legacy, modern) = (proxy.client().await, proxy.modern());
    let gone = |uri: &str, code: i64| json!({ "code": code, "message": "gone", "data": { "uri": uri } });

    let body = legacy.message("resources/read", &json!({ "uri": "new:1" }));
    let (answer, ()) = tokio::join!(legacy.post(body), async { new.next_call().await.error(&gone("new:1", -32602)) });
    assert_eq!((answer.code(), &answer.error()["data"]["uri"]), (-32002, &json!("new:1")));

    let asked = modern.ask("resources/read", json!({ "uri": "old:1" }));
    let no_data = json!({ "code": -32002, "message": "gone" });
    let (answer, ()) = tokio::join!(asked, async { old.next_call().await.error(&no_data) });
    assert_eq!((answer.code(), &answer.error()["data"]["uri"]), (-32602, &json!("old:1")));
    assert_eq!(answer.message(), "gone");
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_looks_further_though_the_first_backend_says_something_before_it_does_not_have_it() {
    let declared = json!({ "tools": {}, "resources": {} });
    let first =
        FakeBackend::named("first").tool("x").declares(declared.clone()).holding("resources/read").start().await;
    let second = FakeBackend::named("second").tool("x").declares(declared).holding("resources/read").start().await;
    let proxy = TestProxy::fronting(&[&first, &second]).await;
    proxy.until_tools(&first, 1).await;
    proxy.until_tools(&second, 1).await;
    let client = proxy.modern().at_level("debug");

    let (answer, (), ()) = tokio::join!(
        client.ask("resources/read", json!({ "uri": "linked:1" })),
        async {
            let call = first.next_call().await;
            let id: Value = serde_json::from_str(&call.id()).unwrap();
            let stream = call.stream();
            stream.event(&log("info")).await;
            let error = json!({ "code": -32002, "message": "no" });
            stream.event(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
        },
        async {
            let contents = json!([{ "uri": "linked:1", "text": "here" }]);
            second.next_call().await.result(&json!({ "contents": contents }));
        },
    );

    assert_eq!(answer.result()["contents"][0]["text"], "here");
}

/// Method table: `completion/complete`.
#[tokio::test]
async fn completion_complete_reaches_the_owner_of_prompt_or_template_in_all_four_cells() {
    let world = world().await;
    let argument = json!({ "name": "a", "value": "x" });

    for client in world.clients().await {
        for (reference, values) in [
            (json!({ "type": "ref/prompt", "name": "old__greet" }), "completed"),
            (json!({ "type": "ref/prompt", "name": "new__greet" }), "done"),
            (json!({ "type": "ref/resource", "uri": "old:{x}/part" }), "completed"),
            (json!({ "type": "ref/resource", "uri": "new:{x}/part" }), "done"),
        ] {
            let params = json!({ "ref": reference, "argument": argument });
            let result = client.result("completion/complete", params).await;
            assert_eq!(result["completion"]["values"], json!([values]), "{reference}");
        }
        for bad in [
            json!({ "type": "ref/prompt", "name": "old__nope" }),
            json!({ "type": "ref/resource", "uri": "nobody:{y}" }),
            json!({ "type": "ref/tool", "name": "old__echo" }),
            json!(7),
        ] {
            let answer = client.ask("completion/complete", json!({ "ref": bad, "argument": argument })).await;
            assert_eq!(answer.code(), -32602, "{bad}");
        }
    }
    let references: Vec<_> =
        world.old.all("completion/complete").iter().map(|seen| seen.json()["params"]["ref"].clone()).collect();
    assert_eq!(references[0], json!({ "type": "ref/prompt", "name": "greet" }));
}

// === logging ===

/// Method table: `logging/setLevel`.
#[tokio::test]
async fn logging_set_level_reaches_sessions_opened_later_and_every_request_to_a_modern_backend() {
    let world = world().await;
    let client = world.proxy.client().await;

    assert_eq!(client.ask("logging/setLevel", json!({ "level": "notice" })).await.result(), json!({}));
    assert!(world.old.by_clients("logging/setLevel").is_empty());
    client.call("old__echo").await.result();
    client.call("new__echo").await.result();
    client.ask("logging/setLevel", json!({ "level": "error" })).await.result();
    world.old.until(|old| old.by_clients("logging/setLevel").len() == 2).await;
    client.call("new__echo").await.result();

    let levels: Vec<_> =
        world.old.by_clients("logging/setLevel").iter().map(|s| s.json()["params"]["level"].clone()).collect();
    assert_eq!(levels, ["notice", "error"]);
    let key = "io.modelcontextprotocol/logLevel";
    let levels: Vec<_> = world.new.calls().iter().map(|s| s.json()["params"]["_meta"][key].clone()).collect();
    assert_eq!(levels, ["notice", "error"]);
    assert_eq!(client.ask("logging/setLevel", json!({ "level": "loud" })).await.code(), -32602);
}

/// Method table: `logging/setLevel`.
#[tokio::test]
async fn logging_set_level_is_unknown_to_modern_clients() {
    let world = world().await;

    let answer = world.proxy.modern().ask("logging/setLevel", json!({ "level": "info" })).await;

    assert_eq!((answer.status, answer.code()), (404, -32601));
}

fn log(level: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } })
}

/// Method table: `notifications/message`.
#[tokio::test]
async fn notifications_message_comes_on_the_calls_own_stream_to_those_who_asked_for_it() {
    let world = world().await;
    for (level, expected) in [
        (None, vec![]),
        (Some("warning"), vec!["warning", "error"]),
        (Some("debug"), vec!["debug", "warning", "error"]),
    ] {
        let client = ModernClient { log_level: level, ..world.proxy.modern() };
        let (answer, ()) = tokio::join!(client.call("old__ask"), async {
            let stream = world.old.next_call().await.stream();
            for level in ["debug", "warning", "error"] {
                stream.event(&log(level)).await;
            }
            stream.finish().await;
        });

        let messages = answer.messages();
        let levels: Vec<_> = messages[..messages.len() - 1].iter().map(|m| m["params"]["level"].clone()).collect();
        assert_eq!(levels, expected, "{level:?}");
        assert_eq!(answer.result()["resultType"], "complete");
    }
    // The backend was told, in a session of this level only.
    let told: Vec<_> = world.old.all("logging/setLevel").iter().map(|s| s.json()["params"]["level"].clone()).collect();
    assert_eq!(told, ["warning", "debug"]);

    let client = world.proxy.client().await;
    let (mut opened, stream) = client.open_stream("old__ask", &world.old).await;
    stream.event(&log("debug")).await;
    assert_eq!(opened.message().await.unwrap(), log("debug"));
    stream.finish().await;
    let (mut opened, stream) = tokio::join!(client.open_call("new__ask"), async {
        let stream = world.new.next_call().await.stream();
        stream.event(&log("debug")).await;
        stream
    });
    assert_eq!(opened.message().await.unwrap(), log("debug"));
    stream.finish().await;
}

// === progress and cancelling ===

/// Method table: `notifications/progress`.
/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn notifications_progress_comes_back_under_the_clients_own_token_in_all_four_cells() {
    let world = world().await;
    for token in [json!("t"), json!(1), json!(12_345_678_901_234_567_890_u64)] {
        for client in world.clients().await {
            for backend in ["old", "new"] {
                let params = json!({ "name": format!("{backend}__ask"), "_meta": { "progressToken": token } });
                let (answer, ()) = tokio::join!(client.ask("tools/call", params), async {
                    let call = match backend {
                        "old" => world.old.next_call().await,
                        _ => world.new.next_call().await,
                    };
                    let own = call.seen.json()["params"]["_meta"]["progressToken"].clone();
                    let stream = call.stream();
                    let params = json!({ "progressToken": own, "progress": 1, "total": 2 });
                    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
                    stream.event(&progress).await;
                    stream.finish().await;
                });

                let messages = answer.messages();
                assert_eq!(messages.len(), 2, "{backend} {token} {answer:?}");
                assert_eq!(messages[0]["params"], json!({ "progressToken": token, "progress": 1, "total": 2 }));
            }
        }
    }
}

/// Method table: `notifications/cancelled`.
/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn notifications_cancelled_closes_the_stream_of_a_modern_backend() {
    let world = world().await;
    let client = world.proxy.client().await;
    let running = client.start_call("new__ask");
    let call = world.new.next_call().await;

    let id: Value = serde_json::from_str(&call.id()).unwrap();
    client.notify("notifications/cancelled", json!({ "requestId": id })).await;

    within(call.disconnected()).await;
    assert_eq!(within(running).await.unwrap().code(), 499);
}

/// Method table: `notifications/cancelled`.
#[tokio::test]
async fn notifications_cancelled_of_a_modern_client_is_taken_and_means_nothing() {
    let world = world().await;
    let client = world.proxy.modern();
    let running = client.start_call("old__ask");
    let call = world.old.next_call().await;

    let http = client.http.with_header("mcp-protocol-version", MODERN);
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let taken = http.post(body.to_string()).await;
    call.finish();

    assert_eq!((taken.status, &*taken.body), (202, &b""[..]));
    assert_eq!(within(running).await.unwrap().result()["resultType"], "complete");
    assert!(world.old.all("notifications/cancelled").is_empty());
}

/// Method table: `request ids upstream`.
#[tokio::test]
async fn request_ids_come_back_as_they_were_sent_whatever_their_type() {
    let world = world().await;
    let (legacy, modern) = (world.proxy.client().await, world.proxy.modern());

    for id in ["7", "\"7\"", "-1", "9007199254740993", "\"\\u00e9 x\""] {
        for tool in ["old__echo", "new__echo"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
            let answer = world.proxy.client().await.post(body).await;
            assert!(String::from_utf8_lossy(&answer.body).contains(&format!("\"id\":{id}")), "{tool} {id} {answer:?}");
            let meta = modern.meta();
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","_meta":{meta}}}}}"#
            );
            let answer = modern.post(&body).await;
            assert!(String::from_utf8_lossy(&answer.body).contains(&format!("\"id\":{id}")), "{tool} {id} {answer:?}");
        }
    }
    drop(legacy);
}

// === news ===

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

// === what is not there ===

/// Method table: `unknown method`, `tasks/*`.
#[tokio::test]
async fn unknown_methods_are_refused_in_the_way_of_each_era() {
    let world = world().await;
    let removed = ["ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "initialize"];
    let unknown = ["", "nope", "tools/Call", "tasks/get", "tasks/list", "tasks/cancel", "tasks/result", "rpc.discover"];
    let client = world.proxy.client().await;

    for method in unknown {
        let answer = client.ask(method, json!({})).await;
        assert_eq!((answer.status, answer.code()), (200, -32601), "{method}");
    }
    for method in unknown.into_iter().filter(|method| !method.is_empty()).chain(removed) {
        let message = world.proxy.modern().message(method, json!({}));
        let answer = world.proxy.modern().post(&message).await;
        assert_eq!((answer.status, answer.code()), (404, -32601), "{method}");
        let sent: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(answer.response()["id"], sent["id"]);
    }
}

/// Method table: `GET`, `DELETE`.
#[tokio::test]
async fn get_and_delete_are_for_legacy_clients_only() {
    let world = world().await;
    let modern = world.proxy.stranger().with_header("mcp-protocol-version", MODERN);
    for verb in [Method::GET, Method::DELETE] {
        let answer = modern.send(modern.request(verb.clone(), "")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{verb}");
    }

    let client = world.proxy.client().await;
    client.call("old__echo").await.result();
    assert_eq!(client.delete().await.status, 204);
    world.old.until(|old| old.client_sessions() == 0).await;
    assert_eq!(client.call("old__echo").await.status, 404);
    assert_eq!(client.send(client.request(Method::GET, "")).await.status, 404);
}

/// Method table: `upstream session lost`.
/// Complaint 2: The gateway never re-initializes a lost upstream session.
#[tokio::test]
async fn upstream_session_lost_is_opened_again_for_a_modern_client_too() {
    let world = world().await;
    let client = world.proxy.modern();
    client.call("old__echo").await.result();

    world.old.forget_everything();
    let answer = client.call("old__echo").await;

    assert_eq!(answer.result()["content"], spoken("echo")["content"]);
    world.old.take_faults();
}

// === headers of modern requests ===

/// A modern request whose headers are the test's.
async fn with_headers(proxy: &TestProxy, body: &str, headers: &[(&str, &str)]) -> Answer {
    let client = headers.iter().fold(proxy.stranger(), |client, (name, value)| client.with_header(name, value));
    client.post(body.to_owned()).await
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_of_a_modern_request_must_repeat_its_body() {
    let world = world().await;
    let body = world.proxy.modern().message("tools/call", json!({ "name": "old__echo" }));
    let id = serde_json::from_str::<Value>(&body).unwrap()["id"].clone();
    let (version, method, name) =
        (("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "old__echo"));

    for headers in [
        vec![method, name],
        vec![("mcp-protocol-version", "2025-11-25"), method, name],
        vec![version, name],
        vec![version, ("mcp-method", "TOOLS/CALL"), name],
        vec![version, ("mcp-method", "tools/list"), name],
        vec![version, method],
        vec![version, method, ("mcp-name", "old__Echo")],
        vec![version, method, ("mcp-name", "=?base64?b2xkX19lY2h?=")],
        vec![version, method, ("mcp-name", "=?BASE64?b2xkX19lY2hv?=")],
    ] {
        let answer = with_headers(&world.proxy, &body, &headers).await;
        assert_eq!((answer.status, answer.code()), (400, -32020), "{headers:?}");
        assert_eq!(answer.response()["id"], id, "{headers:?}");
    }
    for headers in [
        vec![version, method, name],
        vec![version, method, ("mcp-name", "=?base64?b2xkX19lY2hv?=")],
        vec![version, ("mcp-method", " tools/call "), name],
        vec![version, method, name, ("mcp-param-unknown", "x"), ("mcp-session-id", "dead"), ("last-event-id", "7")],
    ] {
        let answer = with_headers(&world.proxy, &body, &headers).await;
        assert_eq!(answer.result()["resultType"], "complete", "{headers:?}");
        assert_eq!(answer.header("mcp-session-id"), "");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_that_come_twice_are_refused_even_when_both_are_right() {
    let world = world().await;
    let modern = world.proxy.modern();
    for name in ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"] {
        let body = modern.message("tools/call", json!({ "name": "old__echo" }));
        let mut request = modern.request(&body);
        let value = request.headers()[name].clone();
        request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value);
        let answer = modern.http.send(request).await;
        assert_eq!((answer.status, answer.code()), (400, -32020), "{name}");
        assert_eq!(answer.error()["data"]["header"], name);
        let id = serde_json::from_str::<Value>(&body).unwrap()["id"].clone();
        assert_eq!(answer.response()["id"], id, "{name}");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn headers_of_arguments_must_repeat_them_numbers_by_value() {
    let definition = r#"{"name":"put","inputSchema":{"type":"object","properties":{
        "region":{"type":"string","x-mcp-header":"Region"},
        "size":{"type":"integer","x-mcp-header":"Size"},
        "dry":{"type":"boolean","x-mcp-header":"Dry"}}}}"#;
    let new = FakeModern::named("new").defined("put", &definition.replace('\n', "")).start().await;
    let proxy = Setup::new().backend(&new, "").start().await;
    proxy.until_tools(&new, 1).await;
    let modern = proxy.modern();
    let arguments = json!({ "region": "Zürich", "size": 42, "dry": true });
    let body = modern.message("tools/call", json!({ "name": "new__put", "arguments": arguments }));
    let region = header_text("Zürich");
    let base = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "new__put")];

    for (headers, is_right) in [
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], true),
        (vec![("mcp-param-region", "Zurich"), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "43"), ("mcp-param-dry", "true")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42"), ("mcp-param-dry", "True")], false),
        (vec![("mcp-param-region", &*region), ("mcp-param-size", "42")], false),
        (vec![("mcp-param-region", "=?base64?%?="), ("mcp-param-size", "42"), ("mcp-param-dry", "true")], false),
    ] {
        let headers: Vec<_> = base.iter().copied().chain(headers).collect();
        let answer = with_headers(&proxy, &body, &headers).await;
        match is_right {
            true => assert_eq!(answer.result()["resultType"], "complete", "{headers:?}"),
            false => {
                assert_eq!((answer.status, answer.code()), (400, -32020), "{headers:?}");
                assert!(answer.message().starts_with("header `Mcp-Param-"), "{answer:?}");
            }
        }
    }
    let headers: Vec<_> = base
        .iter()
        .copied()
        .chain([("mcp-param-region", &*region), ("mcp-param-size", "42.0"), ("mcp-param-dry", "true")])
        .collect();
    assert_eq!(with_headers(&proxy, &body, &headers).await.result()["resultType"], "complete");
    // The fake compares as text.
    new.take_faults();
}

/// Method table: `server/discover`.
#[tokio::test]
async fn an_unknown_version_is_answered_with_those_that_are_served() {
    let world = world().await;
    let body = world.proxy.modern().message("server/discover", json!({})).replace(MODERN, "2027-01-01");
    let headers = [("mcp-protocol-version", "2027-01-01"), ("mcp-method", "server/discover")];

    let answer = with_headers(&world.proxy, &body, &headers).await;

    assert_eq!((answer.status, answer.code()), (400, -32022));
    assert_eq!(answer.error()["data"]["supported"], json!([MODERN]));
    assert_eq!(answer.error()["data"]["requested"], "2027-01-01");
}

/// Method table: `server/discover`.
#[tokio::test]
async fn an_envelope_that_is_not_whole_is_refused_by_name() {
    let world = world().await;
    let modern = world.proxy.modern();
    for (key, value) in [
        ("clientCapabilities", Value::Null),
        ("clientCapabilities", json!([])),
        ("logLevel", json!("loud")),
        ("clientInfo", json!("me")),
    ] {
        let mut meta = modern.meta();
        let key = format!("io.modelcontextprotocol/{key}");
        if value.is_null() {
            meta.as_object_mut().unwrap().remove(&key);
        } else {
            meta[&key] = value;
        }
        let body = json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/list", "params": { "_meta": meta } });
        let answer = modern.post(&body.to_string()).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{key}");
        assert!(answer.message().contains(&key), "{answer:?}");
        assert_eq!(answer.response()["id"], "x");
    }
}

/// The rows of the table, and the first lines of the tests above.
#[test]
fn every_row_of_the_method_table_has_a_test_that_names_it() {
    let (table, tests) = (include_str!("../proxy/method/mod.rs"), include_str!("methods.rs"));
    let is_row = |line: &&str| line.trim_start().starts_with("row(\"") || line.contains("Method { name: \"");
    let rows: Vec<_> = table.lines().filter(is_row).filter_map(|line| line.split('"').nth(1)).collect();
    assert!(rows.len() >= 18, "{rows:?}");
    for row in rows {
        let named = format!("/// Method table: `{row}`");
        // `resources/templates/list` is `resources_templates_list_…`, `setLevel` is `set_level`.
        let mut function = String::from("async fn ");
        for letter in row.chars() {
            match letter {
                '/' => function.push('_'),
                _ if letter.is_uppercase() => function.extend(['_', letter.to_ascii_lowercase()]),
                _ => function.push(letter),
            }
        }
        function.push('_');
        assert!(tests.contains(&named) && tests.contains(&function), "{row}: {function}");
    }
}

/// The rest of what the two eras say to each other: what backends say, what HTTP says, and what goes wrong.
#[test]
fn everything_else_that_is_said_has_a_test_that_names_it() {
    const SAID: [&str; 16] = [
        "`DELETE`",
        "`GET`",
        "`cursor to client`",
        "`elicitation/create`",
        "`error -32042`",
        "`notifications/elicitation/complete`",
        "`notifications/message`",
        "`notifications/progress`",
        "`notifications/resources/updated`",
        "`notifications/{tools,prompts,resources}/list_changed`",
        "`request ids upstream`",
        "`roots/list`",
        "`sampling/createMessage`",
        "`tasks/*`",
        "`unknown method`",
        "`upstream session lost`",
    ];
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap();
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    let tests: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for said in SAID {
        let names_it = |line: &str| line.starts_with("/// Method table: ") && line.contains(said);
        assert!(tests.lines().any(names_it), "{said}");
    }
}
