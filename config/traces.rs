//! `traces`: OpenTelemetry spans of what clients ask. Nothing here sends any.

use std::sync::Arc;

use crate::backend::BackendName;
use crate::reach::Remote;

/// Which requests are traced, and where their spans go.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Traces {
    /// Where spans are sent, as OTLP over HTTP in JSON: exactly one URL, with its trust, identity and headers.
    pub receiver: Remote,
    /// Of the requests whose clients have not decided themselves, one in so many is traced; none where it is 0. Default 1.
    pub sample_one_in: u32,
}

impl Traces {
    /// What errors call the receiver: no backend can have this name.
    pub fn label() -> BackendName {
        BackendName(Arc::from("(traces)"))
    }
}
