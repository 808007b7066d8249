//! One record per client message: counted and logged once, when its last byte is out or its client has left.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Kind, Side};
use crate::metrics::{Counted, EraLabel, MethodMetrics};
use crate::reply::End;

/// What is known of a message so far. Dropped before [`Record::end`] was called, it counts as left by its client.
pub(crate) struct Record {
    pub(crate) started: Instant,
    pub(crate) request_id: Arc<str>,
    client: IpAddr,
    method: Arc<MethodMetrics>,
    pub(crate) era: EraLabel,
    pub(crate) session: Option<u128>,
    tool: Option<Called>,
    error: Option<Box<str>>,
    side: Side,
    expected: Option<Kind>,
    kind: Option<Kind>,
}

/// Which tool a call went to.
struct Called {
    backend: Box<str>,
    tool: Box<str>,
    counted: Counted,
}

impl Record {
    pub(crate) fn new(method: &Arc<MethodMetrics>, client: IpAddr, request_id: &Arc<str>, started: Instant) -> Self {
        Self {
            started,
            request_id: Arc::clone(request_id),
            client,
            method: Arc::clone(method),
            era: EraLabel::Legacy,
            session: None,
            tool: None,
            error: None,
            side: Side::Downstream,
            expected: None,
            kind: None,
        }
    }

    /// Notes the tool that is called.
    pub(crate) fn calls(&mut self, backend: &str, tool: &str, counted: Counted) {
        self.tool = Some(Called { backend: backend.into(), tool: tool.into(), counted });
    }

    /// Notes the error that the message is answered with.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.kind = Some(error.kind());
        self.side = error.side();
        self.error = Some(error.to_string().into());
    }

    /// Notes how it will have ended, once its last byte is out.
    pub(crate) fn noted(&mut self, kind: Kind) {
        self.expected = self.expected.or(Some(kind));
    }

    /// Ends the record of a reply that was written whole.
    pub(crate) fn written(self) {
        let kind = self.expected.unwrap_or(Kind::Ok);
        self.end(kind);
    }

    /// Ends the record. An error noted before stays what it was.
    pub(crate) fn end(mut self, kind: Kind) {
        self.kind = self.kind.or(Some(kind));
    }

    /// Ends the record of a stream.
    pub(crate) fn ended(mut self, end: &End) {
        match end {
            End::As(kind) => self.end(*kind),
            End::Failed(error) => self.failed(error),
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let kind = self.kind.unwrap_or(Kind::ClientClosed);
        let took = self.started.elapsed();
        self.method.ended(self.era, kind, took);
        let (backend, tool) = match &self.tool {
            Some(called) => {
                called.counted.ended(kind, took);
                (&*called.backend, &*called.tool)
            }
            None => ("", ""),
        };
        let (id, client, method, outcome) = (&*self.request_id, self.client, self.method.name(), kind.as_str());
        let (ms, error) = ((took.as_secs_f64() * 1e6).round() / 1000.0, self.error.as_deref().unwrap_or(""));
        let session = self.session.map(|id| format!("{:08x}", id >> 96)).unwrap_or_default();
        if kind != Kind::Ok && self.side != Side::Downstream {
            tracing::warn!(id, %client, session, method, tool, backend, outcome, ms, error, "call");
        } else {
            tracing::info!(id, %client, session, method, tool, backend, outcome, ms, error, "call");
        }
    }
}
