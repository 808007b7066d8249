//! Backends that the gateway runs as processes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::process::run;
use crate::support::stdio::{command, running, text, until_dead};
use crate::support::{Process, Setup, TestProxy, eventually, eventually_for, never_within, within};

/// Longer than a process may be silent before anything follows from it, by far.
const SILENCE: Duration = Duration::from_secs(20);
/// Probes that find things out within the patience of a test.
const PROBING: &str = "{ interval: 200ms, timeout: 200ms, rise: 1, fall: 3, max_backoff: 400ms }";

/// A series that says whether the server is in this state.
fn state(state: &str) -> String {
    format!("toolgate_backend_state{{backend=\"a\",state=\"{state}\"}}")
}

/// Which eras the server is known to speak.
async fn eras(proxy: &TestProxy) -> Value {
    proxy.page("/backends").await.json()["backends"][0]["eras"].clone()
}

#[tokio::test]
async fn each_session_has_a_process_of_its_own() {
    let proxy = running(&[], "").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);

    let (a, b) = (alice.pid().await, bob.pid().await);

    assert_ne!(a, b);
    assert_eq!((alice.pid().await, bob.pid().await), (a, b));
}

#[tokio::test]
async fn a_process_and_what_it_started_end_with_the_session() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;
    let grandchild = text(&client.call("a__spawn").await).parse().unwrap();

    assert_eq!(client.delete().await.status, 204);

    until_dead(process).await;
    until_dead(grandchild).await;
}

#[tokio::test]
async fn a_process_that_ignores_its_end_is_killed() {
    let proxy = running(&["stubborn"], "").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;

    client.delete().await;

    until_dead(process).await;
}

#[tokio::test]
async fn a_process_that_dies_fails_its_calls_at_once_and_is_replaced() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;
    let held = client.start_call("a__hold");
    eventually(async || client.read_by_process().await.iter().any(|m| m["params"]["name"] == "hold")).await;

    let crashed = client.call("a__crash").await;
    let held = within(held).await.unwrap();

    assert_eq!((crashed.code(), held.code()), (502, 502));
    let successor = client.pid().await;
    assert_ne!(successor, process);
    until_dead(process).await;
}

#[tokio::test]
async fn a_session_that_kills_its_process_over_and_over_costs_nobody_else_theirs() {
    let proxy = running(&[], "").section("health", "{ interval: 1h }").start().await;
    let healthy = "toolgate_backend_state{backend=\"a\",state=\"healthy\"}";
    proxy.until_metric(healthy, 1.0).await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    let process = bob.pid().await;

    for _ in 0..6 {
        assert_eq!(alice.call("a__crash").await.code(), 502);
    }

    assert_eq!(bob.pid().await, process);
    assert_ne!(proxy.client().await.pid().await, process);
    assert_eq!(proxy.metric(healthy).await, Some(1.0));
}

#[tokio::test]
async fn what_belongs_to_a_call_comes_on_its_stream_with_the_clients_own_id_and_token() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;

    let answer = within(client.start_call_as("a__chatter", &json!("mine"), &json!("token"))).await.unwrap();

    assert_eq!(answer.header("content-type"), "text/event-stream");
    let messages = answer.messages();
    let tokens: Vec<_> = messages.iter().map(|message| &message["params"]["progressToken"]).collect();
    assert_eq!(tokens, [&json!("token"), &Value::Null, &json!("token"), &Value::Null]);
    assert_eq!(messages[1]["params"]["data"], "chatter");
    assert_eq!(answer.response()["id"], "mine");
}

#[tokio::test]
async fn an_answer_that_comes_alone_is_json() {
    let proxy = running(&[], "").start().await;

    let answer = proxy.client().await.call("a__pid").await;

    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn clients_of_a_shared_process_that_count_alike_get_what_is_theirs() {
    let proxy = running(&[], "instances: shared").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    assert_eq!(alice.pid().await, bob.pid().await);

    let held =
        [alice.start_call_as("a__hold", &json!(7), &json!(1)), bob.start_call_as("a__hold", &json!(7), &json!("1"))];
    let is_held = |message: &Value| message["params"]["name"] == "hold";
    eventually(async || alice.read_by_process().await.iter().filter(|m| is_held(m)).count() == 2).await;
    alice.call("a__release").await;
    let [a, b] = held.map(|call| async { within(call).await.unwrap().messages() });
    let (a, b) = (a.await, b.await);

    assert_eq!((&a[0]["params"]["progressToken"], &b[0]["params"]["progressToken"]), (&json!(1), &json!("1")));
    for messages in [a, b] {
        assert_eq!((messages.len(), &messages[1]["id"]), (2, &json!(7)));
    }
    let initialized = bob.read_by_process().await;
    let count = |method: &str| initialized.iter().filter(|message| message["method"] == method).count();
    assert_eq!((count("initialize"), count("notifications/initialized")), (1, 1));
}

#[tokio::test]
async fn one_process_does_for_discovery_and_for_all_calls() {
    let folder = tempfile::tempdir().unwrap();
    let births = folder.path().join("births");
    let proxy = running(&["born", births.to_str().unwrap()], "instances: shared").start().await;

    let pid = proxy.client().await.pid().await;

    let modern = proxy.modern();
    assert_eq!(text(&modern.call("a__pid").await), pid.to_string());
    assert_eq!(text(&modern.at_level("debug").call("a__pid").await), pid.to_string());
    assert_eq!(std::fs::read_to_string(&births).unwrap(), format!("{pid}\n"));
}

#[tokio::test]
async fn a_client_of_a_shared_process_that_unsubscribes_leaves_the_others_subscribed() {
    let proxy = running(&[], "instances: shared").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    let watched = json!({ "uri": "test://watched" });
    for client in [&alice, &bob] {
        client.pid().await;
        client.ask("resources/subscribe", watched.clone()).await.result();
    }
    let (mut a, mut b) = (alice.listen().await, bob.listen().await);
    alice.ask("resources/unsubscribe", watched.clone()).await.result();

    alice.call_with("a__touch", json!({ "n": 1 })).await.result();
    bob.ask("resources/unsubscribe", watched.clone()).await.result();
    bob.call_with("a__touch", json!({ "n": 2 })).await.result();
    alice.ask("resources/subscribe", watched).await.result();
    alice.call_with("a__touch", json!({ "n": 3 })).await.result();

    for (stream, n) in [(&mut b, 1), (&mut a, 3)] {
        assert_eq!(within(stream.message()).await.unwrap()["params"]["_meta"]["n"], n);
    }
    let count = |all: &[Value], method: &str| all.iter().filter(|message| message["method"] == method).count();
    let read = bob.read_by_process().await;
    assert_eq!((count(&read, "resources/subscribe"), count(&read, "resources/unsubscribe")), (3, 1));
}

#[tokio::test]
async fn a_shared_process_that_dies_is_replaced_for_everybody() {
    let proxy = running(&[], "instances: shared").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    let process = alice.pid().await;
    assert_eq!(bob.pid().await, process);

    alice.call("a__crash").await.error();

    let successor = bob.pid().await;
    assert_ne!(successor, process);
    assert_eq!(alice.pid().await, successor);
}

#[tokio::test]
async fn a_cancellation_reaches_the_process_under_the_id_that_it_knows() {
    let proxy = running(&[], "instances: shared").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    for client in [&bob, &alice] {
        client.start_call_as("a__hold", &json!("same"), &json!(1));
        let is_held = |message: &&Value| message["params"]["name"] == "hold";
        let before = if std::ptr::eq(client, &bob) { 1 } else { 2 };
        eventually(async || bob.read_by_process().await.iter().filter(is_held).count() == before).await;
    }

    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "same" } });
    assert_eq!(alice.post(cancel.to_string()).await.status, 202);

    let mut seen = Vec::new();
    eventually(async || {
        seen = bob.read_by_process().await;
        seen.iter().any(|message| message["method"] == "notifications/cancelled")
    })
    .await;
    let held: Vec<_> = seen.iter().filter(|message| message["params"]["name"] == "hold").map(|m| &m["id"]).collect();
    let cancelled = seen.iter().find(|message| message["method"] == "notifications/cancelled").unwrap();
    assert_eq!(&cancelled["params"]["requestId"], held[1], "alice's, which came second");
}

#[tokio::test]
async fn a_question_of_the_process_is_answered() {
    let proxy = running(&[], "").start().await;

    let answer = proxy.client().await.call("a__ask").await;

    assert!(answer.response().to_string().contains("-32601"), "{answer:?}");
}

#[tokio::test]
async fn news_of_tools_are_heard() {
    let proxy = running(&[], "instances: shared").start().await;
    let client = proxy.client().await;
    let refreshes = "toolgate_catalog_refreshes_total{backend=\"a\",result=\"ok\"}";
    eventually(async || proxy.metric(refreshes).await.is_some_and(|count| count >= 1.0)).await;
    let before = proxy.metric(refreshes).await.unwrap();

    eventually(async || {
        client.call("a__announce").await.result();
        proxy.metric(refreshes).await.is_some_and(|count| count > before)
    })
    .await;
}

#[tokio::test]
async fn a_process_gets_its_own_environment_and_none_of_the_gateways_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().canonicalize().unwrap();
    let keys = format!("env: {{ TOKEN: {{ value: s3cr3t }} }}, cwd: \"{}\"", cwd.display());
    let proxy = running(&[], &keys).start().await;
    let client = proxy.client().await;

    let environment: Value = serde_json::from_str(&text(&client.call("a__env").await)).unwrap();

    assert_eq!(environment["TOKEN"], "s3cr3t");
    assert!(environment["PATH"].is_string());
    // Python sets LC_CTYPE itself.
    let known = "HOME LANG LC_ALL LC_CTYPE LOGNAME PATH SHELL TERM TMPDIR TOKEN TZ USER";
    let names: Vec<_> = environment.as_object().unwrap().keys().collect();
    assert!(names.iter().all(|name| known.split(' ').any(|known| known == *name)), "{names:?}");
    assert_eq!(text(&client.call("a__cwd").await), cwd.to_str().unwrap());
    let config = proxy.page("/config").await.json();
    assert_eq!(config["backends"][0]["env"]["TOKEN"], "***");
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_process_and_says_so() {
    let proxy = running(&[], "max_line: 64KiB").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;
    assert_eq!(text(&client.call_with("a__long", json!({ "bytes": 60_000 })).await).len(), 60_000);

    let refused = client.call_with("a__long", json!({ "bytes": 200_000 })).await;

    assert!(refused.message().contains("longer than 65536 bytes, its `max_line`"), "{refused:?}");
    until_dead(process).await;
    assert_ne!(client.pid().await, process);
}

#[tokio::test]
async fn output_that_is_no_message_is_passed_over() {
    let proxy = running(&[], "").start().await;

    assert_eq!(text(&proxy.client().await.call("a__noise").await), "made noise");
}

#[tokio::test]
async fn no_more_processes_run_than_may() {
    // One is the gateway's own, which lists the tools; a probe has another for a moment.
    let proxy = running(&[], "max_instances: 2").start().await;
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    eventually(async || alice.call("a__pid").await.response().get("result").is_some()).await;

    let refused = bob.call("a__pid").await;

    assert_eq!(refused.code(), 503);
    assert!(refused.message().contains("as many processes as `max_instances` allows (2)"), "{refused:?}");
    alice.delete().await;
    eventually(async || bob.call("a__pid").await.response().get("result").is_some()).await;
}

#[tokio::test]
async fn a_process_that_nobody_uses_gives_way_to_one_that_somebody_needs() {
    // One is the gateway's own; the first probe may have another for a moment.
    let proxy = running(&[], "max_instances: 3").start().await;
    let modern = proxy.modern();
    let pid = async |level| text(&modern.at_level(level).call("a__pid").await).parse::<u32>().unwrap();
    eventually(async || proxy.metric("toolgate_probes_total{backend=\"a\",result=\"ok\"}").await >= Some(1.0)).await;
    let (debug, info) = (pid("debug").await, pid("info").await);
    assert_eq!(pid("debug").await, debug);

    let notice = pid("notice").await;

    until_dead(info).await;
    assert_eq!((pid("debug").await, pid("notice").await), (debug, notice));
    // So it does for a client that has a session of its own, until all are in use.
    let (alice, bob) = (proxy.client().await, proxy.client().await);
    let (_, held) = (alice.pid().await, bob.pid().await);
    until_dead(debug).await;
    until_dead(notice).await;
    let refused = modern.at_level("debug").call("a__pid").await;
    assert_eq!(refused.code(), 503);
    assert_eq!(bob.pid().await, held);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_backend_that_cannot_be_reached() {
    let proxy = Setup::new().backend_reached("a", "command: [no-such-program-anywhere]").start().await;

    eventually(async || proxy.page("/backends").await.json().to_string().contains("was not started")).await;
}

#[tokio::test]
async fn every_process_ends_when_the_gateway_stops() {
    let proxy = running(&["stubborn"], "").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;
    let grandchild = text(&client.call("a__spawn").await).parse().unwrap();

    within(proxy.stop()).await.unwrap();

    until_dead(process).await;
    until_dead(grandchild).await;
}

#[tokio::test]
async fn processes_of_a_backend_that_a_reload_removes_end() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;
    let process = client.pid().await;
    client.delete().await;

    proxy.apply(&Setup::new().backend_reached("b", &command(&[]))).await;

    until_dead(process).await;
}

#[tokio::test]
async fn a_flood_on_standard_error_is_cut_and_blocks_nothing() {
    let gateway = Process::start(&running(&[], "")).await;
    let client = gateway.client().await;

    assert_eq!(text(&client.call("a__flood").await), "flooded");

    gateway.logged("stderr: line 0 xxx").await;
    gateway.logged("stderr: lines left out").await;
    let logged = gateway.log().await.iter().filter(|line| line.contains("stderr: line ")).count();
    assert!(logged < 2000, "{logged}");
}

#[tokio::test]
async fn processes_end_with_a_gateway_that_is_asked_to_end() {
    for signals in [&["TERM"][..], &["INT"], &["TERM", "TERM"]] {
        let mut gateway = Process::start(&running(&["stubborn"], "")).await;
        let client = gateway.client().await;
        let process = client.pid().await;
        let grandchild = text(&client.call("a__spawn").await).parse().unwrap();

        for signal in signals {
            gateway.signal(signal).await;
            gateway.logged("stopping").await;
        }

        assert!(gateway.ended().await.success());
        until_dead(process).await;
        until_dead(grandchild).await;
    }
}

#[tokio::test]
async fn no_process_outlives_a_listing_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let (births, config) = (folder.path().join("births"), folder.path().join("toolgate.yaml"));
    std::fs::write(&config, running(&["stubborn", "births", births.to_str().unwrap()], "").yaml()).unwrap();

    let listed = run(&["tools", "--config", config.to_str().unwrap()]).await;

    assert!(listed.status.success(), "{listed:?}");
    for process in std::fs::read_to_string(births).unwrap().lines() {
        until_dead(process.parse().unwrap()).await;
    }
}

#[tokio::test]
async fn well_behaved_processes_end_with_a_gateway_that_is_killed() {
    let gateway = Process::start(&running(&[], "")).await;
    let process = gateway.client().await.pid().await;

    gateway.signal("KILL").await;

    until_dead(process).await;
}

#[tokio::test]
async fn a_command_stands_beside_other_backends() {
    let other = crate::support::FakeBackend::with_tool("b", "x").await;
    let proxy: TestProxy = running(&[], "").backend(&other, "").start().await;
    let client = proxy.client().await;

    client.pid().await;
    client.call("b__x").await.result();

    assert_eq!(other.calls().len(), 1);
}

#[tokio::test]
async fn a_legacy_server_works_whatever_it_makes_of_what_comes_before_its_handshake() {
    for how in ["-32601", "-32001", "death", "silence"] {
        let proxy = running(&["unasked", how], "").start().await;
        let client = proxy.client().await;

        eventually_for(SILENCE, async || !client.tools().await.is_empty()).await;

        client.pid().await;
        assert_eq!(eras(&proxy).await, json!(["legacy"]), "{how}");
    }
}

#[tokio::test]
async fn a_process_that_says_late_that_it_is_modern_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("answers");
    let proxy = running(&["ponders", answers.to_str().unwrap()], "").start().await;
    eventually_for(SILENCE, async || eras(&proxy).await == json!(["legacy"])).await;

    std::fs::write(answers, "").unwrap();

    eventually(async || eras(&proxy).await == json!(["legacy", "modern"])).await;
}

#[tokio::test]
async fn a_process_is_not_unwell_before_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    let proxy = running(&["late", starts.to_str().unwrap()], "").section("health", PROBING).start().await;
    never_within(Duration::from_secs(2), proxy.until_metric(&state("unhealthy"), 1.0)).await;
    assert_eq!(proxy.metric(&state("unknown")).await, Some(1.0));

    std::fs::write(starts, "").unwrap();

    eventually(async || proxy.metric(&state("healthy")).await == Some(1.0)).await;
    assert_eq!(proxy.metric("toolgate_probes_total{backend=\"a\",result=\"timeout\"}").await, Some(0.0));
}

#[tokio::test]
async fn a_process_that_never_starts_is_unwell_in_the_end() {
    let setup = running(&["late", "/nowhere"], "timeout: { first_byte: 300ms }").section("health", PROBING);
    let proxy = setup.start().await;

    proxy.until_metric(&state("unhealthy"), 1.0).await;
}

#[tokio::test]
async fn nor_is_a_modern_server_whose_next_process_starts() {
    let folder = tempfile::tempdir().unwrap();
    let starts = folder.path().join("starts");
    std::fs::write(&starts, "").unwrap();
    let (answers, late) = (folder.path().to_str().unwrap(), starts.to_str().unwrap());
    let proxy = running(&["ponders", answers, "late", late], "").section("health", PROBING).start().await;
    eventually(async || proxy.metric(&state("healthy")).await == Some(1.0)).await;
    eventually(async || eras(&proxy).await == json!(["modern"])).await;

    std::fs::remove_file(&starts).unwrap();
    proxy.modern().call("a__crash").await.error();

    never_within(Duration::from_secs(2), proxy.until_metric(&state("unhealthy"), 1.0)).await;
    std::fs::write(&starts, "").unwrap();
    eventually(async || proxy.metric(&state("healthy")).await == Some(1.0)).await;
}
