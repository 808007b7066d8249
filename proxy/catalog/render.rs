//! The ready-made results: what answers a request for a list, or for what the gateway is, in either era's words.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Kind, Rendered};
use crate::backend::client::{Caching, ServerCapabilities};
use crate::era::MODERN_VERSION;
use crate::jsonrpc::json_string;

/// What the gateway says it is, as a member of a modern result's `_meta`.
const SERVER_INFO: &str = concat!(
    "\"io.modelcontextprotocol/serverInfo\":{\"name\":\"toolgate\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\"}"
);

/// How long things may be kept together that were fetched at different times.
#[derive(Clone, Copy)]
pub(super) struct Keeping {
    caching: Caching,
    /// `None` for ever.
    until: Option<Instant>,
}

impl Keeping {
    /// Of what was fetched then.
    pub(super) fn since(fetched: Instant, caching: Caching) -> Self {
        Self { caching, until: fetched.checked_add(Duration::from_millis(caching.ttl_ms)) }
    }

    pub(super) fn and(self, other: Self) -> Self {
        let until = self.until.into_iter().chain(other.until).min();
        Self { caching: self.caching.and(other.caching), until }
    }
}

/// A list for legacy clients. `incomplete` is a JSON array, where there is something to be said.
///
/// Says nothing that changes by itself, such as an age: the bytes stay the same until something happened.
pub(super) fn legacy(kind: Kind, entries: &str, incomplete: Option<&str>) -> Rendered {
    let head = format!("{{\"{}\":[", kind.field());
    let meta = incomplete.map(|list| format!(",\"_meta\":{{{}}}", incomplete_member(list))).unwrap_or_default();
    let entries_at = head.len()..head.len() + entries.len();
    let result = [&*head, entries, "]", &*meta, "}"].concat().into();
    Rendered { result, entries: entries_at, ..Rendered::default() }
}

/// A list for modern clients.
pub(super) fn modern(kind: Kind, entries: &str, keeping: Option<Keeping>, incomplete: Option<&str>) -> Rendered {
    let head = format!("{{\"resultType\":\"complete\",\"{}\":[", kind.field());
    let entries_at = head.len()..head.len() + entries.len();
    let meta = incomplete.map(|list| format!(",{}", incomplete_member(list))).unwrap_or_default();
    Rendered { entries: entries_at, ..kept([&*head, entries, "]"].concat(), keeping, &meta) }
}

fn incomplete_member(list: &str) -> String {
    format!("\"toolgate/incompleteBackends\":{list}")
}

/// A modern result: what it holds, for how long, and who says so.
fn kept(mut json: String, keeping: Option<Keeping>, meta: &str) -> Rendered {
    let (caching, until) = keeping.map_or((Caching::NONE, None), |keeping| (keeping.caching, keeping.until));
    json.push_str(",\"ttlMs\":");
    let ttl_at = json.len();
    let _ = write!(json, "{}", caching.ttl_ms);
    let ttl = ttl_at..json.len();
    let _ = write!(json, ",\"cacheScope\":\"{}\",\"_meta\":{{{SERVER_INFO}{meta}}}}}", caching.scope());
    Rendered { result: json.into(), ttl, until, ..Rendered::default() }
}

/// What clients are told that the gateway can do. They may keep it for as long as a session lasts, while the configuration
/// changes: what some backend may have later is there from the start, what needs a backend that takes it is not.
pub(super) fn capabilities(backends: &[ServerCapabilities]) -> String {
    let any = |has: fn(&ServerCapabilities) -> bool| backends.iter().any(has);
    let mut json = String::from("{\"tools\":{\"listChanged\":true},\"prompts\":{\"listChanged\":true}");
    let subscribe = if any(|one| one.subscribe) { ",\"subscribe\":true" } else { "" };
    let _ = write!(json, ",\"resources\":{{\"listChanged\":true{subscribe}}}");
    for (name, has) in [("completions", any(|one| one.completions)), ("logging", any(|one| one.logging))] {
        if has {
            let _ = write!(json, ",\"{name}\":{{}}");
        }
    }
    json.push('}');
    json
}

/// The result of `server/discover`.
pub(super) fn discover(capabilities: &str, instructions: Option<&str>, keeping: Option<Keeping>) -> Rendered {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", json_string(text))).unwrap_or_default();
    let json = format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":[\"{MODERN_VERSION}\"],\
         \"capabilities\":{capabilities}{instructions}"
    );
    kept(json, keeping, "")
}
