//! What this process holds for one session: its legs, its calls under way, its open event streams.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use toolgate_config::BackendName;

use super::{ClientCapabilities, Counts, Leg, NEVER, Pool, Sessions};
use crate::backend::Backend;
use crate::backend::client::{Hello, Opened};
use crate::catalog::Revisions;
use crate::era::Version;
use crate::error::Error;
use crate::jsonrpc::OwnedId;
use crate::news::early::Early;

/// How long a call that its client left can still be cancelled: some clients close the connection and cancel at once, and
/// either may arrive first.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// The same for a call whose stream its backend broke off, to be asked for the rest.
const POLLED_FOR: Duration = Duration::from_mins(10);
/// Such calls that are remembered for one session.
const MAX_LEFT: usize = 64;
/// Calls that one session may have under way.
const MAX_CALLS: usize = 256;
/// Event streams one session may have open at once.
pub(crate) const MAX_STREAMS: usize = 16;
/// Questions of backends that one session's client has yet to answer; a further one puts an end to the oldest.
const MAX_QUESTIONS: usize = 64;
/// Resources one session may be subscribed to.
pub(crate) const MAX_SUBSCRIPTIONS: usize = 1_024;

/// What this process holds for one session.
pub(crate) struct Session {
    pub(super) id: u128,
    pub(crate) version: Version,
    pub(crate) capabilities: ClientCapabilities,
    hello: Hello,
    pub(super) expires: u64,
    born: Instant,
    /// Milliseconds from `born` to the last request.
    used: AtomicU64,
    /// Counts changes of its legs, streams and subscriptions.
    pub(crate) changes: watch::Sender<u64>,
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
    legs: HashMap<u64, Arc<Leg>>,
    /// What `logging/setLevel` asked for last, as JSON.
    level: Option<Box<str>>,
    /// The catalog's revisions at the last lists that the client was given; 0 before the first.
    listed: Revisions,
    /// Resources that the client wants to hear of, and the backend of each: by its name, which a reload leaves it.
    subscriptions: BTreeMap<Box<str>, BackendName>,
    /// Those of them that the client's own request is on its way for.
    subscribing: Vec<Box<str>>,
    /// What backends have asked the client, oldest first, by the ids that the client was asked under.
    questions: VecDeque<(OwnedId, Asker)>,
    /// Calls under way, by the client's request id.
    calls: HashMap<OwnedId, Call>,
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
            used: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            is_over: AtomicBool::new(false),
            over: Notify::new(),
            held: Mutex::default(),
        }
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
        let used = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
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
        uids.into_iter().filter_map(|uid| held.legs.remove(&uid)).collect()
    }

    /// Legs of backends that are gone, except those that a call still runs on.
    pub(super) fn take_retired_legs(&self) -> Vec<Arc<Leg>> {
        let in_use: Vec<u64> = self.held().calls.values().map(|call| call.way.backend().uid).collect();
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
        held.legs.remove(&backend.uid)
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
        self.changes.send_modify(|changes| *changes += 1);
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

    /// An id for a question to the client, who will answer under it. When there are too many, the one whose turn it was to be
    /// answered first is returned: it will not be any more.
    pub(crate) fn ask(&self, asker: Asker) -> (OwnedId, Option<Asker>) {
        let mut held = self.held();
        held.next_ticket += 1;
        // Random in its first part: another process may serve the same session, and an id must not come twice in it.
        let id = OwnedId::string(&format!("tg-{:08x}-{}", process_salt(), held.next_ticket));
        let put_off = if held.questions.len() >= MAX_QUESTIONS { held.questions.pop_front() } else { None };
        held.questions.push_back((id.clone(), asker));
        self.counts.questions.fetch_add(usize::from(put_off.is_none()), Ordering::Relaxed);
        (id, put_off.map(|(_, asker)| asker))
    }

    /// Who asked the question that the client answers now, once.
    pub(crate) fn answered(&self, id: &OwnedId) -> Option<Asker> {
        let mut held = self.held();
        let index = held.questions.iter().position(|(question, _)| question == id)?;
        self.counts.questions.fetch_sub(1, Ordering::Relaxed);
        held.questions.remove(index).map(|(_, asker)| asker)
    }

    /// The id under which the client was asked what a backend asked under `own`.
    pub(crate) fn question(&self, backend: &Backend, own: &OwnedId) -> Option<OwnedId> {
        let is_it = |asker: &Asker| match asker {
            Asker::Backend { leg, id, .. } => leg.backend.uid == backend.uid && id == own,
            Asker::Bridge(_) => false,
        };
        self.held().questions.iter().find(|(_, asker)| is_it(asker)).map(|(id, _)| id.clone())
    }

    /// Notes a call under way on its side of a backend, until the returned guard is dropped.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn call_on(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        id: OwnedId,
    ) -> Result<(Arc<Leg>, CallGuard), Error> {
        let mut held = self.held();
        let leg = held.leg(backend, &self.hello);
        // At once: a leg that no call is on may be given up.
        let call = self.note_call(&mut held, id, Way::Session(Arc::clone(&leg)))?;
        Ok((leg, call))
    }

    /// The same for a call over a connection of its own.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn call(self: &Arc<Self>, backend: &Arc<Backend>, id: OwnedId) -> Result<CallGuard, Error> {
        self.note_call(&mut self.held(), id, Way::Connection(Arc::clone(backend)))
    }

    fn note_call(self: &Arc<Self>, held: &mut Held, id: OwnedId, way: Way) -> Result<CallGuard, Error> {
        // What a session of the gateway's own serves is many clients' together, and bounded by the backend's `max_inflight`.
        if held.running >= MAX_CALLS && self.expires != NEVER {
            return Err(Error::TooManyCalls { max: MAX_CALLS });
        }
        held.running += 1;
        held.next_ticket += 1;
        let ticket = held.next_ticket;
        let call = Call { ticket, way, is_cancelled: false, cancelled: Arc::default() };
        let cancelled = Arc::clone(&call.cancelled);
        held.calls.insert(id.clone(), call);
        Ok(CallGuard { session: Arc::clone(self), id, ticket, cancelled, answered: false, is_polled: false })
    }

    /// Cancels a call, under way or left by its client a moment ago. Returns where the cancellation has to be passed on to.
    ///
    /// A backend that keeps no session knows a call by its id alone, and another client's call may have the same one: there
    /// the call's connection is closed instead, which is all that such a backend can tell clients by. So it is in the modern
    /// era.
    pub(crate) fn cancel(&self, id: &OwnedId) -> Option<Arc<Leg>> {
        let mut held = self.held();
        if let Some(call) = held.calls.get_mut(id) {
            if std::mem::replace(&mut call.is_cancelled, true) {
                return None;
            }
            if let Some(leg) = call.way.cancelled() {
                return Some(leg);
            }
            call.cancelled.notify_one();
            return None;
        }
        let is_it = |left: &Left| left.id == *id && left.until > Instant::now();
        let left = held.left.iter().position(is_it).and_then(|index| held.left.remove(index))?;
        left.way.cancelled()
    }

    /// Notes an open event stream, until the returned guard is dropped; `None` when there are too many. One that the client
    /// came back for carries the rest of what it was opened for, and nothing else.
    pub(crate) fn stream(self: &Arc<Self>, is_resumed: bool) -> Option<StreamGuard> {
        let mut held = self.held();
        if held.streams.len() + held.resumed >= MAX_STREAMS {
            return None;
        }
        let mut ticket = None;
        if is_resumed {
            held.resumed += 1;
        } else {
            held.next_ticket += 1;
            let next = held.next_ticket;
            held.streams.insert(next);
            ticket = Some(next);
        }
        drop(held);
        self.changed();
        Some(StreamGuard { session: Arc::clone(self), ticket })
    }
}

/// Something in the ids of this process that is not in those of another.
fn process_salt() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    use std::sync::LazyLock;
    static SALT: LazyLock<u32> =
        LazyLock::new(|| u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0));
    *SALT
}

/// Who waits for an answer of the client.
pub(crate) enum Asker {
    /// A backend that asked under `id`: the answer goes to it, in the session that it asked in.
    Backend { leg: Arc<Leg>, opened: Arc<Opened>, id: OwnedId },
    /// A call to a backend that does not ask by requests. Gets the client's response as it came.
    Bridge(oneshot::Sender<Bytes>),
}

/// How a call reached its backend, which is how it is cancelled.
#[derive(Clone)]
pub(crate) enum Way {
    /// As one of a session.
    Session(Arc<Leg>),
    /// By a connection that can be closed.
    Connection(Arc<Backend>),
}

impl Way {
    fn backend(&self) -> &Backend {
        match self {
            Self::Session(leg) => &leg.backend,
            Self::Connection(backend) => backend,
        }
    }

    /// Whom a message cancels it at.
    fn cancelled(&self) -> Option<Arc<Leg>> {
        match self {
            Self::Session(leg) if leg.has_session_id() => Some(Arc::clone(leg)),
            Self::Session(_) | Self::Connection(_) => None,
        }
    }
}

/// A call that its client is not connected to any more, until when it is remembered.
struct Left {
    until: Instant,
    id: OwnedId,
    way: Way,
}

/// A call under way, as its session knows it.
struct Call {
    ticket: u64,
    way: Way,
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
    is_polled: bool,
}

impl CallGuard {
    /// Notes that the answer is out.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Notes that the client will come back for the answer.
    pub(crate) fn polled(&mut self) {
        self.is_polled = true;
    }

    /// Completes when the call's connection is to be closed because it was cancelled.
    pub(crate) fn cancelled(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut held = self.session.held();
        held.running -= 1;
        // A client that used the id again has its own entry by now.
        let is_ours = held.calls.get(&self.id).is_some_and(|call| call.ticket == self.ticket);
        if is_ours
            && let Some(call) = held.calls.remove(&self.id)
            && !self.answered
            && !call.is_cancelled
        {
            let now = Instant::now();
            held.left.retain(|left| left.until > now);
            if held.left.len() >= MAX_LEFT {
                held.left.pop_front();
            }
            let until = now + if self.is_polled { POLLED_FOR } else { LEFT_FOR };
            held.left.push_back(Left { until, id: self.id.clone(), way: call.way });
        }
        drop(held);
        self.session.touch();
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
    ticket: Option<u64>,
}

impl StreamGuard {
    /// Whether this is the stream that messages go to: each goes to one stream of a session only (2025-11-25, Transports),
    /// and the newest is the one most likely to be read.
    pub(crate) fn is_chosen(&self) -> bool {
        self.ticket.is_some() && self.session.held().streams.last() == self.ticket.as_ref()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut held = self.session.held();
        match self.ticket {
            Some(ticket) => drop(held.streams.remove(&ticket)),
            None => held.resumed -= 1,
        }
        drop(held);
        self.session.touch();
        self.session.changed();
    }
}
