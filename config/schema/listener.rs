//! `listeners` and `admin`.

use schemars::JsonSchema;

use super::value::{Address, Duration, FilePath, Host, Network, Number, OrVariable, Origin, Size};

/// One bound address, with its TLS and its rules.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Listener {
    /// IP address and port to bind: `127.0.0.1:8080`, `[::]:8443`. Port 0 takes a free one. Takes effect at a restart.
    address: Address,
    /// The one path that speaks MCP. Default `/mcp`.
    path: Option<String>,
    /// TLS 1.2 and 1.3, with HTTP/2. Default: plain HTTP. Changed certificates are taken up; adding or removing `tls`
    /// takes effect at a restart.
    tls: Option<Tls>,
    /// Names that the `Host` header may carry; a leading `*.` stands for any name below, `"*"` for any host. Without a
    /// port, any port: `mcp.example.com`, `*.example.com`, `name:8080`. Default: `localhost`, `127.0.0.1` and `[::1]` when the address is loopback, `*` otherwise.
    #[schemars(length(min = 1))]
    allowed_hosts: Option<Vec<Host>>,
    /// Browser origins that may call; `:*` stands for any port, `"*"` for any origin. Requests without `Origin` are not
    /// from a page and pass: `https://app.example.com`, `http://name:*`. Default: loopback origins when the address is loopback, none otherwise.
    allowed_origins: Option<Vec<Origin>>,
    /// Proxies whose `X-Forwarded-For` is believed: `10.0.0.0/8`, `"fd00::/8"`, `127.0.0.1`. Default: none.
    trusted_proxies: Option<Vec<Network>>,
    /// Largest request body; a larger one gets 413. Default `4MiB`.
    max_body: Option<Size>,
    /// Connections open at once; further ones wait in the kernel's queue. Default 10000.
    max_connections: Option<OrVariable<Number<1, 1_000_000>>>,
    /// Interval of comment lines on idle event streams, which keep proxies on the way from cutting them. Default `15s`.
    keep_alive: Option<Duration>,
    /// Deadlines towards clients.
    timeout: Option<ListenerTimeout>,
}

/// Deadlines towards clients.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ListenerTimeout {
    /// The whole TLS handshake. Default `10s`.
    handshake: Option<Duration>,
    /// The whole request head, from its first byte; and that byte on a new connection. Default `10s`.
    header: Option<Duration>,
    /// The whole request body; a slower one gets 408. Default `30s`.
    body: Option<Duration>,
    /// A kept-alive connection without a request. Default `60s`.
    idle: Option<Duration>,
    /// One write that the client does not read; then its connection is closed. Default `30s`.
    write: Option<Duration>,
}

/// TLS of a listener.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Tls {
    /// At least one. Picked by the client's server name; the first serves clients that send none or an unknown one.
    #[schemars(length(min = 1))]
    certificates: Vec<Certificate>,
}

/// A certificate and its key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Certificate {
    /// PEM file with the chain, leaf first.
    cert: FilePath,
    /// PEM file with the private key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    key: FilePath,
}

/// The operator's listener.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Admin {
    /// IP address and port to bind. Default `127.0.0.1:9464`. Takes effect at a restart.
    address: Option<Address>,
}
