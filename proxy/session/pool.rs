//! Sessions with backends that want one, kept for modern clients, who have none.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};
use std::time::Instant;

use dashmap::DashMap;

use super::{ClientCapabilities, Leg, Session};
use crate::backend::Backend;
use crate::gateway::Gateway;

/// Principals, sets of capabilities, log levels and replicas of legacy backends that sessions are kept for.
const MAX_POOLS: usize = 1_024;
/// Sessions that are kept for one of these.
const MAX_KEPT: usize = 64;

/// What modern clients must have in common to use one session with a backend that wants one.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct PoolKey {
    pub(crate) principal: Box<str>,
    pub(crate) capabilities: ClientCapabilities,
    /// As JSON.
    pub(crate) level: Option<Box<str>>,
    /// The backend's uid.
    pub(crate) backend: u64,
    /// Which of the backend's replicas it is with, where there are several: each has sessions of its own.
    pub(crate) replica: Option<usize>,
}

impl PoolKey {
    /// Whether one session can serve several calls at once: where the backend cannot ask, nobody can be asked in another's
    /// place.
    pub(super) fn is_shared(&self) -> bool {
        self.capabilities == ClientCapabilities::default()
    }
}

/// A session in which a backend that wants one is asked for a modern client. Dropped, it waits for the next.
pub(crate) struct Borrowed {
    pub(super) key: PoolKey,
    pub(super) session: Arc<Session>,
    pub(super) gateway: Weak<Gateway>,
}

impl Borrowed {
    /// Whether other calls use it at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.key.is_shared()
    }
}

impl std::ops::Deref for Borrowed {
    type Target = Arc<Session>;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let Some(gateway) = self.gateway.upgrade() else { return };
        if !self.key.is_shared() {
            gateway.sessions.give_back(&self.key, &self.session);
        }
    }
}

/// Whether a session is where it is to be, or nowhere yet.
fn is_home(key: &PoolKey, session: &Session, backend: &Backend) -> bool {
    let opened = session.leg_of(backend).and_then(|leg| leg.current());
    let replica = opened.and_then(|opened| backend.replica_of(&opened));
    replica.is_none() || replica == key.replica
}

/// All that are kept: shared ones in use or not, and others not in use.
#[derive(Default)]
pub(super) struct Pool(DashMap<PoolKey, Vec<Arc<Session>>>);

impl Pool {
    /// One that is kept for this, and what is to be closed so that it can be taken.
    ///
    /// One that had to begin at another replica comes home: in use it is left where it is, unused it begins anew.
    pub(super) fn take(&self, key: &PoolKey, backend: &Backend) -> Option<(Arc<Session>, Option<Arc<Leg>>)> {
        let mut kept = self.0.get_mut(key)?;
        let (index, stray) = kept.iter().enumerate().rev().find_map(|(index, session)| {
            if is_home(key, session, backend) {
                return Some((index, None));
            }
            session.take_unused_leg(backend).map(|leg| (index, Some(leg)))
        })?;
        let session = if key.is_shared() { Arc::clone(kept.get(index)?) } else { kept.remove(index) };
        Some((session, stray))
    }

    /// Keeps one, if there is room.
    pub(super) fn keep(&self, key: &PoolKey, session: &Arc<Session>) -> bool {
        if self.0.len() >= MAX_POOLS && !self.0.contains_key(key) {
            return false;
        }
        let mut kept = self.0.entry(key.clone()).or_default();
        let is_room = kept.len() < MAX_KEPT;
        if is_room {
            kept.push(Arc::clone(session));
        }
        is_room
    }

    /// The session with a backend that was unused for the longest, taken from who kept it; nothing while all are in use.
    pub(super) fn give_up(&self, backend: &Backend) -> Option<Arc<Leg>> {
        let of_backend = self.0.iter().filter(|kept| kept.key().backend == backend.uid);
        let mut kept: Vec<_> = of_backend.flat_map(|kept| kept.value().clone()).collect();
        let now = Instant::now();
        kept.sort_by_key(|session| Reverse(session.idle_since(now)));
        kept.iter().find_map(|session| session.take_unused_leg(backend))
    }

    /// Drops those that do not stay.
    pub(super) fn retain(&self, mut stays: impl FnMut(&Session) -> bool) {
        self.0.retain(|_, kept| {
            kept.retain(|session| stays(session));
            !kept.is_empty()
        });
    }
}
