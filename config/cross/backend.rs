//! `backends`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;

use super::url::url;
use super::{is_name_byte, name, secret, tool};
use crate::backend::{
    Backend, BackendName, BackendTls, DEFAULT_MAX_INFLIGHT, DEFAULT_SEPARATOR, Header, Protocol, Timeout, ToolTimeout,
    Url,
};
use crate::grammar::duration;
use crate::walk::{Entry, Section, Value, Wrong, quote};

/// What the gateway writes itself: a second one would change what a request means.
const OWN_HEADERS: [&str; 14] = [
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
    "transfer-encoding",
    "upgrade",
];
/// Leaves room for the tool's own name.
const MAX_PREFIX: usize = 96;

/// The names of the backends of the file, of broken ones too: a limit that names one is not wrong.
#[derive(Default)]
pub(super) struct Names(BTreeMap<BackendName, String>);

impl Names {
    pub(super) fn has(&self, name: &BackendName) -> bool {
        self.0.contains_key(name)
    }

    /// As they are written in the file, which is how they may be printed.
    pub(super) fn written(&self) -> impl Iterator<Item = &str> {
        self.0.values().map(String::as_str)
    }
}

pub(super) fn backends(value: &Value<'_>, names: &mut Names) -> Option<Vec<Backend>> {
    let mut prefixes = HashMap::new();
    value.some("name at least one: - { name: everything, url: http://127.0.0.1:3001/mcp }", |value| {
        let backend = value.section(|s| backend(s, names)).flatten()?;
        let twin = prefixes.insert(backend.prefix.clone(), (backend.name.clone(), value.field().to_owned()));
        if let Some((name, field)) = twin
            && !backend.prefix.is_empty()
            && name != backend.name
        {
            value.problem_with(format!("has the prefix of `{field}`"), "give each its own, or both \"\"");
        }
        Some(backend)
    })
}

fn backend(s: &mut Section<'_>, names: &mut Names) -> Option<Backend> {
    let name = s.required("name", |value| unique_name(value, names));
    let (url_given, url) = s.required("url", |value| Some((value.clone(), url(value)))).unzip();
    let tls = tls_of(s.get("tls").as_ref(), url_given.as_ref().zip(url.as_ref().and_then(Option::as_ref)));
    let headers = s.optional("headers", headers).unwrap_or_default();
    let (timeout, tool_timeouts) = s.optional("timeout", timeouts).unwrap_or_default();
    let separator = s.optional("separator", |value| name_part(value, 16));
    let prefix = s.optional("prefix", |value| name_part(value, MAX_PREFIX)).unwrap_or_else(|| {
        let name = name.as_ref().map_or("", |name| name.as_str());
        format!("{name}{}", separator.as_deref().unwrap_or(DEFAULT_SEPARATOR))
    });
    let protocols = [("auto", Protocol::Auto), ("legacy", Protocol::Legacy), ("modern", Protocol::Modern)];
    let protocol = s.optional("protocol", |value| value.choice(&protocols)).unwrap_or_default();
    let max_inflight = s.optional("max_inflight", |value| value.number(1..=1_000_000)).unwrap_or(DEFAULT_MAX_INFLIGHT);
    let tools = s.optional("tools", |value| value.section(|s| tool::tools(s, &prefix))).unwrap_or_default();
    let (name, url) = (name?, url.flatten()?);
    Some(Backend { name, url, tls, headers, timeout, tool_timeouts, prefix, tools, protocol, max_inflight })
}

fn unique_name(value: &Value<'_>, names: &mut Names) -> Option<BackendName> {
    let text = name(value)?;
    let name = BackendName(Arc::from(text.value));
    if names.has(&name) {
        value.problem(format!("another backend is called {}", quote(&text.written)));
    }
    names.0.insert(name.clone(), text.written);
    Some(name)
}

/// A piece of a tool's name, perhaps empty.
fn name_part(value: &Value<'_>, longest: usize) -> Option<String> {
    let text = value.text()?;
    if text.value.len() <= longest && text.value.bytes().all(is_name_byte) {
        return Some(text.value);
    }
    value.wrong(&text, Wrong::new(format!("at most {longest} of A-Z a-z 0-9 _ . -")));
    None
}

/// `tls`, given or not: whether it is needed depends on the URL.
fn tls_of(given: Option<&Value<'_>>, url: Option<(&Value<'_>, &Url)>) -> BackendTls {
    let (mut tls, named) = given.and_then(|value| value.section(tls)).unwrap_or_default();
    match (given, url) {
        (Some(given), Some((_, Url { https: false, .. }))) => {
            given.problem_with("`tls` of a URL that is not https", "make the URL https, or remove `tls`");
        }
        (_, Some((value, url))) if url.https && !named => {
            let name = url.host.strip_suffix('.').unwrap_or(&url.host);
            let help = "set `tls: { server_name: NAME }` to a name or address that its certificate carries";
            if url.is_ip() {
                value.problem_with("TLS to an IP address without a server name", help);
            } else if ServerName::try_from(name).is_err() {
                value.problem_with("the host is not a name that a certificate can carry", help);
            }
            name.clone_into(&mut tls.server_name);
        }
        _ => {}
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
        server_name: server_name.unwrap_or_default(),
    };
    (tls, name_given.is_some())
}

fn headers(value: &Value<'_>) -> Option<Vec<Header>> {
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

fn header_value(value: &Value<'_>) -> Option<crate::value::Secret> {
    let secret = secret::secret(value)?;
    if HeaderValue::from_str(secret.expose()).is_err() {
        value.problem("not a value that a header can have: visible ASCII and spaces only");
        return None;
    }
    Some(secret)
}

fn timeouts(value: &Value<'_>) -> Option<(Timeout, Vec<ToolTimeout>)> {
    let default = Timeout::default();
    value.section(|s| {
        let timeout = Timeout {
            connect: s.optional("connect", duration).unwrap_or(default.connect),
            first_byte: s.optional("first_byte", duration).unwrap_or(default.first_byte),
            idle: s.optional("idle", duration).unwrap_or(default.idle),
        };
        let entry = |value: &Value<'_>| value.section(|s| tool_timeout(s, timeout)).flatten();
        (timeout, s.optional("tools", |value| value.list(entry)).unwrap_or_default())
    })
}

fn tool_timeout(s: &mut Section<'_>, backend: Timeout) -> Option<ToolTimeout> {
    let tools = s.required("match", |value| tool::patterns(value, "name at least one tool"));
    let (first_byte, idle) = (s.get("first_byte"), s.get("idle"));
    if first_byte.is_none() && idle.is_none() {
        s.value().problem("sets neither `first_byte` nor `idle`");
    }
    let timeout = Timeout {
        connect: backend.connect,
        first_byte: first_byte.and_then(|value| duration(&value)).unwrap_or(backend.first_byte),
        idle: idle.and_then(|value| duration(&value)).unwrap_or(backend.idle),
    };
    Some(ToolTimeout { tools: tools?, timeout })
}
