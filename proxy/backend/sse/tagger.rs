//! Marks the ids of a backend's events, so that a client that comes back with one can be sent to where it came from.

use bytes::{Bytes, BytesMut};

use super::{Cut, Lines};

/// Puts a tag before every event id of a stream. Every other byte passes as it came.
#[derive(Debug)]
pub(crate) struct Tagger {
    tag: Box<[u8]>,
    lines: Lines,
    at: At,
    has_ids: bool,
    /// The last id, or as much of it as has come.
    last: Vec<u8>,
}

/// How far the current line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// So many bytes, all as in [`ID`].
    Name(usize),
    /// After the colon of an id: a space may follow that is not part of it.
    Colon,
    /// After that space.
    Space,
    /// In the id itself.
    Value,
    /// Anywhere else.
    Other,
}

/// The one field that matters.
const ID: &[u8] = b"id";
/// An id that is longer is not remembered.
const MAX_LAST: usize = 1024;

impl Tagger {
    pub(crate) fn new(tag: &str) -> Self {
        Self { tag: tag.as_bytes().into(), lines: Lines::new(), at: At::Name(0), has_ids: false, last: Vec::new() }
    }

    /// Whether the stream has had an id: then a client can come back for the rest of it.
    pub(crate) fn has_ids(&self) -> bool {
        self.has_ids
    }

    /// The backend's own id of the last event that had one, if it is text of a sensible length.
    pub(crate) fn last_id(&self) -> Option<&str> {
        std::str::from_utf8(&self.last).ok().filter(|last| !last.is_empty() && last.len() <= MAX_LAST)
    }

    /// Passes the next bytes of the stream on.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Bytes {
        let mut places = Vec::new();
        let mut done = 0;
        while let Some(rest) = chunk.get(done..).filter(|rest| !rest.is_empty()) {
            let (length, cut) = self.lines.cut(rest);
            match cut {
                Cut::Text(text) if self.at == At::Value => self.note(text),
                Cut::Text(text) => {
                    if let Some(offset) = self.text(text) {
                        places.push(done + offset);
                        self.last.clear();
                        self.note(text.get(offset..).unwrap_or_default());
                    }
                }
                Cut::End => self.at = At::Name(0),
                Cut::Skip => {}
            }
            done += length;
        }
        if places.is_empty() {
            return chunk;
        }
        self.has_ids = true;
        let mut tagged = BytesMut::with_capacity(chunk.len() + places.len() * self.tag.len());
        let mut from = 0;
        for place in places {
            tagged.extend_from_slice(chunk.get(from..place).unwrap_or_default());
            tagged.extend_from_slice(&self.tag);
            from = place;
        }
        tagged.extend_from_slice(chunk.get(from..).unwrap_or_default());
        tagged.freeze()
    }

    /// Takes in a piece of an id, as far as it is of interest.
    fn note(&mut self, text: &[u8]) {
        let room = (MAX_LAST + 1).saturating_sub(self.last.len());
        self.last.extend_from_slice(text.get(..room).unwrap_or(text));
    }

    /// Where in a piece of a line the value of an id begins, if it begins there. An empty id has no value.
    fn text(&mut self, text: &[u8]) -> Option<usize> {
        for (offset, &byte) in text.iter().enumerate() {
            self.at = match self.at {
                At::Name(matched) if ID.get(matched) == Some(&byte) => At::Name(matched + 1),
                At::Name(matched) if matched == ID.len() && byte == b':' => At::Colon,
                At::Colon => {
                    self.at = At::Value;
                    let Some(next) = (byte == b' ').then_some(offset + 1) else { return Some(offset) };
                    if next < text.len() {
                        return Some(next);
                    }
                    // The value comes with the next chunk, or not at all.
                    self.at = At::Space;
                    return None;
                }
                At::Space => {
                    self.at = At::Value;
                    return Some(offset);
                }
                At::Name(_) | At::Other | At::Value => {
                    self.at = At::Other;
                    return None;
                }
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(stream: &str, chunk: usize) -> (String, bool) {
        let mut tagger = Tagger::new("c/b/");
        let pieces = stream.as_bytes().chunks(chunk).map(|chunk| tagger.push(Bytes::copy_from_slice(chunk)));
        let out = pieces.collect::<Vec<_>>().concat();
        (String::from_utf8(out).unwrap(), tagger.has_ids())
    }

    #[test]
    fn ids_are_tagged_wherever_the_chunks_end() {
        let stream =
            "\u{feff}id: 1\r\ndata:\r\rid:2\nidx: 3\nid : 4\nid\nid:\nid: \nretry: 5\ndata: id: 6\n: id: 7\nid:  8\n\n";
        let expected = "\u{feff}id: c/b/1\r\ndata:\r\rid:c/b/2\nidx: 3\nid : 4\nid\nid:\nid: \nretry: 5\ndata: id: 6\n: id: 7\nid: c/b/ 8\n\n";
        for chunk in 1..stream.len() {
            assert_eq!(tagged(stream, chunk), (expected.to_owned(), true), "chunks of {chunk}");
        }
    }

    #[test]
    fn the_last_id_is_known_wherever_the_chunks_end() {
        let long = "x".repeat(MAX_LAST + 1);
        let overlong = format!("id: {long}\n\n");
        for (stream, last) in [
            ("id: 1\ndata:\n\nid:y/z \ndata: id: 3\n\n", Some("y/z ")),
            ("id:  1\n\nid\nid:\nid: \n", Some(" 1")),
            ("data: 1\n\n", None),
            (&*overlong, None),
        ] {
            for chunk in 1..stream.len() {
                let mut tagger = Tagger::new("c/b/");
                stream.as_bytes().chunks(chunk).for_each(|chunk| drop(tagger.push(Bytes::copy_from_slice(chunk))));
                assert_eq!(tagger.last_id(), last, "{stream:?}, chunks of {chunk}");
            }
        }
    }

    #[test]
    fn a_stream_without_ids_passes_as_it_is() {
        let stream = "event: message\ndata: {\"id\":1}\n\n";
        assert_eq!(tagged(stream, 7), (stream.to_owned(), false));
    }

    proptest! {
        #[test]
        fn readers_see_the_same_events_with_tagged_ids(stream in "(id|data|retry|:|: |[ab1]|\n|\r|\r\n){0,40}", chunk in 1_usize..9) {
            let read = |text: &str| {
                let mut events = super::super::Events::new(usize::MAX);
                let _ = events.push(text.as_bytes());
                std::iter::from_fn(move || events.next()).collect::<Vec<_>>()
            };
            let expected: Vec<_> = read(&stream)
                .into_iter()
                .map(|mut event| {
                    event.id = event.id.map(|id| if id.is_empty() { id } else { format!("c/b/{id}") });
                    event
                })
                .collect();
            prop_assert_eq!(read(&tagged(&stream, chunk).0), expected);
        }
    }
}
