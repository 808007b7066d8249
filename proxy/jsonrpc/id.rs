//! Ids of requests: strings or integers, kept as written and compared by value.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::json::unescape;

/// An id, borrowed. Integers may be of any size.
#[derive(Clone, Copy)]
pub(crate) struct Id<'a>(&'a str);

/// An id to keep. Clones are cheap.
#[derive(Clone)]
pub(crate) struct OwnedId(Arc<str>);

/// What two ids are compared by.
#[derive(PartialEq, Eq, Hash)]
enum Value<'a> {
    Integer(&'a str),
    String(Cow<'a, str>),
}

impl<'a> Id<'a> {
    /// Reads one JSON value as an id. Also right for a `requestId`; `None` for what cannot be an id.
    pub(crate) fn read(json: &'a str) -> Option<Self> {
        value(json).map(|_| Self(json))
    }

    /// The JSON as written.
    pub(crate) fn raw(self) -> &'a str {
        self.0
    }

    pub(crate) fn owned(self) -> OwnedId {
        OwnedId(self.0.into())
    }
}

impl OwnedId {
    pub(crate) fn integer(id: u64) -> Self {
        Self(id.to_string().into())
    }

    /// `text` needs no escapes.
    pub(crate) fn string(text: &str) -> Self {
        Self(["\"", text, "\""].concat().into())
    }

    pub(crate) fn borrow(&self) -> Id<'_> {
        Id(&self.0)
    }

    /// The JSON as written.
    pub(crate) fn raw(&self) -> &str {
        &self.0
    }
}

/// `None` unless `json` is a string or an integer.
fn value(json: &str) -> Option<Value<'_>> {
    if json.starts_with('"') {
        return unescape(json).map(Value::String);
    }
    let digits = json.strip_prefix('-').unwrap_or(json);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = digits.len() > 1 && digits.starts_with('0');
    (plain && !leading_zero).then_some(Value::Integer(if digits == "0" { "0" } else { json }))
}

impl PartialEq for Id<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || value(self.0) == value(other.0)
    }
}

impl Eq for Id<'_> {}

impl Hash for Id<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        value(self.0).hash(state);
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.0)
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl From<Id<'_>> for OwnedId {
    fn from(id: Id<'_>) -> Self {
        id.owned()
    }
}

impl PartialEq for OwnedId {
    fn eq(&self, other: &Self) -> bool {
        self.borrow() == other.borrow()
    }
}

impl Eq for OwnedId {}

impl Hash for OwnedId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl fmt::Debug for OwnedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

impl fmt::Display for OwnedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
