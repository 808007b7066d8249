//! An event as one line of JSON: `timestamp`, `level`, `message`, then its fields in their order.

use std::cell::{Cell, RefCell};
use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime as Timer};
use tracing_subscriber::layer::Context;

use super::{CALLS, Kinds};

/// Up to the seconds: `2026-07-28T00:00:00`.
const DATE: usize = 19;

pub(super) struct Json(pub(super) Kinds);

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        thread_local!(static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        LINE.with(|line| {
            // Only what is logged while a line is made could find it taken: there is nothing that does.
            let Ok(mut line) = line.try_borrow_mut() else { return };
            line.clear();
            line.extend_from_slice(b"{\"timestamp\":\"");
            push_time(&mut line);
            line.extend_from_slice(b"\",\"level\":\"");
            line.extend_from_slice(event.metadata().level().as_str().as_bytes());
            line.push(b'"');
            event.record(&mut Fields { line: &mut line, is_call: event.metadata().target() == CALLS });
            line.extend_from_slice(b"}\n");
            self.0.of(event.metadata()).push(&line);
        });
    }
}

/// The time in UTC, to the microsecond (RFC 3339). The calendar is asked once a second.
fn push_time(line: &mut Vec<u8>) {
    thread_local!(static SECOND: Cell<(u64, [u8; DATE])> = const { Cell::new((u64::MAX, [0; DATE])) });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (mut second, mut date) = SECOND.get();
    if second != now.as_secs() {
        let mut text = String::new();
        // Writing to memory cannot fail.
        let _ = Timer.format_time(&mut Writer::new(&mut text));
        let Some(known) = text.as_bytes().first_chunk() else { return };
        (second, date) = (now.as_secs(), *known);
        SECOND.set((second, date));
    }
    line.extend_from_slice(&date);
    let _ = write!(line, ".{:06}Z", now.subsec_micros());
}

/// The fields of a call that are JSON already.
const JSON: [&str; 2] = ["arguments", "result"];

struct Fields<'a> {
    line: &'a mut Vec<u8>,
    is_call: bool,
}

impl Fields<'_> {
    fn push(&mut self, field: &Field, value: impl Serialize) {
        // Where a record of the `log` crate came from: no other line tells that.
        if field.name().starts_with("log.") {
            return;
        }
        self.push_key(field);
        // Numbers and text can always be written.
        let _ = serde_json::to_writer(&mut *self.line, &value);
    }

    fn push_key(&mut self, field: &Field) {
        self.line.extend_from_slice(b",\"");
        self.line.extend_from_slice(field.name().as_bytes());
        self.line.extend_from_slice(b"\":");
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        if self.is_call && JSON.contains(&field.name()) {
            self.push_key(field);
            self.line.extend_from_slice(text.as_bytes());
        } else {
            self.push(field, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::lines::Lines;
    use super::*;

    #[test]
    fn fields_keep_their_types_and_whatever_they_hold_is_one_line() {
        let lines = Lines::new();
        let subscriber = tracing_subscriber::registry().with(Json(Kinds { calls: None, others: Arc::clone(&lines) }));
        tracing::subscriber::with_default(subscriber, || {
            let (text, shown, number) = ("a \"b\"\\\n\u{1}é", std::net::Ipv4Addr::LOCALHOST, u64::MAX);
            tracing::warn!(text, %shown, listed = ?[1, 2], number, less = -1, part = 0.5, none = f64::NAN, is = true, "m\n");
        });

        let line = String::from_utf8(lines.gathered()).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let mut told: Value = serde_json::from_str(&line).unwrap();
        assert!(told.as_object_mut().unwrap().remove("timestamp").unwrap().is_string());
        let expected = json!({
            "level": "WARN", "message": "m\n", "text": "a \"b\"\\\n\u{1}é", "shown": "127.0.0.1", "listed": "[1, 2]",
            "number": u64::MAX, "less": -1, "part": 0.5, "none": null, "is": true
        });
        assert_eq!(told, expected);
    }
}
