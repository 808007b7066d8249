//! One call whose other end the test holds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::Seen;
use super::server::{Reply, reply, whole};

/// A call of a held tool: the test is the backend. Dropped, its connection is closed.
pub(crate) struct Call {
    pub(crate) seen: Seen,
    /// What it is answered with where the test does not say.
    pub(super) result: Value,
    pub(super) answer: oneshot::Sender<Reply>,
    pub(super) gone: Arc<watch::Sender<bool>>,
}

/// Tells the test, when dropped, that the connection of a call was closed.
pub(super) struct Gone {
    pub(super) sender: Arc<watch::Sender<bool>>,
    pub(super) armed: bool,
}

impl Gone {
    pub(super) fn new(sender: &Arc<watch::Sender<bool>>) -> Self {
        Self { sender: Arc::clone(sender), armed: true }
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if self.armed {
            self.sender.send_replace(true);
        }
    }
}

impl Call {
    /// The id of the request, as it was written.
    pub(crate) fn id(&self) -> String {
        raw_id(&self.seen.body).expect("an id")
    }

    /// Answers with a result that says the tool's name.
    pub(crate) fn finish(self) {
        let body = response(&self.id(), &self.result);
        self.json(body);
    }

    /// Answers with this result.
    pub(crate) fn result(self, result: &Value) {
        let body = response(&self.id(), result);
        self.json(body);
    }

    /// Answers with this error.
    pub(crate) fn error(self, error: &Value) {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, self.id());
        self.json(body);
    }

    /// Answers with these bytes of JSON.
    pub(crate) fn json(self, body: impl Into<Bytes>) {
        self.respond(200, "application/json", body);
    }

    pub(crate) fn respond(self, status: u16, media_type: &str, body: impl Into<Bytes>) {
        // A gateway that has left gets no answer.
        let _ = self.answer.send(whole(status, media_type, body));
    }

    /// Answers with this status and header, and no body.
    pub(crate) fn refuse(self, status: u16, (name, value): (&'static str, &str)) {
        let mut reply = whole(status, "text/plain", "");
        reply.headers_mut().insert(name, value.parse().expect("a value"));
        let _ = self.answer.send(reply);
    }

    /// Answers with an event stream that the test writes.
    pub(crate) fn stream(self) -> CallStream {
        self.begin("text/event-stream")
    }

    /// Answers with JSON that the test writes piece by piece.
    pub(crate) fn pieces(self) -> CallStream {
        self.begin("application/json")
    }

    fn begin(self, media_type: &str) -> CallStream {
        let (frames, taken) = mpsc::channel(1);
        let body = Frames { taken, _gone: Gone::new(&self.gone) };
        let (id, result) = (raw_id(&self.seen.body).unwrap_or_default(), self.result.clone());
        let _ = self.answer.send(reply(200, media_type, body.boxed_unsync()));
        CallStream { id, result, frames, gone: self.gone }
    }

    /// Waits until the gateway has closed the connection.
    pub(crate) async fn disconnected(&self) {
        drop(self.gone.subscribe().wait_for(|gone| *gone).await);
    }
}

/// The answer to a call, as the test writes it. Dropped, the answer ends.
pub(crate) struct CallStream {
    pub(crate) id: String,
    result: Value,
    frames: mpsc::Sender<io::Result<Bytes>>,
    gone: Arc<watch::Sender<bool>>,
}

impl CallStream {
    /// Writes these bytes. Waits while there is no room for them on their way. To a gateway that has left nothing can be
    /// written.
    pub(crate) async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.frames.send(Ok(bytes.into())).await.is_ok()
    }

    /// Writes a message as an event.
    pub(crate) async fn event(&self, message: &Value) {
        self.send(event(message)).await;
    }

    /// The response as JSON.
    pub(crate) fn response(&self) -> String {
        response(&self.id, &self.result)
    }

    /// Writes the response as an event and ends the stream.
    pub(crate) async fn finish(self) {
        let response = self.response();
        self.send(format!("data: {response}\n\n")).await;
    }

    /// Breaks the connection off.
    pub(crate) async fn cut(self) {
        let _ = self.frames.send(Err(io::ErrorKind::ConnectionReset.into())).await;
    }

    /// Waits until the gateway has closed the connection.
    pub(crate) async fn disconnected(&self) {
        drop(self.gone.subscribe().wait_for(|gone| *gone).await);
    }
}

struct Frames {
    taken: mpsc::Receiver<io::Result<Bytes>>,
    _gone: Gone,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.taken.poll_recv(cx).map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

/// A message as one event.
pub(crate) fn event(message: &Value) -> Bytes {
    format!("event: message\ndata: {message}\n\n").into()
}

/// A response. `id` is JSON.
pub(crate) fn response(id: &str, result: &Value) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A tool with nothing special about it.
pub(crate) fn definition(name: &str) -> String {
    format!(r#"{{"name":"{name}","description":"Does {name}.","inputSchema":{{"type":"object"}}}}"#)
}

/// The result of a tool, by its own name.
pub(crate) fn spoken(tool: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": format!("did {tool}") }] })
}

pub(super) fn spoken_of(seen: &Seen) -> Value {
    spoken(value_of(&seen.body).unwrap_or_default()["params"]["name"].as_str().unwrap_or(""))
}

/// What a body says. There are numbers in the tests that `Value` has no room for; what they are, nobody here looks at.
pub(super) fn value_of(body: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(body).ok()?;
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&text.replace("1e400", "1e300"))).ok()
}

pub(super) fn raw_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct WithId {
        id: Option<Box<RawValue>>,
    }
    let message: WithId = serde_json::from_slice(body).ok()?;
    message.id.map(|id| id.get().to_owned())
}
