//! Stopping: in order, and without losing what is under way.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::draining::until_draining;
use crate::support::backend::spoken;
use crate::support::proxy::page;
use crate::support::stdio::{self, text, until_dead};
use crate::support::wire::Http2;
use crate::support::{FakeBackend, Mood, Process, Raw, Setup, eventually, never_within, within, within_for};

#[tokio::test]
async fn readiness_is_red_first_and_requests_are_still_served() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("drain", "{ delay: 2s, timeout: 5s }").start().await;
    let (client, admin) = (proxy.client().await, proxy.admin_address());
    eventually(async || proxy.page("/readyz").await.status == 200).await;

    let stopped = proxy.stop();
    eventually(async || page(admin, Method::GET, "/readyz").await.status == 503).await;
    let answer = client.call("a__x").await;

    assert_eq!(page(admin, Method::GET, "/livez").await.status, 200);
    assert_eq!(answer.result(), spoken("x"));
    assert_eq!(answer.header("connection").to_ascii_lowercase(), "close");
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn clients_streams_end_well() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).start().await;
    let client = proxy.client().await;
    let mut stream = client.listen().await;

    let stopped = proxy.stop();

    // An end without the final chunk would be an error.
    assert_eq!(stream.chunk().await.unwrap(), None);
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn calls_under_way_are_finished() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 30s }").start().await;
    let (client, admin) = (proxy.client().await, proxy.admin_address());
    let (running, call) = client.pending_call("a__x", &backend).await;
    let (mut opened, stream) = client.open_stream("a__x", &backend).await;

    let mut stopped = proxy.stop();
    until_draining(admin).await;
    never_within(Duration::from_millis(200), &mut stopped).await;
    call.finish();
    stream.finish().await;

    let answer = within(running).await.unwrap();
    assert_eq!(answer.result(), spoken("x"));
    assert_eq!(answer.header("connection").to_ascii_lowercase(), "close");
    assert_eq!(opened.message().await.unwrap()["result"], spoken("x"));
    assert_eq!(opened.message().await, None);
    within(stopped).await.unwrap();
    eventually(async || TcpStream::connect(admin).await.is_err()).await;
}

#[tokio::test]
async fn calls_that_take_too_long_are_cut_and_told_so() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 500ms }").start().await;
    let client = proxy.client().await;
    let (running, pending) = client.pending_call("a__x", &backend).await;
    let (mut opened, stream) = client.open_stream("a__x", &backend).await;
    stream.send(": begun\n\n").await;

    let id = pending.id();
    let stopped = proxy.stop();
    let cut = within(running).await.unwrap();
    let last = opened.message().await.unwrap();

    // In-band: an SDK that sees another status may drop its session, which another replica would serve.
    assert_eq!((cut.status, cut.code(), cut.json()["id"].to_string()), (200, 503, id));
    assert!(cut.message().contains("shutting down"), "{cut:?}");
    assert_eq!(last["id"].to_string(), stream.id);
    assert!(last["error"]["message"].as_str().unwrap().contains("shutting down"), "{last}");
    assert_eq!(opened.message().await, None);
    within(pending.disconnected()).await;
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn calls_that_were_cut_are_not_said_to_be_left_by_their_clients() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 500ms }");
    let mut gateway = Process::start_logging_json(&setup).await;
    let client = gateway.client().await.with_header("x-request-id", "cut-me");
    let (running, _call) = client.pending_call("a__x", &backend).await;

    gateway.signal("TERM").await;
    within(running).await.unwrap().error();

    let line: Value = serde_json::from_str(&gateway.logged("cut-me").await).unwrap();
    assert_eq!((&line["outcome"], &line["tool"]), (&json!("internal"), &json!("a__x")), "{line}");
    assert!(line["error"].as_str().unwrap().contains("shutting down"), "{line}");
    gateway.ended().await;
}

#[tokio::test]
async fn sessions_with_backends_are_ended() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "x").await);
    let proxy = Setup::fronting(&[&a, &b]).start().await;
    for client in [proxy.client().await, proxy.client().await] {
        client.call("a__x").await.result();
        client.call("b__x").await.result();
    }

    within(proxy.stop()).await.unwrap();

    assert_eq!((a.client_sessions(), b.client_sessions()), (0, 0));
}

#[tokio::test]
async fn the_gateways_own_sessions_are_ended_too() {
    let backend = FakeBackend::named("a").tool("x").streams().start().await;
    let proxy = Setup::fronting(&[&backend]).start().await;
    backend.until(FakeBackend::is_heard).await;
    backend.until(|backend| backend.gateway_sessions() == 1).await;

    within(proxy.stop()).await.unwrap();

    assert_eq!(backend.gateway_sessions(), 0);
}

#[tokio::test]
async fn a_backend_that_does_not_let_its_sessions_end_holds_a_stop_up_for_a_moment() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let stubborn = stdio::command(&["stubborn"]);
    let setup = Setup::fronting(&[&backend]).backend_reached("b", &format!("{stubborn}, instances: shared"));
    let proxy = setup.start().await;
    let client = proxy.client().await;
    client.call("a__x").await.result();
    let process = text(&client.call("b__pid").await).parse().unwrap();
    backend.set_mood(Mood::Stalled);

    // A session takes three seconds to be given up, and the process as long to be killed, at the same time.
    within_for(Duration::from_secs(5), proxy.stop()).await.unwrap();

    until_dead(process).await;
    backend.take_faults();
}

#[tokio::test]
async fn connections_without_a_request_are_closed() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).start().await;
    let session = proxy.client().await.session.unwrap();
    let mut raw = Raw::connect(proxy.address()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    raw.write(format!("{}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}", raw.head(), body.len())).await;
    assert_eq!(raw.response().await.status, 200);

    let stopped = proxy.stop();

    assert!(raw.rest().await.is_empty());
    within(stopped).await.unwrap();
}

#[tokio::test]
async fn http_2_connections_without_a_request_are_closed() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 1h }").start().await;
    let client = proxy.client().await;
    let h2 = Http2::over(within(TcpStream::connect(proxy.address())).await.unwrap()).await;
    let call = || client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__x" })));
    assert_eq!(h2.send(call()).await.result(), spoken("x"));

    let stopped = proxy.stop();

    within(stopped).await.unwrap();
}

#[tokio::test]
async fn a_stop_does_not_wait_for_connections_that_never_said_anything() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 1h }");
    let proxy = setup.listener("timeout: { header: 1h }").start().await;
    let client = proxy.client().await;
    let mut silent = Raw::connect(proxy.address()).await;
    client.list().await;

    let stopped = proxy.stop();

    within(stopped).await.unwrap();
    assert!(silent.rest().await.is_empty());
}

#[tokio::test]
async fn a_signal_drains_and_the_process_exits_well() {
    for signal in ["TERM", "INT"] {
        let backend = FakeBackend::with_held_tool("a", "x").await;
        let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 30s }");
        let mut gateway = Process::start(&setup).await;
        let client = gateway.client().await;
        let (running, call) = client.pending_call("a__x", &backend).await;

        gateway.signal(signal).await;
        gateway.logged("Draining").await;
        // Whoever operates it looks on to the end.
        assert_eq!(gateway.page(Method::GET, "/readyz").await.status, 503, "{signal}");
        call.finish();

        assert_eq!(within(running).await.unwrap().result(), spoken("x"), "{signal}");
        assert_eq!(gateway.ended().await.code(), Some(0), "{signal}");
        assert_eq!(backend.client_sessions(), 0);
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 1h, timeout: 1h }");
    let mut gateway = Process::start(&setup).await;
    let (_running, _call) = gateway.client().await.pending_call("a__x", &backend).await;

    gateway.signal("TERM").await;
    gateway.logged("LameDuck").await;
    gateway.signal("TERM").await;

    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_restarted_process_goes_on_with_a_session() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let keys = "{ keys: [{ value: \"Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=\" }] }";
    let setup = Setup::fronting(&[&backend]).section("sessions", keys);
    let mut first = Process::start(&setup).await;
    let client = first.client().await;
    client.call("a__x").await.result();
    first.signal("TERM").await;
    first.ended().await;

    let second = Process::start(&setup).await;
    let answer = client.at(second.address).ask("tools/call", json!({ "name": "a__x" })).await;

    assert_eq!(answer.result(), spoken("x"));
}
