//! Calls whose backend, or client, does not do what it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::backend::{event, spoken};
use crate::support::{FakeBackend, Mood, Process, Setup, TestProxy, never_within, within};

/// Streams of this much are held up somewhere before they are through, unless somebody hoards them. All that sockets buffer
/// on the way is less.
const MUCH: usize = 256 << 20;
/// What sockets and pipes on the way may hold.
const BUFFERED: usize = 32 << 20;
const PIECE: usize = 64 << 10;

#[tokio::test]
async fn a_call_whose_connection_is_closed_is_delivered_once() {
    let backend = FakeBackend::with_tool("a", "pay").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    client.call("a__pay").await.result();

    backend.set_mood(Mood::Closing);
    let answer = client.call("a__pay").await;

    assert!(answer.message().contains("backend `a` closed the connection before it answered"), "{answer:?}");
    assert_eq!(answer.status, 200);
    assert_eq!(backend.calls().len(), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_call() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    for done in 1..=5 {
        assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
        backend.close_idle_connections();
        backend.until(|backend| backend.connections() == 0).await;
        assert_eq!(backend.calls().len(), done);
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    for _ in 0..50 {
        client.call("a__echo").await.result();
    }

    assert!(backend.connections() <= 4, "{} connections", backend.connections());
}

#[tokio::test]
async fn a_backend_that_cannot_be_connected_to_in_time_is_named() {
    let backend = FakeBackend::named("a").tool("echo").short_queue().start().await;
    let proxy = Setup::new().backend(&backend, "timeout: { connect: 300ms }").start().await;
    let client = proxy.client().await;
    client.call("a__echo").await.result();
    let _queued = backend.stop_accepting().await;
    backend.close_idle_connections();
    backend.until(|backend| backend.connections() == 0).await;

    let answer = client.call("a__echo").await;

    assert_eq!(answer.status, 200);
    assert!(answer.message().contains("backend `a` took longer than 0.3s over connecting"), "{answer:?}");
    assert_eq!(answer.error()["data"]["backend"], "a");
}

#[tokio::test]
async fn a_backend_stalled_before_its_headers_is_named() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "timeout: { first_byte: 300ms }").start().await;
    let (running, call) = proxy.client().await.pending_call("a__slow", &backend).await;

    let answer = within(running).await.unwrap();

    assert_eq!((answer.status, answer.code()), (200, 504));
    assert!(answer.message().contains("backend `a` took longer than 0.3s over its first byte"), "{answer:?}");
    within(call.disconnected()).await;
}

#[tokio::test]
async fn a_backend_stalled_after_the_headers_of_json_is_named() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "timeout: { idle: 300ms }").start().await;
    let (running, call) = proxy.client().await.pending_call("a__slow", &backend).await;

    let pieces = call.pieces();
    let answer = within(running).await.unwrap();

    assert!(answer.message().contains("backend `a` took longer than 0.3s over its next byte"), "{answer:?}");
    within(pieces.disconnected()).await;
}

#[tokio::test]
async fn a_backend_stalled_within_json_is_not_taken_for_one_that_ended() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "timeout: { idle: 300ms }").start().await;
    let client = proxy.client().await;

    let (mut opened, pieces) = tokio::join!(client.open_call("a__slow"), async {
        let pieces = backend.next_call().await.pieces();
        pieces.send("{\"jsonrpc\":").await;
        pieces
    });

    assert_eq!(opened.chunk().await.unwrap().unwrap(), "{\"jsonrpc\":");
    assert!(opened.chunk().await.is_err());
    within(pieces.disconnected()).await;
}

#[tokio::test]
async fn a_backend_stalled_within_a_stream_ends_it_with_an_error() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = Setup::new().backend(&backend, "timeout: { idle: 300ms }").start().await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__slow", &backend).await;
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });

    stream.event(&progress).await;
    let first = opened.message().await.unwrap();
    let last = opened.message().await.unwrap();

    assert_eq!(first, progress);
    assert_eq!(last["id"].to_string(), stream.id);
    assert!(last["error"]["message"].as_str().unwrap().contains("backend `a` took longer than 0.3s"), "{last}");
    assert_eq!(opened.message().await, None);
    within(stream.disconnected()).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_ends_with_an_error() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__slow", &backend).await;
    let id = stream.id.clone();

    stream.send("data: {\"jsonrpc\":\"2.0\",\"result\":").await;
    stream.cut().await;
    let mut blocks = Vec::new();
    while let Some(block) = opened.block().await {
        blocks.push(block);
    }

    let last: serde_json::Value = serde_json::from_str(blocks.last().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["id"].to_string(), id);
    assert!(last["error"]["message"].as_str().unwrap().contains("backend `a`"), "{last}");
}

#[tokio::test]
async fn json_that_is_cut_is_not_taken_for_whole() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    let (mut opened, pieces) = tokio::join!(client.open_call("a__slow"), async {
        let pieces = backend.next_call().await.pieces();
        pieces.send("{\"jsonrpc\":").await;
        pieces
    });
    assert_eq!(opened.chunk().await.unwrap().unwrap(), "{\"jsonrpc\":");
    pieces.cut().await;

    assert!(opened.chunk().await.is_err());
}

#[tokio::test]
async fn a_storm_of_messages_arrives_whole_and_in_order() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__slow", &backend).await;

    let writing = async {
        for count in 0..2000 {
            stream.event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": count })).await;
        }
        stream.finish().await;
    };
    let reading = async {
        for count in 0..2000 {
            assert_eq!(opened.message().await.unwrap()["params"], count);
        }
        opened.message().await.unwrap()
    };
    let (last, ()) = tokio::join!(reading, writing);

    assert_eq!(last["result"], spoken("slow"));
}

#[tokio::test]
async fn hundreds_of_calls_at_once_are_all_answered() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let clients = [proxy.client().await, proxy.client().await];

    let calls: Vec<_> = (0..400).map(|i| clients[i % 2].start_call("a__echo")).collect();
    for call in calls {
        assert_eq!(within(call).await.unwrap().result(), spoken("echo"));
    }

    assert_eq!((backend.calls().len(), backend.client_sessions()), (400, 2));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let authority = format!("localhost:{}", backend.address().port());
    backend.goes_by(&authority);

    // Where `localhost` is an IPv6 address first, nobody listens there.
    let proxy = Setup::new().backend_at("a", &format!("http://{authority}/mcp"), "").start().await;

    assert_eq!(proxy.client().await.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn a_stream_that_ends_without_the_answer_gets_an_error_in_its_place() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__slow", &backend).await;
    let id = stream.id.clone();

    stream.send(": nothing to say\n\n").await;
    drop(stream);
    let last = opened.message().await.unwrap();

    assert_eq!(last["id"].to_string(), id);
    assert!(last["error"]["message"].as_str().unwrap().contains("backend `a`"), "{last}");
    assert_eq!(opened.message().await, None);
}

#[tokio::test]
async fn a_notification_too_long_to_be_judged_ends_the_stream_with_an_error() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (mut opened, stream) = proxy.client().await.open_stream("a__slow", &backend).await;
    let params = json!({ "level": "info", "data": "x".repeat(8 << 20) });
    let notification = event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params }));

    let (last, _) = tokio::join!(opened.message(), stream.send(notification));

    let last = last.unwrap();
    assert_eq!(last["id"].to_string(), stream.id);
    assert!(last["error"]["message"].as_str().unwrap().contains("backend `a`"), "{last}");
}

#[tokio::test]
async fn whatever_is_no_answer_is_an_error_that_names_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let html = "<html>secret-host.internal</html>";

    for (status, media_type, body, says) in [
        (200, "text/html", html, "neither JSON nor an event stream"),
        (401, "text/html", html, "refused the gateway's credentials (HTTP 401)"),
        (403, "application/json", "{}", "refused the gateway's credentials (HTTP 403)"),
        (500, "text/html", html, "refused the request (HTTP 500)"),
        (503, "application/json", r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#, "(HTTP 503)"),
        (302, "text/html", html, "(HTTP 302)"),
        (418, "text/html", html, "(HTTP 418)"),
        (202, "text/plain", "", "accepted a request without answering it"),
        (200, "application/json", "", "its answer is empty"),
        (200, "application/json", "[1]", "not a JSON-RPC response"),
        (204, "application/json", "", "its answer is empty"),
    ] {
        let (running, call) = client.pending_call("a__echo", &backend).await;
        call.respond(status, media_type, body);
        let answer = within(running).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.message().contains("backend `a`") && answer.message().contains(says), "{says}: {answer:?}");
        assert!(!answer.message().contains("secret"), "{answer:?}");
    }
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

/// Complaint 3: One bad backend breaks or empties everything.
#[tokio::test]
async fn a_sick_backend_does_not_slow_its_neighbour() {
    let (sick, well) =
        (FakeBackend::with_held_tool("sick", "slow").await, FakeBackend::with_tool("well", "echo").await);
    let proxy = TestProxy::fronting(&[&sick, &well]).await;
    let client = proxy.client().await;
    let mut pending = Vec::new();
    for _ in 0..20 {
        pending.push(client.pending_call("sick__slow", &sick).await);
    }

    for _ in 0..20 {
        assert_eq!(client.call("well__echo").await.result(), spoken("echo"));
    }

    assert!(pending.iter().all(|(running, _)| !running.is_finished()));
}

/// Writes [`MUCH`] as one call's stream and counts what is taken.
fn flood(stream: crate::support::CallStream) -> (Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&taken);
    let flooding = tokio::spawn(async move {
        let piece = event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": "x".repeat(PIECE) }));
        while counting.load(Ordering::Relaxed) < MUCH && stream.send(piece.clone()).await {
            counting.fetch_add(piece.len(), Ordering::Relaxed);
        }
        stream.finish().await;
    });
    (taken, flooding)
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_backend_up() {
    let backend = FakeBackend::with_held_tool("a", "flood").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (opened, stream) = proxy.client().await.open_stream("a__flood", &backend).await;

    let (taken, mut flooding) = flood(stream);
    never_within(Duration::from_secs(1), &mut flooding).await;
    let held_up_at = taken.load(Ordering::Relaxed);
    drop(opened);

    assert!(held_up_at < BUFFERED, "{held_up_at} bytes were taken");
    within(flooding).await.unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_is_left_after_a_while() {
    let backend = FakeBackend::with_held_tool("a", "flood").await;
    let proxy = Setup::fronting(&[&backend]).listener("timeout: { write: 500ms }").start().await;
    let (_opened, stream) = proxy.client().await.open_stream("a__flood", &backend).await;
    let piece = event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": "x".repeat(PIECE) }));

    let flooding = async {
        loop {
            stream.send(piece.clone()).await;
            // A gateway that has left takes everything at once, and whoever waits for that has to get a turn.
            tokio::task::yield_now().await;
        }
    };

    within(async {
        tokio::select! {
            () = flooding => {}
            () = stream.disconnected() => {}
        }
    })
    .await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

#[tokio::test]
async fn an_answer_of_64_mb_passes_without_being_held() {
    let backend = FakeBackend::with_held_tool("a", "dump").await;
    let gateway = Process::start(&Setup::fronting(&[&backend])).await;
    let client = gateway.client().await;
    let before = gateway.peak_memory();

    let (mut opened, pieces) = tokio::join!(client.open_call("a__dump"), async {
        let pieces = backend.next_call().await.pieces();
        pieces.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":\"", pieces.id)).await;
        pieces
    });
    let writing = async {
        for _ in 0..1024 {
            pieces.send(vec![b'x'; PIECE]).await;
        }
        pieces.send("\"}").await;
        drop(pieces);
    };
    let reading = async {
        let mut read = 0;
        while let Some(chunk) = opened.chunk().await.unwrap() {
            read += chunk.len();
        }
        read
    };
    let (read, ()) = within(async { tokio::join!(reading, writing) }).await;

    assert!(read > 64 << 20, "{read} bytes");
    let grown = gateway.peak_memory() - before;
    assert!(grown < 32 << 20, "{grown} bytes more");
}
