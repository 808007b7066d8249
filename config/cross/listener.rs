//! `listeners` and `admin`: addresses, and who may call.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::secret;
use crate::expand::Text;
use crate::grammar::{duration, size};
use crate::listener::{
    Certificate, DEFAULT_KEEP_ALIVE, DEFAULT_MAX_BODY, DEFAULT_MAX_CONNECTIONS, DEFAULT_PATH, HostPattern, Listener,
    ListenerTimeout, OriginPattern, Tls,
};
use crate::runtime::Admin;
use crate::walk::{Section, Value, Wrong};

/// Every address of the file so far, so that two sockets never want the same.
#[derive(Default)]
pub(super) struct Addresses(Vec<(SocketAddr, String)>);

impl Addresses {
    fn claim(&mut self, value: &Value<'_>, address: SocketAddr) {
        match self.0.iter().find(|(other, _)| overlap(*other, address)) {
            Some((other, owner)) if *other == address => value.problem(format!("`{owner}` has this address already")),
            Some((_, owner)) => {
                value.problem(format!("`{owner}` has this port already, and one of the two is every address"))
            }
            None => {}
        }
        self.0.push((address, value.field().to_owned()));
    }
}

/// Whether two sockets cannot be bound at once. Port 0 is a free one each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any && a.is_ipv4() == b.is_ipv4())
}

pub(super) fn listeners(value: &Value<'_>, addresses: &mut Addresses) -> Option<Vec<Listener>> {
    value.some("name at least one: - address: 127.0.0.1:8080", |value| {
        value.section(|s| listener(s, addresses)).flatten()
    })
}

pub(super) fn admin(value: &Value<'_>, addresses: &mut Addresses) -> Option<Admin> {
    value.section(|s| {
        let given = s.optional("address", |value| address(value, addresses));
        given.map_or_else(Admin::default, |address| Admin { address })
    })
}

fn listener(s: &mut Section<'_>, addresses: &mut Addresses) -> Option<Listener> {
    let address = s.required("address", |value| address(value, addresses));
    let path = s.optional("path", path).unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let tls = s.optional("tls", tls);
    let loopback = address.is_some_and(|address| address.ip().to_canonical().is_loopback());
    let allowed_hosts = s.optional("allowed_hosts", |value| {
        value.some("write \"*\" to allow every host", |value| value.parsed("a host", HostPattern::parse))
    });
    let allowed_origins =
        s.optional("allowed_origins", |value| value.list(|value| value.parsed("an origin", OriginPattern::parse)));
    let trusted_proxies = s.optional("trusted_proxies", |value| value.list(|value| value.parsed("a network", network)));
    let listener = Listener {
        path,
        tls,
        allowed_hosts: allowed_hosts
            .unwrap_or_else(|| if loopback { HostPattern::loopback() } else { vec![HostPattern::any()] }),
        allowed_origins: allowed_origins
            .unwrap_or_else(|| if loopback { OriginPattern::loopback() } else { Vec::new() }),
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        max_body: s.optional("max_body", size).unwrap_or(DEFAULT_MAX_BODY),
        max_connections: s
            .optional("max_connections", |value| value.number(1..=1_000_000))
            .unwrap_or(DEFAULT_MAX_CONNECTIONS),
        keep_alive: s.optional("keep_alive", duration).unwrap_or(DEFAULT_KEEP_ALIVE),
        timeout: s.optional("timeout", timeout).unwrap_or_default(),
        // Last, so that every key has been asked for before this gives up.
        address: address?,
    };
    Some(listener)
}

fn timeout(value: &Value<'_>) -> Option<ListenerTimeout> {
    let default = ListenerTimeout::default();
    value.section(|s| ListenerTimeout {
        handshake: s.optional("handshake", duration).unwrap_or(default.handshake),
        header: s.optional("header", duration).unwrap_or(default.header),
        body: s.optional("body", duration).unwrap_or(default.body),
        idle: s.optional("idle", duration).unwrap_or(default.idle),
        write: s.optional("write", duration).unwrap_or(default.write),
    })
}

fn tls(value: &Value<'_>) -> Option<Tls> {
    let certificates = |value: &Value<'_>| {
        value.some("name at least one: - { cert: tls.crt, key: tls.key }", |value| value.section(certificate).flatten())
    };
    value.section(|s| s.required("certificates", certificates).map(|certificates| Tls { certificates })).flatten()
}

fn certificate(s: &mut Section<'_>) -> Option<Certificate> {
    let (cert, key) = (s.required("cert", secret::certificates), s.required("key", secret::private_key));
    Some(Certificate { cert: cert?, key: key? })
}

fn address(value: &Value<'_>, addresses: &mut Addresses) -> Option<SocketAddr> {
    let address = value.parsed("an IP address and a port", socket_address)?;
    addresses.claim(value, address);
    Some(address)
}

fn socket_address(text: &str) -> Result<SocketAddr, Wrong> {
    let wrong = || Wrong::new("an IP address and a port such as 127.0.0.1:8080 or [::]:8443");
    text.parse::<SocketAddr>().map_err(|_| {
        if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            return wrong().help(format!("write [{text}]:8080"));
        }
        if text.parse::<IpAddr>().is_ok() {
            return wrong().help(format!("write {text}:8080"));
        }
        let (host, port) = text.split_once(':').unwrap_or(("localhost", text));
        match (host, port.parse::<u16>()) {
            ("localhost", Ok(port)) => wrong().help(format!("write 127.0.0.1:{port}")),
            ("" | "*", Ok(port)) => wrong().help(format!("write 0.0.0.0:{port} for every interface")),
            _ => wrong(),
        }
    })
}

fn path(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let wrong = |text: &Text, help: &str| value.wrong(text, Wrong::new("a path such as /mcp").help(help));
    if !text.value.starts_with('/') {
        wrong(&text, "begin it with /");
    } else if text.value.contains(['?', '#']) {
        wrong(&text, "a path has no query and no fragment");
    } else if !text.value.bytes().all(|b| b.is_ascii_graphic()) {
        wrong(&text, "encode spaces and letters beyond ASCII as %XX");
    } else {
        return Some(text.value);
    }
    None
}

fn network(text: &str) -> Result<IpNet, Wrong> {
    let wrong = || Wrong::new("an address or a network such as 10.0.0.0/8");
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network = text.parse::<IpNet>().map_err(|_| wrong())?;
    if network != network.trunc() {
        return Err(wrong().help(format!("write {}, or {}", network.trunc(), network.addr())));
    }
    Ok(network)
}
