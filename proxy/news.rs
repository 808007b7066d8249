//! A client's own event stream (GET): says once that the tools changed, when they really did.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::backend::sse;
use crate::error::Kind;
use crate::gateway::Gateway;
use crate::jsonrpc;
use crate::reply::Next;
use crate::session::StreamGuard;

/// Changes within this time of each other are told once.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// One open stream.
pub(crate) struct News {
    guard: StreamGuard,
    revisions: watch::Receiver<u64>,
    /// When a change that was seen will be told.
    due: Option<Instant>,
}

impl News {
    pub(crate) fn new(gateway: &Arc<Gateway>, guard: StreamGuard) -> Self {
        let mut revisions = gateway.revision.subscribe();
        let listed = guard.session.listed.load(Ordering::Relaxed);
        // A client that listed before and missed a change since hears of it now.
        if listed != 0 && listed != *revisions.borrow() {
            revisions.mark_changed();
        } else {
            revisions.mark_unchanged();
        }
        Self { guard, revisions, due: None }
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            match self.due {
                None => {
                    let changed = tokio::select! {
                        changed = self.revisions.changed() => changed.is_ok(),
                        () = self.guard.session.until_over() => false,
                    };
                    if !changed {
                        return Next::End(Kind::Ok);
                    }
                    self.due = Some(Instant::now() + DEBOUNCE);
                }
                Some(due) => {
                    sleep_until(due).await;
                    self.due = None;
                    self.revisions.mark_unchanged();
                    if self.guard.is_chosen() {
                        return Next::Chunk(tools_changed());
                    }
                }
            }
        }
    }
}

fn tools_changed() -> Bytes {
    sse::event(&jsonrpc::notification_body("notifications/tools/list_changed", None))
}
