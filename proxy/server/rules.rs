//! What HTTP and MCP demand of a request before anybody reads its body: path, host, origin, verb, types. Pure.

use std::net::IpAddr;

use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, HOST, ORIGIN,
};
use http::{HeaderName, HeaderValue, Method, Uri};
use ipnet::IpNet;
use toolgate_config::{HostPattern, Listener};

use crate::error::Error;
use crate::fields::Fields;
use crate::framing::is_of_type;

/// The verbs of a listener's path.
const VERBS: &str = "GET, POST, DELETE, OPTIONS";
/// What browser pages may send; `Mcp-Param-*` too.
const CORS_HEADERS: &str = "Content-Type, Accept, Authorization, Last-Event-ID, Mcp-Method, Mcp-Name, \
                            MCP-Protocol-Version, Mcp-Session-Id, X-Request-Id, Traceparent, Tracestate, Baggage";
/// What browser pages may read.
const CORS_EXPOSED: &str = "Mcp-Session-Id, Retry-After, WWW-Authenticate, X-Request-Id";
/// How long a browser may remember a preflight, in seconds.
const CORS_MAX_AGE: &str = "7200";
/// Hops of `X-Forwarded-For` that are looked at.
const MAX_HOPS: usize = 32;

/// What a request head turned out to be.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Pass {
    /// A browser asking whether it may.
    Preflight,
    /// A request to be handled.
    Request,
}

/// Judges a request head.
pub(super) fn judge(listener: &Listener, verb: &Method, uri: &Uri, headers: &Fields) -> Result<Pass, Error> {
    if uri.path() != listener.path {
        return Err(Error::NotFound { mcp: listener.path.clone() });
    }
    host(listener, uri, headers)?;
    let origin = origin(listener, headers)?;
    match *verb {
        Method::OPTIONS if origin && headers.has(ACCESS_CONTROL_REQUEST_METHOD) => {
            return Ok(Pass::Preflight);
        }
        Method::GET => accepts(headers, &["text/event-stream"])?,
        Method::POST => {
            is_json(headers)?;
            is_plain(headers)?;
            accepts(headers, &["application/json", "text/event-stream"])?;
        }
        Method::DELETE => {}
        _ => return Err(Error::MethodNotAllowed { verb: verb.to_string(), allow: VERBS }),
    }
    Ok(Pass::Request)
}

/// A name that is not ours means that somebody's DNS was made to point here (2025-11-25, Transports).
fn host(listener: &Listener, uri: &Uri, headers: &Fields) -> Result<(), Error> {
    let forbidden = |host: &str| Error::HostForbidden { host: host.chars().take(255).collect() };
    let header = headers.get(HOST).map(|value| value.to_str().map_err(|_| forbidden("(not ASCII)"))).transpose()?;
    // HTTP/2 has `:authority`, and an absolute URI outranks the header (RFC 9112, section 3.2.2).
    let host = uri.authority().map(|authority| authority.as_str()).or(header).unwrap_or("");
    match HostPattern::one_matches(&listener.allowed_hosts, host) {
        true => Ok(()),
        false => Err(forbidden(host)),
    }
}

/// Whether there is an origin; one that is not allowed is refused (2025-11-25, Transports).
fn origin(listener: &Listener, headers: &Fields) -> Result<bool, Error> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(false) };
    let text = String::from_utf8_lossy(origin.as_bytes());
    match listener.allowed_origins.iter().any(|pattern| pattern.matches(&text)) {
        true => Ok(true),
        false => Err(Error::OriginForbidden { origin: text.chars().take(255).collect() }),
    }
}

fn is_json(headers: &Fields) -> Result<(), Error> {
    if is_of_type(headers, "application/json") { Ok(()) } else { Err(Error::UnsupportedMediaType) }
}

/// What a client accepts that follows the specification to the letter. It comes with nearly every request, and is known at a
/// glance.
fn accepts_as_usual(headers: &Fields) -> bool {
    let mut values = headers.get_all(ACCEPT);
    values.next().is_some_and(|value| value == "application/json, text/event-stream") && values.next().is_none()
}

/// Every coding is named in the header, one after the other (RFC 9110, section 8.4).
fn is_plain(headers: &Fields) -> Result<(), Error> {
    let mut codings = headers.get_all(CONTENT_ENCODING).flat_map(|value| value.as_bytes().split(|&b| b == b','));
    let is_none = |coding: &[u8]| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity");
    if codings.all(|coding| is_none(coding.trim_ascii())) { Ok(()) } else { Err(Error::UnsupportedEncoding) }
}

/// Whether the client takes each of the types that its answer may have. One that names none takes all (RFC 9110, 12.5.1).
fn accepts(headers: &Fields, needed: &[&'static str]) -> Result<(), Error> {
    if accepts_as_usual(headers) {
        return Ok(());
    }
    let mut ranges = headers.get_all(ACCEPT).filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).peekable();
    if ranges.peek().is_none() {
        return Ok(());
    }
    let ranges: Vec<&str> = ranges.map(|range| range.split(';').next().unwrap_or("").trim()).collect();
    for needed in needed {
        let group = needed.split('/').next().unwrap_or("");
        let takes = |range: &&str| {
            range.eq_ignore_ascii_case(needed)
                || *range == "*/*"
                || range.strip_suffix("/*").is_some_and(|g| g.eq_ignore_ascii_case(group))
        };
        if !ranges.iter().any(takes) {
            return Err(Error::NotAcceptable { needed });
        }
    }
    Ok(())
}

/// Whether a client names event streams before JSON: with more weight, or else first. Most name JSON first.
pub(super) fn prefers_events(headers: &Fields) -> bool {
    if accepts_as_usual(headers) {
        return false;
    }
    let weight = |range: &str| {
        let quality = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q=")?.parse().ok());
        quality.unwrap_or(1.0_f32)
    };
    let ranges = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    let (mut events, mut json) = (None, None);
    for (place, range) in ranges.enumerate() {
        match range.split(';').next().unwrap_or("").trim() {
            "text/event-stream" => events = events.or_else(|| Some((weight(range), place))),
            "application/json" => json = json.or_else(|| Some((weight(range), place))),
            _ => {}
        }
    }
    match (events, json) {
        (Some((events, first)), Some((json, second))) => events > json || (events >= json && first < second),
        (_, _) => false,
    }
}

/// The headers that let a browser page of an allowed origin have the reply.
pub(super) fn cors(listener: &Listener, headers: &Fields) -> Vec<(HeaderName, HeaderValue)> {
    let Ok(true) = origin(listener, headers) else { return Vec::new() };
    let Some(origin) = headers.get(ORIGIN) else { return Vec::new() };
    vec![
        (HeaderName::from_static("access-control-allow-origin"), origin.clone()),
        (HeaderName::from_static("access-control-expose-headers"), HeaderValue::from_static(CORS_EXPOSED)),
        (http::header::VARY, HeaderValue::from_static("Origin")),
    ]
}

/// What a preflight is answered with, beside [`cors`].
pub(super) fn preflight(headers: &Fields) -> Vec<(HeaderName, HeaderValue)> {
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok()).unwrap_or("");
    let parameters = asked.split(',').map(str::trim).filter(|name| {
        name.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("mcp-param-")) && name.len() <= 128
    });
    let allowed = parameters.fold(CORS_HEADERS.to_owned(), |allowed, name| allowed + ", " + name);
    let allowed = HeaderValue::from_str(&allowed).unwrap_or(HeaderValue::from_static(CORS_HEADERS));
    vec![
        (HeaderName::from_static("access-control-allow-methods"), HeaderValue::from_static("GET, POST, DELETE")),
        (HeaderName::from_static("access-control-allow-headers"), allowed),
        (HeaderName::from_static("access-control-max-age"), HeaderValue::from_static(CORS_MAX_AGE)),
    ]
}

/// The client's address: the connection's, or, through trusted proxies, the last hop that is not one of them.
pub(super) fn client(peer: IpAddr, trusted: &[IpNet], headers: &Fields) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |ip: &IpAddr| trusted.iter().any(|net| net.contains(ip));
    if !is_trusted(&peer) {
        return peer;
    }
    let lines =
        headers.get_all(HeaderName::from_static("x-forwarded-for")).rev().filter_map(|value| value.to_str().ok());
    let mut client = peer;
    for hop in lines.flat_map(|line| line.rsplit(',')).take(MAX_HOPS) {
        // Whatever stands before something unreadable was not written by who is trusted.
        let Some(ip) = address(hop.trim()) else { break };
        client = ip.to_canonical();
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// An address as proxies write it: bare, in brackets, with a port.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()));
    parsed.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(extra: &str) -> Listener {
        let yaml = format!(
            "listeners: [{{ address: 0.0.0.0:8080, allowed_hosts: [mcp.example.com], \
             allowed_origins: [\"https://app.example.com\"]{extra} }}]\n\
             backends: [{{ name: a, url: http://127.0.0.1:1/mcp }}]\n"
        );
        let config = toolgate_config::parse(std::path::Path::new("t.yaml"), &yaml, &|_| None);
        config.unwrap_or_else(|report| panic!("{report}")).listeners.remove(0)
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> Fields {
        let field = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(field).collect()
    }

    fn verdict(verb: Method, path: &'static str, pairs: &[(&'static str, &'static str)]) -> Result<Pass, Error> {
        judge(&listener(""), &verb, &Uri::from_static(path), &headers(pairs))
    }

    const GOOD: [(&str, &str); 2] = [("host", "mcp.example.com"), ("content-type", "application/json")];

    #[test]
    fn a_proper_post_passes() {
        assert_eq!(verdict(Method::POST, "/mcp", &GOOD).unwrap(), Pass::Request);
        let typed = [("host", "MCP.example.com:443"), ("content-type", "Application/JSON; charset=utf-8")];
        assert_eq!(verdict(Method::POST, "/mcp", &typed).unwrap(), Pass::Request);
        let named = [GOOD[0], GOOD[1], ("content-encoding", "Identity,"), ("content-encoding", "")];
        assert_eq!(verdict(Method::POST, "/mcp", &named).unwrap(), Pass::Request);
    }

    #[test]
    fn each_rule_refuses_with_its_status() {
        let status = |verdict: Result<Pass, Error>| verdict.unwrap_err().status().as_u16();
        let host = ("host", "mcp.example.com");
        assert_eq!(status(verdict(Method::POST, "/other", &GOOD)), 404);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[("host", "evil.example")])), 403);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[])), 403);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[host, ("origin", "https://evil.example")])), 403);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[host, ("origin", "null")])), 403);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[host, ("content-type", "text/plain")])), 415);
        assert_eq!(status(verdict(Method::POST, "/mcp", &[host])), 415);
        for coding in ["gzip", "identity, br"] {
            let encoded = [GOOD[0], GOOD[1], ("content-encoding", coding)];
            assert_eq!(status(verdict(Method::POST, "/mcp", &encoded)), 415);
        }
        assert_eq!(status(verdict(Method::PUT, "/mcp", &GOOD)), 405);
        assert_eq!(status(verdict(Method::OPTIONS, "/mcp", &GOOD)), 405);
        assert_eq!(status(verdict(Method::GET, "/mcp", &[host, ("accept", "application/json")])), 406);
        let one = [GOOD[0], GOOD[1], ("accept", "application/json")];
        assert_eq!(status(verdict(Method::POST, "/mcp", &one)), 406);
    }

    #[test]
    fn accept_may_be_given_in_parts_and_ranges() {
        let parts = [GOOD[0], GOOD[1], ("accept", "application/json;q=0.9"), ("accept", "text/event-stream")];
        let ranges = [GOOD[0], GOOD[1], ("accept", "application/*, text/*")];
        let any = [GOOD[0], GOOD[1], ("accept", "*/*")];
        for pairs in [&parts[..], &ranges, &any] {
            assert!(verdict(Method::POST, "/mcp", pairs).is_ok(), "{pairs:?}");
        }
    }

    #[test]
    fn event_streams_are_preferred_where_they_are_named_first_or_weigh_more() {
        let prefers = |accept: &'static str| prefers_events(&headers(&[("accept", accept)]));
        assert!(prefers("text/event-stream, application/json"));
        assert!(prefers("application/json;q=0.5, text/event-stream"));
        assert!(!prefers("application/json, text/event-stream"));
        assert!(!prefers("text/event-stream;q=0.1, application/json"));
        assert!(!prefers("text/event-stream, */*") && !prefers(""));
    }

    #[test]
    fn an_allowed_origin_gets_its_preflight() {
        let pairs = [
            ("host", "mcp.example.com"),
            ("origin", "https://app.example.com"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "mcp-session-id, Mcp-Param-Region, x-evil"),
        ];
        assert_eq!(verdict(Method::OPTIONS, "/mcp", &pairs).unwrap(), Pass::Preflight);
        let allowed = preflight(&headers(&pairs))[1].1.to_str().unwrap().to_owned();
        assert!(allowed.contains("Mcp-Param-Region") && !allowed.contains("x-evil"), "{allowed}");
        assert_eq!(cors(&listener(""), &headers(&pairs))[0].1, "https://app.example.com");
        assert!(cors(&listener(""), &headers(&[("origin", "https://evil.example")])).is_empty());
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let from = |peer: &str, line: &'static str| {
            client(peer.parse().unwrap(), &trusted, &headers(&[("x-forwarded-for", line)])).to_string()
        };
        assert_eq!(from("192.0.2.1", "198.51.100.7"), "192.0.2.1");
        assert_eq!(from("10.0.0.1", "198.51.100.7"), "198.51.100.7");
        assert_eq!(from("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
        assert_eq!(from("10.0.0.1", "198.51.100.7, garbage"), "10.0.0.1");
        assert_eq!(from("fd00::1", "[2001:db8::5]:443"), "2001:db8::5");
        assert_eq!(from("::ffff:10.0.0.1", "2001:db8::6"), "2001:db8::6");
        assert_eq!(from("10.0.0.1", "10.0.0.9"), "10.0.0.9");
    }
}
