//! Random JSON, and random ways to write and to cut it.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Any value, of keys and strings that need escapes and of some that mean something.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        string().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Value::from), vec((key(), inner), 0..4).prop_map(object)]
    })
}

pub(crate) fn string() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        6 => proptest::char::range(' ', '~'),
        1 => proptest::char::range('\0', '\u{1f}'),
        1 => prop::sample::select(vec!['"', '\\', '/', '{', '}', '\u{7f}', 'é', '\u{2028}', '\u{feff}', '😀']),
    ];
    vec(character, 0..12).prop_map(String::from_iter)
}

fn key() -> impl Strategy<Value = String> {
    const KEYS: &[&str] = &["result", "error", "method", "id", "isError", "code", "name", "uri", "_meta", "params", ""];
    prop_oneof![string(), prop::sample::select(KEYS).prop_map(str::to_owned)]
}

/// What may be a message: each key is mostly as it should be, at times of a wrong type, at times absent.
pub(crate) fn message() -> impl Strategy<Value = Value> {
    let jsonrpc = prop_oneof![9 => Just(json!("2.0")), 1 => value()];
    let id = prop_oneof![any::<i64>().prop_map(Value::from), string().prop_map(Value::from), value()];
    let method = prop_oneof![9 => string().prop_map(Value::from), 1 => value()];
    let result = prop_oneof![outcome("isError", any::<bool>()), value()];
    let error = prop_oneof![outcome("code", any::<i64>()), value()];
    let entries = (
        some("jsonrpc", 0.95, jsonrpc),
        some("id", 0.7, id),
        some("method", 0.5, method),
        some("params", 0.5, params()),
        some("result", 0.4, result),
        some("error", 0.2, error),
        some("other", 0.2, value()),
    );
    entries.prop_map(|(a, b, c, d, e, f, g)| object([a, b, c, d, e, f, g].into_iter().flatten()))
}

fn outcome<T: Into<Value>>(key: &'static str, of: impl Strategy<Value = T>) -> impl Strategy<Value = Value> {
    (of, value()).prop_map(move |(of, other)| object([("other".to_owned(), other), (key.to_owned(), of.into())]))
}

fn params() -> impl Strategy<Value = Value> {
    let meta = some("io.modelcontextprotocol/protocolVersion", 0.7, value()).prop_map(object);
    let meta = prop_oneof![9 => meta, 1 => value()];
    let entries = (
        some("name", 0.6, prop_oneof![string().prop_map(Value::from), value()]),
        some("uri", 0.3, prop_oneof![string().prop_map(Value::from), value()]),
        some("requestId", 0.2, value()),
        some("arguments", 0.3, value()),
        some("_meta", 0.4, meta),
    );
    let object = entries.prop_map(|(a, b, c, d, e)| object([a, b, c, d, e].into_iter().flatten()));
    prop_oneof![9 => object, 1 => value()]
}

fn some(
    key: &'static str,
    probability: f64,
    value: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Option<(String, Value)>> {
    prop::option::weighted(probability, value.prop_map(move |value| (key.to_owned(), value)))
}

fn object(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    entries.into_iter().collect::<Map<_, _>>().into()
}

/// A source of small choices that a test can repeat.
#[derive(Clone, Debug)]
pub(crate) struct Choices(u64);

impl Choices {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        any::<u64>().prop_map(Self)
    }

    pub(crate) const fn seeded(seed: usize) -> Self {
        Self(seed as u64)
    }

    /// Below `bound`.
    pub(crate) fn pick(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    pub(crate) fn cut<'b>(&mut self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let longest = [1, 3, 16, bytes.len()][self.pick(4)].min(bytes.len());
            let (chunk, rest) = bytes.split_at(1 + self.pick(longest));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }

    /// Writes a value with its keys in any order, space anywhere and needless escapes.
    pub(crate) fn write(&mut self, value: &Value) -> String {
        let mut text = String::new();
        self.value(value, &mut text);
        text
    }

    fn value(&mut self, value: &Value, text: &mut String) {
        self.space(text);
        match value {
            Value::String(string) => self.string(string, text),
            Value::Array(elements) => {
                text.push('[');
                for (index, element) in elements.iter().enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    self.value(element, text);
                }
                text.push(']');
            }
            Value::Object(entries) => self.object(entries, text),
            Value::Bool(_) | Value::Null | Value::Number(_) => text.push_str(&value.to_string()),
        }
        self.space(text);
    }

    fn object(&mut self, entries: &Map<String, Value>, text: &mut String) {
        let mut entries: Vec<_> = entries.iter().collect();
        text.push('{');
        while !entries.is_empty() {
            let (key, value) = entries.swap_remove(self.pick(entries.len()));
            self.space(text);
            self.string(key, text);
            self.space(text);
            text.push(':');
            self.value(value, text);
            text.push_str(if entries.is_empty() { "" } else { "," });
        }
        self.space(text);
        text.push('}');
    }

    fn string(&mut self, string: &str, text: &mut String) {
        text.push('"');
        for character in string.chars() {
            if self.pick(6) == 0 || matches!(character, '"' | '\\' | '\0'..='\u{1f}') {
                self.escape(character, text);
            } else {
                text.push(character);
            }
        }
        text.push('"');
    }

    fn escape(&mut self, character: char, text: &mut String) {
        let short = match character {
            '"' | '\\' | '/' => Some(character),
            '\n' => Some('n'),
            '\t' => Some('t'),
            _ => None,
        };
        match short.filter(|_| self.pick(2) == 0) {
            Some(short) => text.extend(['\\', short]),
            None => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                write!(text, "\\u{unit:04x}").expect("a string takes all");
            }),
        }
    }

    fn space(&mut self, text: &mut String) {
        text.push_str(["", "", "", " ", "\n", "\t\r\n"][self.pick(6)]);
    }
}
