//! `backends`.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::value::{Duration, FilePath, Name, NamePart, Number, OrVariable, Pattern, Secret, Size, ToolName};

/// One MCP server: at a `url`, at several `urls`, or run by the gateway as a `command`. One of the three is required.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Backend {
    /// Its name, unique in the file, 1 to 64 of `A-Za-z0-9_.-`: in the names of its tools, in metrics, logs and errors.
    name: Name,
    /// Where it speaks MCP: an `http` or `https` URL without user name and fragment. Required, or one of `urls` and
    /// `command`, which stand below.
    url: Option<String>,
    /// Where replicas of it speak MCP. A session stays with the replica that it began at; what belongs to no session goes
    /// to the one with the fewest requests under way, and one that cannot be connected to is left out for a while.
    #[schemars(length(min = 1))]
    urls: Option<Vec<String>>,
    /// The program that is run, and its arguments: MCP over its standard input and output. A program without `/` is looked
    /// up in PATH when it is run; one with `/` is the path of an executable file. What it writes to its standard error is
    /// logged. Put no secret here but in `env`: other users of the machine can see it.
    #[schemars(length(min = 1))]
    command: Option<Vec<String>>,
    /// Environment variables of a command, by name. Of the gateway's own it inherits only HOME, LANG, LC_ALL, LOGNAME,
    /// PATH, SHELL, TERM, TMPDIR, TZ and USER. Written as the values of `headers`. Default: none.
    env: Option<BTreeMap<String, Secret>>,
    /// The folder that a command runs in. Default: the gateway's own.
    cwd: Option<FilePath>,
    /// How many processes of a command there are. Default `session`.
    instances: Option<OrVariable<Instances>>,
    /// Processes of a command at once, with `instances: session`; the gateway itself has one or two of them. Beyond, one that
    /// was kept for modern clients and is not in use gives way, or the further one is refused. Default 64.
    max_instances: Option<OrVariable<Number<1, 10_000>>>,
    /// The longest message that a command may write; a longer one ends it. Default `4MiB`.
    max_line: Option<Size>,
    /// Which of MCP's HTTP transports it speaks; `sse` only with `url`. Default `streamable_http`.
    transport: Option<OrVariable<HttpTransport>>,
    /// Trust and identity for an `https` URL.
    tls: Option<BackendTls>,
    /// Headers added to every request to it, by name. Headers of MCP and of HTTP's framing are the gateway's own.
    /// Default: none.
    headers: Option<BTreeMap<String, Secret>>,
    /// Deadlines towards it.
    timeout: Option<Timeout>,
    /// Put before its tools' names, at most 96 characters, perhaps none. Default: the name and the separator.
    prefix: Option<NamePart>,
    /// Between the name and its tools' names, at most 16 characters; of no use with `prefix`. Default `__`.
    separator: Option<NamePart>,
    /// Which era of MCP it is spoken to in. Default `auto`.
    protocol: Option<OrVariable<Protocol>>,
    /// Requests under way to it at once; further ones are refused. Default 1024.
    max_inflight: Option<OrVariable<Number<1, 1_000_000>>>,
    /// Which of its tools are shown, and how.
    tools: Option<Tools>,
    /// A call that the gateway makes by itself now and then, to see whether the tools work. Default: none.
    synthetic: Option<Synthetic>,
}

/// A call that the gateway makes by itself. It is counted apart from clients' calls and no limit covers it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Synthetic {
    /// Which tool, by the backend's own name. One that says of itself that it is not read-only is not called.
    tool: String,
    /// Its arguments. Default: none.
    arguments: Option<BTreeMap<String, serde_json::Value>>,
    /// Text that must stand in the text of the result. Default: none; any result will do that is no error.
    expect: Option<String>,
    /// Between the end of one and the next. Default `60s`.
    interval: Option<Duration>,
    /// For the whole of one, the start of a process not counted. Default `10s`.
    timeout: Option<Duration>,
}

/// How many processes of a command there are.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Instances {
    /// One for each session, so that clients share nothing.
    Session,
    /// One for everybody, initialized once, by whoever comes first, at the most verbose log level that any session asked for.
    Shared,
}

/// Which of MCP's HTTP transports a backend speaks.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum HttpTransport {
    /// One URL for everything, since 2025-03-26.
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05: the URL is the event stream's, which tells where to post.
    Sse,
}

/// Trust and identity towards an `https` backend.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct BackendTls {
    /// PEM file with the certificates that are trusted. Default: the system's.
    ca: Option<FilePath>,
    /// PEM file with the client certificate's chain, leaf first; goes with `key`. Default: none.
    cert: Option<FilePath>,
    /// PEM file with the client certificate's key: PKCS#8, PKCS#1 or SEC1, not encrypted; goes with `cert`. Default: none.
    key: Option<FilePath>,
    /// The name or IP address that the backend's certificate must carry. Default: the URL's host; required where that is
    /// an IP address.
    server_name: Option<String>,
}

/// Deadlines towards a backend.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Timeout {
    /// TCP connect and TLS handshake; not of a command. Default `5s`.
    connect: Option<Duration>,
    /// From the request's last byte to the response's first; a process has as long to start, too. Default `60s`.
    first_byte: Option<Duration>,
    /// Between two reads of a response, event streams included. Default `5m`.
    idle: Option<Duration>,
    /// Deadlines for some of its tools; the first entry that matches a tool counts. Default: none.
    tools: Option<Vec<ToolTimeout>>,
}

/// Deadlines for some tools: `first_byte`, `idle` or both.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ToolTimeout {
    /// Patterns for the tools, by the backend's own names: `*` for any run of characters, `?` for one. At least
    /// one.
    #[schemars(length(min = 1))]
    r#match: Vec<Pattern>,
    /// From the request's last byte to the response's first. Default: the backend's.
    first_byte: Option<Duration>,
    /// Between two reads of a response. Default: the backend's.
    idle: Option<Duration>,
}

/// Which era of MCP a backend is spoken to in.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Protocol {
    /// Found out by asking.
    Auto,
    /// `initialize` and sessions: 2024-11-05 to 2025-11-25.
    Legacy,
    /// Stateless: 2026-07-28.
    Modern,
}

/// Which of a backend's tools are shown, and how. All by the backend's own names.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Tools {
    /// Patterns for the tools that are shown. Default `["*"]`.
    #[schemars(length(min = 1))]
    allow: Option<Vec<Pattern>>,
    /// Patterns for the tools that are not shown; wins over `allow`. Default: none.
    deny: Option<Vec<Pattern>>,
    /// Own name to shown name, before which the prefix still goes: `{ q: search }`. Default: none.
    rename: Option<BTreeMap<String, ToolName>>,
    /// Own name to the description that is shown instead of the backend's: `{ q: "..." }`. Default: none.
    describe: Option<BTreeMap<String, String>>,
    /// Characters of a backend's own description that are shown; of a longer one the beginning, with `…`. Default: all.
    max_description: Option<OrVariable<Number<16, 1_000_000>>>,
}
