//! When a process may be started again, after others have died.

use std::time::{Duration, Instant};

/// A process that dies sooner than this after its start died young.
const YOUNG: Duration = Duration::from_secs(10);
/// The first pause, after the second such death; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// After this long without a death those before do not count any more.
const FORGIVEN: Duration = Duration::from_secs(60);

/// The deaths of one backend's processes. Those that the gateway ended itself are none.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Young deaths in a row.
    deaths: u32,
    last: Option<Instant>,
}

impl Restarts {
    /// How long no process may be started yet.
    pub(super) fn pause(&self, now: Instant) -> Option<Duration> {
        let doublings = self.deaths.checked_sub(2)?;
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST_PAUSE);
        let left = pause.saturating_sub(now.saturating_duration_since(self.last?));
        (!left.is_zero()).then_some(left)
    }

    /// Notes that a process died.
    pub(super) fn died(&mut self, started: Instant, now: Instant) {
        let is_old_news = self.last.is_some_and(|last| now.saturating_duration_since(last) >= FORGIVEN);
        if now.saturating_duration_since(started) >= YOUNG {
            self.deaths = 0;
        } else {
            self.deaths = if is_old_news { 1 } else { self.deaths.saturating_add(1) };
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_after_a_death_is_free_and_then_each_costs_twice_as_long() {
        let mut restarts = Restarts::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();

        for _ in 0..8 {
            restarts.died(now, now);
            let pause = restarts.pause(now).unwrap_or_default();
            assert_eq!(restarts.pause(now + pause), None);
            pauses.push(pause.as_secs());
            now += pause;
        }

        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_process_that_lived_long_enough_may_be_replaced_at_once() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        (0..4).for_each(|_| restarts.died(start, start));
        assert!(restarts.pause(start).is_some());

        restarts.died(start, start + YOUNG);

        assert_eq!(restarts.pause(start + YOUNG), None);
    }

    #[test]
    fn deaths_of_long_ago_do_not_count() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        (0..9).for_each(|_| restarts.died(start, start));

        restarts.died(start + FORGIVEN, start + FORGIVEN);

        assert_eq!(restarts.pause(start + FORGIVEN), None);
    }
}
