//! Backends at a URL: `url`, `urls`, `transport`, `tls`, `headers`.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;

use super::secret;
use super::url::url;
use crate::reach::{BackendTls, Header, HttpTransport, Url};
use crate::value::Secret;
use crate::walk::{Entry, Section, Value, Wrong};

/// What the gateway writes itself: a second one would change what a request means.
const OWN_HEADERS: [&str; 15] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "traceparent",
    "transfer-encoding",
    "upgrade",
];

/// A URL where it stands in the file, or what stands in its place.
pub(super) type Placed<'a> = (Value<'a>, Option<Url>);

pub(super) fn one<'a>(value: &Value<'a>) -> Vec<Placed<'a>> {
    vec![(value.clone(), url(value))]
}

/// Several, no two alike.
pub(super) fn several<'a>(value: &Value<'a>) -> Vec<Placed<'a>> {
    let mut placed: Vec<Placed<'a>> = Vec::new();
    let help = "name at least one: [http://10.0.0.5:3000/mcp, http://10.0.0.6:3000/mcp]";
    let _ = value.some(help, |value| {
        let url = url(value);
        let twin = placed.iter().find(|(_, other)| other.is_some() && *other == url);
        if let Some((twin, _)) = twin {
            value.problem(format!("the same as `{}`", twin.field()));
        }
        placed.push((value.clone(), url));
        Some(())
    });
    placed
}

pub(super) fn transport(value: &Value<'_>) -> Option<HttpTransport> {
    value.choice(&[("streamable_http", HttpTransport::StreamableHttp), ("sse", HttpTransport::Sse)])
}

/// `tls`, given or not: whether it is needed depends on the URLs.
pub(super) fn tls_of(given: Option<&Value<'_>>, urls: &[Placed<'_>]) -> BackendTls {
    let (tls, named) = given.and_then(|value| value.section(tls)).unwrap_or_default();
    let mut known = urls.iter().filter_map(|(value, url)| Some((value, url.as_ref()?))).peekable();
    if let Some(given) = given
        && known.peek().is_some()
        && urls.iter().all(|(_, url)| url.as_ref().is_none_or(|url| !url.https))
    {
        given.problem_with("`tls` of a URL that is not https", "make the URL https, or remove `tls`");
    }
    for (value, url) in known.filter(|(_, url)| url.https && !named) {
        let name = url.host.strip_suffix('.').unwrap_or(&url.host);
        let help = "set `tls: { server_name: NAME }` to a name or address that its certificate carries";
        if url.is_ip() {
            value.problem_with("TLS to an IP address without a server name", help);
        } else if ServerName::try_from(name).is_err() {
            value.problem_with("the host is not a name that a certificate can carry", help);
        }
    }
    tls
}

/// And whether there is a server name, be it a wrong one.
fn tls(s: &mut Section<'_>) -> (BackendTls, bool) {
    let ca = s.optional("ca", secret::certificates);
    let (cert_given, key_given) = (s.get("cert"), s.get("key"));
    match (&cert_given, &key_given) {
        (Some(cert), None) => cert.problem("a certificate without its `key`"),
        (None, Some(key)) => key.problem("a key without its `cert`"),
        _ => {}
    }
    let name_given = s.get("server_name");
    let server_name = name_given.as_ref().and_then(|value| {
        value.parsed("a host name or an IP address", |text| match ServerName::try_from(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err(Wrong::new("a host name or an IP address")),
        })
    });
    let tls = BackendTls {
        ca,
        cert: cert_given.and_then(|value| secret::certificates(&value)),
        key: key_given.and_then(|value| secret::private_key(&value)),
        server_name,
    };
    (tls, name_given.is_some())
}

pub(super) fn headers(value: &Value<'_>) -> Option<Vec<Header>> {
    let (mut headers, mut names) = (Vec::new(), HashSet::new());
    for entry in value.entries()? {
        let (name, value) = (header_name(&entry), header_value(&entry.value));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if !names.insert(name.clone()) {
            entry.problem_at_key("given twice: case does not matter in names of headers", None);
        }
        headers.push(Header { name, value });
    }
    Some(headers)
}

fn header_name(entry: &Entry<'_>) -> Option<HeaderName> {
    let Ok(name) = entry.key.parse::<HeaderName>() else {
        entry.problem_at_key("not a name that a header can have", None);
        return None;
    };
    if OWN_HEADERS.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
        entry.problem_at_key("the gateway writes this header itself", Some("remove it".to_owned()));
        return None;
    }
    Some(name)
}

fn header_value(value: &Value<'_>) -> Option<Secret> {
    let secret = secret::secret(value)?;
    if HeaderValue::from_str(secret.expose()).is_err() {
        value.problem("not a value that a header can have: visible ASCII and spaces only");
        return None;
    }
    Some(secret)
}
