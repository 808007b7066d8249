//! `health`, `catalog`, `sessions`, `bridge`, `log`, `reload`, `drain`.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::session_keys;
use crate::grammar::{duration, duration_or_none, show_size, size};
use crate::runtime::{Bridge, Catalog, Drain, Health, Log, LogFormat, LogLevel, Payloads, Reload, Sessions};
use crate::tool::Pattern;
use crate::walk::{Section, Value, Wrong, quote};

pub(super) fn health(value: &Value<'_>) -> Option<Health> {
    value.section(health_of)
}

fn health_of(s: &mut Section<'_>) -> Health {
    let default = Health::default();
    let interval_given = s.get("interval");
    let interval = interval_given.as_ref().and_then(duration);
    // Compared only when it is not wrong itself: one mistake, one problem.
    let compared = interval.or_else(|| interval_given.is_none().then_some(default.interval));
    let timeout =
        s.optional("timeout", |value| bounded(value, compared, |timeout, interval| timeout <= interval, "longer"));
    let max_backoff =
        s.optional("max_backoff", |value| bounded(value, compared, |backoff, interval| backoff >= interval, "shorter"));
    let interval = interval.unwrap_or(default.interval);
    Health {
        interval,
        timeout: timeout.unwrap_or_else(|| default.timeout.min(interval)),
        rise: s.optional("rise", |value| value.number(1..=1000)).unwrap_or(default.rise),
        fall: s.optional("fall", |value| value.number(1..=1000)).unwrap_or(default.fall),
        max_backoff: max_backoff.unwrap_or_else(|| default.max_backoff.max(interval)),
    }
}

/// A duration that stands in a relation to the interval.
fn bounded(
    value: &Value<'_>,
    interval: Option<Duration>,
    holds: impl Fn(Duration, Duration) -> bool,
    otherwise: &str,
) -> Option<Duration> {
    let given = duration(value)?;
    if interval.is_some_and(|interval| !holds(given, interval)) {
        value.problem(format!("{otherwise} than `interval`"));
    }
    Some(given)
}

pub(super) fn catalog(value: &Value<'_>) -> Option<Catalog> {
    let default = Catalog::default();
    value.section(|s| Catalog {
        refresh: s.optional("refresh", duration).unwrap_or(default.refresh),
        stale_for: s.optional("stale_for", duration_or_none).unwrap_or(default.stale_for),
        timeout: s.optional("timeout", duration).unwrap_or(default.timeout),
        max_tools: s.optional("max_tools", |value| value.number(1..=1_000_000)).unwrap_or(default.max_tools),
        max_bytes: s.optional("max_bytes", size).unwrap_or(default.max_bytes),
        budget: s.optional("budget", size),
    })
}

pub(super) fn sessions(value: &Value<'_>) -> Option<Sessions> {
    let default = Sessions::default();
    value.section(|s| Sessions {
        keys: s.optional("keys", session_keys).unwrap_or_default(),
        idle: s.optional("idle", duration).unwrap_or(default.idle),
        lifetime: s.optional("lifetime", duration).unwrap_or(default.lifetime),
        max: s.optional("max", |value| value.number(1..=10_000_000)).unwrap_or(default.max),
    })
}

pub(super) fn bridge(value: &Value<'_>) -> Option<Bridge> {
    let default = Bridge::default();
    value.section(|s| Bridge {
        parked: s.optional("parked", |value| value.number(0..=1_000_000)).unwrap_or(default.parked),
        parked_ttl: s.optional("parked_ttl", duration).unwrap_or(default.parked_ttl),
        max_answer: s.optional("max_answer", size).unwrap_or(default.max_answer),
    })
}

pub(super) fn log(value: &Value<'_>) -> Option<Log> {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    value.section(|s| Log {
        format: s.optional("format", |value| value.choice(&formats)).unwrap_or_default(),
        level: s.optional("level", |value| value.choice(&levels)).unwrap_or_default(),
        calls: s.optional("calls", log_file),
        payloads: s.optional("payloads", payloads).unwrap_or_default(),
    })
}

/// The least has room for what is said in place of what is hidden; the most for a line that is still one.
const PAYLOAD: RangeInclusive<u64> = 64..=64 * 1024;

fn payloads(value: &Value<'_>) -> Option<Payloads> {
    let default = Payloads::default();
    value.section(|s| Payloads {
        arguments: s.optional("arguments", Value::flag).unwrap_or(default.arguments),
        results: s.optional("results", Value::flag).unwrap_or(default.results),
        redact: s.optional("redact", |value| value.list(key_pattern)).unwrap_or(default.redact),
        max: s.optional("max", payload_size).unwrap_or(default.max),
    })
}

fn payload_size(value: &Value<'_>) -> Option<u64> {
    let given = size(value)?;
    if !PAYLOAD.contains(&given) {
        let (least, most) = (show_size(*PAYLOAD.start()), show_size(*PAYLOAD.end()));
        value.problem(format!("expected a size from {least} to {most}"));
        return None;
    }
    Some(given)
}

/// A pattern for keys of JSON, whose case does not matter.
fn key_pattern(value: &Value<'_>) -> Option<Pattern> {
    const LONGEST: usize = 128;
    value.parsed("a pattern such as password or *token*", |text| {
        if (1..=LONGEST).contains(&text.len()) {
            return Ok(Pattern(text.to_lowercase()));
        }
        Err(Wrong::new(format!("a pattern of 1 to {LONGEST} characters, such as password or *token*")))
    })
}

/// A file that can be made.
fn log_file(value: &Value<'_>) -> Option<PathBuf> {
    let written = value.text()?.value;
    let path = value.source().resolve(&written);
    let folder = path.parent().unwrap_or(&path);
    // That of a bare name is the working directory.
    if !folder.as_os_str().is_empty() && !folder.is_dir() {
        value.problem_with(format!("there is no folder {}", quote(&folder.to_string_lossy())), "make it first");
        return None;
    }
    Some(path)
}

pub(super) fn reload(value: &Value<'_>) -> Option<Reload> {
    let default = Reload::default();
    value.section(|s| Reload {
        watch: s.optional("watch", Value::flag).unwrap_or(default.watch),
        poll: s.optional("poll", duration).unwrap_or(default.poll),
    })
}

pub(super) fn drain(value: &Value<'_>) -> Option<Drain> {
    let default = Drain::default();
    value.section(|s| Drain {
        delay: s.optional("delay", duration_or_none).unwrap_or(default.delay),
        timeout: s.optional("timeout", duration_or_none).unwrap_or(default.timeout),
    })
}
