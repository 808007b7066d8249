//! Changes a few spans of a body and leaves every other byte as it came.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Where a body can be added to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The brace that ends the message.
    pub(crate) end: usize,
    /// The object from brace to brace.
    pub(crate) params: Option<Range<usize>>,
    /// The object from brace to brace.
    pub(crate) meta: Option<Range<usize>>,
}

/// Where `part`, which was borrowed from `body`, lies in it. `None` if it lies elsewhere.
pub(crate) fn span(body: &[u8], part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= body.len()).then_some(start..end)
}

/// Replaces the ranges of `body`, which are in order and apart, and copies the rest once.
pub(crate) fn splice(body: &[u8], edits: &[(Range<usize>, &[u8])]) -> Bytes {
    debug_assert!(edits.iter().all(|(range, _)| range.start <= range.end && range.end <= body.len()));
    debug_assert!(edits.is_sorted_by(|(left, _), (right, _)| left.end <= right.start));
    let added: usize = edits.iter().map(|(_, with)| with.len()).sum();
    let mut spliced = Vec::with_capacity(body.len() + added);
    let mut rest = 0;
    for (range, with) in edits {
        spliced.extend_from_slice(body.get(rest..range.start).unwrap_or_default());
        spliced.extend_from_slice(with);
        rest = range.end;
    }
    spliced.extend_from_slice(body.get(rest..).unwrap_or_default());
    spliced.into()
}

/// Where `params` and `_meta` lie in a body that [`parse`](super::parse) accepts. Takes passes of its own, so it is for
/// the bodies that must be added to.
pub(crate) fn layout(body: &[u8]) -> Option<Layout> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        params: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }

    let end = body.trim_ascii_end().strip_suffix(b"}")?.len();
    let Message { params } = serde_json::from_slice(body).ok()?;
    let Some(params) = params else { return Some(Layout { end, ..Layout::default() }) };
    let Params { meta } = serde_json::from_str(params.get()).ok()?;
    Some(Layout { end, params: span(body, params.get()), meta: meta.and_then(|meta| span(body, meta.get())) })
}
