//! A legacy client's own event stream (GET): says once that a list changed, when it really did, and passes on what backends say
//! unasked.

pub(crate) mod early;
mod listen;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(crate) use self::listen::{Filter, Listen};
use self::upstream::Upstream;
use crate::backend::sse;
use crate::catalog::Revisions;
use crate::era::Era;
use crate::error::Kind;
use crate::gateway::Gateway;
use crate::jsonrpc;
use crate::relay::EventId;
use crate::reply::{End, Next};
use crate::session::StreamGuard;
use crate::snapshot::Snapshot;

/// Changes within this time of each other are told once.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// One open stream.
pub(crate) struct News {
    gateway: Arc<Gateway>,
    guard: StreamGuard,
    lists: Lists,
    upstream: Upstream,
    changes: watch::Receiver<u64>,
}

/// What a client knows of the lists.
struct Lists {
    revisions: watch::Receiver<Revisions>,
    /// What it has been told.
    told: Revisions,
    /// When a change that was seen will be told.
    due: Option<Instant>,
}

impl Lists {
    fn new(gateway: &Gateway, told: Revisions) -> Self {
        let revisions = gateway.revision.subscribe();
        let now = *revisions.borrow();
        // Of what it never listed it knows nothing that could have changed.
        let known = |told: u64, now: u64| if told == 0 { now } else { told };
        let told = Revisions {
            tools: known(told.tools, now.tools),
            prompts: known(told.prompts, now.prompts),
            resources: known(told.resources, now.resources),
        };
        let due = (told != now).then(|| Instant::now() + DEBOUNCE);
        Self { revisions, told, due }
    }

    /// Waits for changes, and for a moment more. Returns the methods that tell them. Dropping the future loses nothing.
    async fn next(&mut self) -> Vec<&'static str> {
        loop {
            let Some(due) = self.due else {
                if self.revisions.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                self.due = Some(Instant::now() + DEBOUNCE);
                continue;
            };
            sleep_until(due).await;
            self.due = None;
            let now = *self.revisions.borrow_and_update();
            let told = std::mem::replace(&mut self.told, now);
            let kinds = [
                (told.tools != now.tools, "notifications/tools/list_changed"),
                (told.prompts != now.prompts, "notifications/prompts/list_changed"),
                (told.resources != now.resources, "notifications/resources/list_changed"),
            ];
            return kinds.into_iter().filter(|(changed, _)| *changed).map(|(_, method)| method).collect();
        }
    }
}

impl News {
    /// `last` is the last event of such a stream that the client has had.
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        snapshot: &Snapshot,
        guard: StreamGuard,
        last: Option<&EventId<'_>>,
    ) -> Self {
        let lists = Lists::new(gateway, guard.session.listed());
        let changes = guard.session.changes();
        let mut upstream = Upstream::new();
        if guard.is_chosen() {
            if let Some(early) = guard.session.take_early() {
                upstream = early.taken();
            }
            let last = last.and_then(|last| Some((last.backend, HeaderValue::from_str(last.own).ok()?)));
            upstream.sync(&guard.session, &snapshot.backends, Era::Legacy, last);
        }
        Self { gateway: Arc::clone(gateway), guard, lists, upstream, changes }
    }

    pub(crate) async fn next(&mut self) -> Next {
        loop {
            let session = &self.guard.session;
            tokio::select! {
                biased;
                () = session.until_over() => return Next::End(End::As(Kind::Ok)),
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return Next::End(End::As(Kind::Ok));
                    }
                    self.listen();
                }
                methods = self.lists.next() => {
                    // Lists change when backends do, and so may what there is to listen to.
                    self.listen();
                    // Each message goes to one stream of a session only (2025-11-25, Transports).
                    if self.guard.is_chosen() && !methods.is_empty() {
                        let events = methods.iter().map(|method| sse::event(&jsonrpc::notification_body(method, None)));
                        return Next::Chunk(events.collect::<Vec<Bytes>>().concat().into());
                    }
                }
                heard = self.upstream.next() => return Next::Chunk(heard.event()),
            }
        }
    }

    fn listen(&mut self) {
        if self.guard.is_chosen() {
            let snapshot = self.gateway.snapshot();
            self.upstream.sync(&self.guard.session, &snapshot.backends, Era::Legacy, None);
        } else {
            self.upstream.stop();
        }
    }
}
