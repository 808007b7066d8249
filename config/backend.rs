//! `backends`: the MCP servers behind the gateway. Nothing here dials them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::tool::{Pattern, Tools};
use crate::value::{Pem, Secret};

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
    /// Where it listens.
    pub url: Url,
    /// Trust and identity for `https` URLs.
    pub tls: BackendTls,
    /// Headers added to every request to it. Never the client's own.
    pub headers: Vec<Header>,
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
}

/// An `http` or `https` URL, taken apart.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Url {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// Host name or IP address, without the brackets of IPv6.
    pub host: String,
    /// The port, the scheme's own by default.
    pub port: u16,
    /// Path and query, at least `/`.
    pub path: String,
    /// What goes into `Host`: host and, unless it is the scheme's own, port.
    pub authority: String,
}

impl fmt::Debug for Url {
    /// Without the query, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.https { "https" } else { "http" }, self.authority)
    }
}

/// Trust and identity towards an `https` backend.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BackendTls {
    /// Certificates that are trusted instead of the system's.
    pub ca: Option<Pem>,
    /// Client certificate chain; goes with `key`.
    pub cert: Option<Pem>,
    /// Client key; goes with `cert`.
    pub key: Option<Pem>,
    /// The name the backend's certificate must carry. Default: the URL's host, and required where that is an IP address.
    /// Never empty for an `https` URL.
    pub server_name: String,
}

/// A header sent to a backend.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// Its name, lower case.
    pub name: http::HeaderName,
    /// Its value, from the file, an environment variable or another file; a valid header value, never printed.
    pub value: Secret,
}

/// Deadlines towards a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeout {
    /// TCP connect and TLS handshake. Default 5 s.
    pub connect: Duration,
    /// From the request's last byte to the response's first. Default 60 s.
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
