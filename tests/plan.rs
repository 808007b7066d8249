//! `toolgate plan`: what a reload would change, told without one.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::process::run;
use crate::support::{FakeBackend, Setup, TestProxy};

/// What `plan` says of a configuration: exit code, standard output and standard error.
async fn planned(setup: &Setup, against: SocketAddr) -> (Option<i32>, String, String) {
    told(&setup.yaml(), &format!("http://{against}")).await
}

async fn told(yaml: &str, against: &str) -> (Option<i32>, String, String) {
    let (_folder, file) = written(yaml);
    let output = run(&["plan", file.to_str().unwrap(), "--against", against]).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn written(yaml: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.yaml");
    std::fs::write(&file, yaml).unwrap();
    (folder, file)
}

/// Waits until all tools of these are in the catalog.
async fn listed(proxy: &TestProxy, backends: &[(&FakeBackend, usize)]) {
    for (backend, tools) in backends {
        proxy.until_tools(*backend, *tools).await;
    }
}

/// Has these lines, among others.
#[track_caller]
fn says(out: &str, lines: &[&str]) {
    for line in lines {
        assert!(out.lines().any(|said| said == *line), "{line}\n{out}");
    }
}

#[tokio::test]
async fn what_runs_already_changes_nothing() {
    let a = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    listed(&proxy, &[(&a, 1)]).await;
    // A backend that stays as it is is not asked.
    let _socket = a.go_away().await;

    let (code, out, problems) = planned(&setup, proxy.admin_address()).await;

    assert_eq!((code, out.lines().count(), &*problems), (Some(0), 1, ""), "{out}");
    assert!(out.ends_with("new.yaml: a reload would change nothing of what is shown\n"), "{out}");
}

#[tokio::test]
async fn backends_that_come_go_and_change_are_told_with_their_tools() {
    let a = FakeBackend::named("a").tool("x").tool("y").tool("z").start().await;
    let b = FakeBackend::with_tool("b", "x").await;
    let c = FakeBackend::with_tool("c", "x").await;
    let proxy = Setup::fronting(&[&a, &b]).start().await;
    listed(&proxy, &[(&a, 3), (&b, 1)]).await;
    let next = Setup::new()
        .backend(&a, "tools: { deny: [z], rename: { y: why } }, max_inflight: 7")
        .backend(&c, "")
        .section("health", "{ interval: 2h, timeout: 3s, max_backoff: 2h }");

    let (code, out, problems) = planned(&next, proxy.admin_address()).await;

    assert_eq!((code, &*problems), (Some(0), ""), "{out}");
    let lines = [
        "backend `c`: added",
        "backend `b`: removed",
        "backend `a`: changed",
        "backends[a].max_inflight: 1024 → 7",
        "backends[a].tools.deny: [] → [\"z\"]",
        "health.interval: \"1h\" → \"2h\"",
        "tool `a__y`: renamed, to `a__why`",
        "tool `a__z`: lost, of backend `a`",
        "tool `b__x`: lost, of backend `b`",
        "tool `c__x`: gained, of backend `c`",
    ];
    says(&out, &lines);
    assert!(!out.contains("`a__x`") && !out.contains("backends[c]"), "{out}");
    assert!(out.contains("backend `a`: legacy 2025-11-25, 3 tools"), "{out}");
    assert!(out.ends_with("new.yaml: a reload would take it up\n"), "{out}");
    // Nothing has changed.
    assert_eq!(proxy.client().await.tools().await, ["a__x", "a__y", "a__z", "b__x"]);
}

#[tokio::test]
async fn a_name_that_two_backends_have_is_told_when_it_moves() {
    let a = FakeBackend::named("a").tool("x").tool("y").start().await;
    let b = FakeBackend::named("b").tool("x").tool("z").start().await;
    let both = |first: &FakeBackend, second: &FakeBackend| {
        Setup::new().backend(first, "prefix: ''").backend(second, "prefix: ''")
    };
    let proxy = both(&a, &b).start().await;
    listed(&proxy, &[(&a, 2), (&b, 1)]).await;
    // Both stay as they are, so neither is asked.
    let _sockets = (a.go_away().await, b.go_away().await);

    let (code, out, _) = planned(&both(&b, &a), proxy.admin_address()).await;
    let (_, without, _) = planned(&Setup::new().backend(&b, "prefix: ''"), proxy.admin_address()).await;

    assert_eq!(code, Some(0), "{out}");
    says(&out, &["backends, whose order says who keeps a name: a, b → b, a"]);
    says(&out, &["tool `x`: moved, from backend `a` to backend `b`"]);
    assert_eq!(out.matches("tool `").count(), 1, "{out}");
    assert!(out.ends_with("new.yaml: a reload would take it up\n"), "{out}");
    says(&without, &["tool `x`: moved, from backend `a` to backend `b`", "tool `y`: lost, of backend `a`"]);
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_exits_as_a_wrong_file_does() {
    let a = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    let next = setup.section("threads", "2").section("log", "{ format: json }").section("sessions", "{ idle: 7m }");

    let (code, out, _) = planned(&next, proxy.admin_address()).await;

    assert_eq!(code, Some(78), "{out}");
    let lines = [
        "log.format: \"text\" → \"json\"",
        "log: cannot change while the gateway runs",
        "sessions.idle: \"30m\" → \"7m\"",
        "threads: none → 2",
        "threads: cannot change while the gateway runs",
    ];
    says(&out, &lines);
    let verdict = "a reload would be rejected because of log, threads; restart the gateway to take it up\n";
    assert!(out.ends_with(verdict), "{out}");
}

#[tokio::test]
async fn what_is_not_shown_is_not_compared_and_said_so() {
    let a = FakeBackend::named("a").tool("x").takes_header("authorization").start().await;
    let with = |token: &str| Setup::new().backend(&a, &format!("headers: {{ Authorization: \"Bearer {token}\" }}"));
    let proxy = with("s3cr3t-one").start().await;
    listed(&proxy, &[(&a, 1)]).await;

    let (code, out, problems) = planned(&with("s3cr3t-two"), proxy.admin_address()).await;

    assert_eq!((code, &*problems), (Some(0), ""), "{out}");
    says(&out, &["credentials: not shown, so not compared: backends[a].headers.authorization"]);
    assert!(!out.contains("s3cr3t"), "{out}");
}

#[tokio::test]
async fn the_tools_of_a_backend_that_does_not_answer_are_unknown() {
    let a = FakeBackend::with_tool("a", "x").await;
    let b = FakeBackend::with_tool("b", "y").await;
    let setup = Setup::fronting(&[&a, &b]);
    let proxy = setup.start().await;
    listed(&proxy, &[(&a, 1), (&b, 1)]).await;
    let _socket = b.go_away().await;
    let next = Setup::new().backend(&a, "").backend(&b, "max_inflight: 7");

    let (code, out, _) = planned(&next, proxy.admin_address()).await;

    assert_eq!(code, Some(1), "{out}");
    says(&out, &["backend `b`: changed"]);
    assert!(out.contains("\nbackend `b`: cannot be reached at "), "{out}");
    assert!(!out.contains("lost"), "{out}");
    assert!(out.ends_with("a reload would take it up, and which tools there would be is unknown of `b`\n"), "{out}");
    // That it would be rejected says more.
    assert_eq!(planned(&next.section("threads", "2"), proxy.admin_address()).await.0, Some(78));
}

#[tokio::test]
async fn a_wrong_file_is_told_before_anybody_is_asked() {
    let (code, out, problems) = told("listeners: []\nbackends: []\n", "http://127.0.0.1:1").await;

    assert_eq!((code, &*out), (Some(78), ""));
    assert!(problems.contains("new.yaml:1:"), "{problems}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_by_its_url() {
    let a = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let others = format!("http://{}", other.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        // Closed while there is something to be read, it would be reset.
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\n\r\n<html>").unwrap();
    });

    for (against, problem) in [
        ("http://127.0.0.1:1".to_owned(), "/config: Connection refused"),
        (format!("http://{}", proxy.address()), "/config: HTTP 404"),
        (others, "/config: what answers there is no gateway"),
    ] {
        let (code, out, problems) = told(&setup.yaml(), &against).await;
        assert_eq!((code, &*out), (Some(1), ""), "{against}: {problems}");
        assert!(problems.contains(&format!("{against}{problem}")), "{problems}");
        assert!(
            problems.contains("`--against` takes the URL of the operator's listener (`admin.address`)"),
            "{problems}"
        );
    }
    answering.join().unwrap();
    for wrong in ["https://127.0.0.1:9464", "127.0.0.1", "http://user@127.0.0.1:1", "http://127.0.0.1:1/config"] {
        let (code, _, problems) = told(&setup.yaml(), wrong).await;
        assert_eq!(code, Some(64), "{problems}");
        assert!(problems.contains("http://HOST:PORT"), "{problems}");
    }
}

#[tokio::test]
async fn pinned_tools_are_looked_at_as_a_reload_would() {
    let a = FakeBackend::named("a").tool("x").tool("y").start().await;
    let setup = Setup::fronting(&[&a]);
    let proxy = setup.start().await;
    listed(&proxy, &[(&a, 2)]).await;
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("toolgate.lock");
    std::fs::write(&lock, "{\"version\":1,\"tools\":{}}").unwrap();
    let next = setup.section("pin", &format!("{{ mode: enforce, file: \"{}\" }}", lock.display()));

    let (code, out, _) = planned(&next, proxy.admin_address()).await;

    assert_eq!(code, Some(0), "{out}");
    says(&out, &["tool `a__x`: lost, of backend `a`", "tool `a__y`: lost, of backend `a`"]);
    says(&out, &["backend `a`: tool `x` left out: it is not pinned; to trust it run `toolgate pin`"]);
}
