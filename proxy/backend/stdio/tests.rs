//! Real processes of the fixture `tests/support/server.py`, without a gateway around them.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, Method};
use serde_json::{Value, json};
use toolgate_config::Reach;

use super::*;
use crate::backend::{Incoming, Outgoing, Transport as _};
use crate::error::Phase;

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);
const HELLO: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

/// The fixture, run with these words.
fn fixture(words: &[&str]) -> Duplex {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/server.py");
    let words: Vec<_> = ["python3", "-S", "-E", script].iter().chain(words).map(|word| format!("'{word}'")).collect();
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, command: [{}] }}]\n",
        words.join(", ")
    );
    let config = toolgate_config::parse(Path::new("t.yaml"), &yaml, &|_| None).unwrap();
    let Reach::Command(command) = &config.backends[0].reach else { panic!("no command") };
    transport(&config.backends[0].name, command, &Arc::new(Metrics::new()))
}

fn post(headers: &[(&'static str, &str)], body: impl Into<Bytes>, first_byte: Duration) -> Outgoing {
    let mut timeout = Timeout::default();
    timeout.first_byte = first_byte;
    let header = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
    let headers = headers.iter().map(header).collect();
    Outgoing { verb: Method::POST, headers, body: body.into(), timeout, repeatable: false, replica: None }
}

async fn initialize(duplex: &Duplex) -> Result<Incoming, Error> {
    duplex.send(post(&[], HELLO, PATIENCE)).await
}

async fn session(duplex: &Duplex) -> String {
    initialize(duplex)
        .await
        .unwrap()
        .headers
        .get(HeaderName::from_static("mcp-session-id"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

async fn json_of(mut incoming: Incoming) -> Value {
    let mut body = Vec::new();
    while let Some(chunk) = incoming.body.next().await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_process_that_dies_young_is_started_less_and_less() {
    let folder = tempfile::tempdir().unwrap();
    let births = folder.path().join("births");
    let duplex = fixture(&["die", births.to_str().unwrap()]);

    let mut refusals = Vec::new();
    for _ in 0..10 {
        refusals.push(initialize(&duplex).await.err().unwrap());
    }

    assert!(refusals[..2].iter().all(|error| matches!(error, Error::BackendClosed { .. })), "{refusals:?}");
    assert!(refusals[2..].iter().all(|error| matches!(error, Error::BackendConnect { .. })), "{refusals:?}");
    assert_eq!(std::fs::read_to_string(births).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn a_process_that_reads_nothing_takes_no_memory() {
    let duplex = fixture(&["deaf"]);
    let session = session(&duplex).await;
    let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/x","params":{{"x":"{}"}}}}"#, "x".repeat(400_000));

    let mut taken = 0;
    let refusal = loop {
        let notification = post(&[("mcp-session-id", &session)], body.clone(), Duration::from_millis(500));
        match duplex.send(notification).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };

    assert!(matches!(refusal, Error::BackendTimeout { phase: Phase::FirstByte, .. }), "{refusal}");
    assert!(taken < 10, "{taken}");
    duplex.close().await;
}

#[tokio::test]
async fn requests_of_the_modern_era_go_to_one_process_without_a_handshake() {
    let duplex = fixture(&[]);
    let headers = [("mcp-protocol-version", "2026-07-28")];
    let call = |tool: &str| {
        let params = json!({ "name": tool, "arguments": {} });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string()
    };

    let first = json_of(duplex.send(post(&headers, call("pid"), PATIENCE)).await.unwrap()).await;
    let second = json_of(duplex.send(post(&headers, call("pid"), PATIENCE)).await.unwrap()).await;
    assert_eq!(first["result"], second["result"]);

    // Closing a stream is all that a client can do over HTTP.
    let held = duplex.send(post(&headers, call("hold"), Duration::from_millis(1))).await;
    assert!(matches!(held, Err(Error::BackendTimeout { .. })));
    let lines = json_of(duplex.send(post(&headers, call("lines"), PATIENCE)).await.unwrap()).await;
    let lines: Vec<String> = serde_json::from_str(lines["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let held = lines.iter().find(|line| line["params"]["name"] == "hold").unwrap();
    let cancelled = lines.iter().find(|line| line["method"] == "notifications/cancelled").unwrap();
    assert_eq!(cancelled["params"]["requestId"], held["id"]);
    assert!(lines.iter().all(|line| line["method"] != "initialize"));
    duplex.close().await;
}

#[tokio::test]
async fn closing_waits_until_no_process_is_left() {
    let duplex = fixture(&["stubborn"]);
    session(&duplex).await;

    let closing = timeout(PATIENCE, duplex.close()).await;

    assert!(closing.is_ok());
}
