//! `traces`.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::backend::BackendTls;
use super::value::{Number, OrVariable, Secret};

/// OpenTelemetry spans of clients' requests: which are traced, and where spans go. Takes effect at a restart.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Traces {
    /// Where spans are sent, as OTLP over HTTP in JSON: an `http` or `https` URL with its path, which is mostly `/v1/traces`.
    endpoint: String,
    /// Of the requests whose clients have not decided themselves, one in so many is traced; 0 for none. Default 1.
    sample_one_in: Option<OrVariable<Number<0, 1_000_000>>>,
    /// Headers added to what is sent there, by name; written as a backend's. Default: none.
    headers: Option<BTreeMap<String, Secret>>,
    /// Trust and identity for an `https` endpoint.
    tls: Option<BackendTls>,
}
