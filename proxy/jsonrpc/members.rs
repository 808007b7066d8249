//! An object taken apart and put together again, for the few that have to change their shape. Values stay as they were
//! written; space between members is not kept.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json::json_string;

/// The members of an object in their order, keys with their escapes resolved; `None` for what is no object.
pub(crate) fn members(json: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    read(json)?.into_iter().map(|(key, value)| Some((key.text()?, value))).collect()
}

/// The raw value of a key; of the last one where it repeats, which is what most readers take.
pub(crate) fn member<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    read(json)?.into_iter().rfind(|(name, _)| *name.0 == *key.as_bytes()).map(|(_, value)| value)
}

fn read(json: &str) -> Option<Vec<(Name<'_>, &str)>> {
    // An array would be taken for a struct's fields otherwise.
    let is_object = json.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str::<Members<'_>>(json).ok().map(|members| members.0)).flatten()
}

/// An object of these members. Values are JSON.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut json = String::from("{");
    for (key, value) in members {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&json_string(key));
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    json
}

struct Members<'a>(Vec<(Name<'a>, &'a str)>);

/// A key with its escapes resolved, which need not be text: half of a surrogate pair is none.
struct Name<'a>(Cow<'a, [u8]>);

impl<'a> Name<'a> {
    fn text(self) -> Option<Cow<'a, str>> {
        match self.0 {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        }
    }
}

impl<'a> Deserialize<'a> for Name<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(NameVisitor)
    }
}

struct NameVisitor;

impl<'a> Visitor<'a> for NameVisitor {
    type Value = Name<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_bytes<E: Error>(self, key: &'a [u8]) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(key)))
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(key.to_owned())))
    }
}

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key()? {
            members.push((key, map.next_value::<&RawValue>()?.get()));
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_were_written() {
        let json = r#" { "a" : 1e400 , "\u0062":12345678901234567890,"c":{ "x": "\u00e9" }, "a": [ ] } "#;
        let found = members(json).unwrap();
        let expected = [("a", "1e400"), ("b", "12345678901234567890"), ("c", r#"{ "x": "\u00e9" }"#), ("a", "[ ]")];
        assert_eq!(found, expected.map(|(key, value)| (Cow::from(key), value)));
        assert_eq!(member(json, "a"), Some("[ ]"));
        assert_eq!(object(expected), r#"{"a":1e400,"b":12345678901234567890,"c":{ "x": "\u00e9" },"a":[ ]}"#);
    }

    #[test]
    fn a_key_that_is_no_text_hides_no_other() {
        let json = r#"{"\ud800":1,"b":2,"\ud83d\ude00":3}"#;
        assert_eq!(
            (member(json, "b"), member(json, "\u{1F600}"), member(json, "\u{FFFD}")),
            (Some("2"), Some("3"), None)
        );
        assert_eq!(members(json), None);
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for json in ["[]", "[[\"a\",1]]", "1", "", "{", "null", "{\"a\":}"] {
            assert_eq!(members(json), None, "{json}");
        }
        assert_eq!(object([]), "{}");
    }
}
