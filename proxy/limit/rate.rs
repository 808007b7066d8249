//! Calls per time: one GCRA cell for each key. Which rules cover a call, and in which order they are asked, is not
//! decided here.

use std::num::NonZeroU32;
use std::time::Duration;

use dashmap::Entry;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use super::key::{CellKey, CellMap, cell_of};

/// The cells of one rate.
#[derive(Debug)]
pub(super) struct Rate<C: Clock = DefaultClock> {
    quota: Quota,
    max_keys: u32,
    clock: C,
    limiter: RateLimiter<Question, Cells, C, NoOpMiddleware<C::Instant>>,
}

impl<C: Clock + Clone> Rate<C> {
    pub(super) fn new(quota: Quota, max_keys: u32, clock: C) -> Self {
        Self { quota, max_keys, limiter: RateLimiter::new(quota, Cells::new(max_keys), clock.clone()), clock }
    }

    /// Whether cells counted by this one mean the same to a rule of this quota.
    pub(super) fn serves(&self, quota: Quota, max_keys: u32) -> bool {
        self.quota == quota && self.max_keys == max_keys
    }

    /// How long the caller has to wait, or `None` when a call would be let through now. Charges nothing.
    pub(super) fn peek(&self, key: CellKey) -> Option<Duration> {
        let refused = self.limiter.check_key(&Question { key, take: false }).err()?;
        Some(refused.wait_time_from(self.clock.now()))
    }

    /// Charges one call, or nothing when it is refused.
    pub(super) fn take(&self, key: CellKey) -> bool {
        self.limiter.check_key(&Question { key, take: true }).is_ok()
    }

    /// Forgets the keys whose cell is as good as new.
    pub(super) fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    pub(super) fn keys(&self) -> usize {
        self.limiter.len()
    }
}

/// A `rate` and its `burst` as a quota.
///
/// A burst that takes longer than 146 years to come back is cut to that, far past where anybody could tell, because
/// governor counts in 64 bits of nanoseconds.
pub(super) fn quota(count: NonZeroU32, per: Duration, burst: NonZeroU32) -> Quota {
    const LONGEST: u64 = u64::MAX / 4;
    let shortest = Duration::from_nanos(1);
    let period = (per / count.get()).clamp(shortest, Duration::from_nanos(LONGEST));
    let most = u32::try_from(u128::from(LONGEST) / period.as_nanos()).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(burst.get().min(most)).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period).unwrap_or_else(|| Quota::per_second(count)).allow_burst(burst)
}

/// What a limiter is asked: about whom, and whether an answer of yes counts.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Question {
    key: CellKey,
    take: bool,
}

/// Theoretical arrival times by key; those of keys past `max_keys` share one.
#[derive(Debug)]
struct Cells {
    arrivals: CellMap<Nanos>,
    max_keys: u32,
}

impl Cells {
    fn new(max_keys: u32) -> Self {
        Self { arrivals: CellMap::default(), max_keys }
    }
}

impl StateStore for Cells {
    type Key = Question;

    fn measure_and_replace<T, F, E>(&self, question: &Question, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let cell = cell_of(&self.arrivals, question.key, self.max_keys);
        if !question.take {
            let arrival = self.arrivals.get(&cell).map(|arrival| *arrival);
            return decide(arrival).map(|(answer, _)| answer);
        }
        match self.arrivals.entry(cell) {
            Entry::Occupied(mut arrival) => {
                let (answer, next) = decide(Some(*arrival.get()))?;
                arrival.insert(next);
                Ok(answer)
            }
            Entry::Vacant(vacant) => {
                let (answer, next) = decide(None)?;
                vacant.insert(next);
                Ok(answer)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<Question> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        self.arrivals.retain(|_, arrival| *arrival > drop_below);
    }

    /// Leaves room for three times as many keys: to shrink is to hash every key anew.
    fn shrink_to_fit(&self) {
        if self.arrivals.capacity() / 4 > self.arrivals.len() {
            self.arrivals.shrink_to_fit();
        }
    }

    fn len(&self) -> usize {
        self.arrivals.len()
    }

    fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }
}
