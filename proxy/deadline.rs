//! A deadline that costs nothing where nothing has to be waited for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// As [`timeout`], which reads the clock to begin with: here what is ready at once, as a write nearly always is, is not timed.
///
/// # Errors
/// When it took longer than `limit`.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match at_once(future.as_mut()).await {
        Some(output) => Ok(output),
        None => timeout(limit, future).await,
    }
}

/// What a future has to say now, if anything.
pub(crate) async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// A timer that is set again and again, mostly for later: then it is left as it is, and put off only if it goes off.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// As [`within`], many times over.
    ///
    /// # Errors
    /// When it took longer than `limit`.
    pub(crate) async fn within<F: Future>(&mut self, limit: Duration, future: F) -> Result<F::Output, Late> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let deadline = *deadline.get_or_insert_with(|| far(limit));
            let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if sleep.deadline() > deadline {
                sleep.as_mut().reset(deadline);
            }
            while sleep.as_mut().poll(cx).is_ready() {
                if sleep.deadline() >= deadline {
                    return Poll::Ready(Err(Late));
                }
                sleep.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

/// It took too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Late;

/// When a time will have passed; of one that is too long to be told, in years.
fn far(limit: Duration) -> Instant {
    const YEARS: Duration = Duration::from_hours(24 * 365 * 30);
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + YEARS)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_goes_off_when_it_was_last_set_for() {
        let mut alarm = Alarm::default();
        let second = Duration::from_secs(1);
        let started = Instant::now();
        for limit in [10, 2, 5, 5, 1] {
            assert_eq!(alarm.within(limit * second, ready(1)).await, Ok(1));
            let began = Instant::now();
            assert_eq!(alarm.within(limit * second, pending::<()>()).await, Err(Late));
            assert_eq!(began.elapsed().as_secs(), u64::from(limit));
            // Set for long, and not needed.
            assert_eq!(alarm.within(Duration::MAX, sleep_until(Instant::now() + second)).await, Ok(()));
            assert_eq!(alarm.within(60 * second, sleep_until(Instant::now() + second)).await, Ok(()));
        }
        assert_eq!(started.elapsed().as_secs(), 23 + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_not_ready_is_timed() {
        assert_eq!(within(Duration::ZERO, ready(1)).await, Ok(1));
        assert!(within(Duration::from_secs(1), pending::<()>()).await.is_err());
        assert_eq!(within(Duration::from_secs(1), tokio::task::yield_now()).await, Ok(()));
    }
}
