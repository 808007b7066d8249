//! What is different between two configurations as the operator sees them, key by key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A key that has not the same value in both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Difference {
    /// Its path. What has a `name` is found by it, wherever it stands in its list.
    pub(crate) key: String,
    /// As JSON; absent where it stands in the other one only.
    pub(crate) old: Option<String>,
    pub(crate) new: Option<String>,
}

/// What is different, in the order of the keys' paths.
pub(crate) fn between(old: &Value, new: &Value) -> Vec<Difference> {
    let (mut before, mut after) = (values(old), values(new));
    let keys: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let difference = |key: String| Difference { old: before.remove(&key), new: after.remove(&key), key };
    keys.into_iter().map(difference).filter(|one| one.old != one.new).collect()
}

/// Every value as JSON, by the path of its key.
pub(crate) fn values(config: &Value) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    flatten(String::new(), config, &mut values);
    values
}

fn flatten(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                flatten(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let which = item.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), str::to_owned);
                flatten(format!("{path}[{which}]"), item, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            into.insert(path, value.to_string());
        }
    }
}
