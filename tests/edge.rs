//! What HTTP and MCP demand of a request before its message counts: path, verb, host, origin, types, sizes, deadlines.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::interval;

use crate::support::backend::spoken;
use crate::support::{Client, FakeBackend, Raw, Setup, TestProxy, never_within, within};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A call of `a__echo` that is exactly this long.
fn call_of(length: usize, id: u32) -> String {
    let start = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a__echo","arguments":{{"pad":""#
    );
    let end = r#""}}}"#;
    let pad = "x".repeat(length - start.len() - end.len());
    start + &pad + end
}

fn chunked(body: &str) -> String {
    let (first, second) = body.split_at(body.len() / 3);
    format!("{:x}\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len())
}

async fn echo() -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    (backend, proxy)
}

#[tokio::test]
async fn verbs_that_mean_nothing_here_are_told_which_do() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for verb in [Method::PUT, Method::PATCH, Method::OPTIONS, Method::HEAD, Method::TRACE] {
        let answer = client.send(client.request(verb.clone(), "")).await;
        assert_eq!(answer.status, 405, "{verb}");
        let allowed: Vec<_> = answer.header("allow").split(", ").collect();
        assert!(["GET", "POST", "DELETE"].iter().all(|verb| allowed.contains(verb)), "{answer:?}");
    }
}

#[tokio::test]
async fn only_one_path_is_served() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("path: /tools/mcp").start().await;
    let client = proxy.stranger();
    let at = |path: &str| {
        let mut request = client.request(Method::POST, PING);
        *request.uri_mut() = path.parse().unwrap();
        request
    };

    for path in
        ["/", "/mcp", "/tools/mcp/", "/tools/mcp/x", "/tools/mc%70", "/metrics", "/readyz", "/reload", "/config"]
    {
        assert_eq!(client.send(at(path)).await.status, 404, "{path}");
    }

    assert_eq!(client.send(at("/tools/mcp")).await.status, 400);
    assert_eq!(client.send(at("/tools/mcp?x=1")).await.status, 400);
}

#[tokio::test]
async fn hosts_and_origins_of_others_are_forbidden() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for (name, value) in [
        ("host", "evil.example"),
        ("host", "localhost.evil.example"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost.evil.example"),
    ] {
        for verb in [Method::POST, Method::GET, Method::DELETE] {
            let asking = client.with_header(name, value);
            let answer = asking.send(asking.request(verb.clone(), PING)).await;
            assert_eq!(answer.status, 403, "{verb} {name}: {value}");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    }

    for (name, value) in [("host", "localhost:99"), ("host", "[::1]"), ("origin", "http://localhost:5173")] {
        assert_eq!(client.with_header(name, value).post(PING).await.status, 200, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let (_backend, proxy) = echo().await;
    let mut raw = Raw::connect(proxy.address()).await;

    raw.write("POST /mcp HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}").await;

    assert_eq!(raw.response().await.status, 400);
}

#[tokio::test]
async fn a_host_in_the_request_line_outranks_the_header() {
    let (_backend, proxy) = echo().await;
    let session = proxy.client().await.session.unwrap();
    let asked = async |url: &str| {
        let mut raw = Raw::connect(proxy.address()).await;
        let head = raw.head().replacen("/mcp", url, 1);
        raw.write(format!("{head}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{PING}", PING.len())).await;
        raw.response().await.status
    };

    assert!(matches!(asked("http://evil.example/mcp").await, 400 | 403));
    assert_eq!(asked(&format!("http://{}/mcp", proxy.address())).await, 200);
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_called_nothing() {
    let (backend, proxy) = echo().await;
    let session = proxy.client().await.session.unwrap();
    let body = call_of(1000, 40);

    let mut raw = Raw::connect(proxy.address()).await;
    raw.write(format!("{}Mcp-Session-Id: {session}\r\nContent-Length: 1001\r\n\r\n{body}", raw.head())).await;
    drop(raw);
    let mut raw = Raw::connect(proxy.address()).await;
    raw.write(format!(
        "{}Mcp-Session-Id: {session}\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n",
        raw.head()
    ))
    .await;
    drop(raw);

    proxy.until_metric(&format!("toolgate_connections{{listener=\"{}\"}}", proxy.address()), 0.0).await;
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn a_client_that_leaves_has_left_whatever_it_sent_ahead() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let session = proxy.client().await.session.unwrap();
    let call = |raw: &Raw, id: usize| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"a__x"}}}}"#);
        format!("{}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}", raw.head(), body.len())
    };

    for (n, ahead) in ["P", "POST /mcp HT", &"x".repeat(20_000)].into_iter().enumerate() {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(format!("{}{ahead}", call(&raw, 20 + n))).await;
        let pending = backend.next_call().await;
        drop(raw);
        within(pending.disconnected()).await;
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(call(&raw, 30 + n)).await;
        let stream = backend.next_call().await.stream();
        stream.send(": begun\n\n").await;
        raw.write(ahead).await;
        drop(raw);
        within(stream.disconnected()).await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_told_so() {
    let (backend, proxy) = echo().await;
    let session = proxy.client().await.session.unwrap();
    let endless = format!("0\r\n{}", "x: y\r\n".repeat(10_000));
    for chunks in ["zz\r\n", "ffffffffffffffffff\r\n", "2\r\n{}XX", "2\n{}\n0\n\n", &endless] {
        let mut raw = Raw::connect(proxy.address()).await;
        let head = raw.head();
        raw.write(format!("{head}Mcp-Session-Id: {session}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 400, "{chunks:.20}: {answer:?}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().contains("chunks"), "{answer:?}");
    }
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn types_that_do_not_fit_are_refused() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;
    let both = "application/json, text/event-stream";

    for (verb, content_type, accept, status) in [
        (Method::POST, "text/plain", both, 415),
        (Method::POST, "", both, 415),
        (Method::POST, "application/jsonx", both, 415),
        (Method::POST, "application/json", "application/json", 406),
        (Method::POST, "application/json", "text/event-stream", 406),
        (Method::POST, "application/json", "text/html", 406),
        (Method::GET, "application/json", "application/json", 406),
        (Method::POST, "Application/JSON; charset=utf-8", "text/*, application/json;q=0.1", 200),
        (Method::POST, "application/json", "*/*", 200),
    ] {
        let asking = client.with_header("content-type", content_type).with_header("accept", accept);
        let answer = asking.open(asking.request(verb, PING)).await;
        assert_eq!(answer.status, status, "{content_type} | {accept}");
    }
}

#[tokio::test]
async fn bodies_as_long_as_allowed_pass_however_they_are_framed() {
    let (backend, proxy) = echo().await;
    let session = format!("Mcp-Session-Id: {}\r\n", proxy.client().await.session.unwrap());
    let cap = 4 << 20;
    let bodies = [call_of(cap, 21), call_of(cap, 22), call_of(cap, 23)];
    let mut raw = Raw::connect(proxy.address()).await;

    raw.write(format!("{}{session}Content-Length: {cap}\r\n\r\n{}", raw.head(), bodies[0])).await;
    let by_length = raw.response().await;
    raw.write(format!("{}{session}Transfer-Encoding: chunked\r\n\r\n{}", raw.head(), chunked(&bodies[1]))).await;
    let by_chunks = raw.response().await;
    raw.write(format!("{}{session}Expect: 100-continue\r\nContent-Length: {cap}\r\n\r\n", raw.head())).await;
    let go_on = raw.response().await;
    raw.write(&bodies[2]).await;
    let expected = raw.response().await;

    assert_eq!(go_on.status, 100);
    for answer in [by_length, by_chunks, expected] {
        assert_eq!(answer.json()["result"], spoken("echo"));
    }
    let arrived: Vec<_> = backend.calls().iter().map(|call| call.body.len() + "a__".len()).collect();
    assert_eq!(arrived, [cap; 3]);
}

#[tokio::test]
async fn bodies_a_byte_too_long_are_refused_however_they_are_framed() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("max_body: 64KiB").start().await;
    let session = format!("Mcp-Session-Id: {}\r\n", proxy.client().await.session.unwrap());
    let length = (64 << 10) + 1;
    let body = call_of(length, 21);

    for (framing, body) in [
        (format!("Content-Length: {length}\r\n"), body.clone()),
        ("Content-Length: 99999999999\r\n".to_owned(), String::new()),
        (format!("Expect: 100-continue\r\nContent-Length: {length}\r\n"), String::new()),
        ("Transfer-Encoding: chunked\r\n".to_owned(), chunked(&body)),
        ("Transfer-Encoding: chunked\r\n".to_owned(), chunked(&call_of(4 << 20, 22))),
    ] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(format!("{}{session}{framing}\r\n{body}", raw.head())).await;
        assert_eq!(raw.response().await.status, 413, "{framing}");
    }

    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn a_body_that_drips_is_given_up_on() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("timeout: { body: 300ms }").start().await;
    let mut raw = Raw::connect(proxy.address()).await;
    let mut drip = interval(Duration::from_millis(50));

    raw.write(format!("{}Content-Length: {}\r\n\r\n", raw.head(), PING.len() * 1000)).await;
    for byte in PING.bytes().take(10) {
        drip.tick().await;
        raw.write([byte]).await;
    }
    let answer = raw.response().await;

    assert_eq!(answer.status, 408);
    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn a_head_that_drips_is_given_up_on() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("timeout: { header: 300ms }").start().await;
    let mut raw = Raw::connect(proxy.address()).await;
    let mut drip = interval(Duration::from_millis(50));

    let head = raw.head();
    for byte in head.bytes().take(10) {
        drip.tick().await;
        raw.write([byte]).await;
    }
    let rest = raw.rest().await;

    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_closed() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let timeout = "timeout: { header: 300ms, idle: 1s }";
    let proxy = Setup::fronting(&[&backend]).listener(timeout).start().await;
    let session = proxy.client().await.session.unwrap();
    let mut raw = Raw::connect(proxy.address()).await;

    raw.write(format!("{}Mcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{PING}", raw.head(), PING.len())).await;
    assert_eq!(raw.response().await.status, 200);

    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn a_connection_that_never_says_anything_is_closed() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let timeout = "timeout: { header: 300ms, idle: 1s }";
    let proxy = Setup::fronting(&[&backend]).listener(timeout).start().await;

    for start in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(start).await;
        let rest = raw.rest().await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{start:?}: {}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (_backend, proxy) = echo().await;
    let mut raw = Raw::connect(proxy.address()).await;

    raw.write(format!("{}X-Long: {}\r\nContent-Length: 0\r\n\r\n", raw.head(), "x".repeat(2 << 20))).await;
    let answer = raw.response().await;

    assert!(matches!(answer.status, 400 | 431), "{answer:?}");
    assert_eq!(proxy.client().await.post(PING).await.status, 200);
}

#[tokio::test]
async fn a_head_beyond_a_cap_is_told_which() {
    let (_backend, proxy) = echo().await;
    let long = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    let many: String = (0..200).map(|number| format!("X-{number}: x\r\n")).collect();

    for (headers, says) in [(long, "head is larger than 65536 bytes"), (many, "more than 128 header fields")] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(format!("{}{headers}Content-Length: 0\r\n\r\n", raw.head())).await;
        let answer = raw.response().await;

        let message = answer.json()["error"]["message"].to_string();
        assert_eq!(answer.status, 431, "{answer:?}");
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn a_body_that_is_encoded_is_refused_with_what_would_be_read() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    let refused = client.with_header("content-encoding", "gzip").post("\u{1f}not JSON").await;

    assert_eq!((refused.status, refused.code(), refused.header("accept-encoding")), (415, 415, "identity"));
    assert!(refused.message().contains("`Content-Encoding`"), "{refused:?}");
    assert_eq!(client.with_header("content-encoding", "identity").post(PING).await.status, 200);
    let other = client.with_header("content-type", "text/plain").post(PING).await;
    assert_eq!((other.status, other.header("accept-encoding")), (415, ""), "it is not about the encoding");
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let (_backend, proxy) = echo().await;

    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]
    {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(garbage).await;
        raw.write([b'\n'; 64]).await;
        let rest = raw.rest().await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(proxy.client().await.post(PING).await.status, 200);
}

#[tokio::test]
async fn framing_that_readers_disagree_on_is_refused() {
    let (backend, proxy) = echo().await;
    let session = format!("Mcp-Session-Id: {}\r\n", proxy.client().await.session.unwrap());
    let body = call_of(200, 30);
    let smuggled =
        format!("{}{session}Content-Length: {}\r\n\r\n{body}", Raw::connect(proxy.address()).await.head(), body.len());

    for framing in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
        "Content-Length: +5\r\n",
    ] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(format!("{}{session}{framing}\r\n0\r\n\r\n{smuggled}", raw.head())).await;
        let first = raw.response().await;
        assert_ne!(first.status, 200, "{framing}: {first:?}");
    }

    assert!(backend.calls().is_empty(), "a smuggled call arrived");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call() {
    let (_backend, proxy) = echo().await;
    let page = proxy.stranger().with_header("origin", "http://localhost:5173");
    let mut preflight = page
        .with_header("access-control-request-method", "POST")
        .with_header("access-control-request-headers", "content-type, mcp-session-id")
        .request(Method::OPTIONS, "");
    preflight.headers_mut().remove("accept");

    let allowed = page.send(preflight).await;
    let initialized = page.initialize("2025-11-25").await;

    assert_eq!(allowed.status, 204);
    let headers = allowed.header("access-control-allow-headers").to_ascii_lowercase();
    for name in
        ["content-type", "accept", "mcp-session-id", "mcp-protocol-version", "last-event-id", "mcp-method", "mcp-name"]
    {
        assert!(headers.split(", ").any(|allowed| allowed == name), "{name}: {headers}");
    }
    assert!(allowed.header("access-control-allow-methods").contains("DELETE"));
    for answer in [&allowed, &initialized] {
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:5173");
        assert_eq!(answer.header("vary"), "Origin");
    }
    assert!(initialized.header("access-control-expose-headers").contains("Mcp-Session-Id"));
}

#[tokio::test]
async fn refusals_can_be_read_by_pages_of_allowed_origins() {
    let (_backend, proxy) = echo().await;
    let page = proxy.stranger().with_header("origin", "http://localhost:5173");

    for answer in
        [page.post(PING).await, page.post("{").await, page.with_header("content-type", "x/y").post(PING).await]
    {
        assert!(answer.status >= 400);
        assert_eq!(answer.header("access-control-allow-origin"), "http://localhost:5173", "{answer:?}");
    }
}

#[tokio::test]
async fn the_same_answer_without_an_origin_allows_none() {
    let (_backend, proxy) = echo().await;

    let answer = proxy.stranger().initialize("2025-11-25").await;

    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")), "{answer:?}");
}

const TWO_IN_AN_HOUR: &str = "[{ name: ips, tools: [\"*\"], key: ip, rate: 1/h, refusal: http }]";

/// The statuses of a call for each of these clients, as a proxy in front tells of them.
async fn called_for(client: &Client, forwarded: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for line in forwarded {
        statuses.push(client.with_header("x-forwarded-for", line).call("a__echo").await.status);
    }
    statuses
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let setup = Setup::fronting(&[&backend]).section("limits", TWO_IN_AN_HOUR);
    let proxy = setup.listener("trusted_proxies: [\"127.0.0.0/8\"]").start().await;

    let lines = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "6.6.6.6, 192.0.2.2", "192.0.2.3, 127.0.0.9", "192.0.2.3"];
    let statuses = called_for(&proxy.client().await, &lines).await;

    assert_eq!(statuses, [200, 200, 429, 429, 200, 429]);
}

#[tokio::test]
async fn anybody_else_cannot_choose_an_address() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let setup = Setup::fronting(&[&backend]).section("limits", TWO_IN_AN_HOUR);
    let proxy = setup.listener("trusted_proxies: [\"10.0.0.0/8\"]").start().await;

    let statuses = called_for(&proxy.client().await, &["192.0.2.1", "192.0.2.2", "10.0.0.1"]).await;

    assert_eq!(statuses, [200, 429, 429]);
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_their_turn() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = Setup::fronting(&[&backend]).listener("max_connections: 2").start().await;
    let client = proxy.client().await;
    let (first, second) = (client.listen().await, client.listen().await);

    let mut third = tokio::spawn(async move { client.call_with("a__echo", json!({})).await });
    never_within(Duration::from_millis(300), &mut third).await;
    drop(first);

    assert_eq!(within(third).await.unwrap().result(), spoken("echo"));
    drop(second);
}
