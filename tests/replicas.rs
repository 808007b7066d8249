//! Several URLs of one backend.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::backend::Seen;
use crate::support::backend::{response, spoken};
use crate::support::{Call, FakeBackend, Mood, Setup, TestProxy, eventually, within};

async fn fronting(urls: &[String]) -> TestProxy {
    let urls: Vec<_> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    Setup::new().backend_reached("r", &format!("urls: [{}]", urls.join(", "))).start().await
}

async fn two() -> (FakeBackend, FakeBackend, TestProxy) {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "x").await);
    let proxy = fronting(&[a.url(), b.url()]).await;
    (a, b, proxy)
}

/// The endpoints of the only backend.
async fn endpoints(proxy: &TestProxy) -> Vec<Value> {
    let page = proxy.page("/backends").await.json();
    let backends = page.as_array().cloned().unwrap_or_else(|| page["backends"].as_array().unwrap().clone());
    backends[0]["endpoints"].as_array().unwrap().clone()
}

#[tokio::test]
async fn sessions_are_spread_and_stay_where_they_began() {
    let (a, b, proxy) = two().await;

    for _ in 0..8 {
        let client = proxy.client().await;
        for _ in 0..3 {
            assert_eq!(client.call("r__x").await.result(), spoken("x"));
        }
    }

    // The gateway's own session takes turns with them.
    let begun = [&a, &b].map(|backend| backend.by_clients("initialize").len());
    assert!(begun.iter().all(|begun| *begun >= 3), "{begun:?}");
    for (backend, begun) in [&a, &b].into_iter().zip(begun) {
        assert_eq!(backend.calls().len(), begun * 3);
        // The fake fails the test if it is sent a session id that is not its own.
        let sessions: HashSet<_> = backend.calls().into_iter().map(|call| call.session).collect();
        assert_eq!(sessions.len(), begun);
    }
}

#[tokio::test]
async fn a_session_ends_where_it_began() {
    let (a, b, proxy) = two().await;
    let clients = [proxy.client().await, proxy.client().await];
    for client in &clients {
        client.call("r__x").await.result();
    }

    for client in &clients {
        client.delete().await;
    }

    a.until(|a| a.client_sessions() == 0).await;
    b.until(|b| b.client_sessions() == 0).await;
}

#[tokio::test]
async fn the_least_busy_gets_what_comes_next() {
    let a = FakeBackend::named("a").held("x").tool("y").start().await;
    let b = FakeBackend::named("b").held("x").tool("y").start().await;
    let proxy = fronting(&[a.url(), b.url()]).await;
    let running = proxy.client().await.start_call("r__x");
    let (call, idle) = tokio::select! { call = a.next_call() => (call, &b), call = b.next_call() => (call, &a) };

    for _ in 0..4 {
        proxy.client().await.call("r__y").await.result();
    }

    assert_eq!(idle.calls().len(), 4);
    let inflight: i64 = endpoints(&proxy).await.iter().map(|endpoint| endpoint["inflight"].as_i64().unwrap()).sum();
    assert_eq!(inflight, 1);
    let answer = response(&call.id(), &spoken("x"));
    call.json(answer);
    within(running).await.unwrap().result();
}

#[tokio::test]
async fn a_session_moves_when_its_endpoint_is_gone() {
    let (a, b, proxy) = two().await;
    let client = proxy.client().await;
    client.call("r__x").await.result();
    let (home, other) = if a.calls().is_empty() { (b, a) } else { (a, b) };

    home.close_idle_connections();
    home.until(|home| home.connections() == 0).await;
    drop(home);

    // The system may take a moment to refuse the port.
    eventually(async || client.call("r__x").await.response().get("result").is_some()).await;
    assert!(!other.calls().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_connected_to_is_passed_over_and_ejected() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (dead, _port) = FakeBackend::dead();
    let proxy = fronting(&[dead.clone(), backend.url()]).await;

    for _ in 0..8 {
        // No client notices.
        assert_eq!(proxy.client().await.call("r__x").await.result(), spoken("x"));
    }

    let endpoints = endpoints(&proxy).await;
    assert_eq!((&endpoints[0]["url"], &endpoints[1]["url"]), (&Value::from(dead), &Value::from(backend.url())));
    assert!(endpoints[0]["ejectedForSeconds"].as_f64().is_some_and(|left| left <= 10.0), "{endpoints:?}");
    assert_eq!(endpoints[1]["ejectedForSeconds"], Value::Null);
}

#[tokio::test]
async fn a_call_that_may_have_run_is_not_tried_elsewhere() {
    let (a, b, proxy) = two().await;
    let client = proxy.client().await;
    client.call("r__x").await.result();
    let calls = a.calls().len() + b.calls().len();
    a.set_mood(Mood::Closing);
    b.set_mood(Mood::Closing);

    assert_eq!(client.call("r__x").await.code(), 502);

    assert_eq!(a.calls().len() + b.calls().len(), calls + 1);
}

/// How many calls it got, in whosever session.
fn called(backend: &FakeBackend) -> usize {
    backend.all("tools/call").len()
}

/// How many sessions of modern clients were ever begun at a replica.
fn begun(backend: &FakeBackend) -> usize {
    // All are the gateway's own; the ones that it lists and probes in can be asked, as far as it says.
    let capabilities = |seen: &Seen| seen.json()["params"]["capabilities"].clone();
    backend.by_gateway("initialize").iter().filter(|seen| capabilities(seen) == json!({})).count()
}

#[tokio::test]
async fn modern_clients_share_one_session_with_each_replica() {
    let (a, b, proxy) = two().await;

    for _ in 0..32 {
        assert_eq!(proxy.modern().call("r__x").await.result()["content"], spoken("x")["content"]);
    }

    assert_eq!((begun(&a), begun(&b)), (1, 1));
    // The gateway's own requests take turns with them.
    let calls = [called(&a), called(&b)];
    assert!(calls.iter().all(|calls| *calls >= 14), "{calls:?}");
}

#[tokio::test]
async fn calls_of_modern_clients_go_to_the_least_busy_replica() {
    let a = FakeBackend::named("a").held("x").tool("y").start().await;
    let b = FakeBackend::named("b").held("x").tool("y").start().await;
    let proxy = fronting(&[a.url(), b.url()]).await;
    proxy.until_metric("toolgate_catalog_tools{backend=\"r\"}", 2.0).await;
    let running = proxy.modern().start_call("r__x");
    let (call, idle) = tokio::select! { call = a.next_call() => (call, &b), call = b.next_call() => (call, &a) };

    for _ in 0..8 {
        proxy.modern().call("r__y").await.result();
    }

    assert_eq!(called(idle), 8);
    call.finish();
    within(running).await.unwrap().result();
}

#[tokio::test]
async fn modern_clients_go_on_where_a_replica_dies() {
    let (a, b, proxy) = two().await;
    for _ in 0..4 {
        proxy.modern().call("r__x").await.result();
    }
    let (home, other) = (a, b);

    let _away = home.go_away().await;

    // A connection that was kept may be tried first.
    eventually(async || proxy.modern().call("r__x").await.response().get("result").is_some()).await;
    let before = called(&other);
    for _ in 0..8 {
        proxy.modern().call("r__x").await.result();
    }
    assert_eq!(called(&other), before + 8);
}

#[tokio::test]
async fn a_replica_that_dies_with_many_calls_takes_nothing_but_them_away() {
    let (a, b) = (FakeBackend::with_held_tool("a", "x").await, FakeBackend::with_held_tool("b", "x").await);
    let proxy = fronting(&[a.url(), b.url()]).await;
    let (mut running, mut here, mut there) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..8 {
        running.push(proxy.modern().start_call("r__x"));
        tokio::select! {
            call = a.next_call() => here.push(call),
            call = b.next_call() => there.push(call),
        }
    }
    assert_eq!((here.len(), there.len()), (4, 4));

    drop(here);
    let _away = a.go_away().await;
    there.into_iter().for_each(Call::finish);
    let mut lost = 0;
    for call in running {
        lost += usize::from(within(call).await.unwrap().response().get("error").is_some());
    }
    assert_eq!(lost, 4);

    for _ in 0..8 {
        let next = proxy.modern().start_call("r__x");
        b.next_call().await.finish();
        assert_eq!(within(next).await.unwrap().result()["content"], spoken("x")["content"]);
    }
    assert!(!proxy.page("/backends").await.json().to_string().contains("unhealthy"));
}

#[tokio::test]
async fn modern_clients_come_back_to_a_replica_that_was_away() {
    let (a, b, proxy) = two().await;
    let call = async || proxy.modern().call("r__x").await;
    for _ in 0..4 {
        call().await.result();
    }
    let away = b.go_away().await;

    let before = called(&b);
    // One of them finds that it is away, and goes elsewhere in a session that stands in for the one that was there.
    eventually(async || {
        call().await;
        begun(&a) == 2
    })
    .await;
    assert_eq!(called(&b), before);
    b.come_back(away);

    eventually(async || {
        call().await;
        called(&b) > before
    })
    .await;
    assert_eq!((begun(&a), begun(&b)), (2, 2));
    // What stood in is over.
    let own = a.by_gateway("initialize").len() - begun(&a);
    a.until(|a| a.gateway_sessions() <= own + 1).await;
}
