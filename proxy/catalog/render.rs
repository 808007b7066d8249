//! The ready-made results: what answers a request for a list, or for what the gateway is, in either era's words.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;

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

/// A list for legacy clients. `incomplete` is a JSON array, where there is something to be said.
///
/// Says nothing that changes by itself, such as an age: the bytes stay the same until something happened.
pub(super) fn legacy(kind: Kind, entries: &str, incomplete: Option<&str>) -> Rendered {
    let head = format!("{{\"{}\":[", kind.field());
    let meta = incomplete.map(|list| format!(",\"_meta\":{{{}}}", incomplete_member(list))).unwrap_or_default();
    rendered(&head, entries, &format!("]{meta}}}"))
}

/// A list for modern clients.
pub(super) fn modern(kind: Kind, entries: &str, caching: Caching, incomplete: Option<&str>) -> Rendered {
    let head = format!("{{\"resultType\":\"complete\",\"{}\":[", kind.field());
    let meta = incomplete.map(|list| format!(",{}", incomplete_member(list))).unwrap_or_default();
    rendered(&head, entries, &format!("],{},\"_meta\":{{{SERVER_INFO}{meta}}}}}", cached(caching)))
}

fn incomplete_member(list: &str) -> String {
    format!("\"toolgate/incompleteBackends\":{list}")
}

fn cached(caching: Caching) -> String {
    format!("\"ttlMs\":{},\"cacheScope\":\"{}\"", caching.ttl_ms, caching.scope())
}

fn rendered(head: &str, entries: &str, tail: &str) -> Rendered {
    let entries_at: Range<usize> = head.len()..head.len() + entries.len();
    Rendered { result: [head, entries, tail].concat().into(), entries: entries_at }
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
pub(super) fn discover(capabilities: &str, instructions: Option<&str>, caching: Caching) -> Bytes {
    let instructions = instructions.map(|text| format!(",\"instructions\":{}", json_string(text))).unwrap_or_default();
    format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":[\"{MODERN_VERSION}\"],\
         \"capabilities\":{capabilities}{instructions},{},\"_meta\":{{{SERVER_INFO}}}}}",
        cached(caching)
    )
    .into()
}
