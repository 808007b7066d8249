//! Log lines: what the gateway says of itself, and one line for each call.

mod file;
mod json;
mod lines;

use std::io;
use std::sync::Arc;

use toolgate_config::{Log, LogFormat, LogLevel};
use tracing::Metadata;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

use self::file::Appended;
use self::json::Json;
pub(crate) use self::lines::{DROPPED, Written};
use self::lines::{Lines, Writer};

/// Overrides the level.
const VARIABLE: &str = "TOOLGATE_LOG";
/// What files are watched with.
const WATCHING: [&str; 3] = ["inotify", "mio", "notify"];

/// What the line of a call is logged as.
pub(crate) const CALLS: &str = "toolgate::call";

/// Where log lines go, but for those of calls where there is a file for them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Out {
    Stdout,
    /// Where what the command prints goes to standard output.
    Stderr,
}

/// The lines that are still to be written, by where they go.
#[derive(Clone)]
struct Kinds {
    calls: Option<Arc<Lines>>,
    others: Arc<Lines>,
}

impl Kinds {
    fn of(&self, event: &Metadata<'_>) -> &Arc<Lines> {
        self.calls.as_ref().filter(|_| event.target() == CALLS).unwrap_or(&self.others)
    }
}

impl MakeWriter<'_> for Kinds {
    type Writer = Writer;

    fn make_writer(&self) -> Writer {
        self.others.writer()
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> Writer {
        self.of(event).writer()
    }
}

/// Starts logging; what it returns is to be kept until there is nothing more to be said. `TOOLGATE_LOG` overrides the level: levels
/// by target, `info,toolgate=debug`.
///
/// # Errors
/// When the file for calls cannot be written to.
pub(crate) fn start(log: &Log, out: Out) -> io::Result<Written> {
    let calls = log.calls.as_deref().map(Appended::open).transpose()?;
    let (filter, problem) = match std::env::var(VARIABLE).unwrap_or_default() {
        unset if unset.is_empty() => (levels(log.level), None),
        set => match set.parse() {
            Ok(filter) => (filter, None),
            Err(problem) => (levels(log.level), Some(problem)),
        },
    };
    // What watches files must not say so when one changes: where the log is one of them, each line would make another.
    let filter = filter.with_targets(WATCHING.map(|quiet| (quiet, LevelFilter::ERROR)));
    let kinds = Kinds { calls: calls.is_some().then(Lines::new), others: Lines::new() };
    let layer = match log.format {
        LogFormat::Text => {
            fmt::layer::<Registry>().with_ansi(false).with_target(false).with_writer(kinds.clone()).boxed()
        }
        LogFormat::Json => Json(kinds.clone()).boxed(),
    };
    let mut written = Written::default();
    // A second start in one process keeps the first one's logging.
    if tracing_subscriber::registry().with(layer).with(filter).try_init().is_ok() {
        let out: Box<dyn io::Write + Send> = match out {
            Out::Stdout => Box::new(io::stdout()),
            Out::Stderr => Box::new(io::stderr()),
        };
        written.add(kinds.others, out);
        if let Some((lines, file)) = kinds.calls.zip(calls) {
            written.add(lines, Box::new(file));
        }
    }
    if let Some(problem) = problem {
        tracing::warn!(%problem, "{VARIABLE} is not understood, and `log.level` counts; it is written `info,toolgate=debug`");
    }
    Ok(written)
}

fn levels(level: LogLevel) -> Targets {
    let targets = Targets::new();
    // pingora calls errors what any client can bring about, and what its pool mends by itself; what either means is in our own
    // lines.
    let quiet = [("pingora_core", LevelFilter::OFF), ("pingora_pool", LevelFilter::OFF)];
    match level {
        LogLevel::Error => targets.with_default(LevelFilter::ERROR).with_targets(quiet),
        LogLevel::Warn => targets.with_default(LevelFilter::WARN).with_targets(quiet),
        LogLevel::Info => targets.with_default(LevelFilter::INFO).with_targets(quiet),
        LogLevel::Debug => targets.with_default(LevelFilter::INFO).with_target("toolgate", LevelFilter::DEBUG),
        LogLevel::Trace => targets.with_default(LevelFilter::TRACE),
    }
}
