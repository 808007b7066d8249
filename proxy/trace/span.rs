//! A request that is traced, from its first byte to its last.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use http::{HeaderName, HeaderValue};
use toolgate_config::{BackendName, Traces};

use super::Ended;
use super::context::{Context, TRACEPARENT, TRACESTATE};
use super::export::{Exporter, Queue};
use crate::backend::http::Connector;
use crate::backend::{Backend, BuildError};
use crate::dispatch::Request;
use crate::error::{Error, Side};
use crate::jsonrpc::{self, Id, Params};
use crate::metrics::Metrics;

/// How much of a request's id is told.
const MAX_ID: usize = 128;
/// A longer `tracestate` is passed on, but not kept: as much as everybody has to take.
const MAX_STATE: usize = 512;

/// Decides which requests are traced, and begins their spans.
pub(crate) struct Tracer {
    sample_one_in: u64,
    /// Drawn once: what it makes of a count cannot be guessed, and is as good as unique.
    drawn: RandomState,
    count: AtomicU64,
    exporter: Exporter,
}

impl Tracer {
    /// Sends nothing before it is started.
    ///
    /// # Errors
    /// When TLS files do not fit together.
    pub(crate) fn new(traces: &Traces, connector: &Connector, metrics: &Metrics) -> Result<Arc<Self>, BuildError> {
        let exporter = Exporter::new(traces, connector, metrics)
            .map_err(|problem| BuildError::Traces { problem: problem.to_string() })?;
        let sample_one_in = traces.sample_one_in.into();
        Ok(Arc::new(Self { sample_one_in, drawn: RandomState::new(), count: AtomicU64::new(0), exporter }))
    }

    /// Sends what ends from now on.
    pub(crate) fn start(&self) {
        self.exporter.start();
    }

    /// Sends what has ended, if that can be done soon.
    pub(crate) async fn flush(&self) {
        self.exporter.flush().await;
    }

    /// Begins the span of a request, where it is traced: as its client has decided, or drawn by lot.
    pub(crate) fn begin(&self, request: &Request, params: &Params<'_>, id: Id<'_>) -> Option<Box<Span>> {
        let told = params.meta.as_ref().and_then(|meta| meta.traceparent).and_then(jsonrpc::text);
        let (within, around) =
            (told.and_then(|told| Context::read(&told)), Context::of_headers(&request.headers.trace));
        let parent = within.or(around);
        if !parent.map_or_else(|| self.draws(), |parent| parent.is_sampled) {
            return None;
        }
        let new_trace = || (u128::from(self.number()) << 64) | u128::from(self.number());
        let trace = parent.map_or_else(new_trace, |parent| parent.trace);
        // Of the message, not of the HTTP request that carries it: where they differ, that one is told of beside it.
        let link = around.filter(|around| within.is_some_and(|within| within != *around));
        let keeps_state = around.is_some_and(|around| around.trace == trace);
        Some(Box::new(Span {
            own: Context { trace, span: self.number(), is_sampled: true },
            towards_backend: self.number(),
            parent: parent.map(|parent| parent.span),
            link,
            is_told_in_body: within.is_some(),
            keeps_state,
            state: keeps_state.then(|| state_of(&request.headers.trace)).flatten(),
            id: shown(id),
            version: None,
            prompt: None,
            upstream: None,
            failure: None,
            queue: self.exporter.queue(),
        }))
    }

    fn draws(&self) -> bool {
        match self.sample_one_in {
            0 => false,
            1 => true,
            many => self.number().is_multiple_of(many),
        }
    }

    /// A number that is as good as new, and not 0.
    fn number(&self) -> u64 {
        self.drawn.hash_one(self.count.fetch_add(1, Ordering::Relaxed)).max(1)
    }
}

/// An id as text.
fn shown(id: Id<'_>) -> Box<str> {
    let text: Option<String> = serde_json::from_str(id.raw()).ok();
    text.as_deref().unwrap_or_else(|| id.raw()).chars().take(MAX_ID).collect::<String>().into()
}

/// `tracestate`, copied: it outlives the head of the request.
fn state_of(headers: &[(HeaderName, HeaderValue)]) -> Option<Box<str>> {
    let (_, state) = headers.iter().find(|(name, _)| *name == TRACESTATE)?;
    state.to_str().ok().filter(|state| state.len() <= MAX_STATE).map(Into::into)
}

/// What is known so far of a request that is traced.
pub(crate) struct Span {
    pub(super) own: Context,
    /// The id of the span of what is sent on.
    towards_backend: u64,
    pub(super) parent: Option<u64>,
    /// What the HTTP request belongs to, where the message belongs to something else.
    pub(super) link: Option<Context>,
    is_told_in_body: bool,
    /// Whether what its HTTP request says of `tracestate` belongs to the same trace.
    keeps_state: bool,
    pub(super) state: Option<Box<str>>,
    /// The JSON-RPC id.
    pub(super) id: Box<str>,
    /// MCP's, as the client speaks it.
    pub(super) version: Option<&'static str>,
    pub(super) prompt: Option<Box<str>>,
    pub(super) upstream: Option<Upstream>,
    pub(super) failure: Option<Failure>,
    queue: Queue,
}

/// What was sent on to a backend.
pub(super) struct Upstream {
    pub(super) id: u64,
    pub(super) backend: BackendName,
    pub(super) is_run: bool,
    /// Of the tool or the prompt, at the backend.
    pub(super) name: Option<Box<str>>,
    pub(super) sent: Instant,
    pub(super) answered: Option<Instant>,
}

/// An answer that is an error.
pub(super) struct Failure {
    pub(super) code: i64,
    /// Only what the gateway says of itself and of its backends: of what clients do wrong it quotes what they sent.
    pub(super) message: Option<String>,
}

/// A request that has ended.
pub(super) struct Finished {
    pub(super) span: Box<Span>,
    pub(super) ended: Ended,
    pub(super) at: SystemTime,
}

impl Finished {
    /// How many spans it makes.
    pub(super) fn spans(&self) -> u64 {
        1 + u64::from(self.span.upstream.is_some())
    }
}

impl Span {
    /// Notes which version of MCP the client speaks.
    pub(crate) fn speaks(&mut self, version: &'static str) {
        self.version = Some(version);
    }

    /// Notes that the request is sent on now: to a backend, and what it names there.
    pub(crate) fn sent(&mut self, backend: &Backend, named: Option<&str>, prompt: Option<&str>) {
        self.prompt = prompt.map(Into::into);
        self.upstream = Some(Upstream {
            id: self.towards_backend,
            backend: backend.name().clone(),
            is_run: backend.is_run(),
            name: named.map(Into::into),
            sent: Instant::now(),
            answered: None,
        });
    }

    /// Notes that the backend has begun to answer.
    pub(crate) fn answered(&mut self) {
        if let Some(upstream) = &mut self.upstream {
            upstream.answered = Some(Instant::now());
        }
    }

    /// Notes the gateway's error that the request is answered with.
    pub(crate) fn failed(&mut self, error: &Error) {
        let message = (error.side() != Side::Downstream).then(|| error.to_string());
        self.failure = Some(Failure { code: error.object().code, message });
    }

    /// Notes the code of a backend's error.
    pub(crate) fn refused(&mut self, code: i64) {
        // 0 is what stands for none.
        self.failure = (code != 0).then_some(Failure { code, message: None });
    }

    /// Whether the client has told in `_meta` where the request belongs.
    pub(crate) fn is_told_in_body(&self) -> bool {
        self.is_told_in_body
    }

    /// What the backend is told.
    pub(crate) fn traceparent(&self) -> String {
        Context { span: self.towards_backend, ..self.own }.to_string()
    }

    /// The same as headers, with what else the client has sent.
    pub(crate) fn headers(&self, of_client: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
        let keeps = |name: &HeaderName| *name != TRACEPARENT && (*name != TRACESTATE || self.keeps_state);
        let mut headers: Vec<_> = of_client.iter().filter(|(name, _)| keeps(name)).cloned().collect();
        headers.extend(HeaderValue::try_from(self.traceparent()).ok().map(|value| (TRACEPARENT, value)));
        headers
    }

    /// Has it sent.
    pub(crate) fn end(self: Box<Self>, ended: Ended) {
        let queue = self.queue.clone();
        queue.push(Finished { span: self, ended, at: SystemTime::now() });
    }
}
