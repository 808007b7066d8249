//! What has changed in the tools of a backend since it was listed before: an agent, and whoever has let it use them, were told
//! of the ones that there were.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use toolgate_config::BackendName;

use super::Kind;
use super::listing::Listing;

/// The changes that are remembered, of all backends.
const REMEMBERED: usize = 256;
/// The changes of one listing that are told one by one.
const TOLD: usize = 16;

/// A kind of change, the gravest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// There were tools, and there are none.
    ListEmpty,
    ToolRemoved,
    /// A call as it was made before lacks an argument now.
    ParameterRequired,
    /// Any other change of what a tool takes or gives.
    SchemaChanged,
    /// The backend speaks another version of the protocol.
    ProtocolChanged,
    /// What a tool says of itself, and nothing of what it takes or gives.
    DescriptionChanged,
    ToolAdded,
}

impl Change {
    /// Every kind, in declaration order.
    pub(crate) const ALL: [Self; 7] = [
        Self::ListEmpty,
        Self::ToolRemoved,
        Self::ParameterRequired,
        Self::SchemaChanged,
        Self::ProtocolChanged,
        Self::DescriptionChanged,
        Self::ToolAdded,
    ];

    /// As metrics, logs and pages have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ListEmpty => "list_empty",
            Self::ToolRemoved => "tool_removed",
            Self::ParameterRequired => "parameter_required",
            Self::SchemaChanged => "schema_changed",
            Self::ProtocolChanged => "protocol_changed",
            Self::DescriptionChanged => "description_changed",
            Self::ToolAdded => "tool_added",
        }
    }

    /// Whether calls that worked before may fail, or do something else.
    const fn is_grave(self) -> bool {
        !matches!(self, Self::DescriptionChanged | Self::ToolAdded)
    }
}

/// One change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Drift {
    pub(crate) change: Change,
    /// The backend's own name of the tool.
    pub(crate) tool: Option<Box<str>>,
    /// What exactly, where it can be said in a few words.
    pub(crate) detail: Option<Box<str>>,
}

impl Drift {
    fn of_tool(change: Change, tool: &str) -> Self {
        Self { change, tool: Some(tool.into()), detail: None }
    }

    fn of_all(change: Change, detail: String) -> Self {
        Self { change, tool: None, detail: Some(detail.into()) }
    }
}

/// What has changed from one listing of a backend to the next, the gravest first.
pub(super) fn between(before: &Listing, after: &Listing) -> Vec<Drift> {
    let mut drifts = Vec::new();
    if before.version != after.version {
        drifts
            .push(Drift::of_all(Change::ProtocolChanged, format!("{} before, {} now", before.version, after.version)));
    }
    let (before, after) = (definitions(before), definitions(after));
    if after.is_empty() && !before.is_empty() {
        drifts.push(Drift::of_all(Change::ListEmpty, format!("{} tools before, none now", before.len())));
    } else {
        let removed = before.keys().filter(|tool| !after.contains_key(*tool));
        drifts.extend(removed.map(|tool| Drift::of_tool(Change::ToolRemoved, tool)));
        drifts.extend(after.iter().filter_map(|(tool, now)| match before.get(tool) {
            Some(before) => changed(tool, before, now),
            None => Some(Drift::of_tool(Change::ToolAdded, tool)),
        }));
    }
    drifts.sort_by(|one, other| (one.change as u8, &one.tool).cmp(&(other.change as u8, &other.tool)));
    drifts
}

/// The definitions of a backend's tools by its own names for them; of two with one name the first counts, as it does for clients.
fn definitions(listing: &Listing) -> HashMap<&str, &str> {
    let mut all = HashMap::new();
    for entry in &listing.lists.get(Kind::Tools).entries {
        all.entry(&*entry.own).or_insert_with(|| entry.definition());
    }
    all
}

/// How a tool differs from what it was, if it does.
fn changed(tool: &str, before: &str, now: &str) -> Option<Drift> {
    if before == now {
        return None;
    }
    let (Ok(Value::Object(before)), Ok(Value::Object(now))) = (serde_json::from_str(before), serde_json::from_str(now))
    else {
        // Nested too deep to be looked at.
        return Some(Drift::of_tool(Change::SchemaChanged, tool));
    };
    let anew = required(&now).difference(&required(&before)).copied().collect::<Vec<_>>().join(", ");
    let change = match () {
        // The order of keys and white space say nothing.
        () if before == now => return None,
        () if !anew.is_empty() => Change::ParameterRequired,
        () if schemas(&before) != schemas(&now) => Change::SchemaChanged,
        () => Change::DescriptionChanged,
    };
    Some(Drift { detail: (!anew.is_empty()).then(|| anew.into()), ..Drift::of_tool(change, tool) })
}

/// What a call must have.
fn required(definition: &Map<String, Value>) -> BTreeSet<&str> {
    let schema = definition.get("inputSchema").and_then(|schema| schema.get("required"));
    schema.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What a tool takes and gives, without what is said of it.
fn schemas(definition: &Map<String, Value>) -> [Option<Value>; 2] {
    ["inputSchema", "outputSchema"].map(|key| {
        let mut schema = definition.get(key).cloned();
        schema.iter_mut().for_each(without_words);
        schema
    })
}

/// Takes the titles and descriptions out of a schema; a property of that name has a schema for its value, not a string.
fn without_words(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|key, value| !(matches!(&**key, "title" | "description") && value.is_string()));
            members.values_mut().for_each(without_words);
        }
        Value::Array(items) => items.iter_mut().for_each(without_words),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A change, and when it was seen.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) backend: BackendName,
    pub(crate) drift: Drift,
    pub(crate) when: SystemTime,
}

/// The last changes of all backends.
#[derive(Default)]
pub(crate) struct History(Mutex<VecDeque<Seen>>);

impl History {
    /// The newest first.
    pub(crate) fn last(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    /// Remembers what has changed, and logs it. Of a listing in which everything is different not all is told.
    pub(super) fn saw(&self, backend: &BackendName, drifts: Vec<Drift>) {
        for drift in drifts.iter().take(TOLD) {
            let (change, tool, detail) = (drift.change.as_str(), drift.tool.as_deref(), drift.detail.as_deref());
            if drift.change.is_grave() {
                tracing::warn!(backend = %backend, change, tool, detail, "backend offers something else than before");
            } else {
                tracing::info!(backend = %backend, change, tool, detail, "backend offers something else than before");
            }
        }
        if let Some(more) = drifts.len().checked_sub(TOLD).filter(|more| *more > 0) {
            tracing::warn!(backend = %backend, more, "backend has changed in more ways than are told");
        }
        let when = SystemTime::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In a listing the gravest come first, and so they do among the newest.
        for drift in drifts.into_iter().take(REMEMBERED).rev() {
            if seen.len() == REMEMBERED {
                seen.pop_front();
            }
            seen.push_back(Seen { backend: backend.clone(), drift, when });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::backend::client::Caching;
    use crate::era::Era;

    const PLAIN: &str =
        r#"{"name":"t","description":"d","inputSchema":{"type":"object","properties":{"a":{"type":"string"}}}}"#;

    fn listing(tools: &[&str]) -> Listing {
        Listing::of(Era::Legacy, Caching::NONE, &[(Kind::Tools, tools)])
    }

    fn drifts(before: &[&str], after: &[&str]) -> Vec<(&'static str, String)> {
        let drifts = between(&listing(before), &listing(after));
        let told = drifts.into_iter().map(|drift| {
            let words = [drift.tool, drift.detail].into_iter().flatten().collect::<Vec<_>>();
            (drift.change.as_str(), words.join(": "))
        });
        told.collect()
    }

    fn of_one(after: &str) -> Vec<(&'static str, String)> {
        drifts(&[PLAIN], &[after])
    }

    #[test]
    fn what_means_the_same_is_no_change() {
        let other_order = r#"{ "inputSchema":{"properties":{"a":{"type":"string"}},"type":"object"}, "description":"d", "name":"t" }"#;

        assert_eq!(of_one(PLAIN), []);
        assert_eq!(of_one(other_order), []);
        assert_eq!(drifts(&[], &[]), []);
    }

    #[test]
    fn a_change_of_a_tool_is_of_the_gravest_kind_that_it_has() {
        for (from, to, change, detail) in [
            (r#"{"type":"string"}}"#, r#"{"type":"string"}},"required":["a"]"#, "parameter_required", "t: a"),
            (r#"{"type":"string"}"#, r#"{"type":"number"}"#, "schema_changed", "t"),
            (r#"{"type":"string"}"#, r#"{"type":"string"},"title":{"type":"string"}"#, "schema_changed", "t"),
            (r#""name":"t""#, r#""name":"t","outputSchema":{"type":"object"}"#, "schema_changed", "t"),
            (r#"{"type":"string"}"#, r#"{"type":"string","description":"now with words"}"#, "description_changed", "t"),
            (r#""description":"d""#, r#""description":"e""#, "description_changed", "t"),
            (r#""name":"t""#, r#""name":"t","annotations":{"readOnlyHint":true}"#, "description_changed", "t"),
        ] {
            let after = PLAIN.replace(from, to);
            assert_ne!(after, PLAIN, "{from}");
            assert_eq!(of_one(&after), [(change, detail.to_owned())], "{after}");
        }
    }

    #[test]
    fn tools_come_and_go() {
        let named = |name: &str| PLAIN.replace("\"t\"", &format!("\"{name}\""));
        let (a, b, c) = (named("a"), named("b"), named("c"));

        assert_eq!(drifts(&[&a, &b], &[&c, &b]), [("tool_removed", "a".to_owned()), ("tool_added", "c".to_owned())]);
        assert_eq!(drifts(&[&a, &b], &[]), [("list_empty", "2 tools before, none now".to_owned())]);
        assert_eq!(drifts(&[], &[&a]), [("tool_added", "a".to_owned())]);
    }

    #[test]
    fn another_version_is_a_change() {
        let (before, mut after) = (listing(&[PLAIN]), listing(&[PLAIN]));
        after.version = "2025-06-18";

        let drifts = between(&before, &after);

        assert_eq!(drifts.len(), 1);
        assert_eq!(drifts[0].change, Change::ProtocolChanged);
        assert!(drifts[0].detail.as_ref().unwrap().ends_with("2025-06-18 now"), "{drifts:?}");
    }

    #[test]
    fn a_schema_too_deep_to_be_read_counts_as_changed() {
        let deep = format!("{}1{}", "{\"x\":".repeat(200), "}".repeat(200));
        let after = PLAIN.replace(r#"{"type":"string"}"#, &deep);

        assert_eq!(of_one(&after), [("schema_changed", "t".to_owned())]);
    }

    #[test]
    fn the_last_changes_are_remembered_the_newest_and_gravest_first() {
        let history = History::default();
        let yaml = "listeners: [{ address: '127.0.0.1:0' }]\nbackends: [{ name: files, url: 'http://127.0.0.1:1/' }]";
        let config = toolgate_config::parse(Path::new("t.yaml"), yaml, &|_| None).unwrap();
        let backend = &config.backends[0].name;
        let added = |n: usize| Drift::of_tool(Change::ToolAdded, &n.to_string());

        history.saw(backend, (0..REMEMBERED + 10).map(added).collect());
        history.saw(backend, vec![Drift::of_tool(Change::ToolRemoved, "x"), added(0)]);

        let last = history.last();
        assert_eq!(last.len(), REMEMBERED);
        let first: Vec<_> = last.iter().take(3).map(|seen| seen.drift.change.as_str()).collect();
        assert_eq!(first, ["tool_removed", "tool_added", "tool_added"]);
    }
}
