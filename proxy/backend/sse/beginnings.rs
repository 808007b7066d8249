//! Reads what the data of events begins with, for who wants no more of it.

use super::{Cut, Lines, field};

/// `data:` and a space.
const FIELD: usize = 6;

/// Reads a stream in chunks of any size, and keeps no more than it was told to.
#[derive(Debug)]
pub(crate) struct Beginnings {
    most: usize,
    lines: Lines,
    line: Vec<u8>,
    /// Of the event at hand, all its lines joined.
    data: Option<Vec<u8>>,
    /// Whether there was more of it than is kept.
    is_cut: bool,
}

impl Beginnings {
    /// `most` bytes of each event.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, lines: Lines::new(), line: Vec::new(), data: None, is_cut: false }
    }

    /// Takes the next bytes of the stream; `each` gets what the data of every event that they end begins with.
    pub(crate) fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(&[u8])) {
        while !chunk.is_empty() {
            let (length, cut) = self.lines.cut(chunk);
            chunk = chunk.get(length..).unwrap_or_default();
            match cut {
                Cut::End => self.end_of_line(&mut each),
                Cut::Skip => {}
                Cut::Text(text) => {
                    let room = self.most.saturating_add(FIELD).saturating_sub(self.line.len());
                    self.line.extend_from_slice(text.get(..room).unwrap_or(text));
                }
            }
        }
    }

    fn end_of_line(&mut self, each: &mut impl FnMut(&[u8])) {
        if self.line.is_empty() {
            self.is_cut = false;
            return self.data.take().into_iter().for_each(|data| each(&data));
        }
        if let (b"data", value) = field(&self.line) {
            let is_first = self.data.is_none();
            let data = self.data.get_or_insert_default();
            let room = self.most.saturating_sub(data.len());
            // What follows a gap would be read as if there were none.
            if !self.is_cut {
                data.extend_from_slice(if is_first { b"" } else { b"\n" });
                data.extend_from_slice(value.get(..room).unwrap_or(value));
            }
            self.is_cut |= value.len() >= room;
        }
        self.line.clear();
    }
}
