//! One record per client message: counted and logged once, when its last byte is out or its client has left.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use toolgate_config::BackendName;
use tracing::Level;
use tracing::field::display;

use crate::dispatch::RequestId;
use crate::error::{Error, Kind, Side};
use crate::log::CALLS;
use crate::metrics::{Counted, EraLabel, MethodMetrics, OTHER};
use crate::payload::Payload;
use crate::recent::Failed;
use crate::reply::End;
use crate::trace::{Ended, Span};

/// What is known of a message so far. Dropped before [`Record::end`] was called, it counts as left by its client.
pub(crate) struct Record {
    pub(crate) started: Instant,
    pub(crate) request_id: RequestId,
    client: IpAddr,
    method: Arc<MethodMetrics>,
    pub(crate) era: EraLabel,
    pub(crate) session: Option<u128>,
    tool: Option<Called>,
    error: Option<Box<str>>,
    side: Side,
    expected: Option<Kind>,
    kind: Option<Kind>,
    /// What it brought and what it got, of a call, where that is logged.
    pub(crate) payload: Option<Box<Payload>>,
    /// Where it is traced.
    pub(crate) span: Option<Box<Span>>,
}

/// Which tool a call went to.
struct Called {
    /// None of what nobody has.
    names: Option<(BackendName, Arc<str>)>,
    counted: Counted,
}

impl Record {
    /// Boxed: it goes wherever its reply goes.
    pub(crate) fn new(
        method: &Arc<MethodMetrics>,
        client: IpAddr,
        request_id: &RequestId,
        started: Instant,
    ) -> Box<Self> {
        Box::new(Self {
            started,
            request_id: request_id.clone(),
            client,
            method: Arc::clone(method),
            era: EraLabel::Legacy,
            session: None,
            tool: None,
            error: None,
            side: Side::Downstream,
            expected: None,
            kind: None,
            payload: None,
            span: None,
        })
    }

    /// Notes the tool that is called: its backend, and its public name.
    pub(crate) fn calls(&mut self, backend: &BackendName, tool: &Arc<str>, counted: Counted) {
        self.tool = Some(Called { names: Some((backend.clone(), Arc::clone(tool))), counted });
    }

    /// Notes that a tool is called that nobody has.
    pub(crate) fn calls_unknown(&mut self, counted: Counted) {
        self.tool = Some(Called { names: None, counted });
    }

    /// Notes the error that the message is answered with.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.kind = Some(error.kind());
        self.side = error.side();
        self.error = Some(error.to_string().into());
        if let Some(span) = &mut self.span {
            span.failed(error);
        }
    }

    /// Notes the code of a backend's error.
    pub(crate) fn refused(&mut self, code: i64) {
        if let Some(span) = &mut self.span {
            span.refused(code);
        }
    }

    /// Notes how it will have ended, once its last byte is out.
    pub(crate) fn noted(&mut self, kind: Kind) {
        self.expected = self.expected.or(Some(kind));
    }

    /// Ends the record of a reply that was written whole.
    pub(crate) fn written(self: Box<Self>) {
        let kind = self.expected.unwrap_or(Kind::Ok);
        self.end(kind);
    }

    /// Ends the record. An error noted before stays what it was.
    pub(crate) fn end(mut self: Box<Self>, kind: Kind) {
        self.kind = self.kind.or(Some(kind));
    }

    /// Ends the record of a stream.
    pub(crate) fn ended(mut self: Box<Self>, end: &End) {
        match end {
            End::As(kind) => self.end(*kind),
            End::RpcError(code) => {
                self.refused(*code);
                self.end(Kind::RpcError);
            }
            End::Failed(error) => self.failed(error),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let kind = self.kind.unwrap_or(Kind::ClientClosed);
        let took = self.started.elapsed();
        self.method.ended(self.era, kind, took);
        let is_warning = kind != Kind::Ok && self.side != Side::Downstream;
        if is_warning && tracing::enabled!(Level::WARN) || tracing::enabled!(Level::INFO) {
            self.log(kind, took, is_warning);
        }
        if let Some(called) = &self.tool {
            called.counted.ended(kind, took);
        }
        if let Some(span) = self.span.take() {
            span.end(self.ended_as(kind, took));
        }
        if kind != Kind::Ok {
            self.method.recent.note(self.failed_as(kind));
        }
    }
}

impl Record {
    /// Backend and tool, as far as the message has any.
    fn names(&self) -> (&str, &str) {
        match self.tool.as_ref().map(|called| called.names.as_ref()) {
            Some(Some((backend, tool))) => (backend.as_str(), &**tool),
            Some(None) => (OTHER, OTHER),
            None => ("", ""),
        }
    }

    /// The beginning of the session's id, where there is one.
    fn session_digits(&self) -> String {
        self.session.map(|id| format!("{:08x}", id >> 96)).unwrap_or_default()
    }

    fn ended_as(&self, kind: Kind, took: Duration) -> Ended {
        Ended {
            method: self.method.name(),
            kind,
            started: self.started,
            took,
            client: self.client,
            request_id: self.request_id.clone(),
            session: self.session_digits(),
            tool: self.tool.as_ref().and_then(|called| called.names.clone()),
        }
    }

    fn failed_as(&self, outcome: Kind) -> Failed {
        let (backend, tool) = self.names();
        Failed {
            when: SystemTime::now(),
            id: self.request_id.as_str().into(),
            client: self.client,
            session: self.session_digits().into(),
            method: self.method.name(),
            tool: tool.into(),
            backend: backend.into(),
            outcome,
            error: self.error.clone().unwrap_or_default(),
        }
    }

    fn log(&self, kind: Kind, took: Duration, is_warning: bool) {
        let (backend, tool) = self.names();
        let (id, client, method, outcome) = (self.request_id.as_str(), self.client, self.method.name(), kind.as_str());
        let (ms, error) = ((took.as_secs_f64() * 1e6).round() / 1000.0, self.error.as_deref().unwrap_or(""));
        let session = self.session_digits();
        let payload = self.payload.as_ref();
        let result = payload.and_then(|payload| payload.result());
        // Where there is nothing in them, they are no fields.
        let (arguments, result) = (payload.and_then(|payload| payload.arguments()).map(display), result.map(display));
        if is_warning {
            tracing::warn!(
                target: CALLS, id, %client, session, method, tool, backend, outcome, ms, error, arguments, result, "call"
            );
        } else {
            tracing::info!(
                target: CALLS, id, %client, session, method, tool, backend, outcome, ms, error, arguments, result, "call"
            );
        }
    }
}
