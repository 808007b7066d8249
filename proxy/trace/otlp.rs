//! Spans as OTLP has them, in the JSON of its protobuf messages: ids in hexadecimal, numbers of 64 bits as strings.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for MCP, which are still in development; what they have
//! no name for begins with `toolgate.`.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::span::{Finished, Upstream};
use crate::error::Kind;

/// `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// A request to the receiver.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_state: Option<&'a str>,
    name: Cow<'a, str>,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    events: Vec<Event>,
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    string_value: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    time_unix_nano: String,
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    trace_id: String,
    span_id: String,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// One message that holds them all.
pub(super) fn encoded(batch: &[Finished]) -> Vec<u8> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    /// Tells processes of one name apart.
    static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:016x}", RandomState::new().hash_one(0)));
    let attributes = vec![
        attribute("service.name", "toolgate"),
        attribute("service.version", VERSION),
        attribute("service.instance.id", &**INSTANCE),
    ];
    let spans = batch.iter().flat_map(|finished| [Some(server(finished)), client(finished)]).flatten().collect();
    let scope_spans = [ScopeSpans { scope: Scope { name: "toolgate", version: VERSION }, spans }];
    let request = Request { resource_spans: [ResourceSpans { resource: Resource { attributes }, scope_spans }] };
    // Text and numbers can always be written.
    serde_json::to_vec(&request).unwrap_or_default()
}

/// What the gateway did for its client.
fn server(finished: &Finished) -> Span<'_> {
    let Finished { span, ended, at } = finished;
    let (backend, tool) = ended.tool.as_ref().map(|(backend, tool)| (backend.as_str(), &**tool)).unzip();
    let target = tool.or(span.prompt.as_deref());
    let mut attributes = common(finished);
    let backend = backend.or_else(|| Some(span.upstream.as_ref()?.backend.as_str()));
    let session = (!ended.session.is_empty()).then_some(&*ended.session);
    let known = [
        ("jsonrpc.request.id", Some(&*span.id)),
        ("mcp.protocol.version", span.version),
        ("mcp.session.id", session),
        ("gen_ai.tool.name", tool),
        ("gen_ai.prompt.name", span.prompt.as_deref()),
        ("network.transport", Some("tcp")),
        ("network.protocol.name", Some("http")),
        ("toolgate.backend", backend),
        ("toolgate.request.id", Some(ended.request_id.as_str())),
    ];
    attributes.extend(known.into_iter().filter_map(|(key, value)| Some(attribute(key, value?))));
    attributes.push(attribute("client.address", ended.client.to_string()));
    Span {
        trace_id: format!("{:032x}", span.own.trace),
        span_id: hex(span.own.span),
        parent_span_id: span.parent.map(hex),
        trace_state: span.state.as_deref(),
        name: named(ended.method, target),
        kind: SERVER,
        start_time_unix_nano: nanoseconds(*at, ended.took),
        end_time_unix_nano: nanoseconds(*at, Duration::ZERO),
        attributes,
        events: Vec::new(),
        links: span
            .link
            .iter()
            .map(|to| Link { trace_id: format!("{:032x}", to.trace), span_id: hex(to.span) })
            .collect(),
        status: status(finished),
    }
}

/// What a backend did for the gateway.
fn client(finished: &Finished) -> Option<Span<'_>> {
    let Finished { span, ended, at } = finished;
    let Upstream { id, backend, is_run, name, sent, answered } = span.upstream.as_ref()?;
    let over = ended.started + ended.took;
    let ago = |then: Instant| nanoseconds(*at, over.saturating_duration_since(then));
    let mut attributes = common(finished);
    attributes.push(attribute("toolgate.backend", backend.as_str()));
    attributes.push(attribute("network.transport", if *is_run { "pipe" } else { "tcp" }));
    let key = if span.prompt.is_some() { "gen_ai.prompt.name" } else { "gen_ai.tool.name" };
    attributes.extend(name.as_deref().map(|name| attribute(key, name)));
    let first_byte = |then: &Instant| Event { time_unix_nano: ago(*then), name: "first byte" };
    Some(Span {
        trace_id: format!("{:032x}", span.own.trace),
        span_id: hex(*id),
        parent_span_id: Some(hex(span.own.span)),
        trace_state: span.state.as_deref(),
        name: named(ended.method, name.as_deref()),
        kind: CLIENT,
        start_time_unix_nano: ago(*sent),
        end_time_unix_nano: nanoseconds(*at, Duration::ZERO),
        attributes,
        events: answered.iter().map(first_byte).collect(),
        links: Vec::new(),
        status: status(finished),
    })
}

/// What both say of the method, and of how it ended.
fn common(finished: &Finished) -> Vec<Attribute<'_>> {
    let (method, kind) = (finished.ended.method, finished.ended.kind);
    let mut attributes = vec![attribute("mcp.method.name", method), attribute("toolgate.outcome", kind.as_str())];
    if method == "tools/call" {
        attributes.push(attribute("gen_ai.operation.name", "execute_tool"));
    }
    if kind != Kind::Ok {
        let code = finished.span.failure.as_ref().map(|failure| failure.code.to_string());
        attributes.extend(code.clone().map(|code| attribute("rpc.response.status_code", code)));
        attributes.push(attribute("error.type", code.map_or(Cow::Borrowed(kind.as_str()), Cow::Owned)));
    }
    attributes
}

fn status(finished: &Finished) -> Option<Status<'_>> {
    let message = finished.span.failure.as_ref().and_then(|failure| failure.message.as_deref());
    (finished.ended.kind != Kind::Ok).then_some(Status { code: ERROR, message })
}

fn named<'a>(method: &'a str, target: Option<&str>) -> Cow<'a, str> {
    target.map_or(Cow::Borrowed(method), |target| Cow::Owned(format!("{method} {target}")))
}

fn attribute<'a>(key: &'static str, value: impl Into<Cow<'a, str>>) -> Attribute<'a> {
    Attribute { key, value: Text { string_value: value.into() } }
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}

/// Since 1970, so long before a time.
fn nanoseconds(at: SystemTime, ago: Duration) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    since.as_nanos().to_string()
}
