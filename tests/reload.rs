//! A new configuration while the gateway runs: how it is noticed, what it changes, and what it leaves alone.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Method;
use serde_json::json;
use toolgate::Outcome;

use crate::support::backend::spoken;
use crate::support::certificates::{Certificate, Handshake};
use crate::support::{FakeBackend, Process, Setup, TestProxy, eventually, eventually_for, within};

const RELOADED: &str = "toolgate_config_last_reload_successful";

async fn two() -> (FakeBackend, FakeBackend) {
    (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "y").await)
}

#[tokio::test]
async fn a_backend_that_is_added_is_listed_and_called() {
    let (a, b) = two().await;
    let proxy = TestProxy::fronting(&[&a]).await;
    let client = proxy.client().await;
    client.list().await;
    let mut stream = client.listen().await;

    proxy.apply(&Setup::fronting(&[&a, &b])).await;

    assert_eq!(stream.message().await.unwrap()["method"], "notifications/tools/list_changed");
    assert_eq!(client.tools().await, ["a__x", "b__y"]);
    assert_eq!(client.call("b__y").await.result(), spoken("y"));
}

#[tokio::test]
async fn a_backend_that_is_removed_is_gone_but_its_call_ends_well() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_held_tool("b", "y").await);
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    let (mut opened, stream) = client.open_stream("b__y", &b).await;
    let (running, call) = client.pending_call("b__y", &b).await;

    proxy.apply(&Setup::fronting(&[&a])).await;
    assert_eq!(client.tools().await, ["a__x"]);
    assert_eq!(client.call("b__y").await.code(), -32602);
    stream.finish().await;
    call.finish();

    assert_eq!(opened.message().await.unwrap()["result"], spoken("y"));
    assert_eq!(within(running).await.unwrap().result(), spoken("y"));
    b.until(|b| b.gateway_sessions() == 0).await;
    eventually_for(std::time::Duration::from_secs(30), async || b.client_sessions() == 0).await;
    assert_eq!(proxy.metric("toolgate_backend_up{backend=\"b\"}").await, None);
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_sessions_and_its_list() {
    let (a, b) = two().await;
    let proxy = TestProxy::fronting(&[&a]).await;
    let client = proxy.client().await;
    client.call("a__x").await.result();
    let listed = a.by_gateway("tools/list").len();

    proxy.apply(&Setup::fronting(&[&b, &a]).section("limits", "[{ name: l, rate: 9/s }]")).await;
    assert_eq!(client.call("a__x").await.result(), spoken("x"));

    assert_eq!(a.by_clients("initialize").len(), 1);
    assert_eq!(a.by_gateway("tools/list").len(), listed);
}

#[tokio::test]
async fn a_backend_whose_section_changed_is_called_anew() {
    let (a, _) = two().await;
    let proxy = TestProxy::fronting(&[&a]).await;
    let client = proxy.client().await;
    client.call("a__x").await.result();

    proxy.apply(&Setup::new().backend(&a, "prefix: new_")).await;
    eventually(async || client.tools().await == ["new_x"]).await;

    assert_eq!(client.call("new_x").await.result(), spoken("x"));
    assert_eq!(client.call("a__x").await.code(), -32602);
}

#[tokio::test]
async fn tools_of_a_backend_whose_section_changed_do_not_vanish_meanwhile() {
    let (a, b) = two().await;
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    client.list().await;

    for inflight in 1..=10 {
        proxy.apply(&Setup::new().backend(&a, &format!("max_inflight: {inflight}")).backend(&b, "")).await;
        assert_eq!(client.tools().await, ["a__x", "b__y"], "reload {inflight}");
        assert_eq!(client.call("a__x").await.result(), spoken("x"), "reload {inflight}");
    }
}

#[tokio::test]
async fn the_same_configuration_changes_nothing() {
    let (a, b) = two().await;
    let setup = Setup::fronting(&[&a, &b]);
    let proxy = setup.start().await;

    assert_eq!(proxy.reload(&setup).await, Outcome::Unchanged);
    assert_eq!(proxy.reload(&setup.clone().section("limits", "[]")).await, Outcome::Unchanged);
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_nothing_of_it_taken_up() {
    let (a, b) = two().await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    let client = proxy.client().await;

    for (changed, field) in [
        (setup.clone().listening_on("127.0.0.1:1"), "listeners"),
        (setup.clone().section("admin", "{ address: \"127.0.0.1:2\" }"), "admin.address"),
        (setup.clone().section("log", "{ level: debug }"), "log"),
        (setup.clone().section("threads", "3"), "threads"),
    ] {
        let outcome = proxy.reload(&changed.backend(&b, "")).await;
        let Outcome::Rejected { problems } = outcome else { panic!("{field}: {outcome:?}") };
        assert!(problems.len() == 1 && problems[0].starts_with(field), "{problems:?}");
    }

    assert_eq!(client.tools().await, ["a__x"]);
    assert_eq!(proxy.metric(RELOADED).await, Some(0.0));
    assert_eq!(proxy.reload(&setup).await, Outcome::Unchanged);
    assert_eq!(proxy.metric(RELOADED).await, Some(1.0));
}

#[tokio::test]
async fn the_rules_of_a_listener_change_while_it_listens() {
    let (a, _) = two().await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    let client = proxy.client().await;
    let message = client.message("tools/call", &json!({ "name": "a__x", "arguments": { "pad": "x".repeat(5000) } }));

    proxy.apply(&setup.listener("max_body: 4KiB, allowed_hosts: [localhost]")).await;

    assert_eq!(client.post(message.clone()).await.status, 403);
    assert_eq!(client.with_header("host", "localhost").post(message).await.status, 413);
}

#[tokio::test]
async fn a_session_lives_as_long_as_its_key() {
    let (a, _) = two().await;
    let [old, new] = ["Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=", "rS9tJpUFjmFGKg0oSkTmAyhOFuzOjSmGUZRIyRvJzvE="];
    let with = |keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|key| format!("{{ value: \"{key}\" }}")).collect();
        Setup::fronting(&[&a]).section("sessions", &format!("{{ keys: [{}] }}", keys.join(", ")))
    };
    let proxy = with(&[old]).start().await;
    let client = proxy.client().await;

    proxy.apply(&with(&[new, old])).await;
    let rotated = client.call("a__x").await.status;
    let newer = proxy.client().await;
    proxy.apply(&with(&[new])).await;

    assert_eq!((rotated, client.call("a__x").await.status), (200, 404));
    assert_eq!(newer.call("a__x").await.result(), spoken("x"));
}

#[tokio::test]
async fn a_change_of_one_backend_costs_no_call_and_no_stream_of_another() {
    let a = FakeBackend::named("a").tool("x").held("slow").start().await;
    let b = FakeBackend::with_tool("b", "y").await;
    let proxy = TestProxy::fronting(&[&a, &b]).await;
    let client = proxy.client().await;
    let (mut opened, stream) = client.open_stream("a__slow", &a).await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut calls = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.call("a__x").await.result(), spoken("x"));
                    calls += 1;
                }
                calls
            })
        })
        .collect();

    for reload in 1..=30 {
        let setup = match reload % 3 {
            0 => Setup::fronting(&[&a]),
            _ => Setup::new().backend(&b, &format!("max_inflight: {reload}")).backend(&a, ""),
        };
        proxy.apply(&setup).await;
        stream.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} })).await;
        assert_eq!(opened.message().await.unwrap()["method"], "notifications/progress");
    }
    done.store(true, Ordering::Relaxed);
    stream.finish().await;

    assert_eq!(opened.message().await.unwrap()["result"], spoken("slow"));
    for caller in callers {
        assert!(within(caller).await.unwrap() > 0);
    }
    assert_eq!(a.by_clients("initialize").len(), 1);
}

#[tokio::test]
async fn a_changed_file_is_taken_up() {
    let (a, b) = two().await;
    let gateway = Process::start(&Setup::fronting(&[&a])).await;
    let client = gateway.client().await;

    gateway.rewrite(&Setup::fronting(&[&a, &b]).yaml());
    eventually(async || client.tools().await == ["a__x", "b__y"]).await;
    std::fs::write(gateway.config_file(), Setup::fronting(&[&b]).yaml()).unwrap();
    eventually(async || client.tools().await == ["b__y"]).await;

    gateway.logged("configuration reloaded").await;
    // Counted when it has been taken up, a moment after clients see it.
    gateway.until_metric("toolgate_config_reloads_total{outcome=\"applied\"}", 2.0).await;
}

#[tokio::test]
async fn a_file_that_changes_right_after_the_start_is_taken_up() {
    let (a, b) = two().await;
    let gateway = Process::start(&Setup::fronting(&[&a])).await;

    gateway.rewrite(&Setup::fronting(&[&b]).yaml());

    let client = gateway.client().await;
    eventually(async || client.tools().await == ["b__y"]).await;
}

/// Lays a configuration down as Kubernetes mounts a ConfigMap.
fn mount(folder: &Path, version: u32, yaml: &str) {
    let data = folder.join(format!("..v{version}"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("toolgate.yaml"), yaml).unwrap();
    symlink(format!("..v{version}"), folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if version > 1 {
        std::fs::remove_dir_all(folder.join(format!("..v{}", version - 1))).unwrap();
    }
}

#[tokio::test]
async fn a_mounted_file_whose_links_are_swapped_is_taken_up() {
    let (a, b) = two().await;
    let folder = tempfile::tempdir().unwrap();
    mount(folder.path(), 1, &Setup::fronting(&[&a]).yaml());
    symlink("..data/toolgate.yaml", folder.path().join("toolgate.yaml")).unwrap();
    let config = folder.path().join("toolgate.yaml");
    let gateway = Process::start_in(folder, &config).await;
    let client = gateway.client().await;

    mount(gateway.folder(), 2, &Setup::fronting(&[&a, &b]).yaml());
    eventually(async || client.tools().await == ["a__x", "b__y"]).await;
    mount(gateway.folder(), 3, &Setup::fronting(&[&b]).yaml());

    eventually(async || client.tools().await == ["b__y"]).await;
}

#[tokio::test]
async fn the_operator_can_have_the_file_read_again() {
    let (a, b) = two().await;
    let with = |backends: &[&FakeBackend]| Setup::fronting(backends).section("reload", "{ watch: false, poll: 1h }");
    let gateway = Process::start(&with(&[&a])).await;
    let client = gateway.client().await;
    let reload = async || gateway.page(Method::POST, "/reload").await;

    let unchanged = reload().await;
    gateway.rewrite(&with(&[&a, &b]).yaml());
    let applied = reload().await;

    assert_eq!((unchanged.status, unchanged.json()), (200, json!({ "outcome": "unchanged" })));
    assert_eq!((applied.status, applied.json()), (200, json!({ "outcome": "applied", "generation": 2 })));
    assert_eq!(client.call("b__y").await.result(), spoken("y"));
}

#[tokio::test]
async fn a_hangup_signal_has_the_file_read_again() {
    let (a, b) = two().await;
    let with = |backends: &[&FakeBackend]| Setup::fronting(backends).section("reload", "{ watch: false, poll: 1h }");
    let gateway = Process::start(&with(&[&a])).await;
    let client = gateway.client().await;

    gateway.rewrite(&with(&[&a, &b]).yaml());
    gateway.signal("HUP").await;

    eventually(async || client.tools().await == ["a__x", "b__y"]).await;
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_is_told_in_full() {
    let (a, b) = two().await;
    let setup = Setup::fronting(&[&a]);
    let gateway = Process::start(&setup).await;
    let client = gateway.client().await;
    assert_eq!(gateway.metric(RELOADED).await, Some(1.0));

    gateway.rewrite(&setup.clone().backend(&b, "max_inflight: none").section("health", "{ rise: 0 }").yaml());
    gateway.until_metric(RELOADED, 0.0).await;
    let rejected = gateway.page(Method::POST, "/reload").await;

    let problems: Vec<_> = rejected.json()["problems"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!((rejected.status, rejected.json()["outcome"].clone(), problems.len()), (422, json!("rejected"), 2));
    assert!(
        problems[0].contains("toolgate.yaml:5:") && problems[0].contains("backends[1].max_inflight"),
        "{problems:?}"
    );
    assert!(problems[1].contains("health.rise"), "{problems:?}");
    let logged = gateway.logged("configuration not reloaded").await;
    assert!(logged.contains("toolgate.yaml:5:"), "{logged}");
    assert_eq!(client.tools().await, ["a__x"]);
    gateway.rewrite(&setup.yaml());
    gateway.until_metric(RELOADED, 1.0).await;
    gateway.logged("nothing to reload: the configuration is the one that runs").await;
}

#[tokio::test]
async fn a_file_that_stays_wrong_is_told_once_and_to_whoever_asks() {
    let (a, _) = two().await;
    let gateway = Process::start(&Setup::fronting(&[&a])).await;
    gateway.client().await;

    gateway.rewrite("nonsense");
    gateway.until_metric(RELOADED, 0.0).await;
    gateway.rewrite("nonsense");
    gateway.rewrite("- nonsense\n");
    gateway.logged("found a list").await;
    for _ in 0..3 {
        assert_eq!(gateway.page(Method::POST, "/reload").await.status, 422);
    }
    gateway.page(Method::GET, "/livez").await;

    let log = gateway.log().await;
    assert_eq!(log.iter().filter(|line| line.contains("configuration not reloaded")).count(), 2 + 3, "{log:?}");
}

#[tokio::test]
async fn a_secret_that_is_replaced_is_sent_from_then_on() {
    let backend = FakeBackend::named("a").tool("x").takes_header("authorization").start().await;
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("toolgate.yaml"), folder.path().join("secret"));
    std::fs::write(&secret, "Bearer old\n").unwrap();
    let headers = "headers: { Authorization: { file: secret } }";
    std::fs::write(&config, Setup::new().backend(&backend, headers).yaml()).unwrap();
    let gateway = Process::start_in(folder, &config).await;
    let client = gateway.client().await;
    client.call("a__x").await.result();

    std::fs::write(&secret, "Bearer new\n").unwrap();
    gateway.logged("configuration reloaded").await;
    eventually(async || client.call("a__x").await.response()["result"].is_object()).await;

    let sent: Vec<_> = backend.calls().iter().map(|call| call.headers["authorization"].clone()).collect();
    assert_eq!((&sent[0], &sent[sent.len() - 1]), (&"Bearer old".parse().unwrap(), &"Bearer new".parse().unwrap()));
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_shown_from_then_on() {
    let (a, _) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Certificate::of("localhost"), Certificate::of("localhost"));
    let config = folder.path().join("toolgate.yaml");
    let tls = format!("tls: {{ certificates: [{}] }}", old.write(folder.path(), "tls"));
    std::fs::write(&config, Setup::fronting(&[&a]).listener(&tls).yaml()).unwrap();
    let gateway = Process::start_in(folder, &config).await;
    let trusting = async |certificate: &Certificate| {
        let versions = &[&rustls::version::TLS13];
        let handshake = Handshake { trusts: &[certificate], name: "localhost", versions, alpn: &[] };
        handshake.connect(gateway.address).await.is_ok()
    };
    assert!(trusting(&old).await && !trusting(&new).await);

    new.write(gateway.folder(), "tls");

    eventually(async || trusting(&new).await).await;
    assert!(!trusting(&old).await);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_not_taken_up() {
    let (a, _) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Certificate::of("localhost"), Certificate::of("localhost"));
    let tls = |pair: &str| format!("tls: {{ certificates: [{pair}] }}");
    let pair = old.write(folder.path(), "old");
    let proxy = Setup::fronting(&[&a]).listener(&tls(&pair)).start().await;

    let mixed = pair.replace("old.crt", "new.crt");
    new.write(folder.path(), "new");
    let outcome = proxy.reload(&Setup::fronting(&[&a]).listener(&tls(&mixed))).await;

    let Outcome::Rejected { problems } = outcome else { panic!("{outcome:?}") };
    assert!(problems[0].starts_with("listeners[0].tls: ") && problems[0].contains("does not belong"), "{problems:?}");
    let versions = &[&rustls::version::TLS13];
    let handshake = Handshake { trusts: &[&old], name: "localhost", versions, alpn: &[] };
    handshake.connect(proxy.address()).await.unwrap();
}
