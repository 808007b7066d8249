//! Versions of HTTP, and which headers cross the gateway.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::backend::spoken;
use crate::support::wire::Http2;
use crate::support::{FakeBackend, Raw, Setup, TestProxy, never_within, within};

async fn h2c(proxy: &TestProxy) -> Http2 {
    Http2::over(within(TcpStream::connect(proxy.address())).await.unwrap()).await
}

#[tokio::test]
async fn http_2_without_tls_is_served_by_prior_knowledge() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);

    let call = client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__echo" })));
    let answer = h2.send(call).await;
    let refused = h2.send(client.with_header("content-type", "x/y").request(Method::POST, "{}")).await;
    let ended = h2.send(client.request(Method::DELETE, "")).await;

    assert_eq!(answer.result(), spoken("echo"));
    assert_eq!((refused.status, ended.status), (415, 204));
    assert_eq!(answer.header("connection"), "");
}

#[tokio::test]
async fn http_2_carries_streams_and_calls_side_by_side() {
    let backend = FakeBackend::named("a").held("slow").tool("echo").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);
    let call = |tool: &str| client.request(Method::POST, client.message("tools/call", &json!({ "name": tool })));

    let (slow, stream) = tokio::join!(h2.open(call("a__slow")), async { backend.next_call().await.stream() });
    stream.send(": begun\n\n").await;
    let mut slow = slow.into_body();
    let first = within(slow.frame()).await.unwrap().unwrap().into_data().unwrap();
    let echo = h2.send(call("a__echo")).await;
    stream.finish().await;
    let rest = within(slow.collect()).await.unwrap().to_bytes();

    assert_eq!(first, ": begun\n\n");
    assert_eq!(echo.result(), spoken("echo"));
    assert!(rest.starts_with(b"data: {") && rest.ends_with(b"\n\n"), "{rest:?}");
}

#[tokio::test]
async fn a_stream_reset_by_an_http_2_client_is_seen_by_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);
    let call = || client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__slow" })));

    let (opened, stream) = tokio::join!(h2.open(call()), async { backend.next_call().await.stream() });
    drop(opened);
    within(stream.disconnected()).await;
    let pending = tokio::spawn({
        let (h2, call) = (h2c(&proxy).await, call());
        async move { h2.send(call).await }
    });
    let held = backend.next_call().await;
    pending.abort();

    within(held.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
}

#[tokio::test]
async fn http_2_obeys_the_same_rules() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("max_body: 64KiB").start().await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);
    let call = |length: usize| {
        let message = |pad: &str| json!({ "name": "a__echo", "arguments": { "pad": pad } });
        let empty = client.message("tools/call", &message("")).len();
        client.request(Method::POST, client.message("tools/call", &message(&"x".repeat(length - empty))))
    };

    let fits = h2.send(call(64 << 10)).await;
    let too_long = h2.send(call((64 << 10) + 3)).await;
    let elsewhere = client.with_header("host", "evil.example");
    let forbidden = h2.send(elsewhere.request(Method::POST, "{}")).await;
    let not_allowed = h2.send(client.request(Method::PUT, "{}")).await;

    assert_eq!(fits.result(), spoken("echo"));
    assert_eq!((too_long.status, forbidden.status, not_allowed.status), (413, 403, 405));
    assert_eq!(h2.send(call(1000)).await.result(), spoken("echo"));
}

#[tokio::test]
async fn a_body_that_drips_over_http_2_is_given_up_on() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("timeout: { body: 300ms }").start().await;
    let stream = within(TcpStream::connect(proxy.address())).await.unwrap();
    let (mut sender, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}/mcp", proxy.address()));
    let request = request.header("content-type", "application/json").body(()).unwrap();

    let (answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data("{".into(), false).unwrap();

    // The head of a refusal, or the stream reset.
    let status = within(answer).await.map(|answer| answer.status().as_u16());
    assert!(status.as_ref().map_or(true, |status| *status == 408), "{status:?}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_its_backend_but_not_its_connection() {
    let backend = FakeBackend::named("a").held("flood").tool("echo").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);
    let call = |tool: &str| client.request(Method::POST, client.message("tools/call", &json!({ "name": tool })));
    let (opened, stream) = tokio::join!(h2.open(call("a__flood")), async { backend.next_call().await.stream() });
    let piece = format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "method": "x", "params": "x".repeat(64 << 10) }));

    let mut taken = 0;
    let flooding = async {
        while stream.send(piece.clone()).await {
            taken += piece.len();
        }
    };
    never_within(Duration::from_secs(1), flooding).await;

    assert!(taken < 32 << 20, "{taken} bytes were taken");
    assert_eq!(h2.send(call("a__echo")).await.result(), spoken("echo"));
    drop(opened);
    within(stream.disconnected()).await;
}

#[tokio::test]
async fn connections_with_something_under_way_are_not_idle() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy =
        Setup::fronting(&[&backend]).listener("timeout: { idle: 600ms, header: 600ms, body: 600ms }").start().await;
    let (client, h2) = (proxy.client().await, h2c(&proxy).await);
    let call = || client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__slow" })));
    let mut own = client.listen().await;
    let news = h2.open(client.request(Method::GET, "")).await;
    let (by_h2, first) = tokio::join!(h2.open(call()), async { backend.next_call().await.stream() });
    let (by_h1, second) = client.pending_call("a__slow", &backend).await;

    never_within(Duration::from_secs(2), async { tokio::join!(first.disconnected(), second.disconnected()) }).await;
    never_within(Duration::from_millis(100), own.chunk()).await;
    first.finish().await;
    second.finish();

    assert!(within(by_h2.into_body().collect()).await.unwrap().to_bytes().starts_with(b"data: {"));
    assert_eq!(within(by_h1).await.unwrap().result(), spoken("slow"));
    assert_eq!(h2.send(client.request(Method::POST, client.message("ping", &json!({})))).await.result(), json!({}));
    drop(news);
}

#[tokio::test]
async fn ipv6_is_served() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listening_on("[::1]:0").start().await;

    assert!(proxy.address().is_ipv6());
    assert_eq!(proxy.client().await.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let backend = FakeBackend::named("a").tool("echo").held("slow").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let session = proxy.client().await.session.unwrap();
    let post = |raw: &Raw, id: u32, tool: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
        let head = raw.head().replace("HTTP/1.1", "HTTP/1.0");
        format!("{head}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };

    let mut raw = Raw::connect(proxy.address()).await;
    raw.write(post(&raw, 31, "a__echo")).await;
    let json = raw.response().await;
    let mut raw = Raw::connect(proxy.address()).await;
    raw.write(post(&raw, 32, "a__slow")).await;
    backend.next_call().await.stream().finish().await;
    let events = raw.response().await;

    assert_eq!(json.json()["result"], spoken("echo"));
    assert_eq!(events.header("transfer-encoding"), "");
    assert!(events.body.starts_with(b"data: {\"jsonrpc\""), "{events:?}");
}

#[tokio::test]
async fn requests_sent_ahead_do_no_harm() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let session = client.session.clone().unwrap();
    let mut raw = Raw::connect(proxy.address()).await;
    let post = |id: u32, extra: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        format!("{}Mcp-Session-Id: {session}\r\n{extra}Content-Length: {}\r\n\r\n{body}", raw.head(), body.len())
    };
    let three = post(41, "") + &post(42, "") + &post(43, "Connection: close\r\n");

    raw.write(three).await;
    let first = raw.response().await;
    // Those behind it are answered in order, or the connection is closed; nothing in between.
    let rest = String::from_utf8(raw.rest().await).unwrap();

    assert_eq!(first.json()["id"], 41);
    let ids: Vec<_> = rest.match_indices("\"id\":4").map(|(at, _)| &rest[at + 5..at + 7]).collect();
    assert!(["42", "43"].starts_with(&ids), "{rest}");
    assert_eq!(client.call("a__echo").await.result(), spoken("echo"));
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let session = proxy.client().await.session.unwrap();
    let mut raw = Raw::connect(proxy.address()).await;

    for id in 100..110 {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a__echo"}}}}"#);
        raw.write(format!("{}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}", raw.head(), body.len()))
            .await;
        let answer = raw.response().await;
        assert_eq!((&answer.json()["id"], &answer.json()["result"]), (&id.into(), &spoken("echo")));
    }

    assert_eq!(backend.calls().len(), 10);
}

#[tokio::test]
async fn nothing_of_the_clients_headers_reaches_a_backend() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    let secrets = [
        ("authorization", "Bearer client"),
        ("cookie", "a=b"),
        ("origin", "http://localhost"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("te", "trailers"),
        ("x-custom", "mine"),
        ("last-event-id", "9"),
        ("user-agent", "tester/1"),
        ("proxy-authorization", "Basic x"),
    ];

    let loud = secrets.iter().fold(client.clone(), |client, (name, value)| client.with_header(name, value));
    loud.call("a__echo").await.result();

    let call = backend.only_call();
    for (name, value) in secrets {
        assert!(!call.headers.get_all(name).iter().any(|found| found == value), "{name}: {:?}", call.headers);
    }
    assert_ne!(call.session, client.session);
    assert_eq!(call.headers["host"].to_str().unwrap(), backend.address().to_string());
    assert_eq!(call.headers["accept-encoding"], "identity");
}

#[tokio::test]
async fn configured_headers_are_sent_with_every_request() {
    let backend = FakeBackend::named("a").tool("echo").streams().takes_header("authorization").start().await;
    let headers = "headers: { Authorization: \"Bearer ours\", X-Tenant: { value: blue } }";
    let proxy = Setup::new().backend(&backend, headers).start().await;
    let client = proxy.client().await;

    client.with_header("authorization", "Bearer client").call("a__echo").await.result();
    client.delete().await;
    backend.until(|backend| backend.client_sessions() == 0).await;
    backend.until(FakeBackend::is_heard).await;

    for seen in backend.seen() {
        assert_eq!(seen.headers["authorization"], "Bearer ours", "{seen:?}");
        assert_eq!(seen.headers["x-tenant"], "blue", "{seen:?}");
    }
}

#[tokio::test]
async fn nothing_of_a_backends_headers_reaches_the_client() {
    let backend = FakeBackend::named("a")
        .tool("echo")
        .held("slow")
        .sends_header("set-cookie", "a=b")
        .sends_header("server", "secret/1")
        .sends_header("x-powered-by", "secret")
        .sends_header("access-control-allow-origin", "*")
        .sends_header("www-authenticate", "Bearer")
        .sends_header("connection", "keep-alive, x-hop")
        .sends_header("keep-alive", "timeout=99")
        .sends_header("x-hop", "1")
        .sends_header("retry-after", "99")
        .sends_header("x-request-id", "theirs")
        .start()
        .await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    let answer = client.call("a__echo").await;
    let (opened, stream) = client.open_stream("a__slow", &backend).await;
    let streamed = opened.headers.clone();
    stream.finish().await;
    opened.whole().await;

    for headers in [&answer.headers, &streamed] {
        for name in [
            "set-cookie",
            "server",
            "x-powered-by",
            "access-control-allow-origin",
            "www-authenticate",
            "mcp-session-id",
        ] {
            assert!(!headers.contains_key(name), "{name}: {headers:?}");
        }
    }
}

#[tokio::test]
async fn a_request_sent_ahead_does_not_end_the_call_before_it() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let session = proxy.client().await.session.unwrap();
    let mut raw = Raw::connect(proxy.address()).await;
    let post =
        |body: &str| format!("{}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}", raw.head(), body.len());
    let call = post(r#"{"jsonrpc":"2.0","id":51,"method":"tools/call","params":{"name":"a__slow"}}"#);
    let ping = post(r#"{"jsonrpc":"2.0","id":52,"method":"ping"}"#);

    raw.write(call).await;
    let held = backend.next_call().await;
    raw.write(ping).await;
    never_within(Duration::from_millis(300), held.disconnected()).await;
    held.finish();

    assert_eq!(raw.response().await.json()["result"], spoken("slow"));
}
