//! A server of 2024-11-05: HTTP+SSE. It has one tool, `echo`, and tells everything on its streams.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::backend::spoken;
use super::within;

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// One message as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Value,
}

#[derive(Default)]
struct State {
    streams: HashMap<String, mpsc::Sender<Bytes>>,
    opened: usize,
    posted: Vec<Posted>,
}

struct Shared {
    address: SocketAddr,
    /// What its streams begin with; `SESSION` stands for the session.
    endpoint: String,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

/// A fake that runs.
pub(crate) struct SseBackend {
    shared: Arc<Shared>,
    door: AbortHandle,
}

impl Drop for SseBackend {
    fn drop(&mut self) {
        self.door.abort();
    }
}

impl SseBackend {
    pub(crate) async fn start() -> Self {
        Self::telling("event: endpoint\ndata: messages/?session=SESSION\n\n").await
    }

    /// Whose streams begin with this.
    pub(crate) async fn telling(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            address,
            endpoint: endpoint.to_owned(),
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let door = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { shared, door }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/sse", self.shared.address)
    }

    pub(crate) fn posted(&self, method: &str) -> Vec<Posted> {
        let state = self.shared.state();
        state.posted.iter().filter(|posted| posted.message["method"] == method).cloned().collect()
    }

    /// Streams that are open.
    pub(crate) fn streams(&self) -> usize {
        self.shared.state().streams.len()
    }

    /// Forgets every session, and cuts its stream unless it is left hanging.
    pub(crate) fn forget_sessions(&self) {
        self.shared.state().streams.clear();
        self.shared.changed();
    }

    /// Says this on every stream.
    pub(crate) async fn say(&self, message: &Value) {
        let streams: Vec<_> = self.shared.state().streams.values().cloned().collect();
        for stream in streams {
            // One that has been closed meanwhile hears nothing.
            let _ = stream.send(event(message)).await;
        }
    }

    #[track_caller]
    pub(crate) fn until(&self, fact: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        within(async move {
            let mut changes = self.shared.changes.subscribe();
            while !fact(self) {
                changes.changed().await.expect("a fake that runs");
            }
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic elsewhere")
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn open(self: &Arc<Self>) -> Reply {
        let (sender, messages) = mpsc::channel(64);
        let session = {
            let mut state = self.state();
            state.opened += 1;
            let session = state.opened.to_string();
            let first = self.endpoint.replace("SESSION", &session).replace("HERE", &self.address.to_string());
            sender.try_send(first.into()).expect("room");
            state.streams.insert(session.clone(), sender);
            session
        };
        self.changed();
        let stream = Stream { messages, session, shared: Arc::clone(self) };
        reply(200, "text/event-stream", stream.boxed_unsync())
    }

    async fn post(&self, head: http::request::Parts, body: Bytes) -> Reply {
        let message: Value = serde_json::from_slice(&body).expect("a body of JSON");
        let posted = Posted { uri: head.uri.to_string(), headers: head.headers, message: message.clone() };
        let session = posted.uri.strip_prefix("/v1/messages/?session=").unwrap_or("").to_owned();
        let stream = {
            let mut state = self.state();
            state.posted.push(posted);
            state.streams.get(&session).cloned()
        };
        self.changed();
        let Some(stream) = stream else { return text(404, "no such session") };
        if let Some(result) = result(&message) {
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            // The stream may be cut at any moment.
            let _ = stream.send(event(&answer)).await;
        }
        text(202, "Accepted")
    }
}

fn event(message: &Value) -> Bytes {
    format!("event: message\r\ndata: {message}\r\n\r\n").into()
}

fn result(message: &Value) -> Option<Value> {
    let tool = json!({ "name": "echo", "description": "echo", "inputSchema": { "type": "object" } });
    Some(match message["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": "2024-11-05",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "old", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [tool] }),
        "tools/call" if message["params"]["arguments"]["hold"] != true => spoken("echo"),
        _ => return None,
    })
}

fn reply(status: u16, media_type: &str, body: UnsyncBoxBody<Bytes, Infallible>) -> Reply {
    Response::builder().status(status).header("content-type", media_type).body(body).expect("a valid response")
}

fn text(status: u16, text: &'static str) -> Reply {
    reply(status, "text/plain", Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| handle(Arc::clone(&shared), request));
        // A connection that is cut is no fault of the fake's.
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(match (&head.method, head.uri.path()) {
        (&Method::GET, "/v1/sse") => shared.open(),
        (&Method::POST, "/v1/messages/") => shared.post(head, body).await,
        _ => text(405, "Method Not Allowed"),
    })
}

/// The body of a stream, which its session ends with.
struct Stream {
    messages: mpsc::Receiver<Bytes>,
    session: String,
    shared: Arc<Shared>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.state().streams.remove(&self.session);
        self.shared.changed();
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.messages.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
