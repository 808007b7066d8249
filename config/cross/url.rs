//! A backend's URL, taken apart. A URL can hold a password or a token, so problems quote only its scheme, host or port.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::uri::PathAndQuery;

use crate::authority::is_host_name;
use crate::reach::Url;
use crate::walk::{Value, quote};

/// Why text is no URL.
#[derive(Debug)]
struct Problem {
    message: &'static str,
    /// The piece at fault, where it can hold no secret of its own.
    found: Option<String>,
    help: Option<&'static str>,
}

/// An `http` or `https` URL.
pub(super) fn url(value: &Value<'_>) -> Option<Url> {
    let text = value.clone().secret().text()?;
    let Problem { message, found, help } = match parse(&text.value) {
        Ok(url) => return Some(url),
        Err(problem) => problem,
    };
    // A piece of what a variable gave is as secret as the whole.
    let message = match found.filter(|_| !text.substituted) {
        Some(found) => format!("{message}, found {}", quote(&found)),
        None => message.to_owned(),
    };
    match help {
        Some(help) => value.problem_with(message, help),
        None => value.problem(message),
    }
    None
}

impl Url {
    /// Where a reference that this URL's server gave leads to (RFC 3986, section 4.2), if that is the same server: what is
    /// sent to it must not be led elsewhere.
    pub fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.split('#').next().unwrap_or_default();
        let path = self.path.split('?').next().unwrap_or_default();
        let scheme = if self.https { "https" } else { "http" };
        let whole = match reference {
            _ if reference.contains("://") && !reference.starts_with(['/', '?']) => reference.to_owned(),
            _ if reference.starts_with("//") => format!("{scheme}:{reference}"),
            _ if reference.starts_with('/') => format!("{scheme}://{}{reference}", self.authority),
            _ if reference.starts_with('?') => format!("{scheme}://{}{path}{reference}", self.authority),
            "" => return Some(self.clone()),
            _ => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{scheme}://{}{folder}/{reference}", self.authority)
            }
        };
        let url = parse(&whole).ok()?;
        let is_here = url.https == self.https && url.host == self.host && url.port == self.port;
        is_here.then_some(url)
    }

    /// Whether the host is an IP address, for which no certificate's name can be guessed.
    pub(crate) fn is_ip(&self) -> bool {
        self.host.parse::<Ipv4Addr>().is_ok() || self.host.contains(':')
    }
}

fn parse(text: &str) -> Result<Url, Problem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(problem("not a URL").help("write it whole, as in https://host/mcp"));
    };
    let https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(problem("scheme must be http or https").found(scheme)),
    };
    if rest.contains('#') {
        return Err(problem("has a fragment, which is never sent").help("remove # and what follows"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(problem("has a user name or password").help("send it with `headers`: Authorization: { env: NAME }"));
    }
    let (host, port) = split_authority(authority)?;
    let own_port = if https { 443 } else { 80 };
    let port = port.unwrap_or(own_port);
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let authority = if port == own_port { bracketed } else { format!("{bracketed}:{port}") };
    Ok(Url { https, host, port, path: target(path)?, authority })
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), Problem> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        let Ok(address) = host.parse::<Ipv6Addr>() else {
            return Err(problem("not an IPv6 address").found(host));
        };
        (address.to_string(), after)
    } else {
        let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        if host.is_empty() {
            return Err(problem("has no host"));
        }
        if !is_host_name(host.strip_suffix('.').unwrap_or(host)) {
            let help = "a name of letters, digits, - and dots, or an IP address, IPv6 in brackets";
            return Err(problem("not a host").found(host).help(help));
        }
        (host.to_ascii_lowercase(), port)
    };
    Ok((host, self::port(port)?))
}

/// `:8080`, or nothing.
fn port(text: &str) -> Result<Option<u16>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()).filter(|&port| port != 0) {
        Some(port) => Ok(Some(port)),
        None => Err(problem("port must be a number from 1 to 65535").found(text.trim_start_matches(':'))),
    }
}

/// Path and query, in the form they are sent.
fn target(path: &str) -> Result<String, Problem> {
    let target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if target.bytes().all(|b| b.is_ascii_graphic()) && target.parse::<PathAndQuery>().is_ok() {
        return Ok(target);
    }
    Err(problem("has characters that a URL cannot have").help("encode them as %XX"))
}

fn problem(message: &'static str) -> Problem {
    Problem { message, found: None, help: None }
}

impl Problem {
    fn found(self, piece: &str) -> Self {
        Self { found: Some(piece.to_owned()), ..self }
    }

    fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, https, host, port, path, authority) in [
            ("http://127.0.0.1:3001/mcp", false, "127.0.0.1", 3001, "/mcp", "127.0.0.1:3001"),
            ("https://Example.com", true, "example.com", 443, "/", "example.com"),
            ("HTTPS://example.com:443/a?b=c", true, "example.com", 443, "/a?b=c", "example.com"),
            ("http://[0::1]:80?x", false, "::1", 80, "/?x", "[::1]"),
            ("http://my_service:8080/", false, "my_service", 8080, "/", "my_service:8080"),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.https, &*url.host, url.port, &*url.path, &*url.authority),
                (https, host, port, path, authority)
            );
        }
    }

    #[test]
    fn references_lead_to_the_same_server_or_nowhere() {
        let url = parse("http://a.internal:3000/v1/sse?key=k").unwrap();
        for (reference, path) in [
            ("/messages/?session_id=1", Some("/messages/?session_id=1")),
            ("messages?sessionId=1", Some("/v1/messages?sessionId=1")),
            ("?sessionId=1", Some("/v1/sse?sessionId=1")),
            ("?next=http://b/", Some("/v1/sse?next=http://b/")),
            ("http://A.internal:3000/m#x", Some("/m")),
            ("//a.internal:3000/m", Some("/m")),
            ("", Some("/v1/sse?key=k")),
            ("//b.internal/m", None),
            ("http://a.internal/m", None),
            ("https://a.internal:3000/m", None),
            ("http://b.internal:3000/m", None),
            ("http://a.internal:3000@b/m", None),
            ("/a b", None),
            ("javascript:alert(1)//", Some("/v1/javascript:alert(1)//")),
        ] {
            assert_eq!(url.join(reference).map(|url| url.path).as_deref(), path, "{reference}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (text, message, found) in [
            ("example.com/mcp", "not a URL", None),
            ("ftp://x/", "scheme must be http or https", Some("ftp")),
            ("http://", "has no host", None),
            ("http://:80/", "has no host", None),
            ("http:///mcp", "has no host", None),
            ("http://u:p@x/", "has a user name or password", None),
            ("http://x/#y", "has a fragment, which is never sent", None),
            ("http://x:0/", "port must be a number from 1 to 65535", Some("0")),
            ("http://x:+80/", "port must be a number from 1 to 65535", Some("+80")),
            ("http://x:99999/", "port must be a number from 1 to 65535", Some("99999")),
            ("http://[::x]/", "not an IPv6 address", Some("::x")),
            ("http://a b/", "not a host", Some("a b")),
            ("http://x/a b", "has characters that a URL cannot have", None),
            ("http://x/\u{e4}", "has characters that a URL cannot have", None),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!((problem.message, problem.found.as_deref()), (message, found), "{text}");
        }
    }
}
