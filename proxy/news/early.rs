//! What legacy backends say in a session before anybody listens, or where nobody does.
//!
//! A backend that asks on a stream of its session that is not open yet asks nobody, and waits for ever. Clients open their
//! stream and call at about the same time, so the backend's stream is opened with the session, and what comes on it is kept for
//! the client for a moment. Modern clients have no such stream: there the gateway listens in their place.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::upstream::Upstream;
use crate::backend::client::Opened;
use crate::bridge::question;
use crate::session::{ClientCapabilities, Leg, Session};

/// How long a client that can be asked may take to open its stream.
const EARLY: Duration = Duration::from_secs(3);

/// The streams of a session's backends, until its client takes them over.
pub(crate) struct Early {
    upstream: Upstream,
    /// Ends it when the client does not come.
    expiry: Option<AbortHandle>,
}

impl Drop for Early {
    fn drop(&mut self) {
        if let Some(expiry) = &self.expiry {
            expiry.abort();
        }
    }
}

impl Early {
    /// For a client that is about to listen.
    fn awaiting(session: &Arc<Session>) -> Self {
        let expiry = tokio::spawn(expire(Arc::downgrade(session))).abort_handle();
        Self { upstream: Upstream::new(), expiry: Some(expiry) }
    }

    /// For clients that have no stream.
    fn unheard() -> Self {
        Self { upstream: Upstream::unheard(), expiry: None }
    }

    /// Stops listening to a backend.
    pub(crate) fn leave(&mut self, backend: u64) {
        self.upstream.leave(backend);
    }

    /// Hands over what was heard and is listened to.
    pub(super) fn taken(mut self) -> Upstream {
        std::mem::replace(&mut self.upstream, Upstream::unheard())
    }
}

/// Refuses what the client was asked, if it has not come to hear of it.
async fn expire(session: Weak<Session>) {
    sleep(EARLY).await;
    let Some(session) = session.upgrade() else { return };
    let Some(early) = session.take_early() else { return };
    for asked in early.taken().left() {
        question::unheard(&session, &asked);
    }
}

/// Has the backend's own stream listened to, and waits until it is open; not for long.
pub(crate) async fn heard(session: &Arc<Session>, leg: &Arc<Leg>, opened: &Arc<Opened>) {
    if opened.session_id.is_none() || leg.is_heard(opened) {
        return;
    }
    if session.capabilities != ClientCapabilities::default() {
        session.hear_early(|early| {
            early.get_or_insert_with(|| Early::awaiting(session)).upstream.hear(session, leg, opened);
        });
    } else if !session.listens() {
        return;
    }
    leg.heard(opened).await;
}

/// The same in a session that modern clients share, none of whom can be asked: whatever the backend asks is refused at once.
pub(crate) async fn refused(session: &Arc<Session>, leg: &Arc<Leg>, opened: &Arc<Opened>) {
    if opened.session_id.is_none() || leg.is_heard(opened) {
        return;
    }
    session.hear_early(|early| early.get_or_insert_with(Early::unheard).upstream.hear(session, leg, opened));
    leg.heard(opened).await;
}
