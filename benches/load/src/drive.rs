//! Load: clients that ask as fast as they are answered (closed loop), or at times that do not depend on the answers (open
//! loop). What is late in an open loop counts from when it was due, so that a stall is felt by all that it delayed.

use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use crate::client::{Ask, Client, Target};
use crate::clock;

/// The longest latency that is told apart from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;
/// A client that got so many errors stops.
const PATIENCE: u32 = 10;

/// When which request is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: u64,
    rate: u64,
}

impl Schedule {
    pub(crate) fn new(start: u64, rate: u64) -> Self {
        Self { start, rate: rate.max(1) }
    }

    /// When the n-th request is due. Never rounded twice: no error adds up.
    pub(crate) fn due(self, n: u64) -> u64 {
        self.start + u64::try_from(u128::from(n) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX)
    }
}

/// What came of a load.
pub(crate) struct Tally {
    pub(crate) latency: Histogram<u64>,
    /// Of the first event of each stream, and of all the others.
    pub(crate) first_event: Histogram<u64>,
    pub(crate) next_events: Histogram<u64>,
    pub(crate) answers: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) seconds: f64,
}

impl Tally {
    fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LONGEST, 3);
        Ok(Self {
            latency: histogram()?,
            first_event: histogram()?,
            next_events: histogram()?,
            answers: 0,
            errors: 0,
            first_error: None,
            seconds: 0.0,
        })
    }

    /// Notes an answer that was due, or sent, at one time and there at another.
    fn answered(&mut self, due: u64, done: u64, delays: &[u64]) {
        self.answers += 1;
        self.latency.saturating_record(done.saturating_sub(due).max(1));
        let mut delays = delays.iter();
        if let Some(first) = delays.next() {
            self.first_event.saturating_record((*first).max(1));
        }
        for next in delays {
            self.next_events.saturating_record((*next).max(1));
        }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }

    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds.max(1e-9)
    }

    /// A quantile of the latencies in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// The pace of a load.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// Each client asks again when it was answered.
    Closed,
    /// So many requests a second, all clients together.
    Open(u64),
}

/// Clients that are connected and have their sessions.
pub(crate) struct Fleet {
    clients: Vec<Client>,
    /// How each of them begins anew after an error.
    target: Target,
    asks: Vec<Ask>,
}

impl Fleet {
    /// So many clients; they take turns with what there is to ask.
    pub(crate) async fn open(target: &Target, asks: &[Ask], clients: usize) -> Result<Self> {
        let asks: Vec<_> = asks.iter().cycle().take(clients).cloned().collect();
        let mut fleet = Self { clients: Vec::new(), target: target.clone(), asks };
        for ask in &fleet.asks {
            fleet.clients.push(Client::open(target, ask).await?);
        }
        Ok(fleet)
    }

    /// Load for this long.
    pub(crate) async fn drive(&mut self, pace: Pace, length: Duration) -> Result<Tally> {
        let start = clock::now();
        let end = start + u64::try_from(length.as_nanos())?;
        let shared = Arc::new(Shared { tally: Mutex::new(Tally::new()?), next: AtomicU64::new(0), end });
        let mut tasks = JoinSet::new();
        for (client, ask) in self.clients.drain(..).zip(&self.asks) {
            let (shared, again) = (Arc::clone(&shared), (self.target.clone(), ask.clone()));
            let schedule = match pace {
                Pace::Closed => None,
                Pace::Open(rate) => Some(Schedule::new(start, rate)),
            };
            tasks.spawn(async move { shared.clients_turn(client, again, schedule).await });
        }
        while let Some(client) = tasks.join_next().await {
            self.clients.extend(client.context("a client's task")??);
        }
        let seconds = (clock::now() - start) as f64 / 1e9;
        let mut tally = shared.tally();
        Ok(Tally { seconds, ..std::mem::replace(&mut *tally, Tally::new()?) })
    }
}

struct Shared {
    tally: Mutex<Tally>,
    next: AtomicU64,
    end: u64,
}

impl Shared {
    async fn clients_turn(
        &self,
        mut client: Client,
        again: (Target, Ask),
        schedule: Option<Schedule>,
    ) -> Result<Option<Client>> {
        let timer = schedule.map(|_| Timer::new()).transpose()?;
        let mut errors = 0;
        while errors < PATIENCE {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let due = schedule.map(|schedule| schedule.due(n));
            if due.unwrap_or_else(clock::now) >= self.end {
                return Ok(Some(client));
            }
            if let (Some(due), Some(timer)) = (due, &timer) {
                timer.until(due).await?;
            }
            let from = due.unwrap_or_else(clock::now);
            match client.ask(n).await {
                Ok(body) => self.tally().answered(from, clock::now(), &body.delays),
                Err(error) => {
                    self.tally().failed(&error);
                    errors += 1;
                    let Ok(new) = Client::open(&again.0, &again.1).await else { return Ok(None) };
                    client = new;
                }
            }
        }
        Ok(None)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A timer that is finer than the runtime's milliseconds.
struct Timer(AsyncFd<Fd>);

/// What the runtime wants of a descriptor, and nix does not give.
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    #[allow(deprecated, reason = "what is new wants unsafe code; this owns its descriptor, which never changes")]
    fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(AsyncFd::new(Fd(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))?))
    }

    /// Waits until this time, not at all when it is past.
    async fn until(&self, time: u64) -> Result<()> {
        if time <= clock::now() {
            return Ok(());
        }
        let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(time)));
        self.0.get_ref().0.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        loop {
            let mut guard = self.0.readable().await?;
            if clock::now() >= time {
                // Taken, so that the next one is waited for.
                let _ = self.0.get_ref().0.wait();
                guard.clear_ready();
                return Ok(());
            }
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_no_error_adds_up() {
        let schedule = Schedule::new(1_000, 3);

        assert_eq!([schedule.due(0), schedule.due(1), schedule.due(2)], [1_000, 333_334_333, 666_667_666]);
        assert_eq!(schedule.due(3_000_000), 1_000 + 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn a_stall_is_felt_by_all_that_it_delayed() {
        // 100 requests a second for 10 s, one client, 1 ms each; at 5 s one answer takes 1 s.
        let schedule = Schedule::new(0, 100);
        let mut open = Tally::new().expect("a tally");
        let mut closed = Tally::new().expect("a tally");
        let mut free = 0;
        for n in 0..1000 {
            let due = schedule.due(n);
            let sent = due.max(free);
            free = sent + if n == 500 { 1_000_000_000 } else { 1_000_000 };
            open.answered(due, free, &[]);
            closed.answered(sent, free, &[]);
        }

        // Every request from 5 s to some 6.1 s came late: a tenth of all. A closed loop sees one.
        assert!(open.quantile_us(0.95) > 400_000.0, "{}", open.quantile_us(0.95));
        assert!(closed.quantile_us(0.99) < 2_000.0, "{}", closed.quantile_us(0.99));
    }

    #[test]
    fn the_first_event_is_told_apart_from_the_next() {
        let mut tally = Tally::new().expect("a tally");
        tally.answered(0, 10, &[5_000, 1, 2]);

        assert_eq!((tally.first_event.len(), tally.next_events.len()), (1, 2));
        assert!(tally.first_event.max() >= 5_000 && tally.next_events.max() == 2);
    }
}
