//! The binary: its commands, what they print, and how they exit.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::names;
use crate::support::process::{Process, run};
use crate::support::{FakeBackend, Mood, Setup, eventually};

/// A configuration in a folder of its own.
fn written(yaml: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("toolgate.yaml");
    std::fs::write(&file, yaml).unwrap();
    (folder, file.to_str().unwrap().to_owned())
}

/// Exit code, standard output and standard error.
fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn check_says_that_a_good_file_is_good() {
    let (_folder, file) = written(&Setup::new().backend_at("a", "http://127.0.0.1:1/mcp", "").yaml());

    let told = told(run(&["check", &file]).await);

    assert_eq!(told, (Some(0), format!("{file}: ok\n"), String::new()));
}

#[tokio::test]
async fn check_says_everything_that_is_wrong_and_where() {
    let yaml = "listeners: [{ adress: 127.0.0.1:8080 }]\nbackends:\n- { name: a, url: ftp://x }\n";
    let (_folder, file) = written(yaml);

    let (code, out, problems) = told(run(&["check", &file]).await);

    assert_eq!((code, &*out), (Some(78), ""));
    assert!(problems.contains(&format!("{file}:1:")) && problems.contains("did you mean `address`?"), "{problems}");
    assert!(problems.contains(&format!("{file}:3:")) && problems.contains("backends[0].url"), "{problems}");
}

#[tokio::test]
async fn a_live_check_says_what_backends_are() {
    let long = "l".repeat(70);
    let a = FakeBackend::named("a").tool("x").tool(&long).start().await;
    let (_folder, file) = written(&Setup::fronting(&[&a]).yaml());

    let (code, out, problems) = told(run(&["check", "--live", &file]).await);

    assert_eq!((code, &*problems), (Some(0), ""), "{out}");
    assert!(
        out.contains("toolgate.yaml: ok\nbackend `a`: legacy 2025-11-25, 2 tools, 0 prompts, 0 resources"),
        "{out}"
    );
    assert!(out.contains(&format!("tool `a__{long}`: its name has more than 64 characters")), "{out}");
}

#[tokio::test]
async fn a_live_check_says_which_patterns_have_no_tool() {
    let a = FakeBackend::named("a").tool("x").tool("y").start().await;
    let keys = "tools: { deny: [nosuch, 'y*'], rename: { zip: zap, x: z } }, timeout: { tools: [{ match: [slow_*], first_byte: 1s }] }";
    let limits = "[{ name: typo, tools: ['serach__*'], rate: 1/s }, { name: right, tools: ['a__*'], rate: 1/s }]";
    let (_folder, file) = written(&Setup::new().backend(&a, keys).section("limits", limits).yaml());

    let (code, out, _) = told(run(&["check", "--live", &file]).await);

    let said: Vec<_> = out.lines().filter(|line| line.contains("no tool")).collect();
    let unknown = |name| format!("backend `a`: it has no tool `{name}`, which its section names");
    let expected =
        [unknown("nosuch"), unknown("slow_*"), unknown("zip"), "limit `typo`: no tool is called `serach__*`".into()];
    assert_eq!((code, said), (Some(0), expected.iter().map(String::as_str).collect()), "{out}");
}

#[tokio::test]
async fn a_live_check_says_nothing_of_what_is_denied() {
    let task = r#"{"name":"task","inputSchema":{"type":"object"},"execution":{"taskSupport":"required"}}"#;
    let a = FakeBackend::named("a").tool("x").defined("task", task).start().await;
    let checked = async |keys| {
        let (_folder, file) = written(&Setup::new().backend(&a, keys).yaml());
        told(run(&["check", "--live", &file]).await)
    };

    let (code, out, _) = checked("").await;
    assert!(code == Some(1) && out.contains("tool `task` left out: it can only be called as a task"), "{out}");
    let (code, out, _) = checked("tools: { deny: [task] }").await;
    assert!(code == Some(0) && !out.contains("`task`"), "{out}");
}

#[tokio::test]
async fn a_live_check_says_what_clients_miss() {
    let a = FakeBackend::named("a").tool("x").tool("not ok").start().await;
    let b = FakeBackend::with_tool("b", "x").await;
    let (url, _port) = FakeBackend::dead();
    let setup = Setup::new().backend(&a, "prefix: ''").backend(&b, "prefix: ''").backend_at("c", &url, "");
    let (_folder, file) = written(&setup.yaml());

    let (code, out, _) = told(run(&["check", "--live", &file]).await);

    assert_eq!(code, Some(1));
    for said in [
        "backend `b`: legacy 2025-11-25, 1 tools",
        &format!("backend `c`: cannot be reached at {}", url.split('/').nth(2).unwrap()),
        "backend `a`: tool `not ok` left out: `not ok` is not 1 to 128 of A-Za-z0-9_.-",
        "backend `b`: tool `x` left out: backend `a` already has a tool `x`",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
}

#[tokio::test]
async fn check_and_run_refuse_a_file_that_is_not_there() {
    for arguments in [&["check", "/nowhere/x.yaml"][..], &["run", "--config", "/nowhere/x.yaml"]] {
        let (code, _, problem) = told(run(arguments).await);
        assert_eq!(code, Some(78));
        assert!(problem.contains("/nowhere/x.yaml"), "{problem}");
    }
}

#[tokio::test]
async fn run_refuses_a_wrong_file_as_check_does() {
    let (_folder, file) = written("listeners: []\nbackends: []\n");

    let (checked, ran) = (told(run(&["check", &file]).await), told(run(&["run", "--config", &file]).await));

    assert_eq!(ran, checked);
    assert_eq!(ran.0, Some(78));
}

#[tokio::test]
async fn arguments_that_nobody_knows_are_a_usage_error() {
    for arguments in [&["serve"][..], &[], &["run"], &["run", "--confg", "x"], &["check"], &["check", "a", "b"]] {
        let (code, out, problem) = told(run(arguments).await);
        assert_eq!((code, &*out), (Some(64), ""), "{arguments:?}");
        assert!(problem.contains("Usage"), "{arguments:?}: {problem}");
    }
}

#[tokio::test]
async fn help_and_version_are_no_errors() {
    let (help, version) = (told(run(&["--help"]).await), told(run(&["--version"]).await));

    assert_eq!((help.0, version.0), (Some(0), Some(0)));
    assert!(
        ["run", "demo", "check", "plan", "tools", "pin", "health", "upgrade", "schema", "dashboard", "alerts"]
            .iter()
            .all(|command| help.1.contains(command)),
        "{}",
        help.1
    );
    assert_eq!(version.1, format!("toolgate {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn health_is_what_the_gateway_says_of_itself() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend])
        .section("health", "{ interval: 100ms, timeout: 100ms, rise: 1, fall: 1, max_backoff: 100ms }")
        .start()
        .await;
    let health = async |more: &[&str]| {
        let admin = proxy.admin_address().to_string();
        told(run(&[&["health", "--admin", &admin], more].concat()).await)
    };
    eventually(async || health(&[]).await == (Some(0), "ok\n".to_owned(), String::new())).await;

    let url = format!("http://{}/", proxy.admin_address());
    assert_eq!(told(run(&["health", "--admin", &url]).await).0, Some(0));

    let _socket = backend.go_away().await;
    proxy.until_state(&backend, "unhealthy").await;

    let (code, out, problem) = health(&[]).await;
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(problem.ends_with("/readyz: HTTP 503: no backend is usable\n"), "{problem}");
    assert_eq!(health(&["--alive"]).await, (Some(0), "ok\n".to_owned(), String::new()));
    let (code, _, problem) = told(run(&["health", "--admin", "127.0.0.1:1"]).await);
    assert_eq!(code, Some(1));
    assert!(problem.contains("http://127.0.0.1:1/readyz: Connection refused"), "{problem}");
    assert!(problem.contains("`--admin` takes the address of the operator's listener"), "{problem}");
    assert_eq!(told(run(&["health", "--admin", "9464"]).await).0, Some(64));
}

#[tokio::test]
async fn what_answers_health_as_no_gateway_would_is_told() {
    for (answer, told_as) in
        [("", "no gateway"), ("HTTP/1.0 200 OK\r\n\r\n", "no gateway"), ("SSH-2.0\r\n\r\n", "no gateway")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap().to_string();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        });

        let (code, _, problem) = told(run(&["health", "--admin", &admin]).await);

        answering.join().unwrap();
        assert_eq!(code, Some(1));
        assert!(problem.contains(told_as) || problem.contains("reset"), "{answer:?}: {problem}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let setup = Setup::new().backend_at("a", "http://127.0.0.1:1/mcp", "");

    for (setup, field) in [
        (setup.clone().listening_on(&address), "listeners[0].address"),
        (setup.section("admin", &format!("{{ address: \"{address}\" }}")), "admin.address"),
    ] {
        let (_folder, file) = written(&setup.yaml());
        let (code, _, problem) = told(run(&["run", "--config", &file]).await);
        assert_eq!(code, Some(1), "{problem}");
        assert!(problem.contains(field) && problem.contains(&address) && problem.contains("in use"), "{problem}");
    }
}

#[tokio::test]
async fn a_port_is_free_again_as_soon_as_its_process_has_ended() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let mut first = Process::start(&Setup::fronting(&[&backend])).await;
    first.client().await.call("a__x").await.result();
    let address = first.address.to_string();
    first.signal("TERM").await;
    first.ended().await;

    let second = Process::start(&Setup::fronting(&[&backend]).listening_on(&address)).await;

    assert_eq!(second.address.to_string(), address);
    second.client().await.call("a__x").await.result();
}

#[tokio::test]
async fn what_watches_it_is_in_the_binary() {
    let (dashboard, alerts) = (told(run(&["dashboard"]).await), told(run(&["alerts"]).await));

    assert_eq!((dashboard.0, alerts.0), (Some(0), Some(0)));
    assert_eq!(serde_json::from_str::<Value>(&dashboard.1).unwrap()["title"], "Toolgate");
    assert!(alerts.1.contains("- alert: ToolgateBackendDown"), "{}", alerts.1);
}

#[tokio::test]
async fn schema_prints_a_json_schema() {
    let (code, out, _) = told(run(&["schema"]).await);

    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, Some(0));
    assert!(schema["$schema"].as_str().unwrap().contains("2020-12"), "{out}");
    assert!(schema["properties"]["backends"].is_object());
}

#[tokio::test]
async fn tools_prints_the_merged_list_and_leaves_no_session() {
    let a = FakeBackend::named("a").tool("x").tool("not ok").start().await;
    let b = FakeBackend::named("b").tool("y").tool("z").pages_of(1).start().await;
    let (_folder, file) = written(&Setup::fronting(&[&a, &b]).yaml());

    let (code, out, problems) = told(run(&["tools", "--config", &file]).await);

    assert_eq!(names(&serde_json::from_str(&out).unwrap()), ["a__x", "b__y", "b__z"]);
    assert_eq!(code, Some(0), "{problems}");
    assert!(problems.contains("`not ok`"), "{problems}");
    assert_eq!((a.gateway_sessions(), b.gateway_sessions()), (0, 0));
}

#[tokio::test]
async fn definitions_are_printed_as_they_are() {
    let definition =
        r#"{"z":1e400,"name":"x","n":12345678901234567890123,"\u0061":"\ud83d\ude00","inputSchema":{"type":"object"}}"#;
    let backend = FakeBackend::named("a").defined("x", definition).start().await;
    let setup = Setup::fronting(&[&backend]);
    let (_folder, file) = written(&setup.yaml());
    let proxy = setup.start().await;
    proxy.until_tools(&backend, 1).await;

    let (code, out, problems) = told(run(&["tools", "--config", &file]).await);
    let page = proxy.page("/catalog").await;

    let shown = definition.replace("\"x\"", "\"a__x\"");
    assert_eq!(code, Some(0), "{problems}");
    assert!(out.contains(&shown), "{out}");
    assert!(String::from_utf8_lossy(&page.body).contains(&shown), "{page:?}");
}

#[tokio::test]
async fn tools_names_the_backends_it_could_not_list() {
    let a = FakeBackend::with_tool("a", "x").await;
    let b = FakeBackend::named("b").tool("y").mood(Mood::LoginPage(200)).start().await;
    let setup = Setup::fronting(&[&a, &b]).backend_reached("c", "command: [sh, -c, exit 3]").backend_at(
        "d",
        "http://127.0.0.1:1/",
        "",
    );
    let (_folder, file) = written(&setup.yaml());

    let (code, out, problems) = told(run(&["tools", "--config", &file]).await);

    assert_eq!(names(&serde_json::from_str(&out).unwrap()), ["a__x"]);
    assert_eq!(code, Some(1));
    let said = |of: &str| problems.lines().find(|line| line.starts_with(&format!("backend `{of}`"))).unwrap();
    assert_eq!(said("b").matches("backend `b`").count(), 1, "{problems}");
    assert!(said("c").ends_with("`sh` ended by itself (exit status: 3)"), "{problems}");
    assert_eq!(said("d"), "backend `d`: cannot be reached at 127.0.0.1:1: Connection refused (os error 111)");
}

#[tokio::test]
async fn tools_says_why_of_each_backend_in_one_line() {
    let setup = Setup::new()
        .backend_reached("exits", "command: [sh, -c, 'echo boom >&2; exit 3']")
        .backend_reached("lacks", "command: [no-such-program-anywhere]")
        .backend_at("gone", "http://127.0.0.1:1/mcp", "")
        .backend_at("nameless", "http://nowhere.invalid/mcp", "")
        .section("log", "{ level: error }");
    let (_folder, file) = written(&setup.yaml());

    let (code, _, problems) = told(run(&["tools", "--config", &file]).await);

    let of_backends: Vec<_> = problems.lines().filter(|line| line.starts_with("backend ")).collect();
    let expected = [
        "backend `exits`: `sh` ended by itself (exit status: 3); last on its standard error: boom",
        "backend `lacks`: `no-such-program-anywhere` was not started: No such file or directory (os error 2)",
        "backend `gone`: cannot be reached at 127.0.0.1:1: Connection refused (os error 111)",
    ];
    assert_eq!(of_backends[..3], expected);
    // What else is said of a name depends on the system.
    let nameless = "backend `nameless`: cannot be reached: the name `nowhere.invalid` is not resolved: ";
    assert!(of_backends[3].starts_with(nameless), "{problems}");
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn the_demo_serves_what_it_prints() {
    let Some(mut demo) = Process::demo().await else { return };
    let client = demo.client().await;

    assert_eq!(client.tools().await, ["clock__now", "clock__wait", "text__shout", "text__count"]);
    let mut said = Vec::new();
    for _ in 0..4 {
        said.push(client.call_with("text__shout", json!({ "text": "hello" })).await.result());
    }
    demo.logged("http://127.0.0.1:8080/mcp").await;
    demo.signal("INT").await;

    assert!(said[..3].iter().all(|result| result["content"][0]["text"] == "HELLO"), "{said:?}");
    assert_eq!(said[3]["isError"], true);
    assert_eq!(demo.ended().await.code(), Some(0));
}

#[tokio::test]
async fn what_happens_to_watched_files_is_not_logged_at_any_level() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("log", "{ level: trace }");
    let gateway = Process::start(&setup).await;

    gateway.rewrite(&setup.section("sessions", "{ idle: 7m }").yaml());
    gateway.logged("configuration reloaded").await;

    // The log may lie in a watched folder: a line for each event would be an event for each line.
    let log = gateway.log().await;
    assert!(!log.iter().any(|line| line.contains("inotify")), "{log:?}");
}

#[tokio::test]
async fn the_log_can_be_json() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let gateway = Process::start_logging_json(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await.with_header("x-request-id", "find-me");
    client.call("a__x").await.result();

    let line = gateway.logged("find-me").await;

    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["id"], "find-me");
    assert_eq!((&line["backend"], &line["tool"], &line["outcome"]), (&"a".into(), &"a__x".into(), &"ok".into()));
    let log = gateway.log().await;
    assert_eq!(log.iter().filter(|line| line.contains("find-me")).count(), 1);
    assert!(!log.iter().any(|line| line.contains(client.session.as_deref().unwrap())));
}
