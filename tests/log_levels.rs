//! Log levels of clients that share one process.

use serde_json::json;

use crate::support::stdio::{running, text};
use crate::support::{Answer, Client, TestProxy, eventually};

async fn leveled() -> TestProxy {
    running(&["leveled"], "instances: shared").start().await
}

/// The levels of what came before an answer.
fn heard(answer: &Answer) -> Vec<String> {
    let messages = answer.messages();
    let logged = messages.iter().filter(|message| message["method"] == "notifications/message");
    logged.map(|message| message["params"]["level"].as_str().unwrap().to_owned()).collect()
}

/// Sets a client's level, and waits until the process is at `in_force`.
async fn set_level(client: &Client, level: &str, in_force: &str) {
    client.ask("logging/setLevel", json!({ "level": level })).await.result();
    until_level(client, in_force).await;
}

async fn until_level(client: &Client, in_force: &str) {
    eventually(async || text(&client.call("a__level").await) == in_force).await;
}

#[tokio::test]
async fn a_shared_process_logs_what_its_most_verbose_client_asked_for_and_each_gets_its_own() {
    let proxy = leveled().await;
    let (alice, bob, carol) = (proxy.client().await, proxy.client().await, proxy.client().await);
    until_level(&carol, "info").await;
    set_level(&bob, "alert", "alert").await;
    set_level(&alice, "error", "error").await;

    assert_eq!(heard(&alice.call("a__log").await), ["error", "critical", "alert", "emergency"]);
    assert_eq!(heard(&bob.call("a__log").await), ["alert", "emergency"]);
    assert_eq!(heard(&carol.call("a__log").await), ["error", "critical", "alert", "emergency"], "asked for nothing");
    set_level(&bob, "critical", "error").await;
    assert_eq!(heard(&bob.call("a__log").await), ["critical", "alert", "emergency"]);
    alice.delete().await;

    until_level(&bob, "critical").await;
    assert_eq!(heard(&carol.call("a__log").await), ["critical", "alert", "emergency"]);
}

#[tokio::test]
async fn a_client_of_a_shared_process_that_is_replaced_keeps_its_level() {
    let proxy = leveled().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    bob.call("a__level").await.result();
    set_level(&bob, "alert", "alert").await;
    set_level(&alice, "error", "error").await;

    alice.call("a__crash").await.error();

    until_level(&bob, "alert").await;
    until_level(&alice, "error").await;
    assert_eq!(heard(&bob.call("a__log").await), ["alert", "emergency"]);
}

#[tokio::test]
async fn modern_clients_of_a_shared_process_hear_what_each_request_asks_for() {
    let proxy = leveled().await;
    let (client, modern) = (proxy.client().await, proxy.modern());
    set_level(&client, "alert", "alert").await;

    let errors = modern.at_level("error").call("a__log").await;
    assert_eq!(heard(&errors), ["error", "critical", "alert", "emergency"]);
    assert_eq!(heard(&modern.at_level("critical").call("a__log").await), ["critical", "alert", "emergency"]);
    assert!(heard(&modern.call("a__log").await).is_empty());

    assert_eq!(heard(&client.call("a__log").await), ["alert", "emergency"]);
}
