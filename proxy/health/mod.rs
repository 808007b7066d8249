//! The health of one backend: what probes and calls tell becomes a state. Sending probes, and what a transition is
//! worth in logs and metrics, is left to the caller, and so is the clock.

pub(crate) mod probe;
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use toolgate_config::Health as Thresholds;

/// What is known about a backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub(crate) enum State {
    /// Answers, but failed last time, or refuses the credentials it is probed with.
    Degraded,
    /// Leaves with a reload; for good.
    Draining,
    /// Answers.
    Healthy,
    /// Failed too often in a row; gets no calls until enough probes succeed.
    Unhealthy,
    /// Has not answered yet, and not failed often enough either.
    Unknown,
}

impl State {
    /// Every state, for metrics that show each.
    pub(crate) const ALL: [Self; 5] = [Self::Degraded, Self::Draining, Self::Healthy, Self::Unhealthy, Self::Unknown];

    /// The state in labels and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

/// Something a probe or a call found out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    /// A call failed in a way that may be the backend's fault.
    CallFailed(Failure),
    /// A call was answered.
    CallOk,
    /// A probe was refused with 401 or 403: alive, but the credentials are wrong.
    ProbeCredentials,
    /// A probe failed.
    ProbeFailed(Failure),
    /// A probe was answered as it should be.
    ProbeOk,
}

/// How a probe or a call failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Failure {
    /// No connection.
    Connect,
    /// An answer that is not MCP. Of probes only: what a call carries may be the client's fault.
    Protocol,
    /// 5xx.
    Status,
    /// No answer in time.
    Timeout,
}

impl Failure {
    /// The failure in labels and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Protocol => "protocol",
            Self::Status => "status",
            Self::Timeout => "timeout",
        }
    }
}

/// A change of state, to be logged and counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Transition {
    pub(crate) from: State,
    pub(crate) to: State,
    pub(crate) reason: Reason,
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// The backend answered.
    Answered,
    /// The backend refused the credentials.
    Credentials,
    /// The backend failed.
    Failed(Failure),
    /// The backend is not in the configuration any more.
    Removed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => f.write_str("it answered"),
            Self::Credentials => f.write_str("it refused the credentials"),
            Self::Failed(failure) => write!(f, "it failed: {}", failure.as_str()),
            Self::Removed => f.write_str("it left the configuration"),
        }
    }
}

/// The health of one backend, shared by all that call and probe it.
#[derive(Debug)]
pub(crate) struct Health {
    /// The machine's state again, to be read without its lock.
    state: AtomicU8,
    machine: Mutex<Machine>,
}

impl Health {
    pub(crate) fn new(thresholds: Thresholds, now: Instant) -> Self {
        let machine = Machine::new(thresholds, now);
        Self { state: AtomicU8::new(machine.state as u8), machine: Mutex::new(machine) }
    }

    pub(crate) fn state(&self) -> State {
        let state = self.state.load(Ordering::Relaxed);
        State::ALL.into_iter().find(|known| *known as u8 == state).unwrap_or(State::Unknown)
    }

    /// Whether calls go to the backend. Draining ones still serve who knows them.
    pub(crate) fn allows_calls(&self) -> bool {
        self.state() != State::Unhealthy
    }

    /// Takes in what a probe or a call found out.
    pub(crate) fn observe(&self, signal: Signal, now: Instant) -> Option<Transition> {
        if signal == Signal::CallOk && self.state() == State::Healthy {
            return None; // Nearly every call ends here: a healthy backend has no failures to forget.
        }
        self.update(|machine| machine.observe(signal, now))
    }

    /// Marks the backend as leaving.
    pub(crate) fn drain(&self, now: Instant) -> Option<Transition> {
        self.update(|machine| machine.enter(State::Draining, Reason::Removed, now))
    }

    /// Takes over the thresholds of a reload; what is known about the backend stays.
    pub(crate) fn reconfigure(&self, thresholds: Thresholds) {
        self.lock().thresholds = thresholds;
    }

    /// How long to wait from the end of a probe to the next. `random`, in 0..1, spreads it by a tenth either way.
    pub(crate) fn next_probe(&self, random: f64) -> Duration {
        self.lock().next_probe(random)
    }

    /// When the state changed last.
    pub(crate) fn since(&self) -> Instant {
        self.lock().since
    }

    /// How and when a probe or a call failed last.
    pub(crate) fn last_failure(&self) -> Option<(Failure, Instant)> {
        self.lock().last_failure
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.lock().failures
    }

    /// Whether the last probe that was answered was refused for its credentials.
    pub(crate) fn refuses_credentials(&self) -> bool {
        self.lock().refuses_credentials
    }

    fn update(&self, change: impl FnOnce(&mut Machine) -> Option<Transition>) -> Option<Transition> {
        let mut machine = self.lock();
        let transition = change(&mut machine);
        self.state.store(machine.state as u8, Ordering::Relaxed);
        transition
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // The machine is whole after each step, so one that a panic left behind is still good.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Machine {
    thresholds: Thresholds,
    state: State,
    since: Instant,
    /// In a row, of probes and calls alike.
    failures: u32,
    /// In a row since the last transition, of probes. Counts while unhealthy.
    successes: u32,
    /// Failed probes while unhealthy, since the last that succeeded.
    setbacks: u32,
    refuses_credentials: bool,
    last_failure: Option<(Failure, Instant)>,
}

impl Machine {
    fn new(thresholds: Thresholds, now: Instant) -> Self {
        Self {
            thresholds,
            state: State::Unknown,
            since: now,
            failures: 0,
            successes: 0,
            setbacks: 0,
            refuses_credentials: false,
            last_failure: None,
        }
    }

    fn observe(&mut self, signal: Signal, now: Instant) -> Option<Transition> {
        match signal {
            Signal::ProbeOk => {
                self.refuses_credentials = false;
                self.probe_answered(State::Healthy, Reason::Answered, now)
            }
            Signal::ProbeCredentials => {
                self.refuses_credentials = true;
                self.probe_answered(State::Degraded, Reason::Credentials, now)
            }
            Signal::ProbeFailed(failure) => self.failed(failure, now),
            // A call that ends while the backend is out was sent before: it tells of the past.
            Signal::CallOk | Signal::CallFailed(_) if self.state == State::Unhealthy => None,
            Signal::CallOk => {
                self.failures = 0;
                let heals = !self.refuses_credentials;
                heals.then(|| self.enter(State::Healthy, Reason::Answered, now)).flatten()
            }
            Signal::CallFailed(failure) => self.failed(failure, now),
        }
    }

    fn probe_answered(&mut self, state: State, reason: Reason, now: Instant) -> Option<Transition> {
        self.failures = 0;
        self.setbacks = 0;
        self.successes = self.successes.saturating_add(1);
        let waits = self.state == State::Unhealthy && self.successes < self.thresholds.rise;
        if waits { None } else { self.enter(state, reason, now) }
    }

    fn failed(&mut self, failure: Failure, now: Instant) -> Option<Transition> {
        self.last_failure = Some((failure, now));
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        let next = match self.state {
            State::Unhealthy => {
                self.setbacks = self.setbacks.saturating_add(1);
                State::Unhealthy
            }
            _ if self.failures >= self.thresholds.fall => State::Unhealthy,
            State::Healthy => State::Degraded,
            state @ (State::Degraded | State::Draining | State::Unknown) => state,
        };
        self.enter(next, Reason::Failed(failure), now)
    }

    fn enter(&mut self, to: State, reason: Reason, now: Instant) -> Option<Transition> {
        let from = self.state;
        if from == to || from == State::Draining {
            return None;
        }
        (self.state, self.since) = (to, now);
        (self.successes, self.setbacks) = (0, 0);
        Some(Transition { from, to, reason })
    }

    fn next_probe(&self, random: f64) -> Duration {
        let Thresholds { interval, max_backoff, .. } = self.thresholds;
        let spread = 0.9 + 0.2 * if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
        let scale = |pause: Duration| Duration::try_from_secs_f64(pause.as_secs_f64() * spread).unwrap_or(pause);
        if self.setbacks == 0 {
            return scale(interval);
        }
        let longest = max_backoff.max(interval);
        let pause = interval.saturating_mul(2_u32.saturating_pow(self.setbacks));
        scale(pause.min(longest)).min(longest)
    }
}
