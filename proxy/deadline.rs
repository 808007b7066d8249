//! A deadline that costs nothing where nothing has to be waited for.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// As [`timeout`], which reads the clock to begin with: here what is ready at once, as a write nearly always is, is not timed.
///
/// # Errors
/// When it took longer than `limit`.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => timeout(limit, future).await,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_is_not_ready_is_timed() {
        assert_eq!(within(Duration::ZERO, ready(1)).await, Ok(1));
        assert!(within(Duration::from_secs(1), pending::<()>()).await.is_err());
        assert_eq!(within(Duration::from_secs(1), tokio::task::yield_now()).await, Ok(()));
    }
}
