//! Log lines: what the gateway says of itself, and one line for each call.

mod json;
mod lines;

use toolgate_config::{Log, LogFormat, LogLevel};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use self::json::Json;
use self::lines::Lines;
pub(crate) use self::lines::{DROPPED, Written};

/// What files are watched with, and how much of it is logged at most.
const WATCHING: [&str; 3] = ["inotify=error", "mio=error", "notify=error"];

/// Where log lines go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Out {
    Stdout,
    /// Where what the command prints goes to standard output.
    Stderr,
}

/// Starts logging; what it returns is to be kept until there is nothing more to be said. `TOOLGATE_LOG` overrides the level, in
/// tracing's syntax.
pub(crate) fn start(log: Log, out: Out) -> Written {
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
    let lines = Lines::new();
    let layer = match log.format {
        LogFormat::Text => {
            let writer = std::sync::Arc::clone(&lines);
            fmt::layer::<Registry>().with_ansi(false).with_target(false).with_writer(move || writer.writer()).boxed()
        }
        LogFormat::Json => Json(std::sync::Arc::clone(&lines)).boxed(),
    };
    match tracing_subscriber::registry().with(layer).with(filter).try_init() {
        Ok(()) => lines.write_to(out),
        // A second start in one process keeps the first one's logging.
        Err(_) => Written::default(),
    }
}
