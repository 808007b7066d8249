//! Values that hold values: lists, mappings with keys of the user's choosing, and sections, whose keys are ours.
//!
//! A [`Section`] learns its keys from being asked for them, so there is no list of known keys to keep in step.

use std::collections::HashMap;
use std::rc::Rc;

use super::Value;
use super::scalar::Plain;
use super::words::join;
use crate::suggest::closest;
use crate::yaml::{Key, Kind, Node, Place};

impl<'a> Value<'a> {
    /// A list; items that `item` refuses are left out, having been reported.
    pub(crate) fn list<T>(&self, mut item: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        let Kind::List(nodes) = &self.node.kind else {
            let help =
                matches!(&self.node.kind, Kind::Scalar { text, plain } if Plain::of(text, *plain) != Plain::Null);
            self.mistyped("a list", help.then(|| "put it in brackets: [ ]".to_owned()));
            return None;
        };
        let value = |(i, node): (usize, &'a Rc<Node>)| Value {
            at: node.at,
            node,
            field: format!("{}[{i}]", self.field),
            ..self.clone()
        };
        Some(nodes.iter().enumerate().filter_map(|entry| item(&value(entry))).collect())
    }

    /// A list that must not be empty; `help` says what to do instead.
    pub(crate) fn some<T>(&self, help: &str, item: impl FnMut(&Self) -> Option<T>) -> Option<Vec<T>> {
        if let Kind::List(nodes) = &self.node.kind
            && nodes.is_empty()
        {
            self.problem_with("is empty", help);
        }
        self.list(item)
    }

    /// A mapping with keys of the user's choosing, in file order.
    pub(crate) fn entries(&self) -> Option<Vec<Entry<'a>>> {
        let Kind::Map(nodes) = &self.node.kind else {
            self.mistyped("a mapping", None);
            return None;
        };
        let mut entries = Vec::with_capacity(nodes.len());
        let mut known = HashMap::new();
        for (key, node) in nodes.iter().filter(|(key, _)| key.text != MERGE) {
            let entry = self.entry(key, node);
            match known.get(entry.key) {
                Some(line) => entry.problem_at_key(format!("given twice, first on line {line}"), None),
                None => {
                    known.insert(entry.key, entry.at.line);
                    entries.push(entry);
                }
            }
        }
        for (key, node) in nodes.iter().filter(|(key, _)| key.text == MERGE) {
            for entry in self.merged(key, node) {
                if known.insert(entry.key, entry.at.line).is_none() {
                    entries.push(entry);
                }
            }
        }
        Some(entries)
    }

    /// `<<`: entries of another mapping, or of several, the first of which wins.
    fn merged(&self, merge: &'a Key, node: &'a Node) -> Vec<Entry<'a>> {
        match &node.kind {
            Kind::List(nodes) => nodes.iter().flat_map(|node| self.merged(merge, node)).collect(),
            Kind::Map(nodes) => {
                let (merges, own): (Vec<_>, Vec<_>) = nodes.iter().partition(|(key, _)| key.text == MERGE);
                let own = own.into_iter().map(|(key, node)| self.entry(key, node));
                own.chain(merges.into_iter().flat_map(|(key, node)| self.merged(key, node))).collect()
            }
            Kind::Scalar { .. } | Kind::Broken => {
                self.entry(merge, node).value.mistyped("a mapping to merge", None);
                Vec::new()
            }
        }
    }

    fn entry(&self, key: &'a Key, node: &'a Node) -> Entry<'a> {
        // A value that is not there has no place worth pointing at.
        let nothing = matches!(&node.kind, Kind::Scalar { text, plain } if Plain::of(text, *plain) == Plain::Null);
        let at = if nothing { key.at } else { node.at };
        let value = Value { at, node, field: join(&self.field, &key.text), ..self.clone() };
        Entry { key: &key.text, at: key.at, value }
    }

    /// A mapping with keys of ours: `read` asks for them, and what it did not ask for is reported.
    pub(crate) fn section<T>(&self, read: impl FnOnce(&mut Section<'a>) -> T) -> Option<T> {
        let entries = self.entries()?;
        let mut section = Section { value: self.clone(), entries, asked: Vec::new(), missing: Vec::new() };
        let read = read(&mut section);
        section.finish();
        Some(read)
    }
}

/// The key that merges another mapping into its own, as YAML 1.1 had it and everyone still writes.
const MERGE: &str = "<<";

/// One entry of a mapping.
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    /// Where the key stands.
    at: Place,
    pub(crate) value: Value<'a>,
}

impl Entry<'_> {
    /// Reports the key rather than its value.
    pub(crate) fn problem_at_key(&self, message: impl Into<String>, help: Option<String>) {
        self.value.source.report(self.at, &self.value.field, message.into(), help);
    }
}

/// A mapping whose keys are ours.
pub(crate) struct Section<'a> {
    value: Value<'a>,
    entries: Vec<Entry<'a>>,
    asked: Vec<&'static str>,
    /// Of each of these, one key must be given.
    missing: Vec<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The section as a value, to report on.
    pub(crate) fn value(&self) -> &Value<'a> {
        &self.value
    }

    /// The value of a key, if it is given.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.asked.push(key);
        #[cfg(test)]
        self.value.source.ask(join(&self.value.field, key));
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone())
    }

    /// Whether a key is given that is asked for elsewhere.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// What `read` makes of the value of a key, if it is given and right.
    pub(crate) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(|value| read(&value))
    }

    /// As [`Self::optional`], of a key that must be given.
    pub(crate) fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.get(key);
        if value.is_none() {
            self.missing.push(vec![key]);
        }
        value.and_then(|value| read(&value))
    }

    /// The values of keys of which exactly one must be given: that one, and nothing for the others.
    pub(crate) fn one_of<const N: usize>(&mut self, keys: [&'static str; N]) -> [Option<Value<'a>>; N] {
        let mut values = keys.map(|key| self.get(key));
        if values.iter().all(Option::is_none) {
            self.missing.push(keys.to_vec());
        }
        let mut given = values.iter_mut().filter(|value| value.is_some());
        let first = given.next().and_then(|value| value.as_ref()).map(|value| value.field().to_owned());
        for surplus in given {
            if let (Some(value), Some(first)) = (surplus.take(), &first) {
                value.problem_with(format!("`{first}` is given too"), format!("give one of {}", listed(&keys)));
            }
        }
        values
    }

    /// Whether nothing stands in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn finish(mut self) {
        let given = |key: &str| self.entries.iter().any(|entry| entry.key == key);
        let left = self.asked.iter().copied().filter(|key| !given(key)).collect::<Vec<_>>();
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key)) {
            let help = match closest(entry.key, left.iter().copied()) {
                Some(known) => {
                    // Misspelt is not missing: one mistake, one problem.
                    self.missing.retain(|keys| !keys.contains(&known));
                    format!("did you mean `{known}`?")
                }
                None => format!("known here: {}", self.asked.join(", ")),
            };
            // In a secret's place, what looks like a key may be the secret.
            let named = if self.value.secret { &self.value } else { &entry.value };
            named.source.report(entry.at, &named.field, "unknown key".to_owned(), Some(help));
        }
        for keys in self.missing {
            match keys.as_slice() {
                [key] => self.value.problem(format!("`{key}` is missing")),
                keys => self.value.problem(format!("give one of {}", listed(keys))),
            }
        }
    }
}

/// `a`, `b` and `c`, each in backticks.
fn listed(keys: &[&str]) -> String {
    let quoted = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, most)) => format!("{} and {last}", most.join(", ")),
        None => String::new(),
    }
}
