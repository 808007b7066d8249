//! How a backend is reached: over HTTP at one URL or several, or as a command that the gateway runs.

use std::fmt;
use std::path::PathBuf;

use crate::value::{Pem, Secret};

/// Processes of one command at once when `max_instances` is not given.
pub const DEFAULT_MAX_INSTANCES: u32 = 64;
/// The longest line of a command's output when `max_line` is not given.
pub const DEFAULT_MAX_LINE: u64 = 4 * 1024 * 1024;

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// As a process, over its standard input and output.
    Command(Command),
    /// Over HTTP.
    Remote(Remote),
}

/// A backend that listens somewhere.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Remote {
    /// At least one, no two the same. Several are replicas of one server.
    pub urls: Vec<Url>,
    /// Which of MCP's HTTP transports it speaks. Default `streamable_http`.
    pub transport: HttpTransport,
    /// Trust and identity for `https` URLs.
    pub tls: BackendTls,
    /// Headers added to every request to it. Never the client's own.
    pub headers: Vec<Header>,
}

impl Remote {
    /// The name that the certificate at one of the URLs must carry. Never empty for an `https` URL.
    pub fn server_name<'a>(&'a self, url: &'a Url) -> &'a str {
        let own = || url.host.strip_suffix('.').unwrap_or(&url.host);
        self.tls.server_name.as_deref().unwrap_or_else(own)
    }
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

impl fmt::Display for Url {
    /// Without the query, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for Url {
    /// As [`Display`](fmt::Display).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which of MCP's HTTP transports a backend speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HttpTransport {
    /// HTTP+SSE of 2024-11-05: the URL is the event stream's, which tells where to post.
    Sse,
    /// One URL for everything, since 2025-03-26.
    #[default]
    StreamableHttp,
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
    /// The name the backend's certificate must carry, where it is not the URL's host: see [`Remote::server_name`]. There is
    /// one where an `https` URL has an IP address.
    pub server_name: Option<String>,
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

/// A backend that the gateway runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Command {
    /// What is run: a name that is looked up in `PATH`, or the path of an executable file. Not empty.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Added to the little that it inherits of the gateway's environment. Names are unique.
    pub env: Vec<Variable>,
    /// Where it runs; the gateway's own working directory when absent.
    pub cwd: Option<PathBuf>,
    /// How many of it there are. Default `session`.
    pub instances: Instances,
    /// Processes at once; further ones are refused while all are in use. Default 64, which is always enough for a shared one.
    pub max_instances: u32,
    /// The longest message that it may write; a longer one ends it. Default 4 MiB.
    pub max_line: u64,
}

/// An environment variable of a command.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, which is never printed.
    pub value: Secret,
}

/// How many processes of a command there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Instances {
    /// One for each session, so that clients share nothing.
    #[default]
    Session,
    /// One for everybody, initialized once.
    Shared,
}
