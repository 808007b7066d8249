//! What a process writes to its standard error, in the gateway's log.

use std::time::Instant;

use tokio::process::ChildStderr;
use tokio::time::{Duration, timeout};
use toolgate_config::BackendName;

use super::lines::{Line, Lines};
use super::text::{MAX_LINE, Measure, WINDOW, presentable};

/// Logs until the end. Returns the last line, if there was one.
pub(super) async fn log(stderr: ChildStderr, backend: BackendName, pid: u32) -> Option<String> {
    // One byte more than is shown: that it is cut must show too.
    let mut lines = Lines::new(stderr, MAX_LINE + 1);
    let mut measure = Measure::new(Instant::now());
    let mut last = None;
    loop {
        // What was left out is told although nothing follows.
        let pause = if measure.has_left_out() { WINDOW } else { Duration::MAX };
        let line = match timeout(pause, lines.next()).await {
            Ok(Ok(Some(Line::Line(line) | Line::TooLong(line)))) => line,
            Ok(Ok(None) | Err(_)) => break,
            Err(_) => {
                tell_left_out(&backend, pid, measure.take_left_out());
                continue;
            }
        };
        let (left_out, fits) = measure.take(Instant::now());
        tell_left_out(&backend, pid, left_out);
        if fits {
            tracing::info!(%backend, pid, "stderr: {}", presentable(&line));
        }
        last = Some(line);
    }
    tell_left_out(&backend, pid, measure.take_left_out());
    last.map(|line| presentable(&line))
}

fn tell_left_out(backend: &BackendName, pid: u32, lines: u64) {
    if lines > 0 {
        tracing::info!(%backend, pid, lines, "stderr: lines left out");
    }
}
