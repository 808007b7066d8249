//! `backends`: the MCP servers behind the gateway. Nothing here dials them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::reach::Reach;
use crate::tool::{Pattern, Tools};

/// Between a backend's name and its tools' names when `separator` is not given.
pub const DEFAULT_SEPARATOR: &str = "__";
/// Requests under way at once to one backend when `max_inflight` is not given.
pub const DEFAULT_MAX_INFLIGHT: u32 = 1024;

/// The name of a backend: 1–64 of `A-Za-z0-9_.-`, unique in the file.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendName(pub(crate) Arc<str>);

impl BackendName {
    /// The name as written in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One MCP server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backend {
    /// Its name, in tool prefixes, metrics, logs and errors.
    pub name: BackendName,
    /// Where it is, or what starts it.
    pub reach: Reach,
    /// Deadlines towards it.
    pub timeout: Timeout,
    /// Deadlines for some of its tools (own names, before prefix and rename); the first entry that matches wins.
    pub tool_timeouts: Vec<ToolTimeout>,
    /// Put before its tools' names. Default: the name and the separator (`github__`); may be empty.
    pub prefix: String,
    /// Which of its tools are shown, and how.
    pub tools: Tools,
    /// Which era of MCP it is spoken to in. Default `auto`.
    pub protocol: Protocol,
    /// Requests under way at once; further ones are refused. Default 1024.
    pub max_inflight: u32,
    /// A call of the gateway's own that tells whether its tools work. Default: none.
    pub synthetic: Option<Synthetic>,
}

impl Backend {
    /// The name that clients are shown one of its tools by, whose own name this is.
    pub fn public_name(&self, own: &str) -> String {
        let shown = self.tools.rename.get(own).map_or(own, String::as_str);
        [&*self.prefix, shown].concat()
    }
}

/// A call that the gateway makes by itself, now and then.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Synthetic {
    /// Which tool, by the backend's own name. One that says of itself that it is not read-only is not called.
    pub tool: String,
    /// Its arguments.
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// Text that must stand in the result; where there is none, any result will do that is no error.
    pub expect: Option<String>,
    /// Between the end of one and the next. Default 60 s.
    pub interval: Duration,
    /// For the whole of one, the start of a process not counted. Default 10 s.
    pub timeout: Duration,
}

/// Between two calls of [`Synthetic`] when `interval` is not given.
pub const DEFAULT_SYNTHETIC_INTERVAL: Duration = Duration::from_secs(60);
/// For a call of [`Synthetic`] when `timeout` is not given.
pub const DEFAULT_SYNTHETIC_TIMEOUT: Duration = Duration::from_secs(10);

/// Deadlines towards a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeout {
    /// TCP connect and TLS handshake. Default 5 s.
    pub connect: Duration,
    /// From the request's last byte to the response's first; a process has as long to start, too. Default 60 s.
    pub first_byte: Duration,
    /// Between two reads of a response, event streams included. Default 5 min.
    pub idle: Duration,
}

impl Default for Timeout {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), first_byte: Duration::from_secs(60), idle: Duration::from_secs(300) }
    }
}

/// Deadlines for the tools that match, complete: what an entry leaves out is the backend's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolTimeout {
    /// Which tools, by the backend's own names. At least one.
    pub tools: Vec<Pattern>,
    /// Their deadlines.
    pub timeout: Timeout,
}

/// Which era of MCP a backend is spoken to in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// Found out by asking.
    #[default]
    Auto,
    /// `initialize` and sessions: 2024-11-05 to 2025-11-25.
    Legacy,
    /// Stateless: 2026-07-28.
    Modern,
}
