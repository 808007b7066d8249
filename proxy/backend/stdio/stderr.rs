//! What a process writes to its standard error, in the gateway's log: so much of it, and on one line each.

use std::time::{Duration, Instant};

use tokio::process::ChildStderr;
use tokio::time::timeout;
use toolgate_config::BackendName;

use super::lines::{Line, Lines};

/// The longest line; what is beyond is left out.
const MAX_LINE: usize = 2048;
/// Lines logged in a window; those beyond are counted.
const MAX_LINES: u32 = 50;
const WINDOW: Duration = Duration::from_secs(1);

/// Logs until the end.
pub(super) async fn log(stderr: ChildStderr, backend: BackendName, pid: u32) {
    let mut lines = Lines::new(stderr, MAX_LINE);
    let mut measure = Measure::new(Instant::now());
    loop {
        // What was left out is told although nothing follows.
        let pause = if measure.left_out == 0 { Duration::MAX } else { WINDOW };
        let line = match timeout(pause, lines.next()).await {
            Ok(Ok(Some(Line::Line(line) | Line::TooLong(line)))) => line,
            Ok(Ok(None) | Err(_)) => break,
            Err(_) => {
                tell_left_out(&backend, pid, std::mem::take(&mut measure.left_out));
                continue;
            }
        };
        let (left_out, fits) = measure.take(Instant::now());
        tell_left_out(&backend, pid, left_out);
        if fits {
            tracing::info!(%backend, pid, "stderr: {}", presentable(&line));
        }
    }
    tell_left_out(&backend, pid, measure.left_out);
}

fn tell_left_out(backend: &BackendName, pid: u32, lines: u64) {
    if lines > 0 {
        tracing::info!(%backend, pid, lines, "stderr: lines left out");
    }
}

/// Text that does nothing to a terminal and stays on its line.
pub(super) fn presentable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// How much is logged.
pub(super) struct Measure {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Measure {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, left_out: 0 }
    }

    /// How many lines were left out before this one, to be told once, and whether this one is logged.
    pub(super) fn take(&mut self, now: Instant) -> (u64, bool) {
        let mut told = 0;
        if now.saturating_duration_since(self.since) >= WINDOW {
            told = std::mem::take(&mut self.left_out);
            (self.since, self.lines) = (now, 0);
        }
        self.lines = self.lines.saturating_add(1);
        let fits = self.lines <= MAX_LINES;
        self.left_out += u64::from(!fits);
        (told, fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut measure = Measure::new(start);

        let logged = (0..1000).filter(|_| measure.take(start).1).count();

        assert_eq!(logged, MAX_LINES as usize);
        assert_eq!(measure.take(start + WINDOW), (1000 - u64::from(MAX_LINES), true));
        assert_eq!(measure.take(start + WINDOW), (0, true));
    }

    #[test]
    fn a_line_does_nothing_to_a_terminal() {
        assert_eq!(presentable(b"\x1b[31mred\x07\xff"), "\u{fffd}[31mred\u{fffd}\u{fffd}");
    }
}
