//! What the operator is told of processes that the gateway runs: on the page of backends, and in the log.

use serde_json::Value;

use crate::support::stdio::{running, text};
use crate::support::{Process, Setup, TestProxy, eventually};

/// What the last process of the first backend failed with, once it did.
async fn last_error(proxy: &TestProxy) -> String {
    let mut last = Value::Null;
    eventually(async || {
        last = proxy.page("/backends").await.json()["backends"][0]["lastError"].clone();
        !last.is_null()
    })
    .await;
    assert!(last["secondsAgo"].is_u64(), "{last}");
    last["what"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named_with_the_systems_error() {
    let proxy = Setup::new().backend_reached("a", "command: [no-such-program-anywhere, --key]").start().await;

    assert_eq!(
        last_error(&proxy).await,
        "`no-such-program-anywhere` was not started: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_shown_with_its_status_and_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let births = folder.path().join("births");

    let proxy = running(&["die", births.to_str().unwrap()], "").start().await;

    let last = last_error(&proxy).await;
    assert!(last.ends_with("` ended by itself (exit status: 3); last on its standard error: no licence"), "{last}");
}

#[tokio::test]
async fn a_process_that_works_has_no_error() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;
    client.pid().await;

    client.delete().await;

    let backend = proxy.page("/backends").await.json()["backends"][0].clone();
    assert!(backend.as_object().unwrap().contains_key("lastError") && backend["lastError"].is_null(), "{backend}");
}

#[tokio::test]
async fn what_is_no_message_is_logged_a_line_each_cut_and_escaped() {
    let gateway = Process::start(&running(&[], "")).await;
    assert_eq!(text(&gateway.client().await.call("a__noise").await), "made noise");

    gateway.logged("what is no message: Listening!").await;
    gateway.logged("what is no message: {not json").await;
    gateway.logged(r"what is no message: \u{1b}[31mred\rgreen\tblue").await;
    let long = gateway.logged("what is no message: \u{e9}").await;

    assert!(long.contains(&format!(": {}\u{2026} ", "\u{e9}".repeat(1024))), "{long}");
    let log = gateway.log().await;
    assert_eq!(log.iter().filter(|line| line.contains("no message")).count(), 4, "{log:?}");
}
