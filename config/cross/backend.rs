//! `backends`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{is_name_byte, name, reach, tool};
use crate::backend::{
    Backend, BackendName, DEFAULT_MAX_INFLIGHT, DEFAULT_SEPARATOR, DEFAULT_SYNTHETIC_INTERVAL,
    DEFAULT_SYNTHETIC_TIMEOUT, Synthetic, Timeout, ToolTimeout,
};
use crate::grammar::duration;
use crate::walk::{Section, Value, Wrong, quote};

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
    let (reach, protocol) = reach::reach(s);
    let is_run = s.has("command");
    let (timeout, tool_timeouts) = s.optional("timeout", |value| timeouts(value, is_run)).unwrap_or_default();
    let separator = s.optional("separator", |value| name_part(value, 16));
    let prefix = s.optional("prefix", |value| name_part(value, MAX_PREFIX)).unwrap_or_else(|| {
        let name = name.as_ref().map_or("", |name| name.as_str());
        format!("{name}{}", separator.as_deref().unwrap_or(DEFAULT_SEPARATOR))
    });
    let max_inflight = s.optional("max_inflight", |value| value.number(1..=1_000_000)).unwrap_or(DEFAULT_MAX_INFLIGHT);
    let tools = s.optional("tools", |value| value.section(|s| tool::tools(s, &prefix))).unwrap_or_default();
    let synthetic = s.optional("synthetic", |value| value.section(synthetic).flatten());
    let (name, reach) = (name?, reach?);
    Some(Backend { name, reach, timeout, tool_timeouts, prefix, tools, protocol, max_inflight, synthetic })
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

fn timeouts(value: &Value<'_>, is_run: bool) -> Option<(Timeout, Vec<ToolTimeout>)> {
    let default = Timeout::default();
    value.section(|s| {
        let connect = s.get("connect");
        if let Some(given) = connect.as_ref().filter(|_| is_run) {
            given.problem_with(
                "goes with `url` or `urls`, not with `command`",
                "remove it: `first_byte` bounds the start of a process",
            );
        }
        let timeout = Timeout {
            connect: connect.and_then(|value| duration(&value)).unwrap_or(default.connect),
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

fn synthetic(s: &mut Section<'_>) -> Option<Synthetic> {
    let tool = s.required("tool", |value| some_text(value, "an empty name"));
    Some(Synthetic {
        arguments: s.optional("arguments", Value::json_object).unwrap_or_default(),
        expect: s.optional("expect", |value| some_text(value, "empty text, which stands in every result")),
        interval: s.optional("interval", duration).unwrap_or(DEFAULT_SYNTHETIC_INTERVAL),
        timeout: s.optional("timeout", duration).unwrap_or(DEFAULT_SYNTHETIC_TIMEOUT),
        tool: tool?,
    })
}

fn some_text(value: &Value<'_>, when_empty: &str) -> Option<String> {
    let text = value.text()?.value;
    if text.is_empty() {
        value.problem(when_empty);
    }
    Some(text).filter(|text| !text.is_empty())
}
