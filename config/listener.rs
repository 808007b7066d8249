//! `listeners`: where clients connect. What a listener does with a request is the proxy's business.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::value::Pem;

/// The path a listener serves MCP on when `path` is not given.
pub const DEFAULT_PATH: &str = "/mcp";
/// The largest request body accepted when `max_body` is not given: 4 MiB, as go-sdk's own cap.
pub const DEFAULT_MAX_BODY: u64 = 4 * 1024 * 1024;
/// Connections held open at once by one listener when `max_connections` is not given.
pub const DEFAULT_MAX_CONNECTIONS: u32 = 10_000;
/// How often an idle event stream gets a comment line when `keep_alive` is not given.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One bound address, with its TLS and its rules.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Listener {
    /// IP address and port to bind, IPv4 or IPv6 (`[::]:8443`). Port 0 takes a free one. Restart-only.
    pub address: SocketAddr,
    /// The one path that speaks MCP. Default `/mcp`.
    pub path: String,
    /// TLS, or plain HTTP when absent. Whether it is there is restart-only; its certificates reload.
    pub tls: Option<Tls>,
    /// Host names a request may be addressed to. Default: the loopback names when the address is loopback, any otherwise.
    pub allowed_hosts: Vec<HostPattern>,
    /// Browser origins that may call. Default: loopback origins when the address is loopback, none otherwise.
    /// A request without `Origin` is not from a browser page and is not judged by this.
    pub allowed_origins: Vec<OriginPattern>,
    /// Addresses of proxies whose `X-Forwarded-For` is believed. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// Largest request body in bytes. Default 4 MiB; larger gets 413.
    pub max_body: u64,
    /// Connections open at once; further ones wait in the kernel's queue. Default 10,000.
    pub max_connections: u32,
    /// Interval of comment lines on idle event streams. Default 15 s.
    pub keep_alive: Duration,
    /// Deadlines towards clients.
    pub timeout: ListenerTimeout,
}

/// Deadlines towards clients.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListenerTimeout {
    /// TLS handshake, whole. Default 10 s.
    pub handshake: Duration,
    /// Request head, whole, once its first byte came. Default 10 s.
    pub header: Duration,
    /// Request body, whole; a slower one gets 408. Default 30 s.
    pub body: Duration,
    /// A kept-alive connection without a request. Default 60 s.
    pub idle: Duration,
    /// One write that a client does not read. Default 30 s; then its connection is closed.
    pub write: Duration,
}

impl Default for ListenerTimeout {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(30),
        }
    }
}

/// TLS of a listener: 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tls {
    /// At least one. The certificate is picked by the client's server name (SNI) among the names in the certificates;
    /// the first one serves clients that send no name or an unknown one.
    pub certificates: Vec<Certificate>,
}

/// A certificate chain and its private key, both PEM files.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Certificate {
    /// The chain, leaf first.
    pub cert: Pem,
    /// The key: PKCS#8, PKCS#1 or SEC1.
    pub key: Pem,
}

/// A host name that a `Host` header may carry: `mcp.example.com`, `*.example.com`, `[::1]`, `*`, each with an optional `:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HostPattern {
    /// Lower case, IPv6 without brackets; `*` for any host; a leading `*.` for any name below.
    pub host: String,
    /// The port it must be, or any when absent.
    pub port: Option<u16>,
}

/// An origin that an `Origin` header may carry: `https://app.example.com`, `http://localhost:*`, `*`.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct OriginPattern {
    /// `http`, `https`, another scheme, or `*` for any.
    pub scheme: String,
    /// As in [`HostPattern`].
    pub host: String,
    /// The port it must be (the scheme's own when the pattern names none), or any when absent (`:*`).
    pub port: Option<u16>,
}
