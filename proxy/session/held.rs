//! What this process holds for one session: its legs, its calls under way, its open event streams.

mod calls;
mod questions;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use toolgate_config::BackendName;

use self::calls::{Call, Left};
pub(crate) use self::calls::{CallGuard, Cancelled};
pub(crate) use self::questions::Asker;
pub(crate) use self::questions::MAX_QUESTIONS;
use self::questions::Question;
use super::{ClientCapabilities, Counts, Leg, Pool, Sessions};
use crate::backend::Backend;
use crate::backend::client::Hello;
use crate::bridge::question;
use crate::catalog::{Revisions, is_part};
use crate::era::Version;
use crate::jsonrpc::OwnedId;
use crate::news::early::Early;

/// Event streams one session may have open at once.
pub(crate) const MAX_STREAMS: usize = 16;
/// Resources one session may be subscribed to.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 1_024;

/// What this process holds for one session.
pub(crate) struct Session {
    pub(super) id: u128,
    /// Of its token, if it has one.
    pub(super) mark: u128,
    /// Which set of keys its token was opened with.
    pub(super) keys: AtomicU64,
    pub(crate) version: Version,
    pub(crate) capabilities: ClientCapabilities,
    hello: Hello,
    pub(super) expires: u64,
    born: Instant,
    /// From `born` until it expires.
    lasts: Duration,
    /// Milliseconds from `born` to the last request.
    used: AtomicU64,
    /// Counts changes of its legs, streams and subscriptions, as soon as somebody wants to hear of them: it takes more room than
    /// the rest.
    changes: OnceLock<watch::Sender<u64>>,
    is_over: AtomicBool,
    over: Notify,
    held: Mutex<Held>,
    counts: Arc<Counts>,
    pool: Weak<Pool>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.counts.questions.fetch_sub(held.questions.len(), Ordering::Relaxed);
        self.counts.subscriptions.fetch_sub(held.subscriptions.len(), Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Held {
    /// By the backend's uid.
    legs: HashMap<u64, Arc<Leg>, foldhash::fast::RandomState>,
    /// What `logging/setLevel` asked for last, as JSON.
    level: Option<Box<str>>,
    /// The catalog's revisions at the last lists that the client was given; 0 before the first.
    listed: Revisions,
    /// Resources that the client wants to hear of, and the backend of each: by its name, which a reload leaves it.
    subscriptions: BTreeMap<Box<str>, BackendName>,
    /// Those of them that the client's own request is on its way for.
    subscribing: Vec<Box<str>>,
    /// What backends have asked the client, oldest first.
    questions: VecDeque<Question>,
    /// Calls under way, by the client's request id.
    calls: HashMap<OwnedId, Call, foldhash::fast::RandomState>,
    /// How many those are: an id that is used twice is one of them twice.
    running: usize,
    /// Calls whose client left before the answer was out, newest last: a cancellation may be on its way still.
    left: VecDeque<Left>,
    /// Event streams that the client has open for whatever comes, oldest first.
    streams: BTreeSet<u64>,
    /// Event streams that it came back for.
    resumed: usize,
    /// What its backends say while there is none.
    early: Option<Early>,
    next_ticket: u64,
}

impl Held {
    fn leg(&mut self, backend: &Arc<Backend>, hello: &Hello) -> Arc<Leg> {
        Arc::clone(self.legs.entry(backend.uid).or_insert_with(|| Arc::new(Leg::new(backend, hello))))
    }

    fn is_busy(&self) -> bool {
        self.running > 0 || !self.streams.is_empty() || self.resumed > 0
    }
}

impl Session {
    pub(super) fn new(
        id: u128,
        version: Version,
        expires: u64,
        client_info: &str,
        capabilities: ClientCapabilities,
        sessions: &Sessions,
    ) -> Self {
        Self {
            counts: Arc::clone(&sessions.counts),
            pool: Arc::downgrade(&sessions.pool),
            id,
            mark: 0,
            keys: AtomicU64::new(0),
            version,
            capabilities,
            hello: Hello {
                version,
                client_info: client_info.into(),
                capabilities: capabilities.json().into(),
                replica: None,
            },
            expires,
            born: Instant::now(),
            lasts: Duration::from_secs(expires.saturating_sub(super::unix_now())),
            used: AtomicU64::new(0),
            changes: OnceLock::new(),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
            held: Mutex::default(),
        }
    }

    /// The same with a token of this mark.
    pub(super) fn marked(mut self, mark: u128) -> Self {
        self.mark = mark;
        self
    }

    /// The same with its side of a backend at this replica, where it can be.
    pub(super) fn at(mut self, replica: Option<usize>) -> Self {
        self.hello.replica = replica;
        self
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
        self.use_now();
    }

    /// Notes a request; false when the session has expired meanwhile.
    pub(super) fn use_now(&self) -> bool {
        // To the millisecond: of two sessions, the one that was used last stays.
        let age = self.born.elapsed();
        let used = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
        age < self.lasts
    }

    pub(super) fn idle_since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born + Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.held().is_busy()
    }

    pub(crate) fn take_legs(&self, which: impl Fn(&Leg) -> bool) -> Vec<Arc<Leg>> {
        let mut held = self.held();
        let uids: Vec<_> = held.legs.iter().filter(|(_, leg)| which(leg)).map(|(uid, _)| *uid).collect();
        if let Some(early) = &mut held.early {
            uids.iter().for_each(|uid| early.leave(*uid));
        }
        let legs: Vec<_> = uids.into_iter().filter_map(|uid| held.legs.remove(&uid)).collect();
        self.forget_questions_of(&mut held, &legs);
        legs
    }

    /// Legs of backends that are gone, except those that a call still runs on.
    pub(super) fn take_retired_legs(&self) -> Vec<Arc<Leg>> {
        let in_use: Vec<u64> = self.held().calls.values().map(|call| call.backend().uid).collect();
        self.take_legs(|leg| leg.backend.is_retired() && !in_use.contains(&leg.backend.uid))
    }

    /// The leg of a backend, if a session with it is open and nobody uses it.
    pub(super) fn take_unused_leg(&self, backend: &Backend) -> Option<Arc<Leg>> {
        let mut held = self.held();
        let is_open = held.legs.get(&backend.uid).is_some_and(|leg| leg.current().is_some());
        if !is_open || held.is_busy() {
            return None;
        }
        if let Some(early) = &mut held.early {
            early.leave(backend.uid);
        }
        let leg = held.legs.remove(&backend.uid);
        self.forget_questions_of(&mut held, leg.as_slice());
        leg
    }

    /// What this process keeps open with a backend for nobody in particular, where the backend has no room for more.
    pub(super) fn give_up_another(&self, backend: &Backend) -> Option<Arc<Leg>> {
        self.pool.upgrade()?.give_up(backend)
    }

    /// This session's side of a backend.
    pub(crate) fn leg(&self, backend: &Arc<Backend>) -> Arc<Leg> {
        self.held().leg(backend, &self.hello)
    }

    /// This session's side of a backend, if there is one already.
    pub(crate) fn leg_of(&self, backend: &Backend) -> Option<Arc<Leg>> {
        self.held().legs.get(&backend.uid).map(Arc::clone)
    }

    /// The client's `clientInfo`, as JSON.
    pub(crate) fn client_info(&self) -> &str {
        &self.hello.client_info
    }

    /// Tells the session's streams that there may be something new to listen to.
    pub(crate) fn changed(&self) {
        if let Some(changes) = self.changes.get() {
            changes.send_modify(|changes| *changes += 1);
        }
    }

    /// What tells when there is.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.get_or_init(|| watch::Sender::new(0)).subscribe()
    }

    /// Whether the client has a stream open for whatever comes.
    pub(crate) fn listens(&self) -> bool {
        !self.held().streams.is_empty()
    }

    /// Has backends listened to while the client does not listen itself.
    pub(crate) fn hear_early(&self, listen: impl FnOnce(&mut Option<Early>)) {
        let mut held = self.held();
        // Under one lock with the client's streams: what the first of them is to take over is here before it.
        if held.streams.is_empty() {
            listen(&mut held.early);
        }
    }

    /// What was listened to in the client's place, which is not from now on.
    pub(crate) fn take_early(&self) -> Option<Early> {
        self.held().early.take()
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

    /// The revisions that the client has been given lists of.
    pub(crate) fn listed(&self) -> Revisions {
        self.held().listed
    }

    pub(crate) fn note_listed(&self, note: impl FnOnce(&mut Revisions)) {
        note(&mut self.held().listed);
    }

    /// Notes that the client wants to hear of a resource; false when it has as many as it may.
    pub(crate) fn subscribe(&self, uri: &str, backend: &Backend) -> bool {
        let mut held = self.held();
        if held.subscriptions.len() >= MAX_SUBSCRIPTIONS && !held.subscriptions.contains_key(uri) {
            return false;
        }
        if held.subscriptions.insert(uri.into(), backend.name().clone()).is_none() {
            self.counts.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        drop(held);
        self.changed();
        true
    }

    /// Notes that it does not any more.
    pub(crate) fn unsubscribe(&self, uri: &str) {
        if self.held().subscriptions.remove(uri).is_some() {
            self.counts.subscriptions.fetch_sub(1, Ordering::Relaxed);
        }
        self.changed();
    }

    /// Notes that the client's own request subscribes to a resource, until the returned guard is dropped: no session that is
    /// opened meanwhile need be told of it.
    pub(crate) fn subscribing(self: &Arc<Self>, uri: &str) -> Subscribing {
        self.held().subscribing.push(uri.into());
        Subscribing { session: Arc::clone(self), uri: uri.into() }
    }

    /// The resources that a session which was opened anew with a backend is to be told of.
    pub(super) fn untold(&self, backend: &Backend) -> Vec<Box<str>> {
        let mut subscriptions = self.subscriptions(backend);
        let held = self.held();
        subscriptions.retain(|uri| !held.subscribing.contains(uri));
        subscriptions
    }

    /// The resources of a backend that the client wants to hear of.
    pub(crate) fn subscriptions(&self, backend: &Backend) -> Vec<Box<str>> {
        let held = self.held();
        held.subscriptions.iter().filter(|(_, name)| *name == backend.name()).map(|(uri, _)| uri.clone()).collect()
    }

    /// Whether the client wants to hear that a backend has updated a resource, which may be a part of what it is subscribed to
    /// (2025-11-25, Resources).
    pub(crate) fn wants(&self, backend: &Backend, updated: &str) -> bool {
        let held = self.held();
        let of_backend = held.subscriptions.iter().filter(|(_, name)| *name == backend.name());
        of_backend.map(|(uri, _)| uri).any(|uri| is_part(updated, uri))
    }

    /// Notes an open event stream, until the returned guard is dropped; `None` when there are too many. One that the client
    /// came back for carries the rest of what it was opened for, and nothing else.
    pub(crate) fn stream(self: &Arc<Self>, is_resumed: bool) -> Option<StreamGuard> {
        let mut held = self.held();
        if held.streams.len() + held.resumed >= MAX_STREAMS {
            return None;
        }
        held.next_ticket += 1;
        let ticket = held.next_ticket;
        if is_resumed {
            held.resumed += 1;
        } else {
            held.streams.insert(ticket);
        }
        drop(held);
        self.changed();
        Some(StreamGuard { session: Arc::clone(self), ticket, is_resumed })
    }
}

/// A request of the client that subscribes to a resource.
pub(crate) struct Subscribing {
    session: Arc<Session>,
    uri: Box<str>,
}

impl Drop for Subscribing {
    fn drop(&mut self) {
        let mut held = self.session.held();
        let at = held.subscribing.iter().position(|uri| *uri == self.uri);
        at.map(|at| held.subscribing.swap_remove(at));
    }
}

/// An open event stream of a client.
pub(crate) struct StreamGuard {
    pub(crate) session: Arc<Session>,
    ticket: u64,
    is_resumed: bool,
}

impl StreamGuard {
    /// What questions on it are known by, where no call is known that they belong to.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether this is the stream that messages go to: each goes to one stream of a session only (2025-11-25, Transports),
    /// and the newest is the one most likely to be read.
    pub(crate) fn is_chosen(&self) -> bool {
        self.session.held().streams.last() == Some(&self.ticket)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut held = self.session.held();
        let unanswered = if self.is_resumed {
            held.resumed -= 1;
            self.session.take_back(&mut held, self.ticket)
        } else {
            held.streams.remove(&self.ticket);
            Vec::new()
        };
        drop(held);
        question::taken_back(unanswered);
        self.session.touch();
        self.session.changed();
    }
}
