//! `schema.json` is current, and tells editors exactly the keys that the crossing asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::assert_kept;
use crate::source::Source;
use crate::walk;
use crate::{cross, schema, yaml};

/// Every key there is, each section written out. That the values are nonsense is no matter: keys are asked for anyway.
const EVERY_SECTION: &str = "
listeners: [{ tls: { certificates: [{}] }, timeout: {} }]
admin: {}
backends:
  - headers: { a: { env: A }, b: { file: B }, c: { value: C } }
    tls: {}
    timeout: { tools: [{}] }
    tools: {}
    synthetic: {}
  - command: []
    env: { a: { env: A }, b: { file: B }, c: { value: C } }
limits: [{}]
health: {}
catalog: {}
pin: {}
webhook:
  secret: { env: A }
  headers: { a: { env: A }, b: { file: B }, c: { value: C } }
  tls: {}
sessions: { keys: [{ env: A }] }
bridge: {}
log: { payloads: {} }
traces:
  headers: { a: { env: A }, b: { file: B }, c: { value: C } }
  tls: {}
reload: {}
drain: {}
";

#[test]
fn the_kept_schema_is_current() {
    let text = format!("{:#}\n", schema());

    assert_kept(&Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json"), &text);
}

#[test]
fn the_schema_has_the_keys_that_the_crossing_asks_for() {
    let file = Path::new("toolgate.yaml");
    let source = Source::new(file, &|_| None);
    let (root, _) = yaml::read(EVERY_SECTION);
    let root = root.unwrap();

    let _ = cross::config(&walk::Value::root(&source, &root));

    let asked = source.asked().iter().map(|field| generic(field)).collect::<BTreeSet<_>>();
    assert_eq!(asked, keys());
}

#[test]
fn every_key_is_described() {
    let schema = schema();
    let described =
        |object: &Value| object.get("description").and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    let definitions = schema["$defs"].as_object().unwrap();

    for (name, definition) in definitions {
        assert!(described(definition), "{name}");
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(described(property), "{name}.{key}");
        }
    }
}

/// Every key of the schema: `backends[].tls.ca`. A mapping of the user's own keys is `{}`.
pub(super) fn keys() -> BTreeSet<String> {
    descriptions().into_keys().collect()
}

/// What the schema says of every key.
pub(super) fn descriptions() -> BTreeMap<String, String> {
    let said = |property: Value| {
        let text = property["description"].as_str().unwrap_or_default();
        if property["required"] == true { format!("Required. {text}") } else { text.to_owned() }
    };
    properties().into_iter().map(|(key, property)| (key, said(property))).collect()
}

/// What the words of every key may be, and what each means: `a (this) | b (that)`.
pub(super) fn choices() -> BTreeMap<String, String> {
    let schema = schema();
    let mut choices = BTreeMap::new();
    for (key, property) in properties() {
        let Some(name) = property["anyOf"][0]["$ref"].as_str() else { continue };
        let kinds = schema.pointer(name.trim_start_matches('#')).and_then(|kinds| kinds["oneOf"].as_array());
        let said = |kind: &Value| {
            let meaning = kind["description"].as_str().unwrap_or_default().trim_end_matches('.');
            let meaning = match meaning.split_at_checked(2) {
                Some((start, rest)) if start.ends_with(char::is_lowercase) => start.to_lowercase() + rest,
                _ => meaning.to_owned(),
            };
            format!("{} ({meaning})", kind["const"].as_str().unwrap_or_default())
        };
        if let Some(kinds) = kinds {
            choices.insert(key, kinds.iter().map(said).collect::<Vec<_>>().join(" | "));
        }
    }
    choices
}

fn properties() -> BTreeMap<String, Value> {
    let schema = schema();
    let mut keys = BTreeMap::new();
    gather(&schema, &schema, "", &mut keys);
    keys
}

fn gather(root: &Value, schema: &Value, field: &str, keys: &mut BTreeMap<String, Value>) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        gather(root, root.pointer(name.trim_start_matches('#')).unwrap(), field, keys);
    }
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let field = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
        let is_required = schema["required"].as_array().is_some_and(|keys| keys.iter().any(|other| other == key));
        let mut told = property.clone();
        told["required"] = is_required.into();
        keys.insert(field.clone(), told);
        gather(root, property, &field, keys);
    }
    if let Some(items) = schema.get("items") {
        gather(root, items, &format!("{field}[]"), keys);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        gather(root, values, &format!("{field}{{}}"), keys);
    }
    for choice in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        gather(root, choice, field, keys);
    }
}

/// A field of a file as a key of the schema: indices and the user's own keys left out.
fn generic(field: &str) -> String {
    let without_indices = field.split('[').map(|piece| piece.trim_start_matches(|c: char| c.is_ascii_digit()));
    let field = without_indices.collect::<Vec<_>>().join("[");
    let of = |field: String, map: &str, own: &str| field.replace(&format!(".{map}.{own}"), &format!(".{map}{{}}"));
    ["a", "b", "c"].iter().fold(field, |field, own| of(of(field, "headers", own), "env", own))
}
