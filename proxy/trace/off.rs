//! Of a build without the feature `otel`: there are no spans, and a configuration that wants some is refused.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use toolgate_config::Traces;

use super::Ended;
use crate::backend::http::Connector;
use crate::backend::{Backend, BuildError};
use crate::dispatch::Request;
use crate::error::Error;
use crate::jsonrpc::{Id, Params};
use crate::metrics::Metrics;

/// What makes spans: nothing.
pub(crate) enum Tracer {}

/// What is known of a request that is traced: none is.
pub(crate) enum Span {}

impl Tracer {
    /// # Errors
    /// Always.
    pub(crate) fn new(_traces: &Traces, _connector: &Connector, _metrics: &Metrics) -> Result<Arc<Self>, BuildError> {
        let problem =
            "this binary was built without the feature `otel`: build it with `--features otel`, or remove the section";
        Err(BuildError::Traces { problem: problem.to_owned() })
    }

    pub(crate) fn start(&self) {
        match *self {}
    }

    pub(crate) fn begin(&self, _request: &Request, _params: &Params<'_>, _id: Id<'_>) -> Option<Box<Span>> {
        match *self {}
    }

    pub(crate) async fn flush(&self) {
        match *self {}
    }
}

impl Span {
    pub(crate) fn speaks(&self, _version: &'static str) {
        match *self {}
    }

    pub(crate) fn sent(&self, _backend: &Backend, _named: Option<&str>, _prompt: Option<&str>) {
        match *self {}
    }

    pub(crate) fn answered(&self) {
        match *self {}
    }

    pub(crate) fn failed(&self, _error: &Error) {
        match *self {}
    }

    pub(crate) fn refused(&self, _code: i64) {
        match *self {}
    }

    pub(crate) fn is_told_in_body(&self) -> bool {
        match *self {}
    }

    pub(crate) fn traceparent(&self) -> String {
        match *self {}
    }

    pub(crate) fn headers(&self, _of_client: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, HeaderValue)> {
        match *self {}
    }

    pub(crate) fn end(&self, _ended: Ended) {
        match *self {}
    }
}
