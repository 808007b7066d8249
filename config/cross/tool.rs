//! Patterns for tools, and a backend's `tools`.

use std::collections::{BTreeMap, HashMap};

use super::is_name_byte;
use crate::tool::{Pattern, Tools};
use crate::walk::{Entry, Section, Value, Wrong, quote};

/// The longest name of a tool, as MCP has it.
pub(super) const MAX_NAME: usize = 128;

/// A list of patterns that is not empty.
pub(super) fn patterns(value: &Value<'_>, when_empty: &str) -> Option<Vec<Pattern>> {
    value.some(when_empty, |value| value.parsed("a pattern", pattern))
}

fn pattern(text: &str) -> Result<Pattern, Wrong> {
    let wrong = || Wrong::new("a pattern such as search or admin_*");
    match text.chars().find(|c| !c.is_ascii_graphic() || "[]{}\\,!".contains(*c)) {
        _ if text.is_empty() => Err(wrong()),
        Some('[' | ']' | '{' | '}' | '\\' | '!') => {
            Err(wrong().help("only * (any run of characters) and ? (one) are special"))
        }
        Some(',' | ' ') => Err(wrong().help("one pattern an entry: [\"a\", \"b\"]")),
        Some(_) => Err(wrong().help("names of tools are ASCII")),
        None if text.len() > MAX_NAME => {
            Err(wrong().help(format!("names of tools have at most {MAX_NAME} characters")))
        }
        None => Ok(Pattern(text.to_owned())),
    }
}

/// A backend's `tools`. Public names are `prefix` and a name, which must not grow too long together.
pub(super) fn tools(s: &mut Section<'_>, prefix: &str) -> Tools {
    let allow = s.optional("allow", |value| patterns(value, "remove it to allow all, or deny [\"*\"]"));
    Tools {
        // No list and a list with everything in it are one thing, and have one form.
        allow: allow.filter(|allow| !allow.iter().any(|pattern| pattern.as_str() == "*")).unwrap_or_default(),
        deny: s.optional("deny", |value| value.list(|value| value.parsed("a pattern", pattern))).unwrap_or_default(),
        rename: s.optional("rename", |value| rename(value, prefix)).unwrap_or_default(),
        describe: s.optional("describe", describe).unwrap_or_default(),
        max_description: s.optional("max_description", |value| value.number(16..=1_000_000)),
    }
}

fn rename(value: &Value<'_>, prefix: &str) -> Option<BTreeMap<String, String>> {
    let (mut names, mut shown_by) = (BTreeMap::new(), HashMap::new());
    for entry in value.entries()? {
        let (Some(own), Some(shown)) = (own_name(&entry), shown_name(&entry.value, prefix)) else { continue };
        if let Some(other) = shown_by.insert(shown.clone(), entry.key) {
            entry.value.problem(format!("{} is renamed to this already", quote(other)));
        }
        names.insert(own, shown);
    }
    Some(names)
}

fn shown_name(value: &Value<'_>, prefix: &str) -> Option<String> {
    let text = value.text()?;
    let (name, room) = (&text.value, MAX_NAME.saturating_sub(prefix.len()));
    if (1..=room).contains(&name.len()) && name.bytes().all(is_name_byte) {
        return Some(text.value);
    }
    value.wrong(&text, Wrong::new(format!("1 to {room} of A-Z a-z 0-9 _ . -")));
    None
}

fn describe(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let entries = value.entries()?;
    Some(entries.iter().filter_map(|entry| Some((own_name(entry)?, entry.value.text()?.value))).collect())
}

/// A key that names one tool of the backend.
fn own_name(entry: &Entry<'_>) -> Option<String> {
    if entry.key.is_empty() {
        entry.problem_at_key("an empty name", None);
        return None;
    }
    if entry.key.contains(['*', '?']) {
        entry.problem_at_key("a pattern where one tool is named", Some("name each tool".to_owned()));
        return None;
    }
    Some(entry.key.to_owned())
}
