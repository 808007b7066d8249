//! `health`, `catalog`, `pin`, `webhook`, `sessions`, `bridge`, `log`, `reload`, `drain`.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::backend::BackendTls;
use super::value::{Duration, FilePath, KeyPattern, Number, OrVariable, Secret, Size};

/// How backends are probed, and when they are taken out.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Health {
    /// Between two probes of a backend, give or take a tenth. Default `10s`.
    interval: Option<Duration>,
    /// For one whole probe, the start of a process not counted; at most the interval. Default `3s`, or the interval where that is shorter.
    timeout: Option<Duration>,
    /// Successes in a row that make an unhealthy backend healthy. Default 2.
    rise: Option<OrVariable<Number<1, 1000>>>,
    /// Failures in a row, of probes or of calls, that make a backend unhealthy. That a program ended is none: the next probe
    /// shows whether it can be started again. Default 3.
    fall: Option<OrVariable<Number<1, 1000>>>,
    /// The longest pause between two probes of an unhealthy backend; it doubles from the interval up to this. At least
    /// the interval. Default `5m`, or the interval where that is longer.
    max_backoff: Option<Duration>,
}

/// How the merged list of tools is kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Catalog {
    /// Between two listings of a backend that reports no change. Default `60s`.
    refresh: Option<Duration>,
    /// How long the last good list of a backend that fails is still served; `0s` for not at all. Default `10m`.
    stale_for: Option<Duration>,
    /// For one whole listing of one backend, all pages, the start of a process not counted. Default `30s`.
    timeout: Option<Duration>,
    /// Tools taken from one backend; a longer list counts as failed. Default 10000.
    max_tools: Option<OrVariable<Number<1, 1_000_000>>>,
    /// Size of the tool definitions taken from one backend; a larger list counts as failed. Default `16MiB`.
    max_bytes: Option<Size>,
    /// Size of the merged list of tools that clients' contexts have room for, some 4 bytes a token; a larger one is logged and
    /// counted, and shown all the same. Default: none.
    budget: Option<Size>,
}

/// Which definitions of tools are trusted: those that stand in a lock file, which `toolgate pin` writes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Pin {
    /// What becomes of a tool that is not pinned, or is defined differently from what was pinned. Default `off`.
    mode: Option<OrVariable<PinMode>>,
    /// The lock file, read unless the mode is `off`; a changed one is taken up like a changed configuration. Default `toolgate.lock`.
    file: Option<FilePath>,
}

/// What becomes of a tool that is not pinned.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum PinMode {
    /// Nothing.
    Off,
    /// It is shown, logged and counted.
    Warn,
    /// It is hidden and cannot be called, besides.
    Enforce,
}

/// A server that is told of changes in what backends offer: each listing that found some is one message, which is posted, signed
/// as Standard Webhooks have it, and sent again for some two minutes until it is answered with 2xx.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Webhook {
    /// Where messages are posted: an `http` or `https` URL without user name and fragment.
    url: String,
    /// What each message is signed with: 32 bytes as base64 or hex, with or without `whsec_` before them
    /// (`openssl rand -base64 32`).
    secret: Secret,
    /// Headers added to every message, by name, as those of backends. Default: none.
    headers: Option<BTreeMap<String, Secret>>,
    /// Trust and identity for an `https` URL.
    tls: Option<BackendTls>,
    /// For one try of one message. Default `10s`.
    timeout: Option<Duration>,
    /// The same change of the same tool is told once in this long; `0s` for each time. Default `15m`.
    repeat: Option<Duration>,
}

/// Sessions of clients that speak MCP up to 2025-11-25. They are sealed tokens, which any process with the keys can open.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Sessions {
    /// Keys of 32 bytes as base64 or hex (`openssl rand -base64 32`). The first seals, all open. Default: one made at
    /// start, so that a restart ends every session.
    keys: Option<Vec<Secret>>,
    /// After this long without a request, what is held for a session is released; a later request opens it anew.
    /// Default `30m`.
    idle: Option<Duration>,
    /// A session is over this long after `initialize`. Default `24h`.
    lifetime: Option<Duration>,
    /// Sessions that something is held for at once; beyond, the longest unused one is released; while all are in use, a further one is refused. Default 100000.
    max: Option<OrVariable<Number<1, 10_000_000>>>,
}

/// Clients and backends of different eras: calls that cross from one to the other.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Bridge {
    /// Calls of modern clients at once that wait for input that a legacy backend asked for; 0 for none. Default 1000.
    parked: Option<OrVariable<Number<0, 1_000_000>>>,
    /// How long such a call waits. Default `5m`.
    parked_ttl: Option<Duration>,
    /// The largest single message that is made over for another era. Default `16MiB`.
    max_answer: Option<Size>,
}

/// The log, on standard output.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Log {
    /// How a line looks. Default `text`. Takes effect at a restart.
    format: Option<OrVariable<LogFormat>>,
    /// What is logged. Default `info`, at which each call is one line. Takes effect at a restart.
    level: Option<OrVariable<LogLevel>>,
    /// A file for the line of each call, which may be moved away while it is written to. Default: standard output, with all other
    /// lines. Takes effect at a restart.
    calls: Option<FilePath>,
    /// What calls of tools were given and what they gave, in their lines. Default: neither. Takes effect at a restart.
    payloads: Option<Payloads>,
}

/// What calls of tools were given and what they gave, in their lines, as JSON.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Payloads {
    /// Whether the arguments are logged, as `arguments`. Default false.
    arguments: Option<OrVariable<bool>>,
    /// Whether the result is logged, as `result`. Default false.
    results: Option<OrVariable<bool>>,
    /// Patterns for the keys whose values are not logged, at any depth. Default: those of passwords, secrets, tokens, keys,
    /// cookies and credentials.
    redact: Option<Vec<KeyPattern>>,
    /// How much of each is logged, from 64B to 64KiB; of what is longer, the beginning. Default `4KiB`.
    max: Option<Size>,
}

/// How a log line looks.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum LogLevel {
    /// What failed on our side.
    Error,
    /// And what someone should look at.
    Warn,
    /// And each call.
    Info,
    /// And what it went through.
    Debug,
    /// Everything, of the libraries too.
    Trace,
}

/// How a changed configuration is noticed: this file, and every file it names.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Reload {
    /// Whether files are watched. SIGHUP and `POST /reload` work either way. Default true.
    watch: Option<OrVariable<bool>>,
    /// Files are looked at this often too, for file systems that tell nothing. Default `30s`.
    poll: Option<Duration>,
}

/// How a stop goes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Drain {
    /// How long readiness is red while requests are still served, with `Connection: close`; `0s` for not at all.
    /// Default `2s`.
    delay: Option<Duration>,
    /// After that, how long calls under way may take before they are cut; `0s` cuts at once. Default `30s`.
    timeout: Option<Duration>,
}
