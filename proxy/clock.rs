//! Time of day and time that passes, for what need not be exact.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// An [`Instant`] that is right within a tick of the kernel (10 ms at most), for a fifth of what it takes to read the exact time.
/// For what is kept for seconds.
pub(crate) fn recent() -> Instant {
    static BEGAN: LazyLock<(Instant, Duration)> =
        LazyLock::new(|| (Instant::now(), ticks(ClockId::CLOCK_MONOTONIC_COARSE)));
    let (began, ticks_then) = *BEGAN;
    began + ticks(ClockId::CLOCK_MONOTONIC_COARSE).saturating_sub(ticks_then)
}

/// The length of a date in a head.
const DATE: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

/// The time of day as a head has it (RFC 9110, section 5.6.7), put into words once a second.
pub(crate) fn date() -> [u8; DATE] {
    thread_local! {
        static LAST: Cell<(u64, [u8; DATE])> = const { Cell::new((u64::MAX, [b' '; DATE])) };
    }
    let second = ticks(ClockId::CLOCK_REALTIME_COARSE).as_secs();
    let (of, date) = LAST.get();
    if of == second {
        return date;
    }
    let words = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
    let date = words.as_bytes().try_into().unwrap_or(date);
    LAST.set((second, date));
    date
}

/// What a clock of the kernel shows; these are always there (Linux 2.6.32).
fn ticks(clock: ClockId) -> Duration {
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn recent_is_close_to_now() {
        for _ in 0..3 {
            let (before, recent) = (Instant::now(), recent());
            let apart = recent.saturating_duration_since(before).max(before.saturating_duration_since(recent));
            assert!(apart < Duration::from_millis(200), "{apart:?}");
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    #[test]
    fn the_date_is_todays() {
        let date = |at: SystemTime| httpdate::fmt_http_date(at).into_bytes();
        let (before, now) = (SystemTime::now() - Duration::from_secs(1), super::date());
        let around: Vec<_> = (0..4).map(|second| date(before + Duration::from_secs(second))).collect();
        assert!(around.iter().any(|date| *date == now), "{:?}", String::from_utf8_lossy(&now));
        assert_eq!(super::date().len(), DATE);
    }
}
