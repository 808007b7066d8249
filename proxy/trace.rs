//! Traces: where a request belongs among what its client and its backend do, and the spans that the gateway adds.
//!
//! What a client says of that (`traceparent`, `tracestate` and `baggage`, in headers or in `params._meta`) goes on to the backend
//! as it came. Only where a request is traced, which takes the feature `otel` and a section `traces`, is the backend told of the
//! gateway's own span instead: in the header `traceparent`, and in `_meta.traceparent` if the client has put one there, because a
//! backend that reads MCP's looks there first. Nothing is put into a body that was not there, so a program behind standard input
//! and output is told only if the client has told.
//!
//! A request has a span of kind `SERVER` and, where a backend is asked, one of kind `CLIENT` below it, named and described as
//! OpenTelemetry's conventions for MCP say. Never in them: arguments, results, URIs of resources, session ids that could be used.

#[cfg(feature = "otel")]
mod context;
#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
mod off;
#[cfg(feature = "otel")]
mod otlp;
#[cfg(feature = "otel")]
mod span;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use toolgate_config::BackendName;

#[cfg(not(feature = "otel"))]
pub(crate) use self::off::{Span, Tracer};
#[cfg(feature = "otel")]
pub(crate) use self::span::{Span, Tracer};
use crate::dispatch::Exchange;
use crate::dispatch::RequestId;
use crate::error::Kind;
use crate::jsonrpc;
use crate::route::Target;

/// What is known of a request when it has ended.
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "there are no spans that could end"))]
pub(crate) struct Ended {
    pub(crate) method: &'static str,
    pub(crate) kind: Kind,
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) client: IpAddr,
    pub(crate) request_id: RequestId,
    /// The beginning of the session's id, as it is in the log.
    pub(crate) session: String,
    /// The backend and the public name of the tool that was called.
    pub(crate) tool: Option<(BackendName, Arc<str>)>,
}

/// Notes that a request is sent on, and has the backend's spans hang below the one of that.
pub(crate) fn sent(exchange: &mut Exchange<'_>, target: &mut Target<'_>) {
    let Some(span) = &mut exchange.record.span else { return };
    let named = target.name.as_deref().filter(|_| exchange.method == "tools/call" || exchange.method == "prompts/get");
    let prompt = (exchange.method == "prompts/get").then(|| exchange.params.name()).flatten();
    span.sent(target.backend, named, prompt.as_deref());
    let told = exchange.params.meta.as_ref().and_then(|meta| meta.traceparent);
    if let Some(told) = told.filter(|_| span.is_told_in_body())
        && let Some(place) = jsonrpc::span(exchange.body, told.get())
    {
        target.edits.push((place, format!("\"{}\"", span.traceparent()).into()));
    }
}
