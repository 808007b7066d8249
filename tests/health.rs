//! Health: how backends are probed, when they are left out, and when they come back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::backend::spoken;
use crate::support::{FakeBackend, Mood, Setup, TestProxy, eventually, never_within};

/// Probes that find things out within the patience of a test.
const QUICK: &str = "{ interval: 200ms, timeout: 200ms, rise: 2, fall: 3, max_backoff: 400ms }";
/// No probes after the first: only calls tell.
const CALLS_ONLY: &str = "{ interval: 1h, timeout: 3s, rise: 1, fall: 3, max_backoff: 1h }";

#[tokio::test]
async fn a_probe_is_a_whole_session_and_leaves_none_behind() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let _proxy = Setup::fronting(&[&backend]).section("health", QUICK).start().await;
    let probed = |backend: &FakeBackend| backend.seen().iter().filter(|seen| seen.verb == "DELETE").count();

    backend.until(|backend| probed(backend) >= 5).await;

    let seen = backend.seen();
    let ended = seen.iter().find(|seen| seen.verb == "DELETE").unwrap();
    let of_session: Vec<_> =
        seen.iter().filter(|seen| seen.session == ended.session).map(|seen| &*seen.method).collect();
    assert_eq!(of_session, ["notifications/initialized", "tools/list", ""]);
    // One for listing, and perhaps one of the probe under way.
    assert!(backend.gateway_sessions() <= 2, "{}", backend.gateway_sessions());
}

#[tokio::test]
async fn a_probe_that_times_out_leaves_no_session_behind() {
    let backend = FakeBackend::named("a").tool("x").slow_lists(Duration::from_millis(500)).start().await;
    let proxy = Setup::fronting(&[&backend]).section("health", QUICK).start().await;

    proxy.until_state(&backend, "unhealthy").await;
    let probes = backend.by_gateway("initialize").len();
    backend.until(|backend| backend.seen().iter().filter(|seen| seen.verb == "DELETE").count() + 2 >= probes).await;

    eventually(async || backend.gateway_sessions() <= 4).await;
}

#[tokio::test]
async fn a_backend_that_keeps_failing_is_left_out_and_named() {
    for mood in [Mood::Status(503), Mood::Closing, Mood::Stalled, Mood::LoginPage(200)] {
        let backend = FakeBackend::with_tool("a", "x").await;
        let proxy = Setup::fronting(&[&backend]).section("health", QUICK).start().await;
        let client = proxy.client().await;
        client.call("a__x").await.result();
        let before = backend.calls().len();

        backend.set_mood(mood);
        proxy.until_state(&backend, "unhealthy").await;
        let started = Instant::now();
        let answer = client.call("a__x").await;

        assert!(started.elapsed() < Duration::from_secs(1), "{mood:?}");
        assert_eq!((answer.status, answer.code()), (200, 503), "{mood:?}: {answer:?}");
        assert!(answer.message().starts_with("backend `a` has been unavailable for "), "{answer:?}");
        assert_eq!(backend.calls().len(), before, "{mood:?}");
        assert_eq!(proxy.metric("toolgate_backend_up{backend=\"a\"}").await, Some(0.0));
    }
}

#[tokio::test]
async fn a_backend_that_recovers_takes_calls_again() {
    let backend = FakeBackend::named("a").tool("x").mood(Mood::Closing).start().await;
    let setup = Setup::fronting(&[&backend]).section("health", QUICK).section("catalog", "{ refresh: 600ms }");
    let proxy = setup.start().await;
    let client = proxy.client().await;
    proxy.until_state(&backend, "unhealthy").await;

    backend.set_mood(Mood::Well);
    proxy.until_state(&backend, "healthy").await;
    eventually(async || client.tools().await == ["a__x"]).await;

    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    let transition = "toolgate_backend_transitions_total{backend=\"a\",from=\"unhealthy\",to=\"healthy\"}";
    assert_eq!(proxy.metric(transition).await, Some(1.0));
}

#[tokio::test]
async fn one_good_probe_is_not_a_recovery() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let health = "{ interval: 100ms, timeout: 100ms, rise: 1000, fall: 1, max_backoff: 100ms }";
    let proxy = Setup::fronting(&[&backend]).section("health", health).start().await;
    backend.set_mood(Mood::Status(500));
    proxy.until_state(&backend, "unhealthy").await;

    backend.set_mood(Mood::Well);
    let probes = "toolgate_probes_total{backend=\"a\",result=\"ok\"}";
    let before = proxy.metric(probes).await.unwrap_or(0.0);
    eventually(async || proxy.metric(probes).await >= Some(before + 3.0)).await;

    assert_eq!(proxy.metric("toolgate_backend_up{backend=\"a\"}").await, Some(0.0));
}

#[tokio::test]
async fn a_backend_that_refuses_the_credentials_is_degraded_and_still_called() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("health", QUICK).start().await;
    let client = proxy.client().await;
    client.call("a__x").await.result();

    backend.set_mood(Mood::LoginPage(401));
    proxy.until_state(&backend, "degraded").await;
    let answer = client.call("a__x").await;

    assert!(answer.message().contains("backend `a` refused the gateway's credentials (HTTP 401)"), "{answer:?}");
    assert_eq!(backend.calls().len(), 2);
    assert_eq!(proxy.metric("toolgate_backend_up{backend=\"a\"}").await, Some(1.0));
    let probes = "toolgate_probes_total{backend=\"a\",result=\"credentials\"}";
    eventually(async || proxy.metric(probes).await >= Some(5.0)).await;
    assert_eq!(proxy.page("/backends").await.json()["backends"][0]["credentialsRefused"], true);
    proxy.until_state(&backend, "degraded").await;
}

#[tokio::test]
async fn calls_that_fail_tell_too() {
    for mood in [Mood::Closing, Mood::Status(502)] {
        let backend = FakeBackend::with_tool("a", "x").await;
        let proxy = Setup::fronting(&[&backend]).section("health", CALLS_ONLY).start().await;
        let client = proxy.client().await;
        proxy.until_state(&backend, "healthy").await;
        client.call("a__x").await.result();

        backend.set_mood(mood);
        let failures = [client.call("a__x").await, client.call("a__x").await, client.call("a__x").await];
        let refused = client.call("a__x").await;

        assert!(failures.iter().all(|answer| answer.code() == 502), "{mood:?}: {failures:?}");
        assert!(refused.message().contains("has been unavailable"), "{mood:?}: {refused:?}");
        assert_eq!(backend.calls().len(), 4, "{mood:?}");
        proxy.until_state(&backend, "unhealthy").await;
    }
}

#[tokio::test]
async fn calls_that_are_not_answered_in_time_tell_too() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let setup = Setup::new().backend(&backend, "timeout: { first_byte: 300ms }").section("health", CALLS_ONLY);
    let proxy = setup.start().await;
    let client = proxy.client().await;
    proxy.until_state(&backend, "healthy").await;
    client.call("a__x").await.result();

    backend.set_mood(Mood::Stalled);
    for _ in 0..3 {
        assert_eq!(client.call("a__x").await.code(), 504);
    }

    assert!(client.call("a__x").await.message().contains("has been unavailable"));
    assert_eq!(backend.calls().len(), 4);
}

#[tokio::test]
async fn what_a_tool_says_is_no_failure_of_its_backend() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("health", CALLS_ONLY).start().await;
    let client = proxy.client().await;

    for status in [200, 400, 422, 200, 400] {
        let (running, call) = client.pending_call("a__x", &backend).await;
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32603,"message":"no"}}}}"#, call.id());
        call.respond(status, "application/json", body);
        assert_eq!(running.await.unwrap().code(), -32603);
    }
    let (running, call) = client.pending_call("a__x", &backend).await;
    call.finish();

    assert_eq!(running.await.unwrap().result(), spoken("x"));
    proxy.until_state(&backend, "healthy").await;
}

#[tokio::test]
async fn a_body_that_a_backend_will_not_read_is_no_failure_of_its_health() {
    let backend = FakeBackend::named("a").tool("x").max_body(64 << 10).start().await;
    let proxy = Setup::fronting(&[&backend]).section("health", CALLS_ONLY).start().await;
    let client = proxy.client().await;
    client.call("a__x").await.result();

    for length in [100 << 10, 1 << 20, 3 << 20, 4_000_000, 4_000_000, 4_000_000] {
        let answer = client.call_with("a__x", json!({ "pad": "x".repeat(length) })).await;
        assert!(answer.message().contains("backend `a`"), "{answer:?}");
    }

    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    proxy.until_state(&backend, "healthy").await;
}

#[tokio::test]
async fn clients_that_leave_are_no_failure_of_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("health", CALLS_ONLY).start().await;
    let client = proxy.client().await;

    for _ in 0..5 {
        let (running, call) = client.pending_call("a__x", &backend).await;
        running.abort();
        call.disconnected().await;
    }

    proxy.until_state(&backend, "healthy").await;
    assert_eq!(proxy.page("/backends").await.json()["backends"][0]["failuresInARow"], 0);
}

#[tokio::test]
async fn a_healthy_backend_is_never_hurt_by_a_sick_one() {
    let well = FakeBackend::with_tool("well", "x").await;
    let sick = FakeBackend::with_tool("sick", "x").await;
    let proxy = Setup::fronting(&[&sick, &well]).section("health", QUICK).start().await;
    let client = proxy.client().await;

    for mood in [Mood::Stalled, Mood::Closing, Mood::Well, Mood::Status(500), Mood::LoginPage(200)] {
        sick.set_mood(mood);
        let sick_call = client.start_call("sick__x");
        for _ in 0..10 {
            assert_eq!(client.call("well__x").await.result(), spoken("x"), "{mood:?}");
        }
        sick_call.abort();
    }

    proxy.until_state(&well, "healthy").await;
    let transitions = proxy.page("/metrics").await;
    let text = String::from_utf8_lossy(&transitions.body).into_owned();
    let of_well: Vec<_> =
        text.lines().filter(|line| line.starts_with("toolgate_backend_transitions_total{backend=\"well\"")).collect();
    assert!(of_well.iter().all(|line| line.contains("from=\"unknown\"")), "{of_well:?}");
}

#[tokio::test]
async fn the_gateway_is_ready_while_one_backend_is() {
    let a = FakeBackend::with_tool("a", "x").await;
    let b = FakeBackend::with_tool("b", "x").await;
    let proxy = Setup::fronting(&[&a, &b]).section("health", QUICK).start().await;
    let ready = async |proxy: &TestProxy| proxy.page("/readyz").await.status;
    eventually(async || ready(&proxy).await == 200).await;

    a.set_mood(Mood::Closing);
    proxy.until_state(&a, "unhealthy").await;
    assert_eq!(ready(&proxy).await, 200);
    b.set_mood(Mood::Closing);
    eventually(async || ready(&proxy).await == 503).await;
    a.set_mood(Mood::Well);

    eventually(async || ready(&proxy).await == 200).await;
    assert_eq!(proxy.page("/livez").await.status, 200);
}

#[tokio::test]
async fn a_question_within_a_probe_is_answered_and_does_no_harm() {
    let backend = FakeBackend::named("a").tool("x").in_events().streams().start().await;
    let proxy = Setup::fronting(&[&backend]).section("health", QUICK).start().await;
    backend.until(FakeBackend::is_heard).await;

    backend.announce(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
    backend.until(|backend| backend.responses().len() == 1).await;

    never_within(Duration::from_millis(300), proxy.until_state(&backend, "unhealthy")).await;
    proxy.until_state(&backend, "healthy").await;
}
