//! What this process holds for one session: its legs, its calls under way, its open event streams.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Leg;
use crate::backend::Backend;
use crate::backend::client::Hello;
use crate::era::Version;
use crate::jsonrpc::OwnedId;

/// How long a call that its client left can still be cancelled: some clients close the connection and cancel at once, and
/// either may arrive first.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// Such calls that are remembered for one session.
const MAX_LEFT: usize = 64;
/// Event streams one session may have open at once.
pub(crate) const MAX_STREAMS: usize = 16;

/// What this process holds for one session.
pub(crate) struct Session {
    pub(super) id: u128,
    pub(crate) version: Version,
    hello: Hello,
    pub(super) expires: u64,
    born: Instant,
    /// Milliseconds from `born` to the last request.
    used: AtomicU64,
    /// The catalog revision of the last list that the client was given; 0 before the first.
    pub(crate) listed: AtomicU64,
    is_over: AtomicBool,
    over: Notify,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// By the backend's uid.
    legs: HashMap<u64, Arc<Leg>>,
    /// What `logging/setLevel` asked for last, as JSON.
    level: Option<Box<str>>,
    /// Calls under way, by the client's request id.
    calls: HashMap<OwnedId, Call>,
    /// Calls whose client left before the answer was out, newest last: a cancellation may be on its way still.
    left: VecDeque<(Instant, OwnedId, Arc<Leg>)>,
    /// Event streams that the client has open, oldest first.
    streams: BTreeSet<u64>,
    next_ticket: u64,
}

impl Session {
    pub(super) fn new(id: u128, version: Version, expires: u64, client_info: &str) -> Self {
        Self {
            id,
            version,
            hello: Hello { version, client_info: client_info.into() },
            expires,
            born: Instant::now(),
            used: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
            held: Mutex::default(),
        }
    }

    /// The random part of its id: stable, and useless to whoever reads it.
    pub(crate) fn id(&self) -> u128 {
        self.id
    }

    /// Tells everything that goes on in the session that its client has ended it.
    pub(super) fn finish(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.over.notify_waiters();
    }

    /// Completes when the client has ended the session.
    pub(crate) async fn until_over(&self) {
        let over = self.over.notified();
        tokio::pin!(over);
        over.as_mut().enable();
        if !self.is_over.load(Ordering::SeqCst) {
            over.await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Each change is whole, so what a panic left behind is still good.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn touch(&self) {
        let used = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
    }

    pub(super) fn idle_since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born + Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    pub(super) fn is_busy(&self) -> bool {
        let held = self.held();
        !held.calls.is_empty() || !held.streams.is_empty()
    }

    pub(super) fn take_legs(&self, which: impl Fn(&Leg) -> bool) -> Vec<Arc<Leg>> {
        let mut held = self.held();
        let uids: Vec<_> = held.legs.iter().filter(|(_, leg)| which(leg)).map(|(uid, _)| *uid).collect();
        uids.into_iter().filter_map(|uid| held.legs.remove(&uid)).collect()
    }

    /// Legs of backends that are gone, except those that a call still runs on.
    pub(super) fn take_retired_legs(&self) -> Vec<Arc<Leg>> {
        let in_use: Vec<u64> = self.held().calls.values().map(|call| call.leg.backend.uid).collect();
        self.take_legs(|leg| leg.backend.is_retired() && !in_use.contains(&leg.backend.uid))
    }

    /// This session's side of a backend.
    pub(crate) fn leg(&self, backend: &Arc<Backend>) -> Arc<Leg> {
        let mut held = self.held();
        let leg = held.legs.entry(backend.uid).or_insert_with(|| Arc::new(Leg::new(backend, &self.hello)));
        Arc::clone(leg)
    }

    /// Every leg there is.
    pub(crate) fn legs(&self) -> Vec<Arc<Leg>> {
        self.held().legs.values().cloned().collect()
    }

    /// What `logging/setLevel` asked for last, as JSON.
    pub(crate) fn level(&self) -> Option<Box<str>> {
        self.held().level.clone()
    }

    pub(crate) fn set_level(&self, level: &str) {
        self.held().level = Some(level.into());
    }

    /// Notes a call under way, until the returned guard is dropped.
    pub(crate) fn call(self: &Arc<Self>, id: OwnedId, leg: &Arc<Leg>) -> CallGuard {
        let mut held = self.held();
        held.next_ticket += 1;
        let ticket = held.next_ticket;
        let call = Call { ticket, leg: Arc::clone(leg), is_cancelled: false, cancelled: Arc::default() };
        let cancelled = Arc::clone(&call.cancelled);
        held.calls.insert(id.clone(), call);
        CallGuard { session: Arc::clone(self), id, ticket, cancelled, answered: false }
    }

    /// Cancels a call, under way or left by its client a moment ago. Returns where the cancellation has to be passed on to.
    ///
    /// A backend that keeps no session knows a call by its id alone, and another client's call may have the same one: there
    /// the call's connection is closed instead, which is all that such a backend can tell clients by.
    pub(crate) fn cancel(&self, id: &OwnedId) -> Option<Arc<Leg>> {
        let mut held = self.held();
        if let Some(call) = held.calls.get_mut(id) {
            if std::mem::replace(&mut call.is_cancelled, true) {
                return None;
            }
            if call.leg.has_session_id() {
                return Some(Arc::clone(&call.leg));
            }
            call.cancelled.notify_one();
            return None;
        }
        let is_it = |(when, left, _): &(Instant, OwnedId, _)| left == id && when.elapsed() < LEFT_FOR;
        let (_, _, leg) = held.left.iter().position(is_it).and_then(|index| held.left.remove(index))?;
        leg.has_session_id().then_some(leg)
    }

    /// Notes an open event stream, until the returned guard is dropped; `None` when there are too many.
    pub(crate) fn stream(self: &Arc<Self>) -> Option<StreamGuard> {
        let mut held = self.held();
        if held.streams.len() >= MAX_STREAMS {
            return None;
        }
        held.next_ticket += 1;
        let ticket = held.next_ticket;
        held.streams.insert(ticket);
        Some(StreamGuard { session: Arc::clone(self), ticket })
    }
}

/// A call under way, as its session knows it.
struct Call {
    ticket: u64,
    leg: Arc<Leg>,
    /// Whether that was passed on: it is, once.
    is_cancelled: bool,
    /// Told when the call's connection is to be closed.
    cancelled: Arc<Notify>,
}

/// A call under way.
pub(crate) struct CallGuard {
    session: Arc<Session>,
    id: OwnedId,
    ticket: u64,
    cancelled: Arc<Notify>,
    answered: bool,
}

impl CallGuard {
    /// Notes that the answer is out.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Completes when the call's connection is to be closed because it was cancelled.
    pub(crate) fn cancelled(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut held = self.session.held();
        // A client that used the id again has its own entry by now.
        let is_ours = held.calls.get(&self.id).is_some_and(|call| call.ticket == self.ticket);
        if is_ours
            && let Some(call) = held.calls.remove(&self.id)
            && !self.answered
            && !call.is_cancelled
        {
            while held.left.len() >= MAX_LEFT || held.left.front().is_some_and(|(when, ..)| when.elapsed() >= LEFT_FOR)
            {
                held.left.pop_front();
            }
            held.left.push_back((Instant::now(), self.id.clone(), call.leg));
        }
        drop(held);
        self.session.touch();
    }
}

/// An open event stream of a client.
pub(crate) struct StreamGuard {
    pub(crate) session: Arc<Session>,
    ticket: u64,
}

impl StreamGuard {
    /// Whether this is the stream that messages go to: each goes to one stream of a session only (2025-11-25, Transports),
    /// and the newest is the one most likely to be read.
    pub(crate) fn is_chosen(&self) -> bool {
        self.session.held().streams.last() == Some(&self.ticket)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.session.held().streams.remove(&self.ticket);
        self.session.touch();
    }
}
