//! Processes: started on a core of their own, measured by what the kernel says of them, and ended whatever happens.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// Which core is whose. On a machine with one, everything shares it.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    count: usize,
}

/// What runs on a core.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Subject,
    Backend,
    Client,
}

impl Cores {
    pub(crate) fn new() -> Self {
        Self { count: std::thread::available_parallelism().map_or(1, usize::from) }
    }

    pub(crate) fn core(self, role: Role) -> usize {
        let core = match role {
            Role::Subject => 0,
            Role::Backend => 1,
            Role::Client => 2,
        };
        core.min(self.count - 1)
    }

    /// Ties the calling thread, and what it starts from now on, to the core of this role.
    pub(crate) fn take(self, role: Role) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(self.core(role))?;
        sched_setaffinity(Pid::from_raw(0), &set).context("no right to choose a core")
    }
}

/// How a process is started.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) cores: Cores,
    pub(crate) role: Role,
    /// What ends it. Those that look after children of their own have to be asked.
    pub(crate) ended_by: Signal,
}

/// A process that runs. Dropped, it and its children are gone.
pub(crate) struct Process {
    child: Child,
    ended_by: Signal,
}

impl Process {
    /// Starts a program whose output goes to this file. Should the harness die, the kernel ends it.
    pub(crate) fn start(program: &Path, arguments: &[String], start: Start, output: &Path) -> Result<Self> {
        let mut command = Command::new("setpriv");
        let signal = start.ended_by.as_str().trim_start_matches("SIG");
        command.args(["--pdeathsig", signal, "--"]).arg(program).args(arguments);
        let output = fs::File::create(output)?;
        command.stdout(output.try_clone()?).stderr(output);
        Self::spawn(command, start).with_context(|| format!("{} (by setpriv, of util-linux)", program.display()))
    }

    /// The same without anything in between.
    pub(crate) fn start_bare(program: &Path, arguments: &[String], start: Start) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command, start).with_context(|| program.display().to_string())
    }

    /// Starts this very program and reads the first line that it prints.
    pub(crate) fn start_self(arguments: &[String], start: Start) -> Result<(Self, String)> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(std::env::current_exe()?).args(arguments);
        command.stdout(Stdio::piped());
        let mut process = Self::spawn(command, start)?;
        let output = process.child.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(!line.trim().is_empty(), "a part of the harness did not start");
        Ok((process, line))
    }

    fn spawn(mut command: Command, start: Start) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .env("TOKIO_WORKER_THREADS", "1")
            .env("RUST_LOG", "error")
            .env_remove("TOOLGATE_LOG");
        start.cores.take(start.role)?;
        let child = command.spawn();
        start.cores.take(Role::Client)?;
        Ok(Self { child: child?, ended_by: start.ended_by })
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The process and all that come from it.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.child.id()];
        while let Some(pid) = open.pop() {
            if found.insert(pid) {
                open.extend(children(pid));
            }
        }
        found.into_iter().collect()
    }

    /// Processor time since the start.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids().into_iter().map(cpu).sum()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that was ever resident since [`Self::forget_peak`].
    pub(crate) fn peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> Result<()> {
        for pid in self.pids() {
            fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        }
        Ok(())
    }

    fn memory(&self, field: &str) -> u64 {
        self.pids().into_iter().filter_map(|pid| status(pid, field)).sum::<u64>() * 1024
    }

    /// Asks it to end and waits for that a while.
    fn end(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let _ = kill(Pid::from_raw(pid), self.ended_by);
        let patience = Instant::now() + GRACE;
        while Instant::now() < patience {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in self.pids().into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    listed.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Of all threads, in nanoseconds where the kernel keeps them.
pub(crate) fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let spent = threads.filter_map(|thread| {
        let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

fn status(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Counts system calls: strace slows its subject down a lot, but not how often it calls.
pub(crate) struct Strace {
    process: Process,
    output: std::path::PathBuf,
}

impl Strace {
    pub(crate) fn attach(subject: &Process, start: Start, scratch: &Path) -> Result<Self> {
        let output = scratch.join("strace");
        let mut arguments = vec!["-f".to_owned(), "-c".to_owned(), "-o".to_owned(), output.display().to_string()];
        arguments.extend(subject.pids().iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        let log = scratch.join("strace.log");
        let mut process = Process::start(Path::new("strace"), &arguments, start, &log)?;
        let patience = Instant::now() + GRACE;
        while fs::read_to_string(&log).unwrap_or_default().matches("attached").count() < subject.pids().len() {
            ensure!(!process.has_ended() && Instant::now() < patience, "strace cannot attach");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { process, output })
    }

    /// Ends the count. `None` where nothing was counted.
    pub(crate) fn calls(self) -> Option<u64> {
        drop(self.process);
        total(&fs::read_to_string(self.output).ok()?)
    }
}

/// The number of calls in the last line of strace's table.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.trim_end().ends_with("total"))?;
    // % time, seconds, microseconds per call, calls
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total_of_straces_table() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.000011           0       300        12 total\n";

        assert_eq!(total(table), Some(300));
    }

    #[test]
    fn every_role_has_a_core_that_exists() {
        for (count, expected) in [(1, [0, 0, 0]), (2, [0, 1, 1]), (8, [0, 1, 2])] {
            let cores = Cores { count };
            assert_eq!([Role::Subject, Role::Backend, Role::Client].map(|role| cores.core(role)), expected);
        }
    }
}
