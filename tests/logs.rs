//! Log lines: what stands in them, and that nobody waits for whoever reads them.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::support::backend::response;
use crate::support::{Client, FakeBackend, ModernClient, Process, Setup, eventually, within};

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
        let has = |path: &Path, text: &str| std::fs::read_to_string(path).is_ok_and(|log| log.contains(text));

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

#[tokio::test]
async fn what_calls_were_given_and_gave_is_not_logged() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let gateway = Process::start(&Setup::fronting(&[&backend]).section("log", "{ level: debug }")).await;

    let answer = gateway.client().await.call_with("a__x", json!({ "note": "the-argument" })).await;

    assert!(answer.result().to_string().contains("did x"));
    let log = gateway.log().await;
    assert!(log.iter().any(|line| line.contains("a__x")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("the-argument") || line.contains("did x")), "{log:?}");
}

/// A gateway that logs what calls are given and give.
async fn telling(backend: &FakeBackend, format: &str) -> Process {
    let log = format!(
        "{{ format: {format}, payloads: {{ arguments: true, results: true, redact: ['*secret*'], max: 1KiB }} }}"
    );
    Process::start(&Setup::fronting(&[backend]).section("log", &log)).await
}

#[tokio::test]
async fn what_a_call_was_given_and_gave_is_logged_where_it_is_asked_for_but_no_secret() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let result = json!({
        "content": [{ "type": "text", "text": "{\"clientSecret\":\"s3cr3t-3\",\"n\":1}" }],
        "structuredContent": { "deep": [{ "CLIENT_SECRET": { "a": "s3cr3t-4" } }] },
    });
    for format in ["json", "text"] {
        let gateway = telling(&backend, format).await;
        let client = gateway.client().await.with_header("x-request-id", "the-call");

        let given = json!({ "path": "/a b", "secrets": ["s3cr3t-1"], "more": { "a_secret": "s3cr3t-2" } });
        let (answer, ()) = tokio::join!(client.call_with("a__x", given), async {
            let call = backend.next_call().await;
            let body = response(&call.id(), &result);
            call.respond(200, "application/json", body);
        });
        client.with_header("x-request-id", "the-list").list().await;

        assert_eq!(answer.result(), result);
        let line = gateway.logged("the-call").await;
        let arguments = r#"{"more":{"a_secret":"[redacted]"},"path":"/a b","secrets":"[redacted]"}"#;
        let text = r#"{\"clientSecret\":\"[redacted]\",\"n\":1}"#;
        let result = format!(
            r#"{{"content":[{{"text":"{text}","type":"text"}}],"structuredContent":{{"deep":[{{"CLIENT_SECRET":"[redacted]"}}]}}}}"#
        );
        let end = match format {
            "json" => format!(r#","arguments":{arguments},"result":{result}}}"#),
            _ => format!(r#" arguments={arguments} result={result}"#),
        };
        assert!(line.ends_with(&end), "{line}\n{end}");
        assert!(format == "text" || serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        let list = gateway.logged("the-list").await;
        assert!(!list.contains("arguments") && !list.contains("result"), "{list}");
        let log = gateway.log().await;
        assert!(!log.iter().any(|line| line.contains("s3cr3t")), "{log:?}");
    }
}

#[tokio::test]
async fn the_result_on_an_event_stream_is_logged_or_that_there_was_none() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let gateway = telling(&backend, "json").await;
    let client = gateway.client().await;
    let progress =
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "s3cr3t", "level": "info" } });
    let told = async |id: &str| -> Value { serde_json::from_str(&gateway.logged(id).await).unwrap() };

    let (opened, stream) = client.with_header("x-request-id", "the-first").open_stream("a__x", &backend).await;
    stream.event(&progress).await;
    stream.finish().await;
    opened.whole().await;
    let (opened, stream) = client.with_header("x-request-id", "the-second").open_stream("a__x", &backend).await;
    stream.event(&progress).await;
    drop(opened);
    within(stream.disconnected()).await;

    let first = told("the-first").await;
    assert_eq!((&first["outcome"], &first["arguments"]), (&json!("ok"), &json!({})));
    assert_eq!(first["result"], json!({ "content": [{ "type": "text", "text": "did x" }] }));
    let second = told("the-second").await;
    assert_eq!((&second["outcome"], &second["result"]), (&json!("client_closed"), &json!("[unread]")));
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_logged() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let gateway = telling(&backend, "json").await;
    let client = gateway.client().await.with_header("x-request-id", "the-call");

    let (answer, ()) = tokio::join!(client.call_with("a__x", json!({ "a": "y".repeat(100_000) })), async {
        let call = backend.next_call().await;
        let body = response(&call.id(), &json!({ "content": [{ "type": "text", "text": "z".repeat(1_000_000) }] }));
        call.respond(200, "application/json", body);
    });
    answer.result();

    let line = gateway.logged("the-call").await;
    let told: Value = serde_json::from_str(&line).unwrap();
    assert!(told["arguments"]["a"].as_str().unwrap().ends_with("yy[cut]"), "{line}");
    assert!(told["result"]["content"][0]["text"].as_str().unwrap().ends_with("zz[cut]"), "{line}");
    assert!(line.len() < 2_500, "{}", line.len());
}

#[tokio::test]
async fn what_calls_gave_is_logged_of_a_batch_and_of_a_call_that_crosses_eras() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let gateway = telling(&backend, "json").await;
    let legacy = Client::stranger(gateway.address).started("2025-03-26").await.with_header("x-request-id", "the-batch");
    let http = Client::stranger(gateway.address).with_header("x-request-id", "the-crossing");
    let modern = ModernClient { http, capabilities: json!({}), log_level: None };
    let call = |n| json!({ "jsonrpc": "2.0", "id": n, "method": "tools/call", "params": { "name": "a__x", "arguments": { "n": n } } });

    legacy.post(json!([call(1), call(2)]).to_string()).await;
    modern.call("a__x").await.result();

    let log = gateway.log().await;
    let of = |id: &str| {
        let lines = log.iter().filter(|line| line.contains(id));
        lines.map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let (batch, crossing) = (of("the-batch"), of("the-crossing"));
    assert_eq!([&batch[0]["arguments"], &batch[1]["arguments"]], [&json!({ "n": 1 }), &json!({ "n": 2 })]);
    assert_eq!((batch.len(), crossing.len()), (2, 1), "{log:?}");
    for line in batch.iter().chain(&crossing) {
        assert_eq!(line["result"]["content"][0]["text"], "did x", "{line}");
    }
}

#[tokio::test]
async fn levels_by_target_are_taken_from_the_environment_or_it_is_told_why_not() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("log", "{ level: error }");

    // It has started when it has said where it serves, which is no error.
    let gateway = Process::start_with(&setup, "TOOLGATE_LOG", Path::new("off,toolgate=info,toolgate::call=off")).await;
    let wrong = Process::start_with(&Setup::fronting(&[&backend]), "TOOLGATE_LOG", Path::new("toolgate=loud")).await;

    gateway.client().await.call("a__x").await.result();
    wrong.logged("TOOLGATE_LOG is not understood").await;
    // Which calls of the one are to be seen, and of the other are not.
    assert!(wrong.log().await.iter().any(|line| line.contains("the-log-until-here")));
    gateway.signal("TERM").await;
    gateway.logged("stopping").await;
    assert!(!gateway.so_far().iter().any(|line| line.contains("tools/call")));
}
