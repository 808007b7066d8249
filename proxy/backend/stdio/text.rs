//! What a process writes for people, as it stands in the gateway's log: so much of it, and on one line each.

use std::time::{Duration, Instant};

/// The longest text that is shown of a line, in bytes.
pub(super) const MAX_LINE: usize = 2048;
/// Lines logged in a window; those beyond are counted.
const MAX_LINES: u32 = 50;
/// How long that is counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// Text that does nothing to a terminal and stays on its line: control characters are escaped, and what is longer than
/// [`MAX_LINE`] is cut and ends in an ellipsis.
pub(super) fn presentable(line: &[u8]) -> String {
    let start = start(line);
    let mut text = String::with_capacity(start.len());
    for c in String::from_utf8_lossy(start).chars() {
        if c.is_control() { text.extend(c.escape_debug()) } else { text.push(c) }
    }
    if start.len() < line.len() {
        text.push('\u{2026}');
    }
    text
}

/// So much of a line as is shown, no character cut in two.
fn start(line: &[u8]) -> &[u8] {
    let is_within = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (MAX_LINE - 3..=MAX_LINE).rev().find(|at| !is_within(*at)).unwrap_or(MAX_LINE);
    line.get(..end).unwrap_or(line)
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

    /// Whether lines were left out that were not told yet.
    pub(super) fn has_left_out(&self) -> bool {
        self.left_out > 0
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

    /// What was left out and not told yet, to be told now.
    pub(super) fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
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
        assert_eq!(presentable(b"\x1b[31mred\x07\r\tblue\xff"), "\\u{1b}[31mred\\u{7}\\r\\tblue\u{fffd}");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_between_characters_and_says_so() {
        let is_cut = |line: &str, shown: usize| presentable(line.as_bytes()) == format!("{}\u{2026}", &line[..shown]);

        assert_eq!(presentable("x".repeat(MAX_LINE).as_bytes()), "x".repeat(MAX_LINE));
        assert!(is_cut(&"x".repeat(MAX_LINE + 1), MAX_LINE));
        assert!(is_cut(&format!("x{}", "\u{e9}".repeat(MAX_LINE)), MAX_LINE - 1));
        assert!(is_cut(&format!("xx{}", "\u{1f600}".repeat(MAX_LINE)), MAX_LINE - 2));
    }
}
