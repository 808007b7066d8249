//! Host names and origins: how the patterns for them are written, and what they match.

use std::fmt;
use std::net::Ipv6Addr;

use crate::listener::{HostPattern, OriginPattern};
use crate::walk::Wrong;

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new("a host such as mcp.example.com, *.example.com, [::1]:8080 or *");
        if text.contains("://") {
            return Err(wrong().help("leave the scheme out"));
        }
        let (host, port) = split(text).ok_or_else(wrong)?;
        let port = pattern_port(port).map_err(|()| wrong().help("a port is a number from 1 to 65535"))?;
        let host = pattern_host(host).ok_or_else(wrong)?;
        Ok(Self { host, port })
    }

    /// Whether a `Host` header (or `:authority`) names this host. Case does not matter, nor does a final dot. A header
    /// without a port is on its scheme's own, so it satisfies patterns for 80 and 443.
    pub fn matches(&self, host_header: &str) -> bool {
        Self::one_matches(std::slice::from_ref(self), host_header)
    }

    /// Whether one of these [matches](Self::matches).
    pub fn one_matches(patterns: &[Self], host_header: &str) -> bool {
        if patterns.iter().any(|pattern| pattern.host == "*" && pattern.port.is_none()) {
            return true;
        }
        let Some((host, port)) = split(host_header) else { return false };
        let Ok(port) = numeric_port(port) else { return false };
        patterns.iter().any(|pattern| {
            let is_on = |wanted| port.map_or(matches!(wanted, 80 | 443), |port| port == wanted);
            pattern.port.is_none_or(is_on) && covers(&pattern.host, host)
        })
    }

    /// The names of this machine to itself, on any port.
    pub(crate) fn loopback() -> Vec<Self> {
        LOOPBACK.iter().map(|host| Self { host: (*host).to_owned(), port: None }).collect()
    }

    pub(crate) fn any() -> Self {
        Self { host: "*".to_owned(), port: None }
    }
}

impl OriginPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let wrong = || Wrong::new("an origin such as https://app.example.com, http://localhost:* or *");
        if text == "*" {
            return Ok(Self { scheme: "*".to_owned(), host: "*".to_owned(), port: None });
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match split(text) {
                Some(_) if text == "null" => wrong().help("only * admits pages without an origin"),
                Some(_) => wrong().help(format!("write https://{text}")),
                None => wrong(),
            });
        };
        if rest.contains('/') {
            return Err(wrong().help("an origin has no path, not even a final slash"));
        }
        if scheme != "*" && !is_scheme(scheme) {
            return Err(wrong());
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, written) = split(rest).ok_or_else(wrong)?;
        let port = pattern_port(written).map_err(|()| wrong().help("a port is a number from 1 to 65535, or *"))?;
        let port = if written.is_none() { own_port(&scheme) } else { port };
        let host = pattern_host(host).ok_or_else(wrong)?;
        Ok(Self { scheme, host, port })
    }

    /// Whether an `Origin` header is this origin. `null`, which any sandboxed page can send, is only `*`.
    pub fn matches(&self, origin: &str) -> bool {
        if self.scheme == "*" && self.host == "*" && self.port.is_none() {
            return true;
        }
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let Some((host, port)) = split(rest) else { return false };
        let Ok(port) = numeric_port(port) else { return false };
        let port = port.or_else(|| own_port(&scheme.to_ascii_lowercase()));
        is_scheme(scheme)
            && (self.scheme == "*" || self.scheme.eq_ignore_ascii_case(scheme))
            && (self.port.is_none() || self.port == port)
            && covers(&self.host, host)
    }

    /// Pages served from this machine, on any port.
    pub(crate) fn loopback() -> Vec<Self> {
        let origin = |scheme: &str, host: &str| Self { scheme: scheme.to_owned(), host: host.to_owned(), port: None };
        ["http", "https"].iter().flat_map(|scheme| LOOPBACK.iter().map(move |host| origin(scheme, host))).collect()
    }
}

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl fmt::Display for HostPattern {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_host(f, &self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Display for OriginPattern {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == "*" && self.host == "*" && self.port.is_none() {
            return f.write_str("*");
        }
        write!(f, "{}://", self.scheme)?;
        write_host(f, &self.host)?;
        match self.port {
            port if port == own_port(&self.scheme) => Ok(()),
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

fn write_host(f: &mut fmt::Formatter<'_>, host: &str) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]") } else { f.write_str(host) }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` or a bare v6 address, as host without brackets and port as written. Gives
/// nothing for what cannot be a host, so that no suffix of it is ever taken for one.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        return host.parse::<Ipv6Addr>().is_ok().then_some((host, port));
    }
    if text.bytes().filter(|byte| *byte == b':').count() > 1 && text.parse::<Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let host = host.strip_suffix('.').unwrap_or(host);
    is_host_name(host.strip_prefix("*.").unwrap_or(host))
        .then_some((host, port))
        .or_else(|| (host == "*").then_some(("*", port)))
}

/// Whether this is a name or an IPv4 address: labels of letters, digits, `-` and `_`.
pub(crate) fn is_host_name(host: &str) -> bool {
    let is_label = |label: &[u8]| {
        (1..=63).contains(&label.len()) && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    host.len() <= 253 && host.as_bytes().split(|b| *b == b'.').all(is_label)
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn own_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The port of a header; none when it is empty, as RFC 9110 allows.
fn numeric_port(port: Option<&str>) -> Result<Option<u16>, ()> {
    match port {
        None | Some("") => Ok(None),
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().map(Some).map_err(|_| ()),
        Some(_) => Err(()),
    }
}

/// The port of a pattern; none when it is `*`.
fn pattern_port(port: Option<&str>) -> Result<Option<u16>, ()> {
    match port {
        None | Some("*") => Ok(None),
        Some("" | "0") => Err(()),
        Some(port) => numeric_port(Some(port)),
    }
}

/// The host of a pattern in the one form that is compared.
fn pattern_host(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(address.to_string());
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    (host == "*" || is_host_name(name)).then(|| host.to_ascii_lowercase())
}

fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => {
            let start = host.len().checked_sub(suffix.len()).filter(|&start| start > 0);
            start.and_then(|start| host.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        None if pattern.contains(':') => host.parse::<Ipv6Addr>().ok() == pattern.parse::<Ipv6Addr>().ok(),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pattern: &str) -> HostPattern {
        HostPattern::parse(pattern).unwrap()
    }

    fn origin(pattern: &str) -> OriginPattern {
        OriginPattern::parse(pattern).unwrap()
    }

    #[test]
    fn hosts_match_their_headers() {
        for (pattern, header) in [
            ("mcp.example.com", "mcp.example.com"),
            ("mcp.example.com", "MCP.Example.com:8443"),
            ("MCP.example.com.", "mcp.example.com"),
            ("mcp.example.com", "mcp.example.com.:443"),
            ("*.example.com", "a.example.com"),
            ("*.example.com", "a.b.example.com:1"),
            ("localhost:8080", "localhost:8080"),
            ("example.com:443", "example.com"),
            ("example.com:443", "example.com:"),
            ("::1", "[::1]"),
            ("[::1]", "[0:0:0:0:0:0:0:1]:9000"),
            ("[FD00::1]:80", "[fd00::1]:80"),
            ("127.0.0.1", "127.0.0.1:3000"),
            ("*", "anything at all"),
            ("*", ""),
            ("*:8443", "x:8443"),
        ] {
            assert!(host(pattern).matches(header), "{pattern} should match {header}");
        }
    }

    #[test]
    fn hosts_match_nothing_else() {
        for (pattern, header) in [
            ("example.com", "evil-example.com"),
            ("example.com", "example.com.evil.com"),
            ("*.example.com", "example.com"),
            ("*.example.com", ".example.com"),
            ("*.example.com", "evil.com/.example.com"),
            ("*.example.com", "user@a.example.com"),
            ("localhost:8080", "localhost"),
            ("localhost:8080", "localhost:80"),
            ("localhost", "localhost:99999"),
            ("localhost", "localhost:+80"),
            ("localhost", "localhost:8080:80"),
            ("localhost", ""),
            ("::1", "[::1"),
            ("::1", "[::2]"),
            ("127.0.0.1", "127.0.0.10"),
            ("*:8443", "x:8444"),
        ] {
            assert!(!host(pattern).matches(header), "{pattern} should not match {header}");
        }
    }

    #[test]
    fn origins_match_their_headers() {
        for (pattern, header) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://app.example.com", "HTTPS://App.example.com:443"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://localhost:*", "http://localhost:5173"),
            ("http://localhost:*", "http://localhost"),
            ("http://[::1]:*", "http://[::1]:5173"),
            ("https://*.example.com", "https://a.example.com"),
            ("vscode-webview://*", "vscode-webview://abc"),
            ("*", "null"),
            ("*", "https://anything"),
        ] {
            assert!(origin(pattern).matches(header), "{pattern} should match {header}");
        }
    }

    #[test]
    fn origins_match_nothing_else() {
        for (pattern, header) in [
            ("https://app.example.com", "http://app.example.com"),
            ("https://app.example.com", "https://app.example.com:8443"),
            ("https://app.example.com", "https://app.example.com/"),
            ("https://app.example.com", "https://app.example.com.evil.com"),
            ("https://app.example.com", "null"),
            ("https://*.example.com", "https://example.com"),
            ("http://localhost:*", "http://localhost:x"),
            ("http://localhost:*", "http://localhost.evil.com:80"),
            ("https://app.example.com", ""),
        ] {
            assert!(!origin(pattern).matches(header), "{pattern} should not match {header}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a b", "http://x", "x/y", "a*.com", "*.*.com", "x:0", "x:65536", "[::1", "x:", "ex..com"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
        for text in ["", "app.example.com", "https://x/", "https://", "://x", "https://x:0", "null", "https://u@x"] {
            assert!(OriginPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_print_as_they_are_written() {
        for text in ["*", "*.example.com", "localhost:8080", "[::1]:80", "127.0.0.1"] {
            assert_eq!(host(text).to_string(), text);
        }
        for text in ["*", "https://app.example.com", "http://localhost:*", "https://[::1]:8443", "app://x"] {
            assert_eq!(origin(text).to_string(), text);
        }
    }

    #[test]
    fn loopback_origins_are_loopback_hosts() {
        assert!(OriginPattern::loopback().iter().any(|pattern| pattern.matches("https://[::1]:3000")));
        assert!(HostPattern::loopback().iter().any(|pattern| pattern.matches("LOCALHOST:8080")));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_a_match_panic(pattern in "[*a.:\\[\\]0-9/]{0,12}", header in "\\PC{0,20}|[*a.:\\[\\]0-9/]{0,12}") {
            if let Ok(pattern) = HostPattern::parse(&pattern) {
                let _ = pattern.matches(&header);
            }
            if let Ok(pattern) = OriginPattern::parse(&format!("http://{pattern}")) {
                let _ = pattern.matches(&header);
            }
        }
    }
}
