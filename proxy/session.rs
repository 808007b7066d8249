//! Sessions of legacy clients, and the backend sessions held for each.
//!
//! A session id is a sealed token that says everything a session is: any process with the same keys serves it, and what
//! this process holds for it can be released and made anew. Backend sessions are opened when first needed, and again when
//! a backend has forgotten them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use toolgate_config::Sessions as Settings;

use crate::backend::Backend;
use crate::backend::client::{self, Hello, Judged, Opened};
use crate::era::Version;
use crate::error::Error;
use crate::jsonrpc::{self, OwnedId, Params};
use crate::seal::{MAX_PLAIN, Sealer};

/// What a token is for; keeps it apart from anything else sealed with the same keys.
const PURPOSE: &[u8] = b"toolgate session v1";
/// The longest `clientInfo` name, title or version that is kept and told to backends.
const MAX_CLIENT_FIELD: usize = 128;
/// Sessions ended by DELETE that are remembered until they would have expired.
const MAX_ENDED: usize = 100_000;
/// Sessions looked at to find one that others are released before.
const EVICTION_SAMPLE: usize = 64;
/// How long a call that its client left can still be cancelled: some clients close the connection and cancel at once, and
/// either may arrive first.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// Such calls that are remembered for one session.
const MAX_LEFT: usize = 64;
/// Event streams one session may have open at once.
pub(crate) const MAX_STREAMS: usize = 16;
/// Whom a session belongs to while nobody is asked who they are.
pub(crate) const ANYONE: &str = "";

/// What a token says.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Token {
    /// Random, in hex.
    i: String,
    /// Protocol version.
    v: String,
    /// Whom it belongs to.
    p: String,
    /// When it expires, in seconds since 1970.
    e: u64,
    /// `clientInfo`.
    c: ClientInfo,
}

/// What backends are told of a client. Icons and the like are left behind: a token has to fit into a header.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct ClientInfo {
    name: String,
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

impl ClientInfo {
    fn read(raw: Option<&RawValue>) -> Result<Self, Error> {
        let what = "`clientInfo` must be an object with `name` and `version`";
        let raw = raw.ok_or_else(|| Error::InvalidParams { what: what.into() })?;
        let mut info: Self = serde_json::from_str(raw.get()).map_err(|_| Error::InvalidParams { what: what.into() })?;
        for field in [Some(&mut info.name), Some(&mut info.version), info.title.as_mut()].into_iter().flatten() {
            let end = (0..=MAX_CLIENT_FIELD.min(field.len())).rev().find(|&i| field.is_char_boundary(i)).unwrap_or(0);
            field.truncate(end);
        }
        Ok(info)
    }
}

/// All sessions of this process.
pub(crate) struct Sessions {
    sealer: ArcSwap<Sealer>,
    settings: ArcSwap<Settings>,
    live: DashMap<u128, Arc<Session>>,
    /// Ended by DELETE: id and expiry.
    ended: DashMap<u128, u64>,
    random: SystemRandom,
}

impl Sessions {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            sealer: ArcSwap::from_pointee(Sealer::new(&settings.keys)),
            settings: ArcSwap::from_pointee(settings.clone()),
            live: DashMap::new(),
            ended: DashMap::new(),
            random: SystemRandom::new(),
        }
    }

    /// Takes up new settings. Tokens live on if their key is still there; a generated key is kept while none is configured.
    pub(crate) fn reconfigure(&self, settings: &Settings) {
        if self.settings.load().keys != settings.keys {
            self.sealer.store(Arc::new(Sealer::new(&settings.keys)));
        }
        self.settings.store(Arc::new(settings.clone()));
    }

    /// Sessions that something is held for.
    pub(crate) fn held(&self) -> usize {
        self.live.len()
    }

    /// Starts a session: a token, and nothing held yet.
    ///
    /// # Errors
    /// When `clientInfo` is not one.
    pub(crate) fn start(&self, version: Version, params: &Params<'_>, principal: &str) -> Result<String, Error> {
        let mut id = [0; 16];
        // Without randomness there would be no TLS either; a clash of ids is then the smaller problem.
        let _ = self.random.fill(&mut id);
        let token = Token {
            i: format!("{:032x}", u128::from_be_bytes(id)),
            v: version.as_str().to_owned(),
            p: principal.to_owned(),
            e: unix_now() + self.settings.load().lifetime.as_secs(),
            c: ClientInfo::read(params.client_info)?,
        };
        let plain = serde_json::to_vec(&token)
            .map_err(|_| Error::InvalidParams { what: "`clientInfo` cannot be kept".into() })?;
        if plain.len() > MAX_PLAIN {
            return Err(Error::InvalidParams { what: "`clientInfo` is too long".into() });
        }
        Ok(self.sealer.load().seal(PURPOSE, &plain))
    }

    /// The session that a token names.
    ///
    /// # Errors
    /// When it is not one of ours, has expired, was ended or belongs to somebody else: all told alike.
    pub(crate) fn find(&self, token: &str, principal: &str) -> Result<Arc<Session>, Error> {
        let plain = self.sealer.load().open(PURPOSE, token).ok_or(Error::SessionUnknown)?;
        let token: Token = serde_json::from_slice(&plain).map_err(|_| Error::SessionUnknown)?;
        let id = u128::from_str_radix(&token.i, 16).map_err(|_| Error::SessionUnknown)?;
        let version = Version::read(&token.v).ok_or(Error::SessionUnknown)?;
        if token.p != principal || token.e <= unix_now() || self.ended.contains_key(&id) {
            return Err(Error::SessionUnknown);
        }
        if let Some(live) = self.live.get(&id) {
            live.touch();
            return Ok(Arc::clone(&live));
        }
        let max = self.settings.load().max;
        if self.live.len() >= max as usize && !self.make_room() {
            return Err(Error::SessionsFull { max });
        }
        let session = Session::new(id, version, token.e, &token.c);
        Ok(Arc::clone(&self.live.entry(id).or_insert_with(|| Arc::new(session))))
    }

    /// Releases what is held for the longest unused of some sessions: its client opens it anew when it comes back.
    fn make_room(&self) -> bool {
        let some = self.live.iter().filter(|session| !session.is_busy()).take(EVICTION_SAMPLE);
        let now = Instant::now();
        let Some(id) = some.max_by_key(|session| session.idle_since(now)).map(|session| session.id) else {
            return false;
        };
        if let Some((_, session)) = self.live.remove(&id) {
            tokio::spawn(crate::gateway::close(session.take_legs(|_| true)));
        }
        true
    }

    /// Ends a session: its id is unknown from now on. Returns what was held for it, to be closed.
    pub(crate) fn end(&self, session: &Session) -> Vec<Arc<Leg>> {
        if self.ended.len() >= MAX_ENDED {
            // Forgetting one revives at most a session whose owner ended it, for its owner.
            let oldest = self.ended.iter().min_by_key(|entry| *entry.value()).map(|entry| *entry.key());
            oldest.map(|id| self.ended.remove(&id));
        }
        self.ended.insert(session.id, session.expires);
        self.live.remove(&session.id);
        session.is_over.store(true, Ordering::SeqCst);
        session.over.notify_waiters();
        session.take_legs(|_| true)
    }

    /// Releases what is held for sessions that were not used for a while or have expired, and for backends that are gone.
    /// Returns it, to be closed.
    pub(crate) fn sweep(&self, now: Instant) -> Vec<Arc<Leg>> {
        let idle = self.settings.load().idle;
        let clock = unix_now();
        self.ended.retain(|_, expires| *expires > clock);
        let mut legs = Vec::new();
        self.live.retain(|_, session| {
            let over = session.expires <= clock || session.idle_since(now) >= idle;
            if over && !session.is_busy() {
                legs.extend(session.take_legs(|_| true));
                return false;
            }
            legs.extend(session.take_retired_legs());
            true
        });
        legs
    }

    /// Everything held, to be closed at the end.
    pub(crate) fn drain(&self) -> Vec<Arc<Leg>> {
        let mut legs = Vec::new();
        self.live.retain(|_, session| {
            legs.extend(session.take_legs(|_| true));
            false
        });
        legs
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What this process holds for one session.
pub(crate) struct Session {
    id: u128,
    pub(crate) version: Version,
    hello: Hello,
    expires: u64,
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
    fn new(id: u128, version: Version, expires: u64, client: &ClientInfo) -> Self {
        let client_info =
            serde_json::to_string(client).unwrap_or_else(|_| "{\"name\":\"\",\"version\":\"\"}".to_owned());
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

    fn touch(&self) {
        let used = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
    }

    fn idle_since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born + Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }

    fn is_busy(&self) -> bool {
        let held = self.held();
        !held.calls.is_empty() || !held.streams.is_empty()
    }

    fn take_legs(&self, which: impl Fn(&Leg) -> bool) -> Vec<Arc<Leg>> {
        let mut held = self.held();
        let uids: Vec<_> = held.legs.iter().filter(|(_, leg)| which(leg)).map(|(uid, _)| *uid).collect();
        uids.into_iter().filter_map(|uid| held.legs.remove(&uid)).collect()
    }

    /// Legs of backends that are gone, except those that a call still runs on.
    fn take_retired_legs(&self) -> Vec<Arc<Leg>> {
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

/// One session's side of one backend: a session with it, opened when first needed.
pub(crate) struct Leg {
    pub(crate) backend: Arc<Backend>,
    hello: Hello,
    opened: ArcSwapOption<Opened>,
    opening: tokio::sync::Mutex<Option<(Instant, Error)>>,
    /// Whether nothing more may be opened.
    closed: AtomicBool,
}

impl Leg {
    fn new(backend: &Arc<Backend>, hello: &Hello) -> Self {
        Self {
            backend: Arc::clone(backend),
            hello: hello.clone(),
            opened: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The backend session, if one is open.
    pub(crate) fn current(&self) -> Option<Arc<Opened>> {
        self.opened.load_full()
    }

    /// The backend session, opened if need be. `lost` is one that the backend has forgotten.
    pub(crate) async fn open(
        self: &Arc<Self>,
        session: &Arc<Session>,
        lost: Option<&Arc<Opened>>,
    ) -> Result<Arc<Opened>, Error> {
        if let Some(opened) = self.usable(lost) {
            return Ok(opened);
        }
        // In a task of its own: a client that leaves now must not leave a session behind that nobody will end.
        let (leg, session, lost) = (Arc::clone(self), Arc::clone(session), lost.cloned());
        let asked = Instant::now();
        let opening = tokio::spawn(async move { leg.open_once(&session, lost.as_ref(), asked).await });
        opening.await.unwrap_or_else(|_| {
            Err(Error::BackendProtocol { backend: self.backend.name().clone(), what: "its handshake failed".into() })
        })
    }

    fn usable(&self, lost: Option<&Arc<Opened>>) -> Option<Arc<Opened>> {
        self.opened.load_full().filter(|opened| lost.is_none_or(|lost| !Arc::ptr_eq(lost, opened)))
    }

    async fn open_once(
        &self,
        session: &Session,
        lost: Option<&Arc<Opened>>,
        asked: Instant,
    ) -> Result<Arc<Opened>, Error> {
        let mut last_failure = self.opening.lock().await;
        if let Some(opened) = self.usable(lost) {
            return Ok(opened);
        }
        // Whoever waited for a try that failed shares its outcome: a slow backend must not be tried once per waiter.
        if let Some((when, error)) = &*last_failure
            && *when > asked
        {
            return Err(error.clone());
        }
        let outcome = self.open_now(session).await;
        if lost.is_some() {
            let metrics = &self.backend.metrics;
            if outcome.is_ok() { &metrics.reopened_ok } else { &metrics.reopened_failed }.inc();
        }
        *last_failure = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        outcome
    }

    async fn open_now(&self, session: &Session) -> Result<Arc<Opened>, Error> {
        let opened = Arc::new(client::open(&self.backend, &self.hello, Judged::Yes).await?);
        if opened.logging
            && let Some(level) = session.level()
        {
            // What the client set before holds for this session too.
            self.set_level(&opened, &level).await;
        }
        if self.opened.swap(Some(Arc::clone(&opened))).is_none() {
            self.backend.metrics.sessions.inc();
        }
        // In this order: whoever closes the leg now either sees the session or is seen here.
        if self.closed.load(Ordering::SeqCst) {
            self.close().await;
            return Err(Error::SessionUnknown);
        }
        Ok(opened)
    }

    /// Passes `logging/setLevel` on. A backend that refuses goes on at its own level.
    pub(crate) async fn set_level(&self, opened: &Opened, level: &str) {
        let params = format!("{{\"level\":{level}}}");
        let ask = client::Ask { id: client::next_id(), method: "logging/setLevel", params: Some(&params), cap: 65_536 };
        if let Err(error) = client::request(&self.backend, opened, ask, Judged::No).await {
            tracing::debug!(backend = %self.backend.name(), %error, "log level not set");
        }
    }

    /// Passes a notification of the client on, if the backend session is open.
    pub(crate) async fn notify(&self, body: bytes::Bytes) {
        if let Some(opened) = self.current() {
            // Notifications are not answered; one that a backend does not take is lost, as it would be directly.
            let _ = client::notify(&self.backend, &opened, body, Judged::No).await;
        }
    }

    /// Whether the backend keeps sessions, as far as is known.
    fn has_session_id(&self) -> bool {
        self.current().is_some_and(|opened| opened.session_id.is_some())
    }

    /// Ends the backend session, and one that is being opened as soon as it is.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(opened) = self.opened.swap(None) {
            self.backend.metrics.sessions.dec();
            client::close(&self.backend, &opened).await;
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if self.opened.load().is_some() {
            self.backend.metrics.sessions.dec();
        }
    }
}

/// A valid `logging/setLevel` level, as JSON (RFC 5424's eight).
pub(crate) fn read_level(params: &Params<'_>) -> Result<String, Error> {
    const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
    match params.level() {
        Some(level) if LEVELS.contains(&&*level) => Ok(jsonrpc::json_string(&level)),
        _ => Err(Error::InvalidParams { what: format!("`level` must be one of {}", LEVELS.join(", ")).into() }),
    }
}
