//! TLS towards clients, and towards backends.

use std::path::Path;

use http::Method;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tempfile::TempDir;

use crate::support::backend::spoken;
use crate::support::certificates::{Certificate, Handshake, TlsDoor};
use crate::support::wire::{Http2, http1};
use crate::support::{FakeBackend, Raw, Setup, TestProxy, eventually, within};

/// A gateway that shows these certificates.
async fn showing(backend: &FakeBackend, certificates: &[&Certificate]) -> (TestProxy, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let written: Vec<_> =
        certificates.iter().enumerate().map(|(i, one)| one.write(folder.path(), &i.to_string())).collect();
    let tls = format!("tls: {{ certificates: [{}] }}", written.join(", "));
    (Setup::fronting(&[backend]).listener(&tls).start().await, folder)
}

/// A session, by HTTP/1.1 over a connection of its own.
async fn started(proxy: &TestProxy, trusts: &Certificate) -> crate::support::Client {
    let handshake = Handshake { trusts: &[trusts], name: "localhost", versions: &[&TLS13], alpn: &[] };
    let stranger = proxy.stranger();
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let initialize = stranger.request(Method::POST, stranger.message("initialize", &params));
    stranger.in_session_of(&http1(handshake.connect(proxy.address()).await.unwrap(), initialize).await)
}

#[tokio::test]
async fn both_versions_of_tls_carry_both_versions_of_http() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let certificate = Certificate::of("localhost");
    let (proxy, _folder) = showing(&backend, &[&certificate]).await;
    let client = started(&proxy, &certificate).await;
    let call = || client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__x" })));

    for version in [&TLS12, &TLS13] {
        for (alpn, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1"), (&[], "")] {
            let handshake = Handshake { trusts: &[&certificate], name: "localhost", versions: &[version], alpn };
            let stream = handshake.connect(proxy.address()).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol().unwrap_or_default(), agreed.as_bytes());
            let answer = match agreed {
                "h2" => Http2::over(stream).await.send(call()).await,
                _ => http1(stream, call()).await,
            };
            assert_eq!(answer.result(), spoken("x"), "{version:?} {agreed}");
        }
    }
}

#[tokio::test]
async fn the_certificate_is_picked_by_the_name_that_the_client_asks_for() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let certificates =
        [Certificate::of("one.example"), Certificate::of("two.example"), Certificate::of("*.many.example")];
    let (proxy, _folder) = showing(&backend, &certificates.each_ref()).await;
    let shown = async |name: &'static str, trusts: &Certificate| {
        let handshake = Handshake { trusts: &[trusts], name, versions: &[&TLS13], alpn: &[] };
        handshake.connect(proxy.address()).await.is_ok()
    };

    assert!(shown("one.example", &certificates[0]).await);
    assert!(shown("two.example", &certificates[1]).await);
    assert!(shown("TWO.example", &certificates[1]).await);
    assert!(shown("x.many.example", &certificates[2]).await);
    assert!(!shown("two.example", &certificates[0]).await);
    assert!(!shown("other.example", &certificates[1]).await);
}

#[tokio::test]
async fn a_stream_reset_over_tls_is_seen_by_the_backend() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let certificate = Certificate::of("localhost");
    let (proxy, _folder) = showing(&backend, &[&certificate]).await;
    let client = started(&proxy, &certificate).await;
    let handshake = Handshake { trusts: &[&certificate], name: "localhost", versions: &[&TLS13], alpn: &["h2"] };
    let h2 = Http2::over(handshake.connect(proxy.address()).await.unwrap()).await;
    let call = client.request(Method::POST, client.message("tools/call", &json!({ "name": "a__x" })));

    let (opened, stream) = tokio::join!(h2.open(call), async { backend.next_call().await.stream() });
    drop(opened);

    within(stream.disconnected()).await;
}

#[tokio::test]
async fn plain_http_to_a_tls_listener_does_no_harm() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let certificate = Certificate::of("localhost");
    let (proxy, _folder) = showing(&backend, &[&certificate]).await;
    let mut raw = Raw::connect(proxy.address()).await;

    raw.write(raw.head() + "Content-Length: 0\r\n\r\n").await;
    let rest = raw.rest().await;

    assert!(!rest.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&rest));
    started(&proxy, &certificate).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_on() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of("localhost"));
    let pair = certificate.write(folder.path(), "tls");
    let keys = format!("timeout: {{ handshake: 300ms }}, tls: {{ certificates: [{pair}] }}");
    let proxy = Setup::fronting(&[&backend]).listener(&keys).start().await;

    for start in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let mut raw = Raw::connect(proxy.address()).await;
        raw.write(start).await;
        raw.rest().await;
    }
}

/// What a backend's `tls` says about whom it trusts.
fn trusting(folder: &Path, certificate: &Certificate, name: &str) -> String {
    certificate.write(folder, name);
    format!("ca: \"{}\", server_name: {name}", folder.join(format!("{name}.crt")).display())
}

#[tokio::test]
async fn a_backend_behind_tls_is_called_when_its_certificate_is_trusted() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of("mcp.internal"));
    let door = TlsDoor::in_front_of(&backend, &certificate, None).await;
    let tls = format!("tls: {{ {} }}", trusting(folder.path(), &certificate, "mcp.internal"));

    let proxy = Setup::new().backend_at("a", &door.url(), &tls).start().await;

    assert_eq!(proxy.client().await.call("a__x").await.result(), spoken("x"));
    let days = proxy.page("/backends").await.json()["backends"][0]["certificateForDays"].as_u64();
    let expires = proxy.metric("toolgate_backend_certificate_not_after_timestamp_seconds{backend=\"a\"}").await;
    // Of the year 4096.
    assert!(days.is_some_and(|days| days > 700_000), "{days:?}");
    assert_eq!(expires, Some(67_090_118_400.0));
}

#[tokio::test]
async fn the_certificate_of_an_event_stream_of_2024_is_known_too() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of("mcp.internal"));
    let door = TlsDoor::in_front_of(&backend, &certificate, None).await;
    let keys = format!("transport: sse, tls: {{ {} }}", trusting(folder.path(), &certificate, "mcp.internal"));

    let proxy = Setup::new().backend_at("a", &door.url(), &keys).start().await;

    // That there is no such stream at its URL is known only past the handshake.
    let days = async || proxy.page("/backends").await.json()["backends"][0]["certificateForDays"].as_u64();
    eventually(async || days().await.is_some_and(|days| days > 700_000)).await;
}

#[tokio::test]
async fn a_backend_that_cannot_be_trusted_is_not_called() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of("mcp.internal"));
    let door = TlsDoor::in_front_of(&backend, &certificate, None).await;
    let other = trusting(folder.path(), &Certificate::of("mcp.internal"), "mcp.internal");
    let misnamed = trusting(folder.path(), &certificate, "other.internal");

    let setup = Setup::new()
        .backend_at("stranger", &door.url(), &format!("tls: {{ {other} }}"))
        .backend_at("misnamed", &door.url(), &format!("tls: {{ {misnamed} }}"))
        .backend_at("unknown", &door.url(), "tls: { server_name: mcp.internal }");
    let proxy = setup.start().await;

    assert_eq!(proxy.client().await.tools().await, [""; 0]);
    assert!(backend.seen().is_empty());
    let why = async || {
        let backends = proxy.page("/backends").await.json()["backends"].clone();
        [0, 1, 2].map(|of| backends[of]["lastError"]["what"].as_str().unwrap_or_default().to_owned())
    };
    eventually(async || why().await.iter().all(|why| why.contains("invalid peer certificate"))).await;
}

#[tokio::test]
async fn a_backend_that_asks_who_calls_is_shown_a_certificate() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let (folder, certificate) = (tempfile::tempdir().unwrap(), Certificate::of("mcp.internal"));
    let ours = Certificate::of("toolgate.internal");
    let door = TlsDoor::in_front_of(&backend, &certificate, Some(&ours)).await;
    let trust = trusting(folder.path(), &certificate, "mcp.internal");
    let pair = ours.write(folder.path(), "ours");
    let pair = pair.trim_matches(['{', '}', ' ']);

    let setup = Setup::new().backend_at("known", &door.url(), &format!("tls: {{ {trust}, {pair} }}")).backend_at(
        "nameless",
        &door.url(),
        &format!("tls: {{ {trust} }}"),
    );
    let proxy = setup.start().await;
    let client = proxy.client().await;

    assert_eq!(client.tools().await, ["known__x"]);
    assert_eq!(client.call("known__x").await.result(), spoken("x"));
}
