//! One process from its start to its end.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use toolgate_config::BackendName;

use super::failure::Failure;
use super::lines::{Line, Lines};
use super::restarts::Restarts;
use super::stderr;
use super::text::{Measure, presentable};
use crate::backend::duplex::{Pipe, Receiver};
use crate::error::Error;
use crate::metrics::{Cap, Metrics};

/// How long a process may take to end by itself when its input is closed.
const GRACE: Duration = Duration::from_secs(2);
/// And then when it is asked to end.
const TERM_GRACE: Duration = Duration::from_secs(1);
/// How long it takes at most until nothing is left of a process that is ending, or little more.
pub(super) const END: Duration = Duration::from_secs(4);
/// How long the output of a process that has ended is read: all of it is there, unless somebody else holds it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The group that a process leads. Dropped, everything in it is killed.
struct Group(Pid);

impl Group {
    fn signal(&self, signal: Signal) {
        // A group that has ended cannot be told, and need not be.
        let _ = killpg(self.0, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A number is not given to another while a group goes by it. Of a group that has ended altogether it could be, but
        // not within the moment between that end, which is waited for, and this.
        self.signal(Signal::SIGKILL);
    }
}

/// A process that was started.
pub(super) struct Process {
    child: Child,
    group: Group,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    started: Instant,
}

impl Process {
    pub(super) fn new(mut child: Child, started: Instant) -> io::Result<Self> {
        let lacking = || io::Error::other("a pipe is lacking");
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or_else(lacking)?;
        let group = Group(Pid::from_raw(pid));
        let stdin = child.stdin.take().ok_or_else(lacking)?;
        let stdout = child.stdout.take().ok_or_else(lacking)?;
        let stderr = child.stderr.take().ok_or_else(lacking)?;
        Ok(Self { child, group, stdin, stdout, stderr, started })
    }
}

/// Why a process is not listened to any more.
enum Over {
    /// Its pipe was ended on our side.
    Asked,
    /// It ended, or its output did.
    Ended,
    /// It wrote a line that is too long.
    TooLong,
}

/// What sees to a process.
pub(super) struct Tending {
    pub(super) backend: BackendName,
    pub(super) max_line: usize,
    pub(super) restarts: Arc<Mutex<Restarts>>,
    pub(super) failure: Arc<Failure>,
    /// Whether it is one session's alone: once it has spoken, its end is nobody else's business.
    pub(super) is_own: bool,
    pub(super) pipe: Arc<Pipe>,
    pub(super) metrics: Arc<Metrics>,
}

impl Tending {
    /// Until nothing is left of it; that long it has its place.
    pub(super) async fn run(self, process: Process, queued: Receiver, place: OwnedSemaphorePermit) {
        let Process { mut child, group, stdin, stdout, stderr, started } = process;
        let pid = child.id().unwrap_or_default();
        tracing::debug!(backend = %self.backend, pid, "process started");
        tokio::spawn(write(stdin, queued, Arc::clone(&self.pipe)));
        let complaining = tokio::spawn(stderr::log(stderr, self.backend.clone(), pid));
        let reading = self.read(Lines::new(stdout, self.max_line)).fuse();
        tokio::pin!(reading);
        let over = tokio::select! {
            over = &mut reading => over,
            _ = child.wait() => timeout(LAST_WORDS, &mut reading).await.unwrap_or(Over::Ended),
            () = self.pipe.until_over() => Over::Asked,
        };
        let is_no_matter = matches!(over, Over::Asked) || (self.is_own && self.pipe.was_heard());
        if !is_no_matter {
            // Before anybody can ask for another one.
            self.restarts.lock().unwrap_or_else(PoisonError::into_inner).died(started, Instant::now());
        }
        if matches!(over, Over::TooLong) {
            // Here, not where calls end with it: there may be none, and there may be many.
            self.metrics.cap_reached(Cap::Line);
        }
        self.pipe.end(self.error(&over));
        let status = tokio::select! {
            status = end(&mut child, &group, &over) => status,
            // What it still says is read, or it could not end.
            () = async { let _ = (&mut reading).await; std::future::pending().await } => None,
        };
        drop(group);
        self.note(&over, pid, status);
        if !matches!(over, Over::Asked) {
            let complaint = timeout(LAST_WORDS, complaining).await.ok().and_then(Result::ok).flatten();
            self.failure.ended(&self.how(&over, status), complaint.as_deref());
        }
        drop(place);
    }

    async fn read(&self, mut lines: Lines<ChildStdout>) -> Over {
        let mut noise = Measure::new(Instant::now());
        let over = loop {
            match lines.next().await {
                Ok(Some(Line::Line(line))) if line.trim_ascii().is_empty() => {}
                Ok(Some(Line::Line(line))) => {
                    let may_be_message = matches!(line.trim_ascii_start().first(), Some(b'{' | b'['));
                    if !may_be_message || !self.pipe.receive(line.clone()).await {
                        let (left_out, fits) = noise.take(Instant::now());
                        self.tell_left_out(left_out);
                        if fits {
                            tracing::warn!(backend = %self.backend, "it wrote what is no message: {}", presentable(&line));
                        }
                    }
                }
                Ok(Some(Line::TooLong(_))) => break Over::TooLong,
                Ok(None) | Err(_) => break Over::Ended,
            }
        };
        self.tell_left_out(noise.take_left_out());
        over
    }

    fn tell_left_out(&self, lines: u64) {
        if lines > 0 {
            tracing::warn!(backend = %self.backend, lines, "it wrote what is no message: lines left out");
        }
    }

    /// How it ended, for the operator.
    fn how(&self, over: &Over, status: Option<ExitStatus>) -> String {
        match (over, status) {
            (Over::TooLong, _) => {
                format!("wrote a line longer than {} bytes, its `max_line`, and was ended", self.max_line)
            }
            (Over::Asked | Over::Ended, Some(status)) => format!("ended by itself ({status})"),
            (Over::Asked | Over::Ended, None) => "ended by itself".to_owned(),
        }
    }

    fn error(&self, over: &Over) -> Error {
        match over {
            Over::Asked | Over::Ended => self.pipe.closed(),
            Over::TooLong => Error::BackendProtocol {
                backend: self.backend.clone(),
                what: format!("it wrote a line longer than {} bytes, its `max_line`, and was ended", self.max_line)
                    .into(),
            },
        }
    }

    fn note(&self, over: &Over, pid: u32, status: Option<ExitStatus>) {
        let status = status.map_or_else(|| "unknown".to_owned(), |status| status.to_string());
        let backend = &self.backend;
        match over {
            Over::Asked => tracing::debug!(%backend, pid, status, "process ended"),
            Over::Ended => tracing::warn!(%backend, pid, status, "process ended by itself"),
            Over::TooLong => tracing::warn!(%backend, pid, max_line = self.max_line, "process wrote too long a line"),
        }
    }
}

/// Ends a process whose input is closed: by itself, when asked, or by force.
async fn end(child: &mut Child, group: &Group, over: &Over) -> Option<ExitStatus> {
    if !matches!(over, Over::TooLong) {
        if let Ok(status) = timeout(GRACE, child.wait()).await {
            return status.ok();
        }
        group.signal(Signal::SIGTERM);
        if let Ok(status) = timeout(TERM_GRACE, child.wait()).await {
            return status.ok();
        }
    }
    group.signal(Signal::SIGKILL);
    child.wait().await.ok()
}

/// Writes what is queued, and closes the input when the pipe is over.
async fn write(stdin: ChildStdin, mut queued: Receiver, pipe: Arc<Pipe>) {
    let mut stdin = BufWriter::new(stdin);
    let writing = async {
        while let Some(message) = queued.pop().await {
            for piece in &message.0 {
                stdin.write_all(piece).await?;
            }
            stdin.write_all(b"\n").await?;
            stdin.flush().await?;
        }
        io::Result::Ok(())
    };
    tokio::select! {
        _ = writing => {
            // It closed its input. If that is because it has ended, what it still said is read first.
            let _ = timeout(LAST_WORDS, pipe.until_over()).await;
            pipe.end(pipe.closed());
        }
        () = pipe.until_over() => {}
    }
}
