//! Verdicts, and how they are come by, of a backend whose answers and their delays the test decides.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time;

use super::*;
use crate::backend::{Incoming, Outgoing, Transport, http as connection};
use crate::metrics::Metrics;

/// What a backend does with a request.
#[derive(Clone, Copy)]
enum Does {
    Die,
    Fail(i64),
    Say(&'static str),
    StaySilent,
}

use Does::{Die, Fail, Say, StaySilent};

const MODERN: Does = Say(r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#);
const AGREED: Does =
    Say(r#"{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}"#);

/// What it does, so many seconds after it was asked.
struct Fake {
    discover: Vec<(u64, Does)>,
    initialize: (u64, Does),
    /// How often it was asked the former.
    discovered: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Transport for Fake {
    async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let (after, does) = match asked["method"].as_str() {
            Some("server/discover") => {
                let turn = self.discovered.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                self.discover[turn.min(self.discover.len() - 1)]
            }
            Some("initialize") => self.initialize,
            _ => return Ok(Incoming::json(StatusCode::ACCEPTED, Bytes::new())),
        };
        time::sleep(Duration::from_secs(after)).await;
        let answer = match does {
            Die => return Err(Error::BackendClosed { backend: name() }),
            StaySilent => std::future::pending().await,
            Fail(code) => json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": code, "message": "no" } }),
            Say(result) => {
                let result: Value = serde_json::from_str(result).unwrap();
                json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })
            }
        };
        Ok(Incoming::json(StatusCode::OK, answer.to_string().into()))
    }
}

fn name() -> toolgate_config::BackendName {
    config("url: 'http://127.0.0.1:1/mcp'").backends[0].name.clone()
}

fn config(reach: &str) -> toolgate_config::Config {
    let yaml = format!("listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, {reach} }}]\n");
    toolgate_config::parse(Path::new("t.yaml"), &yaml, &|_| None).unwrap()
}

/// A backend that is reached like this.
fn backend(reach: &str, discover: &[(u64, Does)], initialize: (u64, Does)) -> Arc<Backend> {
    let config = config(reach);
    let connector = connection::Connector::new();
    let metrics = Arc::new(Metrics::new());
    let mut backend = Backend::build(&config.backends[0], &config.health, &connector, &metrics).unwrap();
    let discover = discover.to_vec();
    backend.transport = Box::new(Fake { discover, initialize, discovered: Default::default() });
    Arc::new(backend)
}

fn process(discover: (u64, Does), initialize: (u64, Does)) -> Arc<Backend> {
    backend("command: [x]", &[discover], initialize)
}

fn eras(backend: &Backend) -> Vec<&'static str> {
    backend.spoken().map(|spoken| spoken.eras()).unwrap_or_default()
}

/// Seconds that this takes.
async fn seconds<T>(what: impl Future<Output = T>) -> (u64, T) {
    let began = time::Instant::now();
    let value = what.await;
    (began.elapsed().as_secs(), value)
}

#[tokio::test(start_paused = true)]
async fn a_process_is_legacy_whatever_it_makes_of_the_question() {
    for (does, patience) in
        [(Fail(-32601), 0), (Fail(-32001), 0), (Fail(-32020), 0), (Fail(0), 0), (Die, 0), (StaySilent, 5)]
    {
        let backend = process((0, does), (0, AGREED));

        let (took, own) = seconds(open(&backend, Judged::No)).await;

        assert_eq!(took, patience);
        assert_eq!(own.unwrap().era(), Era::Legacy);
        assert_eq!(backend.spoken().unwrap().versions(), [("legacy", "2025-11-25")]);
        assert!(!is_due(&backend));
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_slowly_is_what_it_says_first() {
    for (discover, initialize, took, eras_found) in [
        ((7, MODERN), (7, AGREED), 7, ["modern"]),
        ((60, MODERN), (60, AGREED), 60, ["modern"]),
        ((7, Fail(-32601)), (7, AGREED), 12, ["legacy"]),
        ((7, Die), (1, AGREED), 6, ["legacy"]),
    ] {
        let backend = process(discover, initialize);

        let opened = seconds(open(&backend, Judged::No)).await;

        assert_eq!((opened.0, eras(&backend)), (took, eras_found.to_vec()));
        assert!(opened.1.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_that_comes_after_a_handshake() {
    let backend = process((40, MODERN), (2, AGREED));
    let (took, own) = seconds(open(&backend, Judged::No)).await;
    assert_eq!((took, own.unwrap().era(), eras(&backend)), (7, Era::Legacy, vec!["legacy"]));

    let (took, ()) = seconds(backend.relist.notified()).await;

    assert_eq!((took, eras(&backend)), (33, vec!["legacy", "modern"]));
    assert_eq!(open(&backend, Judged::No).await.unwrap().era(), Era::Modern);
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_that_nobody_waits_for_any_more() {
    let backend = process((40, MODERN), (0, StaySilent));
    assert!(timeout(Duration::from_secs(10), open(&backend, Judged::No)).await.is_err());
    assert!(eras(&backend).is_empty());

    time::sleep(Duration::from_secs(31)).await;

    assert_eq!(eras(&backend), ["modern"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_made_of_silence_alone() {
    let backend = process((0, StaySilent), (0, StaySilent));

    let (took, own) = seconds(open(&backend, Judged::No)).await;

    assert!(matches!(own, Err(Error::BackendTimeout { .. })));
    assert_eq!(took, 5 + 65, "the deadlines of a handshake that was begun after five seconds");
    assert!(eras(&backend).is_empty() && is_due(&backend));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_refuses_the_handshake_is_waited_for() {
    let backend = process((9, MODERN), (0, Fail(-32601)));

    assert_eq!(seconds(open(&backend, Judged::No)).await.0, 9);

    assert_eq!(eras(&backend), ["modern"]);
}

#[tokio::test(start_paused = true)]
async fn a_modern_process_that_dies_or_falls_silent_is_modern_until_it_did_so_again() {
    for does in [Die, StaySilent] {
        let backend =
            backend("command: [x]", &[(0, MODERN), (0, does), (0, MODERN), (0, does), (0, does)], (0, AGREED));
        assert!(open(&backend, Judged::No).await.is_ok());
        for _ in 0..2 {
            assert!(open(&backend, Judged::No).await.is_err());
            assert_eq!(eras(&backend), ["modern"]);
            backend.doubt_era();
            let _ = open(&backend, Judged::No).await;
        }
        assert_eq!(eras(&backend), ["legacy"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_earlier_undoes_nothing_that_was_found_later() {
    for reach in ["command: [x]", "url: 'http://127.0.0.1:1/mcp'"] {
        let backend = backend(reach, &[(4, Fail(-32601)), (0, MODERN)], (0, AGREED));
        let early = tokio::spawn({
            let backend = Arc::clone(&backend);
            async move { open(&backend, Judged::No).await }
        });
        time::sleep(Duration::from_secs(1)).await;
        assert_eq!(open(&backend, Judged::No).await.unwrap().era(), Era::Modern);

        assert_eq!(early.await.unwrap().unwrap().era(), Era::Legacy);

        assert!(backend.spoken().unwrap().modern, "{reach}");
        let relisted = timeout(Duration::from_secs(1), backend.relist.notified()).await;
        assert!(relisted.is_ok(), "what was opened in the wrong era is not kept");
    }
}

/// How often it was counted to have changed its era.
fn changes(backend: &Backend) -> u64 {
    backend.shared.backend_era_changes.with_label_values(&[backend.name().as_str()]).get()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_never_answered_has_no_era_and_its_first_answer_changes_none() {
    for does in [Die, StaySilent] {
        let reach = "command: [x], timeout: { first_byte: 1s }";
        let backend = backend(reach, &[(0, does), (0, MODERN)], (0, does));

        assert!(open(&backend, Judged::No).await.is_err());

        assert!(eras(&backend).is_empty() && is_due(&backend));
        assert_eq!(open(&backend, Judged::No).await.unwrap().era(), Era::Modern);
        assert_eq!((eras(&backend), changes(&backend)), (vec!["modern"], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_modern_has_changed_once_also_when_it_then_refuses_a_handshake() {
    for reach in ["command: [x]", "url: 'http://127.0.0.1:1/mcp'"] {
        let backend = backend(reach, &[(0, Fail(-32601)), (0, MODERN)], (0, AGREED));
        assert_eq!(open(&backend, Judged::No).await.unwrap().era(), Era::Legacy);

        backend.doubt_era();
        assert_eq!(open(&backend, Judged::No).await.unwrap().era(), Era::Modern);

        assert_eq!((eras(&backend), changes(&backend)), (vec!["modern"], 1), "{reach}");
        assert!(backend.refused_legacy());
        assert_eq!((eras(&backend), changes(&backend)), (vec!["modern"], 1), "{reach}");
    }
}

fn spoken(legacy: bool, modern: bool, found: Instant) -> Spoken {
    Spoken { legacy, modern, version: None, found: Some(found), is_doubted: false }
}

#[test]
fn a_client_is_served_in_its_own_era_where_that_is_spoken() {
    let now = Instant::now();
    for (legacy, modern, for_legacy, for_modern) in [
        (true, false, Era::Legacy, Era::Legacy),
        (false, true, Era::Modern, Era::Modern),
        (true, true, Era::Legacy, Era::Modern),
    ] {
        let spoken = spoken(legacy, modern, now);
        assert_eq!((spoken.era_for(Era::Legacy), spoken.era_for(Era::Modern)), (for_legacy, for_modern));
    }
}

#[test]
fn a_verdict_expires() {
    let now = Instant::now();
    let fresh = spoken(true, false, now);

    assert!(!fresh.is_due(now) && !fresh.is_due(now + EXPIRY - Duration::from_millis(1)));
    assert!(fresh.is_due(now + EXPIRY));
    assert!(fresh.doubted().is_due(now));
}

#[test]
fn the_configuration_leaves_nothing_to_be_found() {
    assert!(Spoken::configured(Protocol::Auto).is_none());
    assert_eq!(Spoken::configured(Protocol::Legacy).unwrap().eras(), ["legacy"]);
    assert_eq!(Spoken::configured(Protocol::Modern).unwrap().versions(), [("modern", "2026-07-28")]);
}
