//! The sections that are a handful of keys each: `admin`, `health`, `catalog`, `sessions`, `bridge`, `log`, `reload`, `drain`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::tool::Pattern;
use crate::value::SessionKey;

/// `admin`: the operator's listener. Nothing of it is reachable through `listeners`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Admin {
    /// Where it listens. Default `127.0.0.1:9464`. Restart-only.
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464) }
    }
}

/// `health`: how backends are probed and when they are taken out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Health {
    /// Between two probes of a backend, give or take a tenth. Default 10 s.
    pub interval: Duration,
    /// For one whole probe, the start of a process not counted; at most the interval. Default 3 s, or the interval where that
    /// is shorter.
    pub timeout: Duration,
    /// Successes in a row that make an unhealthy backend healthy. Default 2.
    pub rise: u32,
    /// Failures in a row, of probes or of calls, that make a backend unhealthy. Default 3.
    pub fall: u32,
    /// The longest pause between two probes of an unhealthy backend; it doubles from `interval` up to this. At least the
    /// interval. Default 5 min, or the interval where that is longer.
    pub max_backoff: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            max_backoff: Duration::from_secs(300),
        }
    }
}

/// `catalog`: how the merged tool list is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Catalog {
    /// Between two listings of a backend that reports no change. Default 60 s.
    pub refresh: Duration,
    /// How long the last good list of a backend that fails is still served. Default 10 min.
    pub stale_for: Duration,
    /// For one whole listing of one backend, all pages, the start of a process not counted. Default 30 s.
    pub timeout: Duration,
    /// Tools taken from one backend; a longer list counts as failed. Default 10,000.
    pub max_tools: u32,
    /// Bytes of tool definitions taken from one backend; a longer list counts as failed. Default 16 MiB.
    pub max_bytes: u64,
    /// Bytes of the merged list of tools that clients' contexts have room for; a larger one is told, and shown all the same.
    /// Default: none.
    pub budget: Option<u64>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(60),
            stale_for: Duration::from_secs(600),
            timeout: Duration::from_secs(30),
            max_tools: 10_000,
            max_bytes: 16 * 1024 * 1024,
            budget: None,
        }
    }
}

/// `sessions`: sessions of legacy clients, which are sealed tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sessions {
    /// The first seals, all open. Generated at start when empty: then a restart ends every session.
    pub keys: Vec<SessionKey>,
    /// After this long without a request, what is held for a session (its backend sessions) is released; a later request opens it anew. Default 30 min.
    pub idle: Duration,
    /// A session is over this long after `initialize`. Default 24 h.
    pub lifetime: Duration,
    /// Sessions that something is held for at once; beyond, the longest unused one is released; while all are in use, a
    /// further one is refused. Default 100,000.
    pub max: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { keys: Vec::new(), idle: Duration::from_secs(1800), lifetime: Duration::from_secs(86_400), max: 100_000 }
    }
}

/// `bridge`: clients and backends of different eras.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Bridge {
    /// Calls of modern clients at once that wait for input that a legacy backend asked for. Default 1000; 0 for none.
    pub parked: u32,
    /// How long such a call waits. Default 5 min.
    pub parked_ttl: Duration,
    /// The largest single message that is made over for another era. Default 16 MiB.
    pub max_answer: u64,
}

impl Default for Bridge {
    fn default() -> Self {
        Self { parked: 1000, parked_ttl: Duration::from_secs(300), max_answer: 16 * 1024 * 1024 }
    }
}

/// `log`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Log {
    /// Default `text`. Restart-only.
    pub format: LogFormat,
    /// Default `info`, at which each call is one line. Restart-only.
    pub level: LogLevel,
    /// The file that the line of each call goes to, which may be moved away while it is written to. Default: with all others, to
    /// standard output. Restart-only.
    pub calls: Option<PathBuf>,
    /// What of calls their lines have, beside what they were and how they ended. Default: nothing. Restart-only.
    pub payloads: Payloads,
}

/// `log.payloads`: what calls were given and what they gave, in their lines.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Payloads {
    /// Whether the arguments are logged. Default false.
    pub arguments: bool,
    /// Whether the result is logged. Default false.
    pub results: bool,
    /// Keys whose values are not logged, in lower case, in which keys are compared. Default [`DEFAULT_REDACT`].
    pub redact: Vec<Pattern>,
    /// Bytes of each that are logged. Default 4 KiB.
    pub max: u64,
}

/// Keys whose values are not logged when `redact` is not given.
pub const DEFAULT_REDACT: [&str; 14] = [
    "*password*",
    "*passwd*",
    "*passphrase*",
    "*secret*",
    "*token*",
    "*api?key*",
    "*apikey*",
    "*authorization*",
    "*cookie*",
    "*credential*",
    "*private?key*",
    "*privatekey*",
    "*access?key*",
    "requeststate",
];

impl Default for Payloads {
    fn default() -> Self {
        let redact = DEFAULT_REDACT.map(|key| Pattern(key.to_owned())).into();
        Self { arguments: false, results: false, redact, max: 4 * 1024 }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogLevel {
    /// What failed on our side.
    Error,
    /// And what someone should look at.
    Warn,
    /// And each call.
    #[default]
    Info,
    /// And what it went through.
    Debug,
    /// Everything, of the libraries too.
    Trace,
}

/// `reload`: noticing that the file, or a file it names, changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reload {
    /// Whether files are watched. Default true; SIGHUP and `POST /reload` work either way.
    pub watch: bool,
    /// Looked at this often too, for file systems that tell nothing. Default 30 s.
    pub poll: Duration,
}

impl Default for Reload {
    fn default() -> Self {
        Self { watch: true, poll: Duration::from_secs(30) }
    }
}

/// `drain`: how a stop (SIGTERM, SIGINT) goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drain {
    /// How long readiness is red while new requests are still served, with `Connection: close`. Default 2 s.
    pub delay: Duration,
    /// After that, how long calls under way may take before they are cut. Default 30 s.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(2), timeout: Duration::from_secs(30) }
    }
}
