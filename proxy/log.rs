//! Log lines: what the gateway says of itself, and one line for each call.

mod file;
mod json;
mod lines;

use std::io;
use std::sync::Arc;

use toolgate_config::{Log, LogFormat, LogLevel};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use self::file::Appended;
use self::json::Json;
pub(crate) use self::lines::{DROPPED, Written};
use self::lines::{Lines, Writer};

/// What files are watched with, and how much of it is logged at most.
const WATCHING: [&str; 3] = ["inotify=error", "mio=error", "notify=error"];

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

/// Starts logging; what it returns is to be kept until there is nothing more to be said. `TOOLGATE_LOG` overrides the level, in
/// tracing's syntax.
///
/// # Errors
/// When the file for calls cannot be written to.
pub(crate) fn start(log: &Log, out: Out) -> io::Result<Written> {
    let calls = log.calls.as_deref().map(Appended::open).transpose()?;
    let level = match log.level {
        // pingora calls errors what any client can bring about, and what its pool mends by itself; what either means is in
        // our own lines.
        LogLevel::Error => "error,pingora_core=off,pingora_pool=off",
        LogLevel::Warn => "warn,pingora_core=off,pingora_pool=off",
        LogLevel::Info => "info,pingora_core=off,pingora_pool=off",
        LogLevel::Debug => "info,toolgate=debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_env("TOOLGATE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // What watches files must not say so when one changes: where the log is one of them, each line would make another.
    let filter = WATCHING.iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive);
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
    Ok(written)
}
