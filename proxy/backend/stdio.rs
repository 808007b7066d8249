//! Backends that are run: a process for each pipe, MCP over its standard input and output, one message a line.
//!
//! A process leads a group of its own, so that what it started ends with it. It ends when its pipe does: its input is closed,
//! then its group is asked to end (SIGTERM), then made to (SIGKILL). When the gateway itself is killed outright nobody does
//! that: then the closed input, at which every well-behaved server ends, is all there is. (Linux could tell a process that
//! its parent died, but only through code between fork and exec, which is `unsafe`.)

mod failure;
mod lines;
mod process;
mod restarts;
mod stderr;
#[cfg(test)]
mod tests;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio as Std;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use tokio::process::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use toolgate_config::{BackendName, Command as Config, Timeout};

use self::failure::Failure;
use self::process::Process;
use self::restarts::Restarts;
use super::LastError;
use super::duplex::{self, Duplex, Held, Opener, Outlet, Pieces, Pipe, Sharing};
use crate::error::{Error, Full};
use crate::metrics::Metrics;

/// What a process inherits of the gateway's environment: nothing that could be a secret.
const INHERITED: [&str; 10] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// Runs processes of one command.
pub(crate) struct Stdio {
    backend: BackendName,
    config: Config,
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
    max_line: usize,
    restarts: Arc<Mutex<Restarts>>,
    failure: Arc<Failure>,
    /// Held by each process until nothing is left of it.
    places: Arc<Semaphore>,
    /// Of processes that may be there still.
    pipes: Mutex<Vec<Weak<Pipe>>>,
    metrics: Arc<Metrics>,
}

/// The transport of a backend that is run.
pub(crate) fn transport(backend: &BackendName, config: &Config, metrics: &Arc<Metrics>) -> Duplex {
    Duplex::new(backend, config.instances, Stdio::new(backend, config, metrics))
}

impl Stdio {
    fn new(backend: &BackendName, config: &Config, metrics: &Arc<Metrics>) -> Self {
        let inherited = INHERITED.iter().filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)));
        let own = config.env.iter().map(|v| (OsString::from(&v.name), OsString::from(v.value.expose())));
        let program = PathBuf::from(&config.program);
        // With a folder to run in, a relative path would start there.
        let is_path = config.program.contains('/');
        let program = is_path.then(|| std::path::absolute(&program).ok()).flatten().unwrap_or(program);
        Self {
            backend: backend.clone(),
            failure: Arc::new(Failure::new(&program)),
            program,
            environment: inherited.chain(own).collect(),
            max_line: usize::try_from(config.max_line).unwrap_or(usize::MAX),
            restarts: Arc::default(),
            places: Arc::new(Semaphore::new(config.max_instances as usize)),
            pipes: Mutex::default(),
            metrics: Arc::clone(metrics),
            config: config.clone(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.config.arguments).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Std::piped()).stdout(Std::piped()).stderr(Std::piped()).process_group(0);
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        command
    }

    /// A place for a process, waited for where one that is ending leaves it soon.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let max = self.config.max_instances;
        let full = || Error::BackendFull { backend: self.backend.clone(), of: Full::Processes, max };
        if !self.is_one_ending() {
            return Err(full());
        }
        let place = timeout(process::END, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(full)
    }

    fn pipes(&self) -> MutexGuard<'_, Vec<Weak<Pipe>>> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_one_ending(&self) -> bool {
        self.pipes().iter().filter_map(Weak::upgrade).any(|pipe| pipe.is_over())
    }

    fn start(&self) -> Result<Process, Error> {
        let unreachable = || Error::BackendConnect { backend: self.backend.clone() };
        let now = Instant::now();
        let mut restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pause) = restarts.pause(now) {
            tracing::debug!(backend = %self.backend, ?pause, "not started: its processes die young");
            return Err(unreachable());
        }
        let started = self.command().spawn().and_then(|child| Process::new(child, now));
        started.map_err(|cause| {
            tracing::warn!(backend = %self.backend, program = %self.program.display(), %cause, "process not started");
            restarts.died(now, now);
            self.failure.not_started(&cause);
            unreachable()
        })
    }
}

#[async_trait]
impl Opener for Stdio {
    async fn open(&self, sharing: Sharing, _: &Timeout) -> Result<Held, Error> {
        let place = self.place().await?;
        let process = self.start()?;
        let (input, queued) = duplex::queue();
        let pipe = Pipe::new(&self.backend, sharing, Input { backend: self.backend.clone(), queue: input });
        let tending = process::Tending {
            backend: self.backend.clone(),
            max_line: self.max_line,
            restarts: Arc::clone(&self.restarts),
            failure: Arc::clone(&self.failure),
            is_own: sharing == Sharing::Session,
            pipe: Arc::clone(&pipe),
            metrics: Arc::clone(&self.metrics),
        };
        let mut pipes = self.pipes();
        pipes.retain(|pipe| pipe.strong_count() > 0);
        pipes.push(Arc::downgrade(&pipe));
        drop(pipes);
        tokio::spawn(tending.run(process, queued, place));
        Ok(Held(pipe))
    }

    fn carries_modern(&self) -> bool {
        true
    }

    fn last_error(&self) -> Option<LastError> {
        self.failure.last()
    }

    async fn until_closed(&self) {
        // Every place is free when the last process is gone.
        let _ = self.places.acquire_many(self.config.max_instances).await;
    }
}

/// What is written to a process, which a task of its own does: it may be slow to read.
struct Input {
    backend: BackendName,
    queue: duplex::Sender,
}

#[async_trait]
impl Outlet for Input {
    async fn write(&self, message: Pieces, _: &Timeout) -> Result<StatusCode, Error> {
        let unread = |_| Error::BackendUnread { backend: self.backend.clone() };
        self.queue.push(message).await.map_err(unread)?;
        Ok(StatusCode::ACCEPTED)
    }

    fn write_soon(&self, message: Bytes) {
        if !self.queue.try_push(message.into()) {
            tracing::debug!(backend = %self.backend, "it does not read its input; a message to it is lost");
        }
    }
}
