//! Decodes whole events, for the streams that end here.

use std::collections::VecDeque;

use super::{Cut, Lines, TooLong, field};

/// One event, as the standard dispatches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The last id that was set, by this event or one before it.
    pub(crate) id: Option<String>,
    /// `message` unless the event says otherwise.
    pub(crate) event: String,
    /// The data lines, joined. A backend that primes a stream leaves it empty.
    pub(crate) data: String,
    /// Milliseconds to wait before reconnecting, if that was said since the event before.
    pub(crate) retry: Option<u64>,
}

/// Reads a stream in chunks of any size.
#[derive(Debug)]
pub(crate) struct Events {
    limit: usize,
    lines: Lines,
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    ready: VecDeque<Event>,
}

impl Events {
    /// An event may take `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            lines: Lines::new(),
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream. Events before one that is too long can still be had.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> Result<(), TooLong> {
        while !chunk.is_empty() {
            let (length, cut) = self.lines.cut(chunk);
            chunk = chunk.get(length..).unwrap_or_default();
            match cut {
                Cut::End => self.end_of_line(),
                Cut::Skip => {}
                Cut::Text(text) => self.text(text)?,
            }
        }
        Ok(())
    }

    /// The next event, if all of it has come.
    pub(crate) fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// The last id that was set, by an event or by what would have been one with data in it.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.event.id.as_deref().filter(|id| !id.is_empty())
    }

    /// What was said of reconnecting since the last event, for who would not wait for the next.
    pub(crate) fn take_retry(&mut self) -> Option<u64> {
        self.event.retry.take()
    }

    fn text(&mut self, text: &[u8]) -> Result<(), TooLong> {
        let taken = self.line.len() + self.event.data.len() + self.event.event.len();
        if text.len() > self.limit.saturating_sub(taken) {
            return Err(TooLong { limit: self.limit });
        }
        self.line.extend_from_slice(text);
        Ok(())
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = field(&line);
        let value = String::from_utf8_lossy(value);
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(&value);
            }
            b"event" => self.event.event = value.into_owned(),
            b"id" if !value.contains('\0') => self.event.id = Some(value.into_owned()),
            b"retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.event.retry = value.parse().ok().or(self.event.retry);
            }
            _ => {}
        }
    }

    /// An event without data is none, but its id and its retry hold.
    fn dispatch(&mut self) {
        let Event { id, retry, .. } = &self.event;
        let next = Event { id: id.clone(), retry: retry.filter(|_| !self.has_data), ..Event::default() };
        let mut event = std::mem::replace(&mut self.event, next);
        if std::mem::take(&mut self.has_data) {
            if event.event.is_empty() {
                event.event.push_str("message");
            }
            self.ready.push_back(event);
        }
    }
}
