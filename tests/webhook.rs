//! The operator's webhook: what is posted when backends offer something else than before, signed, and until it is taken.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::support::{FakeBackend, Setup, TestProxy, within};

const KEY: [u8; 32] = [7; 32];
const PLAIN: &str = r#"{"name":"x","inputSchema":{"type":"object"}}"#;

/// A server that is told, and answers with these statuses, then with 204.
struct Receiver {
    address: SocketAddr,
    posted: mpsc::Receiver<Posted>,
    door: AbortHandle,
}

struct Posted {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Posted {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The message, if the signature is its sender's.
    fn verified(&self) -> Value {
        let signed =
            [self.header("webhook-id"), self.header("webhook-timestamp"), std::str::from_utf8(&self.body).unwrap()];
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
        let tag = STANDARD.decode(self.header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        ring::hmac::verify(&key, signed.join(".").as_bytes(), &tag).unwrap();
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl Receiver {
    async fn answering(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, posted) = mpsc::channel(64);
        let statuses = Arc::new(Mutex::new(VecDeque::from(statuses.to_vec())));
        let door = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, statuses) = (sender.clone(), Arc::clone(&statuses));
                let service = service_fn(move |request| answer(request, sender.clone(), Arc::clone(&statuses)));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, posted, door: door.abort_handle() }
    }

    async fn next(&mut self) -> Posted {
        within(self.posted.recv()).await.unwrap()
    }

    fn section(&self, keys: &str) -> String {
        format!("{{ url: 'http://{}/told?a=b', secret: whsec_{}{keys} }}", self.address, STANDARD.encode(KEY))
    }
}

async fn answer(
    request: Request<Incoming>,
    sender: mpsc::Sender<Posted>,
    statuses: Arc<Mutex<VecDeque<u16>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let _ = sender.send(Posted { path: head.uri.to_string(), headers: head.headers, body }).await;
    let status = statuses.lock().unwrap().pop_front().unwrap_or(204);
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

async fn start(backend: &FakeBackend, receiver: &Receiver, keys: &str) -> (Setup, TestProxy) {
    let setup = Setup::fronting(&[backend])
        .section("catalog", "{ refresh: 500ms }")
        .section("webhook", &receiver.section(keys));
    let proxy = setup.start().await;
    proxy.until_tools(backend, 1).await;
    (setup, proxy)
}

fn messages(outcome: &str) -> String {
    format!("toolgate_webhook_messages_total{{outcome=\"{outcome}\"}}")
}

#[tokio::test]
async fn what_changed_is_posted_and_signed() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let mut receiver = Receiver::answering(&[]).await;
    let (_, proxy) = start(&backend, &receiver, ", headers: { X-Team: { value: blue } }").await;

    backend.define_again("x", r#"{"name":"x","inputSchema":{"type":"object","required":["q"]}}"#);
    backend.add_tool("y");
    let posted = receiver.next().await;

    let mut message = posted.verified();
    assert_eq!((posted.path.as_str(), posted.header("x-team")), ("/told?a=b", "blue"));
    assert_eq!(posted.header("content-type"), "application/json");
    assert!(posted.header("webhook-id").starts_with("msg_"));
    let timestamp = message.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(timestamp.as_str().unwrap().ends_with('Z'), "{timestamp}");
    let changes = message["data"]["changes"].as_array().unwrap().clone();
    let required = json!({ "change": "parameter_required", "tool": "a__x", "ownName": "x", "detail": "q" });
    // A listing may have come between the two.
    assert!(changes.contains(&required), "{changes:?}");
    assert_eq!((&message["type"], &message["data"]["backend"]), (&json!("catalog.drift"), &json!("a")));
    assert_eq!(message["data"]["more"], 0);
    proxy.until_metric(&messages("failed"), 0.0).await;
}

#[tokio::test]
async fn a_message_is_posted_until_it_is_taken() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let mut receiver = Receiver::answering(&[500, 302]).await;
    let (_, proxy) = start(&backend, &receiver, "").await;

    backend.add_tool("y");
    let tries = [receiver.next().await, receiver.next().await, receiver.next().await];

    assert_eq!(tries[0].verified(), tries[2].verified());
    assert_eq!(tries[0].header("webhook-id"), tries[2].header("webhook-id"));
    let at = |posted: &Posted| posted.header("webhook-timestamp").parse::<u64>().unwrap();
    assert!(at(&tries[2]) >= at(&tries[0]) + 2, "each try has its own time");
    proxy.until_metric(&messages("delivered"), 1.0).await;
}

#[tokio::test]
async fn the_same_change_is_told_once_in_a_while() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let mut receiver = Receiver::answering(&[]).await;
    let (_, proxy) = start(&backend, &receiver, "").await;
    let told = |posted: Posted| posted.verified()["data"]["changes"][0]["change"].as_str().unwrap().to_owned();

    // A tool that comes and goes.
    backend.add_tool("y");
    let first = told(receiver.next().await);
    backend.remove_tool("y");
    let second = told(receiver.next().await);
    backend.add_tool("y");
    proxy.until_metric(&messages("repeated"), 1.0).await;
    backend.add_tool("z");
    let other = receiver.next().await.verified();

    assert_eq!([first.as_str(), second.as_str()], ["tool_added", "tool_removed"]);
    assert_eq!(other["data"]["changes"][0]["ownName"], "z");
}

#[tokio::test]
async fn a_reload_changes_where_messages_go() {
    let backend = FakeBackend::named("a").defined("x", PLAIN).start().await;
    let (mut wrong, mut right) = (Receiver::answering(&[500; 9]).await, Receiver::answering(&[]).await);
    let (setup, proxy) = start(&backend, &wrong, "").await;

    backend.add_tool("y");
    let lost = wrong.next().await.verified();
    proxy.apply(&setup.clone().section("webhook", &right.section(""))).await;

    assert_eq!(right.next().await.verified(), lost, "it goes on to where messages go now");
    proxy.apply(&Setup::fronting(&[&backend]).section("catalog", "{ refresh: 500ms }")).await;
    proxy.until_metric(&messages("delivered"), 1.0).await;
    assert_eq!(proxy.page("/catalog").await.status, 200);
}
