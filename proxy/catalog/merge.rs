//! Many lists into one: config order, then the backend's own; prefix, rename, description and filter applied.
//!
//! A tool's bytes are the backend's, except the spans of its name and, where the configuration says so, its description.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Freshness, LeftOut, Merged, Part, Route};
use crate::backend::Backend;
use crate::jsonrpc::{self, json_string};
use crate::limit::Limits;

/// Tool names beyond this length are shown, with a warning: some model providers refuse them.
const LONG_NAME: usize = 64;
/// The longest name that is shown (2025-11-25, SEP-986).
const MAX_NAME: usize = 128;

/// One tool as a backend lists it.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) own: Box<str>,
    /// Its whole definition, as it came.
    raw: Box<str>,
    name: Range<usize>,
    description: Option<Range<usize>>,
}

/// Just enough of a tool's definition: what clients' schemas insist on, so that one bad tool cannot break their whole list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    title: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    description: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    annotations: Option<&'a RawValue>,
    #[serde(borrow)]
    input_schema: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "present")]
    output_schema: Option<&'a RawValue>,
    #[serde(rename = "_meta", borrow, default, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
}

/// Keeps `null` apart from absent, which `Option` would not.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Tool {
    /// Reads a tool's definition, or says what is wrong with it.
    pub(crate) fn read(raw: &RawValue) -> Result<Self, (Box<str>, LeftOut)> {
        let text = raw.get();
        let bad = |what| (Box::from(""), LeftOut::Malformed(what));
        if !text.starts_with('{') {
            return Err(bad("it is not an object"));
        }
        let definition: Definition<'_> =
            serde_json::from_str(text).map_err(|_| bad("`name` or `inputSchema` is missing or stands twice"))?;
        let own = jsonrpc::text(definition.name).ok_or_else(|| bad("`name` is not a string"))?;
        if own.is_empty() {
            return Err(bad("`name` is empty"));
        }
        let bad = |what| (Box::from(&*own), LeftOut::Malformed(what));
        let is_string = |value: Option<&RawValue>| value.is_none_or(|v| v.get().starts_with('"'));
        let is_object = |value: Option<&RawValue>| value.is_none_or(|v| v.get().starts_with('{'));
        if !is_string(definition.title) || !is_string(definition.description) {
            return Err(bad("`title` or `description` is not a string"));
        }
        if !is_object_schema(definition.input_schema) {
            return Err(bad("`inputSchema` is not a schema of `type: object`"));
        }
        if !definition.output_schema.is_none_or(is_object_schema) {
            return Err(bad("`outputSchema` is not a schema of `type: object`"));
        }
        if !is_object(definition.annotations) || !is_object(definition.meta) {
            return Err(bad("`annotations` or `_meta` is not an object"));
        }
        let span = |part: &RawValue| jsonrpc::span(text.as_bytes(), part.get());
        let name = span(definition.name).ok_or_else(|| bad("`name` cannot be found"))?;
        let description = definition.description.and_then(span);
        Ok(Self { own: own.into(), raw: text.into(), name, description })
    }

    /// Writes its definition under a public name.
    fn write(&self, list: &mut String, public_json: &str, description: Option<&str>) {
        let mut edits = vec![(self.name.clone(), public_json.to_owned())];
        if let Some(text) = description {
            match &self.description {
                Some(span) => edits.push((span.clone(), json_string(text))),
                None => edits[0].1.push_str(&format!(",\"description\":{}", json_string(text))),
            }
        }
        edits.sort_by_key(|(span, _)| span.start);
        let mut rest = 0;
        for (span, with) in &edits {
            list.push_str(&self.raw[rest..span.start]);
            list.push_str(with);
            rest = span.end;
        }
        list.push_str(&self.raw[rest..]);
    }
}

fn is_object_schema(schema: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Schema {
        r#type: String,
    }
    schema.get().starts_with('{') && serde_json::from_str::<Schema>(schema.get()).is_ok_and(|s| s.r#type == "object")
}

/// Makes one catalog of the backends' last good lists.
pub(crate) fn merge(backends: &[Arc<Backend>], limits: &Limits) -> Merged {
    let mut merging = Merging { limits, list: String::from("{\"tools\":["), routes: HashMap::new(), parts: Vec::new() };
    let mut instructions = String::new();
    let mut logging = false;
    for backend in backends {
        let part = merging.add(backend);
        merging.parts.push(part);
        if let Some(listing) = &*backend.listing.load() {
            logging |= listing.logging;
            if let Some(text) = &listing.instructions {
                let gap = if instructions.is_empty() { "" } else { "\n\n" };
                let _ = write!(instructions, "{gap}## {}\n{text}", backend.name());
            }
        }
    }
    let tools_end = merging.list.len();
    merging.close_list();
    Merged {
        tools_end,
        result: merging.list.into(),
        routes: merging.routes,
        parts: merging.parts,
        instructions: (!instructions.is_empty()).then(|| instructions.into()),
        logging,
    }
}

struct Merging<'a> {
    limits: &'a Limits,
    list: String,
    routes: HashMap<Box<str>, Route>,
    parts: Vec<Part>,
}

impl Merging<'_> {
    fn add(&mut self, backend: &Arc<Backend>) -> Part {
        let listing = backend.listing.load();
        let failed = backend.listing_failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_some();
        let mut part =
            Part { backend: backend.name().clone(), freshness: Freshness::Missing, shown: 0, left_out: Vec::new() };
        let Some(listing) = &*listing else { return part };
        part.freshness = if failed { Freshness::Stale } else { Freshness::Fresh };
        part.left_out.clone_from(&listing.left_out);
        let mut own_names = HashSet::new();
        for tool in listing.tools.iter().filter(|tool| backend.config.tools.shows(&tool.own)) {
            let added = match own_names.insert(&*tool.own) {
                true => self.add_tool(backend, tool),
                false => Err(LeftOut::Duplicate),
            };
            match added {
                Ok(()) => part.shown += 1,
                Err(why) => part.left_out.push((tool.own.clone(), why)),
            }
        }
        part
    }

    fn add_tool(&mut self, backend: &Arc<Backend>, tool: &Tool) -> Result<(), LeftOut> {
        let config = &backend.config;
        let shown = config.tools.rename.get(&*tool.own).map_or(&*tool.own, String::as_str);
        let public: Box<str> = [&*config.prefix, shown].concat().into();
        if !is_valid_name(&public) {
            return Err(LeftOut::Name { public });
        }
        if let Some(owner) = self.routes.get(&public) {
            return Err(LeftOut::Collision { public, owner: owner.backend.name().clone() });
        }
        if public.len() > LONG_NAME {
            tracing::debug!(tool = &*public, "tool name is longer than {LONG_NAME}, which some model providers refuse");
        }
        if !self.routes.is_empty() {
            self.list.push(',');
        }
        let description = config.tools.describe.get(&*tool.own).map(String::as_str);
        tool.write(&mut self.list, &json_string(&public), description);
        let route = Route {
            backend: Arc::clone(backend),
            public: public.clone(),
            own_json: json_string(&tool.own).into(),
            timeout: backend.timeout_for(&tool.own),
            rules: self.limits.matching(&public, backend.name()),
            metrics: OnceLock::new(),
        };
        self.routes.insert(public, route);
        Ok(())
    }

    /// Ends the list, naming the backends whose tools are missing or stale. Says nothing that changes by itself, such as
    /// an age: the bytes stay the same until something happened.
    fn close_list(&mut self) {
        self.list.push(']');
        let incomplete: Vec<_> = self
            .parts
            .iter()
            .filter(|part| part.freshness != Freshness::Fresh)
            .map(|part| format!("{{\"name\":\"{}\",\"state\":\"{}\"}}", part.backend, part.freshness.as_str()))
            .collect();
        if !incomplete.is_empty() {
            let _ = write!(self.list, ",\"_meta\":{{\"toolgate/incompleteBackends\":[{}]}}", incomplete.join(","));
        }
        self.list.push('}');
    }
}

/// What clients and model providers accept as a tool's name.
fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(json: &str) -> Result<Tool, (Box<str>, LeftOut)> {
        Tool::read(&RawValue::from_string(json.to_owned()).unwrap())
    }

    fn written(json: &str, public: &str, description: Option<&str>) -> String {
        let mut list = String::new();
        tool(json).unwrap().write(&mut list, &json_string(public), description);
        list
    }

    #[test]
    fn rewrites_the_name_and_nothing_else() {
        let json = r#"{ "x":1.50, "inputSchema":{"type":"object","name":"q"}, "name" : "s\u0065arch","z":[ ] }"#;

        let out = written(json, "b__search", None);

        assert_eq!(out, json.replace(r#""s\u0065arch""#, r#""b__search""#));
        assert_eq!(&*tool(json).unwrap().own, "search");
    }

    #[test]
    fn replaces_or_adds_a_description() {
        let with = r#"{"description":"old","name":"a","inputSchema":{"type":"object"}}"#;
        let without = r#"{"name":"a","inputSchema":{"type":"object"}}"#;

        let replaced = written(with, "a", Some("new \"one\""));
        let added = written(without, "a", Some("new"));

        assert_eq!(replaced, r#"{"description":"new \"one\"","name":"a","inputSchema":{"type":"object"}}"#);
        assert_eq!(added, r#"{"name":"a","description":"new","inputSchema":{"type":"object"}}"#);
    }

    #[test]
    fn refuses_definitions_that_break_clients() {
        for json in [
            r#"[]"#,
            r#""name""#,
            r#"{"inputSchema":{"type":"object"}}"#,
            r#"{"name":5,"inputSchema":{"type":"object"}}"#,
            r#"{"name":"a"}"#,
            r#"{"name":"a","inputSchema":null}"#,
            r#"{"name":"a","inputSchema":{}}"#,
            r#"{"name":"a","inputSchema":{"type":"string"}}"#,
            r#"{"name":"a","description":null,"inputSchema":{"type":"object"}}"#,
            r#"{"name":"a","name":"b","inputSchema":{"type":"object"}}"#,
            r#"{"name":"a","outputSchema":{"type":"array"},"inputSchema":{"type":"object"}}"#,
            r#"{"name":"a","_meta":[],"inputSchema":{"type":"object"}}"#,
        ] {
            assert!(matches!(tool(json), Err((_, LeftOut::Malformed(_)))), "{json}");
        }
    }

    #[test]
    fn names_are_what_clients_accept() {
        assert!(is_valid_name("a.B-c_9"));
        assert!(is_valid_name(&"x".repeat(128)));
        for bad in ["", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
