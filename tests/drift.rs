//! What operators are told when a backend offers something else than it did.

use std::process::Output;

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::run;
use crate::support::{FakeBackend, Mood, Process, Setup, TestProxy, eventually};

const PLAIN: &str = r#"{"name":"x","inputSchema":{"type":"object","properties":{"q":{"type":"string"}}}}"#;
const OTHER: &str = r#"{"name":"x","inputSchema":{"type":"object","properties":{"q":{"type":"number"}}}}"#;

async fn changes(proxy: &TestProxy) -> Vec<Value> {
    let mut all = proxy.page("/drift").await.json()["changes"].as_array().unwrap().clone();
    for change in &mut all {
        assert!(change.as_object_mut().unwrap().remove("secondsAgo").unwrap().is_u64());
    }
    all
}

async fn until_changes(proxy: &TestProxy, count: usize) -> Vec<Value> {
    eventually(async || changes(proxy).await.len() >= count).await;
    let changes = changes(proxy).await;
    assert_eq!(changes.len(), count, "{changes:?}");
    changes
}

fn counted(change: &str) -> String {
    format!("toolgate_catalog_drift_total{{backend=\"a\",change=\"{change}\"}}")
}

#[tokio::test]
async fn what_changes_in_a_list_is_told_by_kind() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).tool("y").start().await;
    let proxy = Setup::new()
        .backend(&backend, "tools: { rename: { x: search } }")
        .section("catalog", "{ refresh: 500ms }")
        .start()
        .await;
    proxy.client().await;
    assert_eq!(changes(&proxy).await, [json!(null); 0]);
    assert_eq!(proxy.metric(&counted("tool_removed")).await, Some(0.0));

    backend.define_again("x", &PLAIN.replace("\"properties\"", "\"required\":[\"q\"],\"properties\""));
    let first = until_changes(&proxy, 1).await;
    backend.remove_tool("y");
    backend.add_tool("z");
    let all = until_changes(&proxy, 3).await;

    let required = json!({
        "backend": "a", "change": "parameter_required", "tool": "a__search", "ownName": "x", "detail": "q",
    });
    assert_eq!(first, std::slice::from_ref(&required));
    let of = |change: &str, tool: &str| {
        json!({
            "backend": "a", "change": change, "tool": format!("a__{tool}"), "ownName": tool, "detail": null,
        })
    };
    assert_eq!(all, [of("tool_removed", "y"), of("tool_added", "z"), required]);
    for (change, count) in
        [("parameter_required", 1.0), ("tool_removed", 1.0), ("tool_added", 1.0), ("list_empty", 0.0)]
    {
        assert_eq!(proxy.metric(&counted(change)).await, Some(count), "{change}");
    }
}

#[tokio::test]
async fn a_backend_that_was_away_is_compared_with_what_it_was() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let proxy =
        Setup::new().backend(&backend, "").section("catalog", "{ refresh: 500ms, stale_for: 500ms }").start().await;
    let client = proxy.client().await;

    backend.set_mood(Mood::LoginPage(200));
    eventually(async || client.tools().await.is_empty()).await;
    backend.define_again("x", &PLAIN.replace("string", "number"));
    backend.set_mood(Mood::Well);

    let changes = until_changes(&proxy, 1).await;
    assert_eq!((&changes[0]["change"], &changes[0]["ownName"]), (&json!("schema_changed"), &json!("x")));
}

/// A folder with a configuration in front of a backend, whose tools are pinned.
async fn pinned(backend: &FakeBackend, mode: &str) -> (TempDir, Setup) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new()
        .backend(backend, "")
        .section("catalog", "{ refresh: 500ms }")
        .section("pin", &format!("{{ mode: {mode}, file: {} }}", folder.path().join("tools.lock").display()));
    let pinning = pin(&folder, &setup).await;
    assert_eq!(pinning.status.code(), Some(0), "{pinning:?}");
    (folder, setup)
}

async fn pin(folder: &TempDir, setup: &Setup) -> Output {
    let file = folder.path().join("toolgate.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    run(&["pin", "--config", file.to_str().unwrap()]).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn what_is_not_pinned_is_hidden_and_not_called() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).tool("y").start().await;
    let (folder, setup) = pinned(&backend, "enforce").await;
    let gateway = Process::start(&setup).await;
    let client = gateway.client().await;
    assert_eq!(client.tools().await, ["a__x", "a__y"]);

    backend.add_tool("z");
    backend.define_again("x", OTHER);
    eventually(async || client.tools().await == ["a__y"]).await;
    let calls =
        [client.call("a__x").await.error(), client.call("a__z").await.error(), client.call("a__y").await.result()];
    let page = gateway.page(Method::GET, "/catalog").await.json();
    let logged = gateway.logged("tool is not pinned").await;

    assert_eq!((&calls[0]["code"], &calls[1]["code"]), (&json!(-32602), &json!(-32602)), "{calls:?}");
    let why = |of: &str| format!("{of}; to trust it run `toolgate pin`");
    assert_eq!(
        page["backends"][0]["leftOut"],
        json!([
            { "tool": "x", "why": why("its definition is not the one that was pinned") },
            { "tool": "z", "why": why("it is not pinned") },
        ])
    );
    assert!(logged.contains("backend=a"), "{logged}");
    assert_eq!(gateway.metric("toolgate_catalog_unpinned_tools{backend=\"a\"}").await, Some(2.0));

    let again = pin(&folder, &setup).await;
    eventually(async || client.tools().await == ["a__x", "a__y", "a__z"]).await;

    assert!(
        said(&again).contains("backend `a`: `x` has changed\nbackend `a`: `z` is new\nbackend `a`: 3 tools pinned\n")
    );
    client.call("a__x").await.result();
}

#[tokio::test]
async fn a_warning_hides_nothing() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let (_folder, setup) = pinned(&backend, "warn").await;
    let gateway = Process::start(&setup).await;
    let client = gateway.client().await;

    backend.define_again("x", OTHER);

    gateway.until_metric("toolgate_catalog_unpinned_tools{backend=\"a\"}", 1.0).await;
    assert_eq!(client.tools().await, ["a__x"]);
    client.call("a__x").await.result();
}

#[tokio::test]
async fn a_definition_that_is_written_differently_is_still_the_pinned_one() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).tool("y").start().await;
    let (_folder, setup) = pinned(&backend, "enforce").await;
    let gateway = Process::start(&setup).await;
    let client = gateway.client().await;

    backend.define_again("x", &PLAIN.replace(":", " : "));
    backend.remove_tool("y");

    eventually(async || client.tools().await == ["a__x"]).await;
}

#[tokio::test]
async fn pins_of_backends_that_do_not_answer_stay() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let (folder, setup) = pinned(&backend, "enforce").await;
    let lock = folder.path().join("tools.lock");
    let before = std::fs::read_to_string(&lock).unwrap();

    backend.set_mood(Mood::Status(500));
    let failed = pin(&folder, &setup).await;

    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("its tools stay pinned as they were"), "{failed:?}");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), before);
}

#[tokio::test]
async fn without_its_lock_file_nothing_is_served() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let (folder, setup) = pinned(&backend, "enforce").await;
    let lock = folder.path().join("tools.lock");
    let file = folder.path().join("toolgate.yaml");
    std::fs::remove_file(&lock).unwrap();
    let check = async || run(&["check", file.to_str().unwrap()]).await;

    let missing = check().await;
    std::fs::write(&lock, "{}").unwrap();
    let wrong = check().await;
    let unknown = run(&["pin", "--config", file.to_str().unwrap(), "b"]).await;
    let partly = run(&["pin", "--config", file.to_str().unwrap(), "a"]).await;
    let untouched = std::fs::read_to_string(&lock).unwrap();
    let mended = pin(&folder, &setup).await;

    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((missing.status.code(), wrong.status.code()), (Some(78), Some(78)));
    assert!(
        told(&missing).contains("pin.file") && told(&missing).contains("toolgate pin --config FILE"),
        "{missing:?}"
    );
    assert!(told(&wrong).contains("is not a lock file of version 1"), "{wrong:?}");
    assert_eq!(
        (unknown.status.code(), told(&unknown)),
        (Some(64), "there is no backend `b`; there are: a\n".to_owned())
    );
    assert_eq!((partly.status.code(), &*untouched), (Some(1), "{}"));
    assert!(told(&partly).contains("pin all backends to make it anew"), "{partly:?}");
    assert_eq!(mended.status.code(), Some(0), "{mended:?}");
    assert_eq!(check().await.status.code(), Some(0));
}
