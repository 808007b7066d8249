//! Counts what a stop waits for: connections, and calls that wait between two of them.

use std::sync::Arc;

use tokio::sync::watch;

/// The count.
#[derive(Clone, Debug)]
pub(crate) struct UnderWay(Arc<watch::Sender<usize>>);

/// One that counts, until dropped.
#[derive(Debug)]
pub(crate) struct Counted(UnderWay);

impl UnderWay {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(crate) fn count(&self) -> Counted {
        self.change(|count| count.saturating_add(1));
        Counted(self.clone())
    }

    /// Completes when there is none.
    pub(crate) async fn over(&self) {
        let mut counts = self.0.subscribe();
        // The sender lives as long as this.
        let _ = counts.wait_for(|count| *count == 0).await.map(drop);
    }

    /// Whoever waits is woken for nothing but the end.
    fn change(&self, change: impl FnOnce(usize) -> usize) {
        self.0.send_if_modified(|count| {
            *count = change(*count);
            *count == 0
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.change(|count| count.saturating_sub(1));
    }
}
