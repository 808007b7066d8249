//! What legacy backends say in a session before anybody listens, or where nobody does.
//!
//! A backend that asks on a stream of its session that is not open yet asks nobody, and waits for ever. Clients open their
//! stream and call at about the same time, so the backend's stream is opened with the session, and what comes on it is kept for
//! the client for a moment. Modern clients have no such stream: there the gateway listens in their place.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
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

    /// For the next call in a session that calls have for themselves, one after the other.
    fn resting(upstream: Upstream) -> Self {
        Self { upstream, expiry: None }
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
    for asked in early.taken().waiting() {
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

/// What a backend says on its own stream in a session that is one call's alone. The stream outlives the call, for the next one:
/// a backend that finds out late that a stream is closed may take the next one for it.
pub(crate) struct Ear {
    session: Arc<Session>,
    upstream: Upstream,
}

impl Ear {
    /// Listens, and waits until there is something to listen to; not for long.
    pub(crate) async fn open(session: &Arc<Session>, leg: &Arc<Leg>, opened: &Arc<Opened>) -> Option<Self> {
        opened.session_id.as_ref()?;
        let mut upstream = session.take_early().map_or_else(Upstream::new, Early::taken);
        for asked in upstream.waiting() {
            // Of a call that is over.
            question::unheard(session, &asked);
        }
        let mut ear = Self { session: Arc::clone(session), upstream };
        ear.follow(leg, opened).await;
        Some(ear)
    }

    /// The same in another session with the backend.
    pub(crate) async fn follow(&mut self, leg: &Arc<Leg>, opened: &Arc<Opened>) {
        self.upstream.hear(&self.session, leg, opened);
        leg.heard(opened).await;
    }

    /// The next message. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Bytes {
        loop {
            if let Some(message) = self.upstream.next().await.message() {
                return question::as_asked(&self.session, message);
            }
        }
    }

    /// Leaves it to the next call.
    pub(crate) fn rest(self) {
        let Self { session, upstream } = self;
        session.hear_early(|early| *early = Some(Early::resting(upstream)));
    }
}
