//! What can go wrong with a request, and its four translations: kind, side, status, object.
//!
//! A backend's own JSON-RPC error is not here: to a proxy that is an answer. Only the edge (`server.rs`) turns an
//! [`Error`] into bytes. Nothing shown to a client carries an address, a header or a backend's text.

mod kind;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use toolgate_config::BackendName;

pub(crate) use self::kind::{Kind, Side};
use crate::jsonrpc::{ErrorObject, OwnedId};
use crate::metrics::Cap;

/// Which part of an exchange with a backend took too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Connect,
    FirstByte,
    Idle,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::FirstByte => "its first byte",
            Self::Idle => "its next byte",
        }
    }
}

/// The most bytes that something may have, and the key of the configuration that says so; none does where it is fixed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MaxBytes {
    pub(crate) bytes: usize,
    key: Option<&'static str>,
}

impl MaxBytes {
    pub(crate) const fn fixed(bytes: usize) -> Self {
        Self { bytes, key: None }
    }

    pub(crate) fn configured(key: &'static str, bytes: u64) -> Self {
        Self { bytes: usize::try_from(bytes).unwrap_or(usize::MAX), key: Some(key) }
    }
}

impl fmt::Display for MaxBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            Some(key) => write!(f, "{} bytes, the most that `{key}` allows", self.bytes),
            None => write!(f, "{} bytes, the most that the gateway takes", self.bytes),
        }
    }
}

/// Of what a backend has as many as it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Full {
    Processes,
    /// Sessions that share one process.
    Sessions,
}

impl Full {
    fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "processes as `max_instances` allows",
            Self::Sessions => "sessions as may share one process",
        }
    }
}

/// Why a request got no answer from a backend, or was never sent to one.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("backend `{backend}` has {cap} requests under way, its `max_inflight`; try again shortly")]
    BackendBusy { backend: BackendName, cap: u32 },
    #[error("backend `{backend}` closed the connection before it answered; whether it acted is unknown")]
    BackendClosed { backend: BackendName },
    #[error("backend `{backend}` cannot be reached")]
    BackendConnect { backend: BackendName },
    #[error("backend `{backend}` refused the gateway's credentials (HTTP {status})")]
    BackendCredentials { backend: BackendName, status: u16 },
    #[error(
        "backend `{backend}` does not speak the era that `protocol: {configured}` says: {what}; set `protocol: auto` or \
         `{other}`"
    )]
    BackendEra { backend: BackendName, configured: &'static str, other: &'static str, what: Cow<'static, str> },
    #[error("backend `{backend}` has as many {} ({max}); try again when some have ended", of.as_str())]
    BackendFull { backend: BackendName, of: Full, max: u32 },
    #[error("backend `{backend}` broke the protocol: {what}")]
    BackendProtocol { backend: BackendName, what: Cow<'static, str> },
    #[error(
        "a reload removed backend `{backend}` while the call waited for input: the call has ended and did not run; list again \
         what there is, and call anew"
    )]
    BackendRemoved { backend: BackendName },
    #[error("backend `{backend}` refused the request (HTTP {status}){}", again(*retry_after))]
    BackendStatus { backend: BackendName, status: u16, retry_after: Option<Duration> },
    #[error("backend `{backend}` took longer than {}s over {}", after.as_secs_f64(), phase.as_str())]
    BackendTimeout { backend: BackendName, phase: Phase, after: Duration },
    #[error("backend `{backend}` has been unavailable for {}s; other backends' tools work", down_for.as_secs())]
    BackendUnavailable { backend: BackendName, down_for: Duration },
    #[error("backend `{backend}` closed the connection before it had read the request; it did not run")]
    BackendUnread { backend: BackendName },
    #[error("the request body did not arrive within {}s", deadline.as_secs_f64())]
    BodyTimeout { deadline: Duration },
    #[error("the request body is larger than {max}")]
    BodyTooLarge { max: MaxBytes },
    #[error("the call was cancelled")]
    Cancelled,
    #[error("the client left before the answer was complete")]
    ClientClosed,
    #[error("the gateway is shutting down and waits no longer for the answer; whether the call ran is unknown")]
    CutShort,
    #[error("the gateway is shutting down and takes no new requests; try again soon, on a new connection")]
    Draining,
    #[error("header `{header}` {problem}")]
    HeaderMismatch { header: &'static str, problem: Cow<'static, str> },
    #[error("{problem}")]
    HttpMalformed { problem: Cow<'static, str>, too_large: bool },
    #[error("host `{host}` is not served here")]
    HostForbidden { host: String },
    #[error("{what}")]
    InvalidParams { what: Cow<'static, str> },
    #[error("limit `{limit}` reached: {rule}; retry in {}s", retry_after.as_secs_f64().ceil())]
    Limited { limit: String, rule: String, retry_after: Duration, in_band: bool },
    #[error("{reason}")]
    Malformed { code: i64, reason: Cow<'static, str>, id: Option<OwnedId> },
    #[error("{verb} is not allowed here")]
    MethodNotAllowed { verb: String, allow: &'static str },
    #[error("Method not found: {method}")]
    MethodNotFound { method: String },
    #[error("`Accept` must allow {needed}")]
    NotAcceptable { needed: &'static str },
    #[error("nothing is served at this path; MCP is at `{mcp}`")]
    NotFound { mcp: String },
    #[error("origin `{origin}` is not allowed")]
    OriginForbidden { origin: String },
    #[error("header `{header}` {problem}")]
    ParamMismatch { header: Box<str>, problem: Cow<'static, str> },
    #[error("the request head did not arrive in time")]
    RequestTimeout,
    #[error("Resource not found: {uri}")]
    ResourceNotFound { uri: String, legacy: bool },
    #[error("header `Mcp-Session-Id` is required; send `initialize` first")]
    SessionMissing,
    #[error("no such session; send `initialize` without `Mcp-Session-Id` to start a new one")]
    SessionUnknown,
    #[error(
        "the gateway holds as many sessions as `sessions.max` allows ({max}), and all are in use; try again shortly"
    )]
    SessionsFull { max: u32 },
    #[error("backend `{backend}` sent too much: {what} is longer than {max}")]
    TooLong { backend: BackendName, what: &'static str, max: MaxBytes },
    #[error("a session may have {max} calls under way; wait until one has ended")]
    TooManyCalls { max: usize },
    #[error("the gateway has as many calls waiting for input as `bridge.parked` allows ({max}); try again shortly")]
    TooManyParked { max: u32 },
    #[error("a session may have {max} event streams open; close one first")]
    TooManyStreams { max: usize },
    #[error("at most {max} resources can be subscribed to at a time; give one up first")]
    TooManySubscriptions { max: usize },
    #[error("Unknown tool: {name}")]
    UnknownTool { name: String },
    #[error("a body with a `Content-Encoding` is not read; send it without one")]
    UnsupportedEncoding,
    #[error("`Content-Type` must be application/json")]
    UnsupportedMediaType,
    #[error("Unsupported protocol version")]
    UnsupportedVersion { requested: String, supported: &'static [&'static str] },
}

fn again(after: Option<Duration>) -> String {
    after.map_or_else(String::new, |after| format!("; retry in {}s", retry_after_secs(after)))
}

/// Codes of ours are the HTTP status that says the same: JSON-RPC leaves everything outside −32768…−32000 free.
const fn own_code(status: StatusCode) -> i64 {
    status.as_u16() as i64
}

/// What nginx logs for a request whose client left: the status that says it best, though no standard has it.
pub(crate) const CLIENT_CLOSED: i64 = 499;
/// `-32020`, HeaderMismatch (2026-07-28).
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// `-32002`, resource not found (up to 2025-11-25).
pub(crate) const RESOURCE_NOT_FOUND: i64 = -32002;
/// `-32021`, MissingRequiredClientCapability (2026-07-28).
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// `-32042`, URL elicitation required (2025-11-25 only).
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;
/// `-32022`, UnsupportedProtocolVersion (2026-07-28).
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;
/// `-32600`, Invalid Request (JSON-RPC 2.0).
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// `-32601`, Method not found (JSON-RPC 2.0).
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// `-32602`, Invalid params (JSON-RPC 2.0); an unknown tool too (MCP).
pub(crate) const INVALID_PARAMS: i64 = -32602;

impl Error {
    /// What to count it as.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::BackendBusy { .. }
            | Self::BackendConnect { .. }
            | Self::BackendFull { .. }
            | Self::BackendRemoved { .. }
            | Self::BackendUnavailable { .. } => Kind::Unavailable,
            Self::BackendClosed { .. }
            | Self::BackendCredentials { .. }
            | Self::BackendEra { .. }
            | Self::BackendProtocol { .. }
            | Self::BackendStatus { .. }
            | Self::BackendUnread { .. }
            | Self::TooLong { .. } => Kind::UpstreamError,
            Self::BackendTimeout { .. } => Kind::Timeout,
            Self::BodyTimeout { .. }
            | Self::BodyTooLarge { .. }
            | Self::HeaderMismatch { .. }
            | Self::HttpMalformed { .. }
            | Self::Malformed { .. }
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::NotFound { .. }
            | Self::ParamMismatch { .. }
            | Self::RequestTimeout
            | Self::SessionMissing
            | Self::SessionUnknown
            | Self::UnsupportedEncoding
            | Self::UnsupportedMediaType
            | Self::UnsupportedVersion { .. } => Kind::Invalid,
            Self::Cancelled | Self::ClientClosed => Kind::ClientClosed,
            Self::CutShort | Self::Draining => Kind::Internal,
            Self::HostForbidden { .. } | Self::OriginForbidden { .. } => Kind::Denied,
            Self::InvalidParams { .. }
            | Self::MethodNotFound { .. }
            | Self::ResourceNotFound { .. }
            | Self::UnknownTool { .. } => Kind::RpcError,
            Self::Limited { .. }
            | Self::SessionsFull { .. }
            | Self::TooManyCalls { .. }
            | Self::TooManyParked { .. }
            | Self::TooManyStreams { .. }
            | Self::TooManySubscriptions { .. } => Kind::Limited,
        }
    }

    /// Whose doing it is.
    pub(crate) fn side(&self) -> Side {
        match self.kind() {
            Kind::Unavailable | Kind::UpstreamError | Kind::Timeout => Side::Upstream,
            Kind::Internal => Side::Internal,
            Kind::Ok
            | Kind::ToolError
            | Kind::RpcError
            | Kind::Limited
            | Kind::Invalid
            | Kind::Denied
            | Kind::ClientClosed => Side::Downstream,
        }
    }

    /// The cap that it is the refusal of, if of one.
    pub(crate) fn cap(&self) -> Option<Cap> {
        let caps = [
            (matches!(self, Self::BackendBusy { .. }), Cap::Inflight),
            (matches!(self, Self::BackendFull { of: Full::Processes, .. }), Cap::Instances),
            (matches!(self, Self::BackendFull { of: Full::Sessions, .. }), Cap::Sharing),
            (matches!(self, Self::BodyTooLarge { .. }), Cap::Body),
            (matches!(self, Self::TooManyCalls { .. }), Cap::Calls),
            (matches!(self, Self::SessionsFull { .. }), Cap::Sessions),
            (matches!(self, Self::TooManyStreams { .. }), Cap::Streams),
            (matches!(self, Self::TooManySubscriptions { .. }), Cap::Subscriptions),
        ];
        caps.into_iter().find(|(is_it, _)| *is_it).map(|(_, cap)| cap)
    }

    /// The HTTP status. What a handler of a well-formed legacy request says stays in-band, on 200: several SDKs drop the
    /// body of anything else, and one tears its whole session down.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BackendBusy { .. }
            | Self::BackendClosed { .. }
            | Self::BackendConnect { .. }
            | Self::BackendCredentials { .. }
            | Self::BackendEra { .. }
            | Self::BackendFull { .. }
            | Self::BackendProtocol { .. }
            | Self::BackendRemoved { .. }
            | Self::BackendStatus { .. }
            | Self::BackendTimeout { .. }
            | Self::BackendUnavailable { .. }
            | Self::BackendUnread { .. }
            | Self::Cancelled
            | Self::CutShort
            | Self::InvalidParams { .. }
            | Self::MethodNotFound { .. }
            | Self::ResourceNotFound { .. }
            | Self::TooLong { .. }
            | Self::TooManyCalls { .. }
            | Self::TooManyParked { .. }
            | Self::TooManySubscriptions { .. }
            | Self::UnknownTool { .. } => StatusCode::OK,
            Self::BodyTimeout { .. } | Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ClientClosed => StatusCode::BAD_REQUEST,
            Self::Draining | Self::SessionsFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeaderMismatch { .. }
            | Self::Malformed { .. }
            | Self::ParamMismatch { .. }
            | Self::SessionMissing
            | Self::UnsupportedVersion { .. } => StatusCode::BAD_REQUEST,
            Self::HostForbidden { .. } | Self::OriginForbidden { .. } => StatusCode::FORBIDDEN,
            Self::HttpMalformed { too_large: false, .. } => StatusCode::BAD_REQUEST,
            Self::HttpMalformed { too_large: true, .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Limited { in_band: true, .. } => StatusCode::OK,
            Self::Limited { in_band: false, .. } | Self::TooManyStreams { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable { .. } => StatusCode::NOT_ACCEPTABLE,
            Self::NotFound { .. } | Self::SessionUnknown => StatusCode::NOT_FOUND,
            Self::UnsupportedEncoding | Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    /// When it is worth trying again, where that can be told.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Self::Limited { retry_after, .. } = self {
            return Some(*retry_after);
        }
        matches!(self, Self::Draining | Self::SessionsFull { .. }).then_some(Duration::from_secs(1))
    }

    /// The JSON-RPC error object.
    pub(crate) fn object(&self) -> ErrorObject {
        const TOO_MANY: StatusCode = StatusCode::TOO_MANY_REQUESTS;
        let (code, data) = match self {
            Self::BackendBusy { backend, .. }
            | Self::BackendConnect { backend }
            | Self::BackendFull { backend, .. }
            | Self::BackendRemoved { backend }
            | Self::BackendUnavailable { backend, .. } => {
                (own_code(StatusCode::SERVICE_UNAVAILABLE), Some(json!({ "backend": backend.as_str() })))
            }
            Self::BackendClosed { backend }
            | Self::BackendEra { backend, .. }
            | Self::BackendProtocol { backend, .. }
            | Self::BackendUnread { backend }
            | Self::TooLong { backend, .. } => {
                (own_code(StatusCode::BAD_GATEWAY), Some(json!({ "backend": backend.as_str() })))
            }
            Self::BackendCredentials { backend, status } => {
                (own_code(StatusCode::BAD_GATEWAY), Some(json!({ "backend": backend.as_str(), "status": status })))
            }
            Self::BackendStatus { backend, status, retry_after } => of_status(backend, *status, *retry_after),
            Self::BackendTimeout { backend, .. } => {
                (own_code(StatusCode::GATEWAY_TIMEOUT), Some(json!({ "backend": backend.as_str() })))
            }
            Self::Cancelled => (CLIENT_CLOSED, None),
            Self::HeaderMismatch { header, .. } => (HEADER_MISMATCH, Some(json!({ "header": header }))),
            Self::ParamMismatch { header, .. } => (HEADER_MISMATCH, Some(json!({ "header": header }))),
            Self::ResourceNotFound { uri, legacy } => {
                (if *legacy { RESOURCE_NOT_FOUND } else { INVALID_PARAMS }, Some(json!({ "uri": uri })))
            }
            Self::TooManyCalls { .. } | Self::TooManySubscriptions { .. } => (own_code(TOO_MANY), None),
            Self::InvalidParams { .. } | Self::UnknownTool { .. } => (INVALID_PARAMS, None),
            Self::Limited { limit, retry_after, .. } => {
                (own_code(TOO_MANY), Some(json!({ "limit": limit, "retryAfterMs": retry_after_ms(*retry_after) })))
            }
            Self::Malformed { code, .. } => (*code, None),
            Self::MethodNotFound { .. } => (METHOD_NOT_FOUND, None),
            Self::UnsupportedVersion { requested, supported } => {
                (UNSUPPORTED_VERSION, Some(json!({ "supported": supported, "requested": requested })))
            }
            Self::BodyTimeout { .. }
            | Self::BodyTooLarge { .. }
            | Self::ClientClosed
            | Self::Draining
            | Self::HostForbidden { .. }
            | Self::HttpMalformed { .. }
            | Self::MethodNotAllowed { .. }
            | Self::NotAcceptable { .. }
            | Self::NotFound { .. }
            | Self::OriginForbidden { .. }
            | Self::RequestTimeout
            | Self::SessionMissing
            | Self::SessionUnknown
            | Self::SessionsFull { .. }
            | Self::TooManyStreams { .. }
            | Self::UnsupportedEncoding
            | Self::UnsupportedMediaType => (own_code(self.status()), None),
            Self::CutShort | Self::TooManyParked { .. } => (own_code(StatusCode::SERVICE_UNAVAILABLE), None),
        };
        ErrorObject { code, message: self.to_string().into(), data }
    }
}

/// Code and data of a backend's HTTP status. 429 and 503 say that the backend is well, and has too much to do.
fn of_status(backend: &BackendName, status: u16, retry_after: Option<Duration>) -> (i64, Option<serde_json::Value>) {
    let mut data = json!({ "backend": backend.as_str(), "status": status });
    if let Some(after) = retry_after {
        data["retryAfterMs"] = json!(retry_after_ms(after));
    }
    let code = if matches!(status, 429 | 503) { i64::from(status) } else { own_code(StatusCode::BAD_GATEWAY) };
    (code, Some(data))
}

/// Milliseconds until a retry may succeed, rounded up: a client that waits exactly this long must not be early.
pub(crate) fn retry_after_ms(after: Duration) -> u64 {
    u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

/// `Retry-After` in whole seconds, rounded up, at least 1.
pub(crate) fn retry_after_secs(after: Duration) -> u64 {
    retry_after_ms(after).div_ceil(1000)
}
