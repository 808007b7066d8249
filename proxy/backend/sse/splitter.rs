//! Cuts a backend's stream into what passes on at once and the messages that somebody must decide about.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Cut, Lines, TooLong, field};
use crate::jsonrpc::OwnedId;
use crate::scan::{Kind, Outcome, Scan};

/// A relay's view of a stream. All bytes come out again, in order, whatever the chunks.
#[derive(Debug)]
pub(crate) struct Splitter {
    max_held: usize,
    lines: Lines,
    line: Line,
    event: Progress,
    scan: Scan,
    /// The start of an event that may not pass yet.
    held: BytesMut,
    ready: VecDeque<Result<Piece, TooLong>>,
    failed: bool,
}

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Pass these on as they are: pieces of responses, comments, events without a message.
    Pass(Bytes),
    /// An event with a request, a notification or a batch. `raw` is all of it, the blank line included (where a chunk
    /// ends within that line's `\r\n`, the `\n` passes by itself); `data` is its message, which nobody has checked.
    Message { raw: Bytes, data: Bytes },
    /// The response whose last bytes have just passed is complete.
    Response(Outcome),
}

/// How far the current event has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Its first field is still to come. Comments and blank lines may pass.
    Ahead,
    /// Nobody knows what it holds.
    Held,
    /// It holds a response and passes as it comes.
    Passing,
}

/// How far the current line has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes, all as in [`DATA`].
    Name(usize),
    /// A message, or a line of one. Nobody minds space around it.
    Data,
    /// A comment or another field.
    Other,
}

/// The one field that matters.
const DATA: &[u8] = b"data";

/// A chunk on its way through.
struct Input {
    chunk: Bytes,
    /// What lies before may pass.
    clear: usize,
    /// What lies before was looked at.
    seen: usize,
}

impl Splitter {
    /// Of an event that is no response, at most `max_held` bytes are kept.
    pub(crate) fn new(max_held: usize) -> Self {
        Self::of(max_held, None)
    }

    /// The same for a stream that answers request `id`, if it is to answer one.
    pub(crate) fn of(max_held: usize, id: Option<OwnedId>) -> Self {
        Self {
            max_held,
            lines: Lines::new(),
            line: Line::Name(0),
            event: Progress::Ahead,
            scan: Scan::of(id),
            held: BytesMut::new(),
            ready: VecDeque::new(),
            failed: false,
        }
    }

    /// Takes the next bytes of the stream. They are lost on a stream that has failed.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        let mut input = Input { chunk, clear: 0, seen: 0 };
        while !self.failed && input.seen < input.chunk.len() {
            self.step(&mut input);
        }
        if !self.failed {
            self.pass(input.take_clear());
            self.held.extend_from_slice(&input.chunk);
        }
    }

    /// The next piece, if enough bytes have come. An error is the last.
    pub(crate) fn next(&mut self) -> Option<Result<Piece, TooLong>> {
        self.ready.pop_front()
    }

    /// Whether something of one's own may be written between what has passed and what will.
    pub(crate) fn is_between_events(&self) -> bool {
        match self.event {
            Progress::Ahead => self.line == Line::Name(0),
            Progress::Held => true,
            Progress::Passing => false,
        }
    }

    /// What is left when the stream has ended and [`next`](Self::next) has nothing more: an event without its blank
    /// line, which readers drop.
    pub(crate) fn finish(self) -> Option<Bytes> {
        (!self.held.is_empty()).then(|| self.held.freeze())
    }

    fn step(&mut self, input: &mut Input) {
        let Some(room) = self.room(input) else { return self.fail(input) };
        let (length, cut) = self.lines.cut(input.unseen(room));
        match cut {
            Cut::Skip => input.seen += length,
            Cut::Text(text) => {
                self.text(text);
                input.seen += length;
            }
            Cut::End => {
                input.seen += length;
                self.end_of_line(input);
            }
        }
        if !self.is_holding() {
            self.release();
            input.clear = input.seen;
        }
    }

    /// How many bytes may be looked at. What passes takes no room.
    fn room(&self, input: &Input) -> Option<usize> {
        if self.event == Progress::Passing {
            return Some(usize::MAX);
        }
        let held = self.held.len() + input.seen - input.clear;
        self.max_held.checked_sub(held).filter(|&room| room > 0)
    }

    fn is_holding(&self) -> bool {
        self.event == Progress::Held || self.lines.is_in_mark()
    }

    fn text(&mut self, text: &[u8]) {
        let comment = self.line == Line::Other || (self.line == Line::Name(0) && text.starts_with(b":"));
        if self.event == Progress::Ahead && !comment {
            self.event = Progress::Held;
        }
        self.value(text);
        if self.event == Progress::Held && self.scan.is_response() {
            self.event = Progress::Passing;
        }
    }

    fn value(&mut self, mut text: &[u8]) {
        while let (Line::Name(matched), Some((&byte, rest))) = (self.line, text.split_first()) {
            self.name(matched, byte);
            text = rest;
        }
        if self.line == Line::Data {
            self.scan.push(text);
        }
    }

    fn name(&mut self, matched: usize, byte: u8) {
        self.line = match DATA.get(matched) {
            Some(&expected) if byte == expected => Line::Name(matched + 1),
            None if byte == b':' => Line::Data,
            _ => Line::Other,
        };
        if self.line == Line::Data {
            self.scan.push(b"\n");
        }
    }

    fn end_of_line(&mut self, input: &mut Input) {
        if std::mem::replace(&mut self.line, Line::Name(0)) == Line::Name(0) {
            self.end_of_event(input);
        }
    }

    fn end_of_event(&mut self, input: &mut Input) {
        let scan = self.scan.take();
        match std::mem::replace(&mut self.event, Progress::Ahead) {
            Progress::Held if matches!(scan.kind(), Kind::Batch | Kind::Call) => self.message(input),
            Progress::Passing => self.response(input, scan.outcome()),
            Progress::Ahead | Progress::Held => {}
        }
    }

    fn message(&mut self, input: &mut Input) {
        self.pass(input.take_clear());
        let raw = match input.take_seen() {
            whole if self.held.is_empty() => whole,
            end => {
                self.held.extend_from_slice(&end);
                self.held.split().freeze()
            }
        };
        let data = data(&raw);
        self.ready.push_back(Ok(Piece::Message { raw, data }));
    }

    fn response(&mut self, input: &mut Input, outcome: Option<Outcome>) {
        let Some(outcome) = outcome else { return };
        self.pass(input.take_seen());
        self.ready.push_back(Ok(Piece::Response(outcome)));
    }

    fn release(&mut self) {
        let held = self.held.split().freeze();
        self.pass(held);
    }

    fn pass(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.ready.push_back(Ok(Piece::Pass(bytes)));
        }
    }

    fn fail(&mut self, input: &mut Input) {
        self.failed = true;
        self.held.clear();
        self.pass(input.take_clear());
        self.ready.push_back(Err(TooLong { limit: self.max_held }));
    }
}

impl Input {
    fn unseen(&self, room: usize) -> &[u8] {
        let unseen = self.chunk.get(self.seen..).unwrap_or_default();
        unseen.get(..room).unwrap_or(unseen)
    }

    fn take_clear(&mut self) -> Bytes {
        let clear = std::mem::take(&mut self.clear);
        self.seen -= clear;
        self.chunk.split_to(clear)
    }

    fn take_seen(&mut self) -> Bytes {
        self.clear = 0;
        self.chunk.split_to(std::mem::take(&mut self.seen))
    }
}

/// The data lines of a whole event; one line is not copied.
fn data(raw: &Bytes) -> Bytes {
    let mut lines = Lines::inside().cuts(raw).filter_map(|cut| match cut {
        Cut::Text(line) => match field(line) {
            (DATA, value) => Some(value),
            _ => None,
        },
        Cut::End | Cut::Skip => None,
    });
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&[u8]> = lines.collect();
    if rest.is_empty() { raw.slice_ref(first) } else { [&[first], &*rest].concat().join(&b'\n').into() }
}
