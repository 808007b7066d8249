//! A small legacy MCP client, for what the gateway itself asks of a backend: handshakes, listings, probes, farewells.
//!
//! It reads whole answers, under a cap. What clients ask for is relayed instead, never collected (`relay.rs`).

mod capabilities;
mod modern;
mod own;
mod refusal;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, timeout};
use toolgate_config::Timeout;

pub(crate) use self::capabilities::ServerCapabilities;
use self::capabilities::instructions;
pub(crate) use self::modern::listen as subscribe;
pub(crate) use self::modern::{Caching, Discovered, Probed, Refused, discover};
pub(crate) use self::own::Own;
use self::refusal::refused;
pub(crate) use self::refusal::{in_band, verdict_of_call};
use super::sse::Events;
use super::{Backend, Incoming, Outgoing};
use crate::era::Version;
use crate::error::{Error, METHOD_NOT_FOUND, MaxBytes, Phase};
use crate::jsonrpc::{self, ErrorObject, Id, Message, OwnedId};

/// The largest answer to a handshake, and the largest error body that is looked into.
pub(crate) const MAX_SMALL_ANSWER: MaxBytes = MaxBytes::fixed(256 * 1024);
/// How long the rest of an answered event stream is read, so that its connection can be used again.
const LINGER: Duration = Duration::from_millis(50);
/// How long a backend may take to end a session, which nobody waits for but a gateway that stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// What TypeScript's boilerplate servers answer, on HTTP 400, to a session they do not know.
const SERVER_ERROR: i64 = -32000;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// An id for a request of the gateway's own in a session that it shares with a client: far from where clients count, and
/// never used twice.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 40);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Who speaks to a backend.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    /// JSON.
    pub(crate) client_info: Arc<str>,
    /// What the backend may ask of it: a JSON object.
    pub(crate) capabilities: Arc<str>,
    /// Where the session is to be, of a backend with several replicas.
    pub(crate) replica: Option<usize>,
}

/// The gateway's own `clientInfo`, as JSON.
const CLIENT_INFO: &str = concat!("{\"name\":\"toolgate\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");

/// What the gateway says it can be asked when it lists what a backend has: everything that some client may be asked. There are
/// backends that show some tools only to clients that can be asked; what a client is asked, its own session decides.
const CAPABILITIES: &str = "{\"elicitation\":{\"form\":{},\"url\":{}},\"roots\":{},\"sampling\":{}}";

impl Hello {
    /// The gateway itself.
    pub(crate) fn gateway() -> Self {
        let (client_info, capabilities) = (CLIENT_INFO.into(), CAPABILITIES.into());
        Self { version: Version::LATEST, client_info, capabilities, replica: None }
    }
}

/// An open session with a backend, or, without an id, the same with one that keeps none.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) session_id: Option<HeaderValue>,
    pub(crate) version: Version,
    pub(crate) capabilities: ServerCapabilities,
    pub(crate) instructions: Option<Box<str>>,
}

impl Opened {
    /// Whether the backend takes `logging/setLevel`.
    pub(crate) fn logging(&self) -> bool {
        self.capabilities.logging
    }

    /// The headers of a request within the session.
    pub(crate) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::with_capacity(3);
        headers.push((PROTOCOL_VERSION, HeaderValue::from_static(self.version.as_str())));
        if let Some(id) = &self.session_id {
            headers.push((SESSION_ID, id.clone()));
        }
        headers
    }

    pub(crate) fn post(&self, body: Bytes, timeout: Timeout, repeatable: bool) -> Outgoing {
        Outgoing { verb: Method::POST, headers: self.headers(), body, timeout, repeatable, replica: None }
    }

    /// Asks for the backend's own stream, or for what a stream holds after the event `last` (2025-11-25, Transports,
    /// Resumability).
    pub(crate) fn get(&self, last: Option<HeaderValue>, timeout: Timeout) -> Outgoing {
        let mut headers = self.headers();
        headers.extend(last.map(|last| (HeaderName::from_static("last-event-id"), last)));
        Outgoing { verb: Method::GET, headers, body: Bytes::new(), timeout, repeatable: true, replica: None }
    }
}

/// What a backend made of a request.
pub(crate) enum Verdict {
    /// It answers: the body is still to be read.
    Answer(Incoming),
    /// It refused with a JSON-RPC error of its own.
    Refusal { status: StatusCode, body: Bytes, code: i64 },
    /// It does not know the session any more; it did not run the request.
    SessionLost,
}

/// Looks at the head of an answer, and into the body where the status alone does not tell.
pub(crate) async fn verdict(
    backend: &Backend,
    opened: &Opened,
    id: Option<Id<'_>>,
    incoming: Incoming,
) -> Result<Verdict, Error> {
    verdict_on(backend, opened.session_id.is_some(), id, incoming).await
}

/// As [`verdict`], for a request `id` that was sent within a session or without one.
///
/// A session is not lost where an error answers the very request: it was read, and may have run. Only `-32001`, which the
/// servers in use say of sessions, means that with any id.
pub(crate) async fn verdict_on(
    backend: &Backend,
    in_session: bool,
    id: Option<Id<'_>>,
    mut incoming: Incoming,
) -> Result<Verdict, Error> {
    /// "Session not found", as SDKs have it.
    const NO_SESSION: i64 = -32001;
    let status = incoming.status;
    if status.is_success() {
        return Ok(Verdict::Answer(incoming));
    }
    let refused = refused(backend, &incoming);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Error::BackendCredentials { backend: backend.name().clone(), status: status.as_u16() });
        }
        StatusCode::NOT_FOUND if in_session && !incoming.is_json() => return Ok(Verdict::SessionLost),
        _ if !status.is_client_error() => return Err(refused),
        _ => {}
    }
    let body = incoming.collect(MAX_SMALL_ANSWER, backend.name()).await?;
    match jsonrpc::parse(&body) {
        Ok(Message::Response(response)) if response.error => {
            let code = error_code(response.value);
            let is_answer = response.id.is_some() && response.id == id;
            let says_lost = match status {
                StatusCode::NOT_FOUND => !is_answer || code == Some(NO_SESSION),
                StatusCode::BAD_REQUEST => !is_answer && code == Some(SERVER_ERROR),
                _ => false,
            };
            if in_session && says_lost {
                return Ok(Verdict::SessionLost);
            }
            Ok(Verdict::Refusal { status, code: code.unwrap_or(0), body })
        }
        _ if in_session && status == StatusCode::NOT_FOUND => Ok(Verdict::SessionLost),
        _ => Err(refused),
    }
}

pub(crate) fn error_code(error: &RawValue) -> Option<i64> {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    // An array would be taken for a struct's fields otherwise.
    let is_object = error.get().starts_with('{');
    is_object.then(|| serde_json::from_str::<Error>(error.get()).ok().map(|e| e.code)).flatten()
}

/// What a request of ours came to.
pub(crate) enum Outcome {
    /// Its result, as JSON.
    Result(Box<RawValue>),
    /// The backend's JSON-RPC error.
    Error { code: i64 },
    /// The backend forgot the session.
    SessionLost,
}

/// Whether a request counts for the backend's health if it fails. That it is answered never does: a refusal is an answer
/// too, and whether it was one only shows at the end of what the request is a part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Judged {
    Yes,
    No,
}

async fn send(backend: &Backend, request: Outgoing, judged: Judged) -> Result<Incoming, Error> {
    match judged {
        Judged::Yes => backend.send_own(request).await,
        Judged::No => backend.send_unjudged(request).await,
    }
}

/// Bounds a whole exchange of ours, answer included: a backend that begins to answer and stalls must not hold anybody up.
async fn bounded<T>(backend: &Backend, exchange: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let after = backend.config.timeout.connect.saturating_add(backend.config.timeout.first_byte);
    timeout(after, exchange).await.unwrap_or_else(|_| {
        Err(Error::BackendTimeout { backend: backend.name().clone(), phase: Phase::FirstByte, after })
    })
}

/// Opens a session: `initialize`, then `notifications/initialized`.
pub(crate) async fn open(backend: &Backend, hello: &Hello, judged: Judged) -> Result<Opened, Error> {
    bounded(backend, open_unbounded(backend, hello, judged)).await
}

async fn open_unbounded(backend: &Backend, hello: &Hello, judged: Judged) -> Result<Opened, Error> {
    let broken = |what: String| Error::BackendProtocol { backend: backend.name().clone(), what: what.into() };
    let params = format!(
        "{{\"protocolVersion\":\"{}\",\"capabilities\":{},\"clientInfo\":{}}}",
        hello.version.as_str(),
        hello.capabilities,
        hello.client_info
    );
    // Not one that the client may use in this session: some count from 0, and an id comes once.
    let id = OwnedId::integer(next_id());
    let body = jsonrpc::request_body(id.raw(), "initialize", Some(&params));
    let request = Outgoing {
        verb: Method::POST,
        headers: Vec::new(),
        body,
        timeout: backend.config.timeout,
        repeatable: true,
        replica: hello.replica,
    };
    let nobody = Opened {
        session_id: None,
        version: hello.version,
        capabilities: ServerCapabilities::default(),
        instructions: None,
    };
    let incoming = send(backend, request, judged).await?;
    // Copied: it outlives the head that it lies in.
    let session_id = incoming.headers.get(SESSION_ID).and_then(|id| HeaderValue::from_bytes(id.as_bytes()).ok());
    let incoming = match verdict(backend, &nobody, None, incoming).await? {
        Verdict::Answer(incoming) => incoming,
        Verdict::Refusal { status, .. } => return Err(broken(format!("it refused `initialize` (HTTP {status})"))),
        Verdict::SessionLost => return Err(broken("it answered `initialize` as if within a session".to_owned())),
    };
    let raw = match answer(backend, Some(&nobody), incoming, id.borrow(), MAX_SMALL_ANSWER).await? {
        Outcome::Result(raw) => raw,
        Outcome::Error { code } => return Err(broken(format!("it answered `initialize` with error {code}"))),
        Outcome::SessionLost => return Err(broken("it lost the session it was opening".to_owned())),
    };
    let mut opened = initialized(&raw).map_err(broken)?;
    // Some servers send a dead id on refusals, so only one on a good answer counts; and it must be safe to send back.
    opened.session_id =
        session_id.filter(|id| !id.is_empty() && id.as_bytes().iter().all(|b| (0x21..=0x7e).contains(b)));
    notify(backend, &opened, jsonrpc::notification_body("notifications/initialized", None), judged).await?;
    Ok(opened)
}

/// Reads the result of `initialize`.
fn initialized(raw: &RawValue) -> Result<Opened, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InitializeResult<'a> {
        protocol_version: String,
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
        instructions: Option<String>,
    }
    let result: InitializeResult<'_> = serde_json::from_str(raw.get())
        .map_err(|_| "its answer to `initialize` is not an InitializeResult".to_owned())?;
    let version = Version::read(&result.protocol_version)
        .ok_or_else(|| "it chose a protocol version that the gateway does not know".to_owned())?;
    Ok(Opened {
        session_id: None,
        version,
        capabilities: ServerCapabilities::read(result.capabilities),
        instructions: instructions(result.instructions),
    })
}

/// Sends a request of ours and reads its answer whole.
pub(crate) async fn request(
    backend: &Backend,
    opened: &Opened,
    ask: Ask<'_>,
    judged: Judged,
) -> Result<Outcome, Error> {
    bounded(backend, request_unbounded(backend, opened, ask, judged)).await
}

async fn request_unbounded(backend: &Backend, opened: &Opened, ask: Ask<'_>, judged: Judged) -> Result<Outcome, Error> {
    let id = OwnedId::integer(ask.id);
    let body = jsonrpc::request_body(id.raw(), ask.method, ask.params);
    let incoming = send(backend, opened.post(body, backend.config.timeout, true), judged).await?;
    match verdict(backend, opened, Some(id.borrow()), incoming).await? {
        Verdict::Answer(incoming) => answer(backend, Some(opened), incoming, id.borrow(), ask.max).await,
        Verdict::Refusal { code, .. } => Ok(Outcome::Error { code }),
        Verdict::SessionLost => Ok(Outcome::SessionLost),
    }
}

/// A request of ours.
pub(crate) struct Ask<'a> {
    pub(crate) id: u64,
    pub(crate) method: &'a str,
    /// JSON.
    pub(crate) params: Option<&'a str>,
    /// The largest answer that is read.
    pub(crate) max: MaxBytes,
}

/// Sends a notification or a response. Whatever success it is answered with is taken.
pub(crate) async fn notify(backend: &Backend, opened: &Opened, body: Bytes, judged: Judged) -> Result<Verdict, Error> {
    let incoming = send(backend, opened.post(body, backend.config.timeout, true), judged).await?;
    match verdict(backend, opened, None, incoming).await? {
        Verdict::Answer(mut incoming) => {
            // Empty by the book; read so that the connection can be used again, but not for long.
            let _ = timeout(LINGER, incoming.collect(MAX_SMALL_ANSWER, backend.name())).await;
            Ok(Verdict::Answer(incoming))
        }
        verdict @ (Verdict::Refusal { .. } | Verdict::SessionLost) => Ok(verdict),
    }
}

/// Ends a session, or gives it up. It does not matter how it goes: a backend may not support it, or have ended it by itself.
pub(crate) async fn close(backend: &Backend, opened: &Opened) {
    if opened.session_id.is_none() {
        return;
    }
    let request = Outgoing {
        verb: Method::DELETE,
        headers: opened.headers(),
        body: Bytes::new(),
        timeout: backend.config.timeout,
        repeatable: true,
        replica: None,
    };
    let ending = async {
        if let Ok(mut incoming) = backend.send_unjudged(request).await {
            let _ = timeout(LINGER, incoming.collect(MAX_SMALL_ANSWER, backend.name())).await;
        }
    };
    let _ = timeout(FAREWELL, ending).await;
}

/// Opens the backend's own stream, if it has one.
pub(crate) async fn listen(backend: &Backend, opened: &Opened) -> Result<Option<Incoming>, Error> {
    let incoming = backend.send_unjudged(opened.get(None, backend.config.timeout)).await?;
    Ok((incoming.status == StatusCode::OK && incoming.is_event_stream()).then_some(incoming))
}

/// Reads the answer to request `id`. What the backend asks meanwhile is answered within the session, if there is one.
async fn answer(
    backend: &Backend,
    opened: Option<&Opened>,
    incoming: Incoming,
    id: Id<'_>,
    max: MaxBytes,
) -> Result<Outcome, Error> {
    let message = response(backend, opened, incoming, Some(id), max).await?;
    taken(&message, Some(id)).ok_or_else(|| no_response(backend))
}

fn no_response(backend: &Backend) -> Error {
    let what = "its answer is not the response that was asked for".into();
    Error::BackendProtocol { backend: backend.name().clone(), what }
}

/// Reads the response to request `id`, or any there is, from a JSON body or an event stream.
async fn response(
    backend: &Backend,
    opened: Option<&Opened>,
    mut incoming: Incoming,
    id: Option<Id<'_>>,
    max: MaxBytes,
) -> Result<Bytes, Error> {
    let broken = |what: Cow<'static, str>| Error::BackendProtocol { backend: backend.name().clone(), what };
    if incoming.is_json() {
        let body = incoming.collect(max, backend.name()).await?;
        return if taken(&body, id).is_some() { Ok(body) } else { Err(no_response(backend)) };
    }
    if !incoming.is_event_stream() {
        return Err(broken("its answer is neither JSON nor an event stream".into()));
    }
    let mut events = Events::new(max.bytes);
    while let Some(chunk) = incoming.body.next().await? {
        let pushed = events.push(&chunk);
        while let Some(event) = events.next() {
            if taken(event.data.as_bytes(), id).is_some() {
                let _ = timeout(LINGER, async { while let Ok(Some(_)) = incoming.body.next().await {} }).await;
                return Ok(event.data.into());
            }
            if let Some(opened) = opened {
                reply_to_question(backend, opened, event.data.as_bytes()).await;
            }
        }
        pushed.map_err(|_| broken(format!("an event of its answer is longer than {max}").into()))?;
    }
    Err(broken("its event stream ended without the response that was asked for".into()))
}

/// The response to request `id`, or any where there is none, if that is what `body` holds.
fn taken(body: &[u8], id: Option<Id<'_>>) -> Option<Outcome> {
    let Ok(Message::Response(response)) = jsonrpc::parse(body) else { return None };
    if id.is_some() && response.id != id {
        return None;
    }
    if response.error {
        return Some(Outcome::Error { code: error_code(response.value).unwrap_or(0) });
    }
    Some(Outcome::Result(response.value.to_owned()))
}

/// The body that answers a request of a backend, if `message` is one: `ping` is answered, nothing else was offered to it.
pub(crate) fn answer_to_question(message: &[u8]) -> Option<Bytes> {
    let Ok(Message::Request(request)) = jsonrpc::parse(message) else { return None };
    if request.method == "ping" {
        return Some(jsonrpc::result_body(request.id.raw(), "{}"));
    }
    let error = ErrorObject {
        code: METHOD_NOT_FOUND,
        message: format!("Method not found: {}", request.method).into(),
        data: None,
    };
    Some(jsonrpc::error_body(Some(request.id.raw()), &error))
}

/// Answers a request that a backend makes of the gateway itself, if `message` is one. It has no roots.
pub(crate) async fn reply_to_question(backend: &Backend, opened: &Opened, message: &[u8]) {
    let no_roots = match jsonrpc::parse(message) {
        Ok(Message::Request(request)) if request.method == "roots/list" => {
            Some(jsonrpc::result_body(request.id.raw(), "{\"roots\":[]}"))
        }
        Ok(_) | Err(_) => None,
    };
    if let Some(body) = no_roots.or_else(|| answer_to_question(message)) {
        // A backend that cannot take the answer will time its own question out.
        let _ = notify(backend, opened, body, Judged::No).await;
    }
}
