//! Every method that clients and backends may use, for clients of both eras on backends of both. Here: what begins a conversation,
//! and what is not there.

mod calls;
mod headers;
mod lists;
mod news;

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::modern_client::MODERN;
use crate::support::{Answer, Client, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, never_within};

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

/// Every test of this kind, as it is written.
fn sources() -> String {
    let folders =
        ["", "bridge", "methods"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder));
    let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// The rows of the table, and the first lines of their tests.
#[test]
fn every_row_of_the_method_table_has_a_test_that_names_it() {
    let (table, tests) = (include_str!("../proxy/method/mod.rs"), sources());
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
    let tests = sources();
    for said in SAID {
        let names_it = |line: &str| line.starts_with("/// Method table: ") && line.contains(said);
        assert!(tests.lines().any(names_it), "{said}");
    }
}
