//! Log lines: what stands in them, and that nobody waits for whoever reads them.

use serde_json::{Map, Value};

use crate::support::{FakeBackend, Process, Setup, eventually, within};

#[tokio::test]
async fn a_call_is_one_object_of_json() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await.with_header("x-request-id", "the-call");

    client.call("a__x").await;

    let line = gateway.logged("the-call").await;
    let told: Map<String, Value> = serde_json::from_str(&line).unwrap();
    let mut keys: Vec<_> = told.keys().collect();
    keys.sort_by_key(|key| line.find(&format!("\"{key}\":")));
    let in_order = "timestamp level message id client session method tool backend outcome ms error";
    assert_eq!(keys, in_order.split(' ').collect::<Vec<_>>(), "{line}");
    let time = told["timestamp"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z') && seconds(time) > 1_700_000_000, "{time}");
    assert!(told["ms"].as_f64().unwrap() > 0.0);
    let text = |key: &str| told[key].as_str().unwrap();
    assert_eq!(["level", "message", "client", "method"].map(text), ["INFO", "call", "127.0.0.1", "tools/call"]);
    assert_eq!(["tool", "backend", "outcome", "error"].map(text), ["a__x", "a", "ok", ""]);
}

/// Seconds of a date, as `date` has it.
fn seconds(date: &str) -> i64 {
    let output = std::process::Command::new("date").args(["-u", "-d", date, "+%s"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_log_that_is_not_read_holds_up_nobody_and_loses_nothing() {
    /// Lines of more than a pipe and its reader hold, which is 64 and 8 KiB here.
    const CALLS: usize = 500;
    let backend = FakeBackend::with_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await.with_header("x-request-id", &"i".repeat(100));
    let unread = gateway.log_unread();

    for _ in 0..CALLS {
        within(client.call("a__x")).await;
    }
    assert_eq!(gateway.metric("toolgate_log_lines_dropped_total").await, Some(0.0));
    drop(unread);

    eventually(async || gateway.log().await.iter().filter(|line| line.contains("\"tool\":\"a__x\"")).count() == CALLS)
        .await;
}

#[tokio::test]
async fn calls_go_to_a_file_of_their_own_that_may_be_moved_away() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (folder.path().join("calls.log"), folder.path().join("calls.log.1"));
    for format in ["json", "text"] {
        let log = format!("{{ format: {format}, calls: \"{}\" }}", file.display());
        let gateway = Process::start(&Setup::fronting(&[&backend]).section("log", &log)).await;
        let client = gateway.client().await;
        let has =
            |path: &std::path::Path, text: &str| std::fs::read_to_string(path).is_ok_and(|log| log.contains(text));

        client.with_header("x-request-id", "the-first").call("a__x").await;
        eventually(async || has(&file, "the-first")).await;
        std::fs::rename(&file, &moved).unwrap();
        eventually(async || {
            client.with_header("x-request-id", "the-second").call("a__x").await;
            has(&file, "the-second")
        })
        .await;

        assert!(has(&moved, "the-first") && !has(&file, "the-first"));
        assert!(has(&file, "tools/call") && !has(&file, "serving MCP"));
        // What is no call is where it was.
        gateway.logged("serving MCP").await;
        assert_eq!(gateway.metric("toolgate_log_lines_dropped_total").await, Some(0.0));
        std::fs::remove_file(&file).unwrap();
    }
}
