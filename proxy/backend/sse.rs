//! Event streams: read as they come in, and written.
//!
//! [`Splitter`] is for relaying: bytes pass on as they are, and only what needs a decision is held back. [`Events`] is
//! for streams that end here. Neither knows of HTTP, and neither reconnects.

mod beginnings;
mod events;
mod splitter;
mod tagger;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use memchr::memchr2;

use crate::error::MaxBytes;

pub(crate) use self::beginnings::Beginnings;
pub(crate) use self::events::{Event, Events};
pub(crate) use self::splitter::{Piece, Splitter};
pub(crate) use self::tagger::Tagger;

/// A comment, which readers ignore and middleboxes take for traffic.
pub(crate) const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The longest event that is read on a backend's own stream.
pub(crate) const MAX_OWN_EVENT: MaxBytes = MaxBytes::fixed(4 * 1024 * 1024);

/// Not content where a stream starts with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An event that must be kept whole is longer than that is allowed for. The stream can be read no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event is longer than {limit} bytes")]
pub(crate) struct TooLong {
    pub(crate) limit: usize,
}

/// Writes an event of the default type.
pub(crate) fn event(data: &[u8]) -> Bytes {
    event_after("", data)
}

/// As [`event`], with an id, which must be a single line, and the milliseconds to wait before reconnecting. Without data it is
/// no event, but the rest is told all the same.
pub(crate) fn event_with(id: Option<&str>, retry: Option<u64>, data: Option<&[u8]>) -> Bytes {
    let mut head = String::new();
    if let Some(id) = id {
        head.extend(["id: ", id, "\n"]);
    }
    if let Some(retry) = retry {
        head.push_str(&format!("retry: {retry}\n"));
    }
    match data {
        Some(data) => event_after(&head, data),
        None => [&*head, "\n"].concat().into(),
    }
}

fn event_after(head: &str, data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(head.len() + data.len() + 8);
    event.extend_from_slice(head.as_bytes());
    event.extend_from_slice(b"data: ");
    for cut in Lines::inside().cuts(data) {
        match cut {
            Cut::End => event.extend_from_slice(b"\ndata: "),
            Cut::Skip => {}
            Cut::Text(text) => event.extend_from_slice(text),
        }
    }
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// Finds the lines of a stream that comes in chunks. All three line ends may be mixed.
#[derive(Debug)]
struct Lines {
    /// How much of a byte order mark there was; only known at the very start.
    mark: Option<usize>,
    /// A line ended with the last chunk; a line feed at the start of the next one belongs to that end.
    after_cr: bool,
}

/// What lies at the head of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut<'a> {
    /// The end of a line.
    End,
    /// Nothing with a meaning.
    Skip,
    /// A piece of a line.
    Text(&'a [u8]),
}

impl Lines {
    /// At the start of a stream.
    const fn new() -> Self {
        Self { mark: Some(0), after_cr: false }
    }

    /// At the start of a later line.
    const fn inside() -> Self {
        Self { mark: None, after_cr: false }
    }

    /// Whether what was skipped last may yet turn out to be text.
    fn is_in_mark(&self) -> bool {
        self.mark.is_some_and(|matched| matched > 0)
    }

    /// Looks at the head of a chunk that is not empty and tells how long it is.
    fn cut<'a>(&mut self, chunk: &'a [u8]) -> (usize, Cut<'a>) {
        if let Some(cut) = self.mark.take().and_then(|matched| self.mark(matched, chunk)) {
            return cut;
        }
        let after_cr = std::mem::take(&mut self.after_cr);
        match chunk {
            [b'\r', b'\n', ..] => (2, Cut::End),
            [b'\n', ..] if after_cr => (1, Cut::Skip),
            [end @ (b'\r' | b'\n'), ..] => {
                self.after_cr = *end == b'\r';
                (1, Cut::End)
            }
            _ => {
                let length = memchr2(b'\r', b'\n', chunk).unwrap_or(chunk.len());
                (length, Cut::Text(chunk.get(..length).unwrap_or_default()))
            }
        }
    }

    /// `None` if this is no mark and none of it was skipped.
    fn mark<'a>(&mut self, matched: usize, chunk: &[u8]) -> Option<(usize, Cut<'a>)> {
        if chunk.first() == BYTE_ORDER_MARK.get(matched) {
            self.mark = (matched + 1 < BYTE_ORDER_MARK.len()).then_some(matched + 1);
            return Some((1, Cut::Skip));
        }
        let skipped = BYTE_ORDER_MARK.get(..matched).unwrap_or_default();
        (matched > 0).then_some((0, Cut::Text(skipped)))
    }

    /// All that lies in a chunk.
    fn cuts<'a>(mut self, mut chunk: &'a [u8]) -> impl Iterator<Item = Cut<'a>> {
        std::iter::from_fn(move || {
            (!chunk.is_empty()).then(|| {
                let (length, cut) = self.cut(chunk);
                chunk = chunk.get(length..).unwrap_or_default();
                cut
            })
        })
    }
}

/// Splits a line into name and value. A comment has no name.
fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = memchr::memchr(b':', line).unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let value = value.strip_prefix(b":").unwrap_or(value);
    (name, value.strip_prefix(b" ").unwrap_or(value))
}
