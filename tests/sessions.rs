//! Sessions of clients.

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::{FakeBackend, Setup, TestProxy, eventually};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const KEYS: [&str; 2] =
    ["Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=", "rS9tJpUFjmFGKg0oSkTmAyhOFuzOjSmGUZRIyRvJzvE="];

#[tokio::test]
async fn a_known_version_is_echoed_and_an_unknown_one_gets_the_latest() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    for (asked, given) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1.0", "2025-11-25"),
    ] {
        let answer = proxy.stranger().initialize(asked).await;
        assert_eq!(answer.result()["protocolVersion"], given, "{asked}");
    }
}

#[tokio::test]
async fn initialize_tells_what_the_gateway_is() {
    let a = FakeBackend::named("a").tool("echo").instructions("Use echo.").logging().start().await;
    let b = FakeBackend::named("b").tool("echo").instructions("Do not.").start().await;
    let c = FakeBackend::with_tool("c", "echo").await;
    let proxy = TestProxy::fronting(&[&a, &b, &c]).await;

    let answer = proxy.stranger().initialize("2025-11-25").await;

    let result = answer.result();
    assert_eq!(result["serverInfo"]["name"], "toolgate");
    let changing = json!({ "listChanged": true });
    let offered = json!({ "tools": changing, "prompts": changing, "resources": changing, "logging": {} });
    assert_eq!(result["capabilities"], offered);
    assert_eq!(result["instructions"], "## a\nUse echo.\n\n## b\nDo not.");
    let session = answer.header("mcp-session-id");
    assert!(!session.is_empty() && session.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{session}");
}

#[tokio::test]
async fn initialize_offers_nothing_that_no_backend_has() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    let result = proxy.stranger().initialize("2025-11-25").await.result();

    // What a backend may have later is there from the start; what one must take now is not.
    let changing = json!({ "listChanged": true });
    assert_eq!(result["capabilities"], json!({ "tools": changing, "prompts": changing, "resources": changing }));
    assert_eq!(result.get("instructions"), None);
}

#[tokio::test]
async fn initialize_without_what_it_needs_is_refused() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.stranger();
    let info = json!({ "name": "x", "version": "1" });

    for params in [
        json!({}),
        json!({ "clientInfo": info, "capabilities": {} }),
        json!({ "protocolVersion": 1, "clientInfo": info, "capabilities": {} }),
        json!({ "protocolVersion": "2025-11-25", "capabilities": {} }),
        json!({ "protocolVersion": "2025-11-25", "clientInfo": "x", "capabilities": {} }),
    ] {
        let answer = client.ask("initialize", params.clone()).await;
        assert_eq!(answer.code(), -32602, "{params}: {answer:?}");
        assert_eq!(answer.header("mcp-session-id"), "");
    }
}

#[tokio::test]
async fn a_request_outside_of_a_session_is_refused() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let stranger = proxy.stranger();

    for verb in [Method::POST, Method::GET, Method::DELETE] {
        let answer = stranger.send(stranger.request(verb.clone(), PING)).await;
        assert_eq!(answer.status, 400, "{verb}: {answer:?}");
    }
    assert_eq!(stranger.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await.status, 400);
    assert_eq!(stranger.post(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).await.status, 400);
}

#[tokio::test]
async fn a_session_that_was_never_given_is_unknown() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let given = client.session.clone().unwrap();
    let tampered: Vec<_> = [0, 5, given.len() / 2, given.len() - 1]
        .into_iter()
        .map(|at| {
            let other = if given.as_bytes()[at] == b'A' { "B" } else { "A" };
            format!("{}{other}{}", &given[..at], &given[at + 1..])
        })
        .collect();

    for session in ["x", "a-1", "é", &given[1..], &format!("{given}A")].into_iter().chain(tampered.iter().map(|s| &**s))
    {
        for verb in [Method::POST, Method::GET, Method::DELETE] {
            let guessing = client.with_header("mcp-session-id", session);
            let answer = guessing.send(guessing.request(verb.clone(), PING)).await;
            assert_eq!(answer.status, 404, "{verb} {session}: {answer:?}");
        }
    }
    assert_eq!(client.post(PING).await.status, 200);
}

#[tokio::test]
async fn a_session_that_was_ended_is_unknown() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, other) = (proxy.client().await, proxy.client().await);

    let ended = client.delete().await;

    assert_eq!((ended.status, ended.body.len()), (204, 0));
    for verb in [Method::POST, Method::GET, Method::DELETE] {
        assert_eq!(client.send(client.request(verb.clone(), PING)).await.status, 404, "{verb}");
    }
    assert_eq!(other.post(PING).await.status, 200);
}

#[tokio::test]
async fn ending_a_session_ends_its_stream() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let mut stream = client.listen().await;

    client.delete().await;

    assert_eq!(stream.block().await, None);
}

#[tokio::test]
async fn a_session_is_over_after_its_lifetime() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ lifetime: 3s }").start().await;
    let client = proxy.client().await;

    assert_eq!(client.post(PING).await.status, 200);

    eventually(async || client.post(PING).await.status == 404).await;
}

/// Complaint 1: A restart kills every session; clients hang or need a manual reconnect.
#[tokio::test]
async fn another_gateway_with_the_same_key_serves_a_session() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let [new, old] = KEYS.map(|key| format!("{{ value: \"{key}\" }}"));
    let with = |keys: &str| Setup::fronting(&[&backend]).section("sessions", &format!("{{ keys: [{keys}] }}"));
    let (first, second) = (with(&old).start().await, with(&format!("{new}, {old}")).start().await);
    let (third, fourth) = (with(&new).start().await, Setup::fronting(&[&backend]).start().await);
    let client = first.client().await;

    let answer = client.at(second.address()).call("a__echo").await;

    assert_eq!(answer.result(), spoken("echo"));
    assert_eq!(second.client().await.at(third.address()).post(PING).await.status, 200);
    assert_eq!(client.at(third.address()).post(PING).await.status, 404);
    assert_eq!(client.at(fourth.address()).post(PING).await.status, 404);
}

#[tokio::test]
async fn a_client_with_a_long_name_gets_a_session_that_fits_a_header() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "é".repeat(9999), "version": "\u{1}".repeat(9999), "icons": ["x".repeat(9999)] },
    });
    let stranger = proxy.stranger();

    let answer = stranger.ask("initialize", params).await;
    let session = answer.header("mcp-session-id").len();
    let client = stranger.in_session_of(&answer);

    assert!(session < 4096, "{session} bytes");
    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn beyond_the_most_sessions_the_longest_unused_makes_room() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ max: 2 }").start().await;
    let clients = [proxy.client().await, proxy.client().await, proxy.client().await];

    for client in &clients {
        assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
    }
    eventually(async || backend.client_sessions() <= 2).await;

    assert_eq!(clients[0].call("a__echo").await.result(), spoken("echo"));
    let held = proxy.metric("toolgate_sessions").await;
    assert!(held <= Some(2.0), "{held:?}");
}

#[tokio::test]
async fn busy_sessions_make_no_room() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).section("sessions", "{ max: 1 }").start().await;
    let first = proxy.client().await;
    let second = proxy.stranger().initialize("2025-11-25").await;
    let _stream = first.listen().await;

    let refused = proxy.stranger().in_session_of(&second).call("a__echo").await;
    let third = proxy.stranger().initialize("2025-11-25").await;

    for refused in [refused, third] {
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
        assert_eq!(refused.error()["data"], Value::Null);
    }
    assert_eq!(first.call("a__echo").await.result(), spoken("echo"));
}
