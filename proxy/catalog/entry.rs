//! One tool, prompt, resource or template as a backend lists it: read just far enough that a bad one cannot break clients'
//! whole list, and written again with the spans changed that must be.

use std::ops::Range;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::value::RawValue;
use toolgate_config::Fingerprint;

use super::param::{self, HeaderParam};
use super::{Kind, LeftOut, Omission, fingerprint};
use crate::era::Era;
use crate::jsonrpc::{self, json_string};

/// One thing that a backend lists.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The backend's own name or URI of it.
    pub(crate) own: Box<str>,
    /// Its whole definition, as it came.
    raw: Box<str>,
    print: OnceLock<Fingerprint>,
    key: Range<usize>,
    description: Option<Range<usize>>,
    /// What legacy clients cannot read.
    modern_only: Option<Range<usize>>,
    /// Arguments that are repeated in headers, or what is wrong with how that is said.
    pub(crate) header_params: Result<Box<[HeaderParam]>, &'static str>,
}

/// What clients' schemas insist on, of every kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    uri_template: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    title: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    description: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    mime_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    annotations: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    execution: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    input_schema: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    output_schema: Option<&'a RawValue>,
    #[serde(rename = "_meta", borrow, default, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
}

/// Keeps `null` apart from absent, which `Option` would not.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Entry {
    /// Reads the definition that a backend of `era` gave, or says what is wrong with it.
    pub(super) fn read(kind: Kind, era: Era, raw: &RawValue) -> Result<Self, Omission> {
        let text = raw.get();
        let omission = |own: &str, why| Omission { kind, own: own.into(), why };
        let bad = |what| omission("", LeftOut::Malformed(what));
        if !text.starts_with('{') {
            return Err(bad("it is not an object"));
        }
        let definition: Definition<'_> =
            serde_json::from_str(text).map_err(|_| bad("it is not JSON of this kind, or a key stands twice"))?;
        let key = match kind {
            Kind::Tools | Kind::Prompts => definition.name.ok_or("`name` is missing"),
            Kind::Resources => definition.uri.ok_or("`uri` is missing"),
            Kind::Templates => definition.uri_template.ok_or("`uriTemplate` is missing"),
        };
        let key = key.map_err(bad)?;
        let own = jsonrpc::text(key).ok_or_else(|| bad("what it is known by is not a string"))?;
        if own.is_empty() {
            return Err(bad("what it is known by is empty"));
        }
        definition.check(kind, era).map_err(|why| omission(&own, why))?;
        let span = |part: &RawValue| jsonrpc::span(text.as_bytes(), part.get());
        let span_of_key = span(key).ok_or_else(|| bad("what it is known by cannot be found"))?;
        let is_modern_only = definition.output_schema.is_some_and(|schema| !is_object_schema(schema));
        let header_params = match (kind, definition.input_schema) {
            (Kind::Tools, Some(schema)) => param::read(schema.get()),
            _ => Ok(Box::default()),
        };
        Ok(Self {
            key: span_of_key,
            description: definition.description.and_then(span),
            modern_only: (kind == Kind::Tools && is_modern_only).then(|| output_schema(text)).flatten(),
            header_params,
            own: own.into(),
            raw: text.into(),
            print: OnceLock::new(),
        })
    }

    /// Its whole definition, as it came.
    pub(super) fn definition(&self) -> &str {
        &self.raw
    }

    /// Whether it says of itself that it changes something. What it does not say counts for nothing.
    pub(crate) fn says_it_writes(&self) -> bool {
        let member = |key| jsonrpc::member(jsonrpc::member(&self.raw, "annotations")?, key);
        member("readOnlyHint") == Some("false") || member("destructiveHint") == Some("true")
    }

    /// The beginning of its description, where that is longer than `most` characters.
    pub(super) fn short_description(&self, most: usize) -> Option<String> {
        let json = self.description.clone().and_then(|span| self.raw.get(span))?;
        // A character takes a byte at least.
        if json.len() <= most {
            return None;
        }
        let text: String = serde_json::from_str(json).ok()?;
        let (end, _) = text.char_indices().nth(most)?;
        let (kept, _) = text.char_indices().nth(most.saturating_sub(1))?;
        let head = text.get(..kept).unwrap_or_default();
        // Between two words, where that costs little.
        let word = head.rfind(char::is_whitespace).filter(|word| *word > kept / 2 && !text[kept..end].starts_with(' '));
        Some(head.get(..word.unwrap_or(kept)).unwrap_or(head).trim_end().to_owned() + "…")
    }

    /// What its definition is told by.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        *self.print.get_or_init(|| fingerprint::of(&self.raw))
    }

    /// Writes its definition for clients of `era`. `key` is JSON in place of the backend's own name.
    pub(super) fn write(&self, list: &mut String, era: Era, key: Option<&str>, description: Option<&str>) {
        let mut edits: Vec<(Range<usize>, String)> = Vec::new();
        edits.extend(key.map(|key| (self.key.clone(), key.to_owned())));
        match (description, &self.description) {
            (Some(text), Some(span)) => edits.push((span.clone(), json_string(text))),
            (Some(text), None) => {
                edits.push((self.key.end..self.key.end, format!(",\"description\":{}", json_string(text))));
            }
            (None, _) => {}
        }
        if era == Era::Legacy {
            edits.extend(self.modern_only.iter().map(|span| (span.clone(), String::new())));
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

/// Where the `outputSchema` lies, with a comma of its own.
fn output_schema(definition: &str) -> Option<Range<usize>> {
    let cut = jsonrpc::cut(definition.as_bytes(), &(0..definition.len()), |key| key == "outputSchema")?;
    cut.removed.into_iter().next()
}

impl Definition<'_> {
    fn check(&self, kind: Kind, era: Era) -> Result<(), LeftOut> {
        let bad = |what| Err(LeftOut::Malformed(what));
        let is_string = |value: Option<&RawValue>| value.is_none_or(|v| v.get().starts_with('"'));
        let is_object = |value: Option<&RawValue>| value.is_none_or(|v| v.get().starts_with('{'));
        if !is_string(self.title) || !is_string(self.description) {
            return bad("`title` or `description` is not a string");
        }
        if !is_object(self.annotations) || !is_object(self.meta) {
            return bad("`annotations` or `_meta` is not an object");
        }
        match kind {
            Kind::Tools => self.check_tool(era),
            Kind::Prompts if self.arguments.is_some_and(|arguments| !are_arguments(arguments)) => {
                bad("`arguments` is not a list of objects with a `name`")
            }
            Kind::Resources | Kind::Templates if self.name.is_none() || !is_string(self.name) => {
                bad("`name` is missing or not a string")
            }
            Kind::Resources | Kind::Templates if !is_string(self.mime_type) => bad("`mimeType` is not a string"),
            Kind::Prompts | Kind::Resources | Kind::Templates => Ok(()),
        }
    }

    fn check_tool(&self, era: Era) -> Result<(), LeftOut> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Execution {
            task_support: String,
        }
        let bad = |what| Err(LeftOut::Malformed(what));
        if !self.input_schema.is_some_and(is_object_schema) {
            return bad("`inputSchema` is not a schema of `type: object`");
        }
        // Legacy knows no others.
        let is_output = |schema: &RawValue| match era {
            Era::Legacy => is_object_schema(schema),
            Era::Modern => schema.get().starts_with('{'),
        };
        if !self.output_schema.is_none_or(is_output) {
            return match era {
                Era::Legacy => bad("`outputSchema` is not a schema of `type: object`"),
                Era::Modern => bad("`outputSchema` is not a schema"),
            };
        }
        let execution = self.execution.and_then(|raw| serde_json::from_str::<Execution>(raw.get()).ok());
        if execution.is_some_and(|execution| execution.task_support == "required") {
            return Err(LeftOut::TaskOnly);
        }
        Ok(())
    }
}

fn is_object_schema(schema: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Schema {
        r#type: String,
    }
    schema.get().starts_with('{') && serde_json::from_str::<Schema>(schema.get()).is_ok_and(|s| s.r#type == "object")
}

fn are_arguments(arguments: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Argument {
        #[serde(rename = "name")]
        _name: String,
    }
    serde_json::from_str::<Vec<&RawValue>>(arguments.get()).is_ok_and(|all| {
        let is_one =
            |raw: &&RawValue| raw.get().starts_with('{') && serde_json::from_str::<Argument>(raw.get()).is_ok();
        all.iter().all(is_one)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, era: Era, json: &str) -> Result<Entry, Omission> {
        Entry::read(kind, era, &RawValue::from_string(json.to_owned()).unwrap())
    }

    fn tool(json: &str) -> Result<Entry, Omission> {
        read(Kind::Tools, Era::Legacy, json)
    }

    fn written(json: &str, public: &str, description: Option<&str>) -> String {
        let mut list = String::new();
        tool(json).unwrap().write(&mut list, Era::Legacy, Some(&json_string(public)), description);
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
    fn an_output_that_is_no_object_is_for_modern_clients_only() {
        for (json, legacy) in [
            (
                r#"{"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#,
                r#"{"name":"b","inputSchema":{"type":"object"}}"#,
            ),
            (
                r#"{ "outputSchema" : {"anyOf":[]} , "name":"a","inputSchema":{"type":"object"}}"#,
                r#"{ "name":"b","inputSchema":{"type":"object"}}"#,
            ),
            (
                r#"{"name":"a","output\u0053chema":{"type":["object"]},"inputSchema":{"type":"object"}}"#,
                r#"{"name":"b","inputSchema":{"type":"object"}}"#,
            ),
        ] {
            let entry = read(Kind::Tools, Era::Modern, json).unwrap();
            let write = |era| {
                let mut list = String::new();
                entry.write(&mut list, era, Some("\"b\""), None);
                list
            };
            assert_eq!(write(Era::Legacy), legacy);
            assert_eq!(write(Era::Modern), json.replace("\"a\"", "\"b\""));
        }
    }

    #[test]
    fn refuses_tools_that_break_clients() {
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
            assert!(matches!(tool(json).unwrap_err().why, LeftOut::Malformed(_)), "{json}");
        }
    }

    #[test]
    fn refuses_other_things_that_break_clients() {
        for (kind, json) in [
            (Kind::Prompts, r#"{"name":""}"#),
            (Kind::Prompts, r#"{"title":"a"}"#),
            (Kind::Prompts, r#"{"name":"a","arguments":{}}"#),
            (Kind::Prompts, r#"{"name":"a","arguments":[{}]}"#),
            (Kind::Prompts, r#"{"name":"a","arguments":[["name"]]}"#),
            (Kind::Resources, r#"{"name":"a"}"#),
            (Kind::Resources, r#"{"uri":"a:b"}"#),
            (Kind::Resources, r#"{"uri":"a:b","name":7}"#),
            (Kind::Resources, r#"{"uri":"a:b","name":"x","mimeType":null}"#),
            (Kind::Templates, r#"{"uri":"a:b","name":"x"}"#),
        ] {
            assert!(matches!(read(kind, Era::Modern, json).unwrap_err().why, LeftOut::Malformed(_)), "{json}");
        }
        assert!(read(Kind::Prompts, Era::Legacy, r#"{"name":"a b","arguments":[{"name":"x"}]}"#).is_ok());
        assert!(read(Kind::Resources, Era::Legacy, r#"{"uri":"a:b","name":""}"#).is_ok());
        assert!(read(Kind::Templates, Era::Legacy, r#"{"uriTemplate":"a:{b}","name":"x"}"#).is_ok());
    }

    #[test]
    fn tools_that_are_tasks_only_are_left_out() {
        let with = |support: &str| {
            tool(&format!(
                r#"{{"name":"a","inputSchema":{{"type":"object"}},"execution":{{"taskSupport":{support}}}}}"#
            ))
        };

        assert_eq!(with(r#""required""#).unwrap_err().why, LeftOut::TaskOnly);
        assert!(with(r#""optional""#).is_ok());
        assert!(with("7").is_ok());
    }
}
