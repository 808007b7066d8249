//! An MCP client over HTTP/1.1. Each request has a connection of its own, which is closed when its answer is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{Call, CallStream, FakeBackend, within, within_for};

/// How late an answer may be that a test holds back.
const LATE: Duration = Duration::from_secs(60);
/// What clients of the tests call themselves.
pub(crate) const NAME: &str = "tester";

/// A client, within a session or not yet.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) session: Option<String>,
    headers: HeaderMap,
    ids: Arc<AtomicU64>,
}

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("an ASCII header"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|problem| panic!("{problem}: {self:?}"))
    }

    /// The messages in it, be it JSON or an event stream.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if self.header("content-type") != "text/event-stream" {
            return vec![self.json()];
        }
        let text = std::str::from_utf8(&self.body).expect("UTF-8");
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| !data.is_empty());
        data.map(|data| serde_json::from_str(data).expect("data of JSON")).collect()
    }

    /// The response in it, which is its last message.
    pub(crate) fn response(&self) -> Value {
        self.messages().pop().unwrap_or_else(|| panic!("no message: {self:?}"))
    }

    pub(crate) fn result(&self) -> Value {
        self.response().get("result").unwrap_or_else(|| panic!("no result: {self:?}")).clone()
    }

    pub(crate) fn error(&self) -> Value {
        self.response().get("error").unwrap_or_else(|| panic!("no error: {self:?}")).clone()
    }

    pub(crate) fn code(&self) -> i64 {
        self.error()["code"].as_i64().expect("an integer code")
    }

    pub(crate) fn message(&self) -> String {
        self.error()["message"].as_str().expect("a message").to_owned()
    }
}

/// An answer whose head has come. Dropped, its connection is closed.
pub(crate) struct Opened {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    seen: BytesMut,
    connection: JoinHandle<()>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Opened {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("an ASCII header"))
    }

    /// The next bytes; `None` at the end, an error where the body is cut short.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = within(self.body.frame()).await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The next event or comment, as it is written, its blank line left out; `None` at the end.
    pub(crate) async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.seen.windows(2).position(|bytes| bytes == b"\n\n") {
                let block = self.seen.split_to(end + 2);
                return Some(String::from_utf8(block[..end].to_vec()).expect("UTF-8"));
            }
            let chunk = self.chunk().await.expect("a stream that is not cut")?;
            self.seen.extend_from_slice(&chunk);
        }
    }

    /// The next message of an event stream; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<Value> {
        loop {
            let block = self.block().await?;
            let data: String = block.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            if !data.is_empty() {
                return Some(serde_json::from_str(&data).expect("data of JSON"));
            }
        }
    }

    /// Reads the rest.
    pub(crate) async fn whole(mut self) -> Answer {
        let mut body = std::mem::take(&mut self.seen);
        while let Some(chunk) = self.chunk().await.expect("an answer that is not cut") {
            body.extend_from_slice(&chunk);
        }
        Answer { status: self.status, headers: std::mem::take(&mut self.headers), body: body.freeze() }
    }
}

impl Client {
    /// A client without a session.
    pub(crate) fn stranger(address: SocketAddr) -> Self {
        Self { address, session: None, headers: HeaderMap::new(), ids: Arc::new(AtomicU64::new(1)) }
    }

    /// The same client with another header on its requests.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.headers.insert(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        with
    }

    /// The same client, of the same session, at another gateway.
    pub(crate) fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same client in the session that this answer to `initialize` started.
    pub(crate) fn in_session_of(&self, initialized: &Answer) -> Self {
        let session = initialized.header("mcp-session-id");
        assert!(!session.is_empty(), "no session: {initialized:?}");
        Self { session: Some(session.to_owned()), ..self.clone() }
    }

    /// The same client in a session of its own.
    pub(crate) async fn started(&self, version: &str) -> Self {
        self.started_with(version, json!({})).await
    }

    /// The same client in a session of its own, in which it declares these capabilities.
    pub(crate) async fn started_with(&self, version: &str, capabilities: Value) -> Self {
        let initialized = self.initialize_with(version, capabilities).await;
        let client = self.in_session_of(&initialized);
        let accepted = client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        client
    }

    pub(crate) async fn initialize(&self, version: &str) -> Answer {
        self.initialize_with(version, json!({})).await
    }

    pub(crate) async fn initialize_with(&self, version: &str, capabilities: Value) -> Answer {
        let params = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "clientInfo": { "name": NAME, "version": "1" },
        });
        self.ask("initialize", params).await
    }

    /// Answers what the client was asked under `id`.
    pub(crate) async fn reply(&self, id: &Value, result: Value) {
        self.respond(json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
    }

    /// Posts a response, which is always taken.
    pub(crate) async fn respond(&self, response: Value) {
        let accepted = self.post(response.to_string()).await;
        assert_eq!((accepted.status, &*accepted.body), (202, &b""[..]));
    }

    /// Posts a notification, which is always taken.
    pub(crate) async fn notify(&self, method: &str, params: Value) {
        self.respond(json!({ "jsonrpc": "2.0", "method": method, "params": params })).await;
    }

    /// Asks for the rest of a stream.
    pub(crate) async fn resume(&self, last: &str) -> Opened {
        let with = self.with_header("last-event-id", last);
        self.open(with.request(Method::GET, "")).await
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A request with all that a client has to send.
    pub(crate) fn request(&self, verb: Method, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body.into()));
        *request.uri_mut() = "/mcp".parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert("host", self.address.to_string().parse().expect("a value"));
        headers.insert("accept", HeaderValue::from_static("application/json, text/event-stream"));
        if verb == Method::POST {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
        }
        if let Some(session) = &self.session {
            headers.insert("mcp-session-id", session.parse().expect("a value"));
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        *request.method_mut() = verb;
        request
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Opened {
        self.try_open(request).await.expect("an answer")
    }

    /// As [`open`](Self::open), where the gateway may close the connection.
    pub(crate) async fn try_open(&self, request: Request<Full<Bytes>>) -> Result<Opened, hyper::Error> {
        let stream = within(TcpStream::connect(self.address)).await.expect("a gateway that listens");
        stream.set_nodelay(true).expect("a socket that takes options");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        // If this future is dropped while it waits, so is the connection.
        let connection = AbortOnDrop(Some(connection));
        // A test that answers late has its own bound.
        let (head, body) = within_for(LATE, sender.send_request(request)).await?.into_parts();
        Ok(Opened {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            seen: BytesMut::new(),
            connection: connection.keep(),
        })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.open(request).await.whole().await
    }

    /// Posts these bytes.
    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Answer {
        self.send(self.request(Method::POST, body)).await
    }

    /// Sends a JSON-RPC request.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answer {
        self.post(self.message(method, &params)).await
    }

    /// A JSON-RPC request with an id that was not used yet.
    pub(crate) fn message(&self, method: &str, params: &Value) -> String {
        json!({ "jsonrpc": "2.0", "id": self.next_id(), "method": method, "params": params }).to_string()
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &str) -> Answer {
        self.call_with(tool, json!({})).await
    }

    pub(crate) async fn call_with(&self, tool: &str, arguments: Value) -> Answer {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// Calls a tool and reads the head of the answer, which is all there is of one that streams.
    pub(crate) async fn open_call(&self, tool: &str) -> Opened {
        let message = self.message("tools/call", &json!({ "name": tool, "arguments": {} }));
        self.open(self.request(Method::POST, message)).await
    }

    /// Calls a tool beside what the test does. Aborted, the client leaves.
    pub(crate) fn start_call(&self, tool: &str) -> JoinHandle<Answer> {
        let (client, tool) = (self.clone(), tool.to_owned());
        tokio::spawn(async move { client.call(&tool).await })
    }

    /// Posts beside what the test does.
    pub(crate) fn start_post(&self, body: &str) -> JoinHandle<Answer> {
        let (client, body) = (self.clone(), body.to_owned());
        tokio::spawn(async move { client.post(body).await })
    }

    /// Calls a held tool and takes the call at its backend, which answers with a stream.
    pub(crate) async fn open_stream(&self, tool: &str, backend: &FakeBackend) -> (Opened, CallStream) {
        tokio::join!(self.open_call(tool), async { backend.next_call().await.stream() })
    }

    /// Comes back for the rest of a stream, and takes that up at its backend.
    pub(crate) async fn come_back(&self, last: &str, backend: &FakeBackend) -> (Opened, CallStream) {
        tokio::join!(self.resume(last), async { backend.next_call().await.stream() })
    }

    /// Calls a held tool and takes the call at its backend, which has not answered yet.
    pub(crate) async fn pending_call(&self, tool: &str, backend: &FakeBackend) -> (JoinHandle<Answer>, Call) {
        let running = self.start_call(tool);
        (running, backend.next_call().await)
    }

    /// The result of `tools/list`.
    pub(crate) async fn list(&self) -> Value {
        self.ask("tools/list", json!({})).await.result()
    }

    /// The whole answer to `tools/list`, whatever it is.
    pub(crate) async fn list_answer(&self) -> Answer {
        self.ask("tools/list", json!({})).await
    }

    /// The names of all tools, in order.
    pub(crate) async fn tools(&self) -> Vec<String> {
        names(&self.list().await)
    }

    /// Opens the client's own stream.
    pub(crate) async fn listen(&self) -> Opened {
        let opened = self.open(self.request(Method::GET, "")).await;
        assert_eq!(opened.status, 200);
        opened
    }

    /// Ends the session.
    pub(crate) async fn delete(&self) -> Answer {
        self.send(self.request(Method::DELETE, "")).await
    }
}

/// The names in a result of `tools/list`.
pub(crate) fn names(list: &Value) -> Vec<String> {
    let tools = list["tools"].as_array().unwrap_or_else(|| panic!("no tools: {list}"));
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// A task that is aborted unless it is kept.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn keep(mut self) -> JoinHandle<()> {
        self.0.take().expect("a task that is kept once")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}
