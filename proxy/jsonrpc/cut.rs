//! Takes members out of an object and leaves every other byte as it came.

use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::splice::span;

/// How to take members out of an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Where the first member begins that stays.
    pub(crate) first_kept: Option<usize>,
    /// What to remove so that the others stay a list: in order and apart.
    pub(crate) removed: Vec<Range<usize>>,
}

/// Finds the members whose keys are unwanted in the object that lies at `object`, from brace to brace. `None` if no object
/// lies there.
pub(crate) fn cut(body: &[u8], object: &Range<usize>, is_unwanted: impl Fn(&str) -> bool) -> Option<Cut> {
    let text = std::str::from_utf8(body.get(object.clone())?).ok()?;
    let Members(members) = serde_json::from_str(text).ok()?;
    let mut spans = Vec::with_capacity(members.len());
    let mut rest = object.start + 1;
    for (key, value) in &members {
        let value = span(body, value.get())?;
        // Between two members is nothing but a comma and white space, so the next quote is the key's.
        let start = rest + body.get(rest..value.start)?.iter().position(|&byte| byte == b'"')?;
        spans.push((start..value.end, is_unwanted(key)));
        rest = value.end;
    }
    let first_kept = spans.iter().find(|(_, unwanted)| !unwanted).map(|(span, _)| span.start);
    let last_kept = spans.iter().rposition(|(_, unwanted)| !unwanted);
    // A member goes with the comma after it; those after the last that stays go with the comma before them.
    let pairs = spans.windows(2).take(last_kept.unwrap_or(0));
    let mut removed: Vec<_> = pairs.filter(|pair| pair[0].1).map(|pair| pair[0].0.start..pair[1].0.start).collect();
    let tail = match last_kept {
        Some(last) => spans[last].0.end,
        None => spans.first().map_or(rest, |(span, _)| span.start),
    };
    if tail < rest {
        removed.push(tail..rest);
    }
    Some(Cut { first_kept, removed })
}

/// Keys and values in order, repeated ones too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

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
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
