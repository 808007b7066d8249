//! Lines on their way out: gathered, and written together by a thread of their own. Whoever logs waits for nobody who reads.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

/// How long lines are gathered before they are written.
const GATHERED_FOR: Duration = Duration::from_millis(5);
/// Bytes of lines that are kept until they are written; more are dropped, and counted.
const MAX_GATHERED: usize = 4 * 1024 * 1024;
/// What is kept of the memory of many lines at once.
const KEPT: usize = 64 * 1024;
/// What the last lines get to be read at an end.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Lines that were dropped because those before them were not read, or could not be written.
pub(crate) static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Log lines dropped because those before them were not read in time, or that could not be written";
    #[expect(clippy::expect_used, reason = "the name is a literal")]
    IntCounter::new("toolgate_log_lines_dropped_total", help).expect("a metric has a valid name")
});

/// Lines that are still to be written.
#[derive(Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    /// There are some, or there will be no more.
    changed: Condvar,
    /// All of them are out.
    written: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Vec<u8>,
    /// Since the last time that this was said.
    dropped: u64,
    is_writing: bool,
    is_over: bool,
}

impl Lines {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Adds a line.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.gathered.len() + line.len() > MAX_GATHERED {
            state.dropped += 1;
            DROPPED.inc();
            return;
        }
        let is_first = state.gathered.is_empty();
        state.gathered.extend_from_slice(line);
        drop(state);
        if is_first {
            self.changed.notify_one();
        }
    }

    pub(super) fn writer(self: &Arc<Self>) -> Writer {
        Writer(Arc::clone(self))
    }

    fn run(&self, out: &mut dyn Write) {
        let mut taken = Vec::new();
        while self.take(&mut taken) {
            write(out, &taken);
            taken.clear();
            taken.shrink_to(KEPT);
            let mut state = self.state();
            state.is_writing = false;
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            self.written.notify_all();
            if dropped > 0 {
                tracing::warn!(lines = dropped, "log lines were dropped: those before them were not read");
            }
        }
    }

    /// Waits for lines and takes them; false when there will be none.
    fn take(&self, taken: &mut Vec<u8>) -> bool {
        let waiting = self.changed.wait_while(self.state(), |state| state.gathered.is_empty() && !state.is_over);
        let state = waiting.unwrap_or_else(PoisonError::into_inner);
        let gathering = self.changed.wait_timeout_while(state, GATHERED_FOR, |state| !state.is_over);
        let mut state = gathering.unwrap_or_else(PoisonError::into_inner).0;
        std::mem::swap(&mut state.gathered, taken);
        state.is_writing = !taken.is_empty();
        state.is_writing
    }

    /// Waits until all is written, but not for ever.
    fn end(&self) {
        let mut state = self.state();
        state.is_over = true;
        self.changed.notify_one();
        drop(self.written.wait_timeout_while(state, LAST_WRITE, |s| s.is_writing || !s.gathered.is_empty()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so what a panic left behind is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of it, or as much as can be: a log that is gone, or a disk that is full, is no reason to stop.
fn write(out: &mut dyn Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It may be shared with a program that made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(GATHERED_FOR),
            Err(_) => {
                // The rest of one that was cut off is one, too.
                DROPPED.inc_by(memchr::memchr_iter(b'\n', lines).count() as u64);
                return;
            }
        }
    }
    let _ = out.flush();
}

/// Takes lines from what makes them one by one.
pub(super) struct Writer(Arc<Lines>);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Logging that was started: dropped, the last lines are written.
#[derive(Default)]
#[must_use = "what is logged after it was dropped is lost"]
pub(crate) struct Written(Vec<Arc<Lines>>);

impl Written {
    /// Has lines written, until this is dropped.
    pub(super) fn add(&mut self, lines: Arc<Lines>, mut out: Box<dyn Write + Send>) {
        let running = Arc::clone(&lines);
        // Without a thread there are no lines, which is better than no gateway.
        let _ = thread::Builder::new().name("log".to_owned()).spawn(move || running.run(&mut *out));
        self.0.push(lines);
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.0.iter().for_each(|lines| lines.end());
    }
}

#[cfg(test)]
impl Lines {
    pub(super) fn gathered(&self) -> Vec<u8> {
        self.state().gathered.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Writes what it is allowed to, and notes it.
    struct Slow {
        allowed: mpsc::Receiver<usize>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Nobody who could allow anything: as much as there is.
            let allowed = self.allowed.recv().unwrap_or(usize::MAX).min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..allowed]);
            Ok(allowed)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (mpsc::Sender<usize>, Arc<Mutex<Vec<u8>>>, Slow) {
        let (allow, allowed) = mpsc::channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        (allow, Arc::clone(&written), Slow { allowed, written })
    }

    #[test]
    fn lines_come_out_whole_and_in_order_and_the_last_at_the_end() {
        let (allow, written, mut out) = slow();
        let lines = Lines::new();
        let running = Arc::clone(&lines);
        let thread = thread::spawn(move || running.run(&mut out));

        lines.push(b"one\n");
        allow.send(2).unwrap();
        drop(allow);
        (0..100).for_each(|number| lines.push(format!("{number}\n").as_bytes()));
        drop(Written(vec![lines]));

        let all: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(written.lock().unwrap().clone()).unwrap(), format!("one\n{all}"));
        thread.join().unwrap();
    }

    #[test]
    fn what_is_not_read_is_dropped_past_the_cap_and_counted() {
        let (allow, written, mut out) = slow();
        let lines = Lines::new();
        let running = Arc::clone(&lines);
        let thread = thread::spawn(move || running.run(&mut out));
        let long = [b'x'; 1024];
        let before = DROPPED.get();

        // Of as much again nobody can say whether it was taken before or after.
        (0..3 * MAX_GATHERED / long.len()).for_each(|_| lines.push(&long));

        let dropped = DROPPED.get() - before;
        assert!(dropped as usize >= MAX_GATHERED / long.len(), "{dropped}");
        assert!(lines.gathered().len() <= MAX_GATHERED);
        drop(allow);
        drop(Written(vec![lines]));
        thread.join().unwrap();
        let kept = 3 * MAX_GATHERED - dropped as usize * long.len();
        assert_eq!(written.lock().unwrap().len(), kept);
    }
}
