//! The catalog: every backend's tools under their public names, and where each of them goes.
//!
//! Answered from memory. A background task per backend ([`refresh`]) keeps the last good list of each; [`merge`] makes one
//! of them, byte-identical until something changed.

pub(crate) mod merge;
pub(crate) mod refresh;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use toolgate_config::{BackendName, Timeout};

use crate::backend::Backend;
use crate::limit::Rule;
use crate::metrics::{Metrics, ToolMetrics};

/// Where a public tool name goes.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    pub(crate) public: Box<str>,
    /// The backend's own name for it, as a JSON string.
    pub(crate) own_json: Box<str>,
    pub(crate) timeout: Timeout,
    /// Every limit that covers it.
    pub(crate) rules: Vec<Arc<Rule>>,
    metrics: OnceLock<Arc<ToolMetrics>>,
}

impl Route {
    /// Its handles, made at its first call.
    pub(crate) fn metrics(&self, metrics: &Metrics) -> &Arc<ToolMetrics> {
        self.metrics.get_or_init(|| metrics.tool(self.backend.name().as_str(), &self.public))
    }
}

/// How the list of a backend got into the catalog.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Freshness {
    /// Its last listing worked.
    Fresh,
    /// Its last listing failed: the one before is shown.
    Stale,
    /// There is none to show.
    Missing,
}

impl Freshness {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
        }
    }
}

/// What the catalog holds of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) backend: BackendName,
    pub(crate) freshness: Freshness,
    /// Tools of it that are shown.
    pub(crate) shown: usize,
    /// Tools that are not, by the backend's own names, and why.
    pub(crate) left_out: Vec<(Box<str>, LeftOut)>,
}

/// Why a tool is not shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LeftOut {
    /// Another tool, earlier in the file's order, has its public name.
    Collision { public: Box<str>, owner: BackendName },
    /// The backend lists the name twice.
    Duplicate,
    /// Its definition would break clients.
    Malformed(&'static str),
    /// Its public name is not one that clients accept.
    Name { public: Box<str> },
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Collision { public, owner } => write!(f, "backend `{owner}` already has a tool `{public}`"),
            Self::Duplicate => f.write_str("the backend lists it twice"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Name { public } => {
                write!(f, "`{public}` is not 1 to 128 of A-Za-z0-9_.-; give it another name with `tools.rename`")
            }
        }
    }
}

/// The merged catalog. Immutable; a change makes a new one.
#[derive(Default)]
pub(crate) struct Merged {
    /// The result of `tools/list`.
    pub(crate) result: Bytes,
    /// How much of it is the tools themselves.
    tools_end: usize,
    pub(crate) routes: HashMap<Box<str>, Route>,
    /// In file order.
    pub(crate) parts: Vec<Part>,
    /// The backends' instructions, joined.
    pub(crate) instructions: Option<Box<str>>,
    /// Whether any backend takes `logging/setLevel`.
    pub(crate) logging: bool,
}

impl Merged {
    /// The tools, without what is said about backends: what clients are told changes of.
    pub(crate) fn tools(&self) -> &[u8] {
        self.result.get(..self.tools_end).unwrap_or_default()
    }

    /// Where a public name goes. It is looked up whole, never split.
    pub(crate) fn route(&self, public: &str) -> Option<&Route> {
        self.routes.get(public)
    }
}
