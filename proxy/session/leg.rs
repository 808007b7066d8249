//! One client session's side of one backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Session;
use crate::backend::Backend;
use crate::backend::client::{self, Hello, Judged, Opened};
use crate::error::{Error, MaxBytes};
use crate::jsonrpc;

/// One session's side of one backend: a session with it, opened when first needed.
pub(crate) struct Leg {
    pub(crate) backend: Arc<Backend>,
    hello: Hello,
    opened: ArcSwapOption<Opened>,
    /// Held while a session is opened; how that failed last.
    opening: Arc<tokio::sync::Mutex<Option<(Instant, Error)>>>,
    /// Whether nothing more may be opened.
    closed: AtomicBool,
    /// Whether a task tells the backend the session's level.
    telling: AtomicBool,
    /// How often it was to be told, and how many of these times are over.
    wanted: AtomicU64,
    told: AtomicU64,
    /// Woken when another one is.
    telling_over: Notify,
    /// The session whose own stream is listened to, or that has none.
    heard: tokio::sync::watch::Sender<Option<Arc<Opened>>>,
}

/// How long a call waits for its session's own stream: what a backend asks there before it is listened to is lost.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// How long a call waits for a backend that is being told its session's level.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// The longest answer that is read where a backend is told something.
const MAX_TOLD: MaxBytes = MaxBytes::fixed(64 * 1024);

impl Leg {
    pub(super) fn new(backend: &Arc<Backend>, hello: &Hello) -> Self {
        Self {
            backend: Arc::clone(backend),
            hello: hello.clone(),
            opened: ArcSwapOption::empty(),
            opening: Arc::default(),
            closed: AtomicBool::new(false),
            telling: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            told: AtomicU64::new(0),
            telling_over: Notify::new(),
            heard: tokio::sync::watch::Sender::new(None),
        }
    }

    /// Notes that the backend's own stream is listened to, or that there is none.
    pub(crate) fn hears(&self, opened: &Arc<Opened>) {
        self.heard.send_replace(Some(Arc::clone(opened)));
    }

    /// Whether that is known of this session.
    pub(crate) fn is_heard(&self, opened: &Arc<Opened>) -> bool {
        self.heard.borrow().as_ref().is_some_and(|heard| Arc::ptr_eq(heard, opened))
    }

    /// Waits until the backend's own stream is open.
    pub(crate) async fn heard(&self, opened: &Arc<Opened>) {
        let mut heard = self.heard.subscribe();
        let is_it = |heard: &Option<Arc<Opened>>| heard.as_ref().is_some_and(|heard| Arc::ptr_eq(heard, opened));
        let _ = timeout(HEARD_WITHIN, heard.wait_for(is_it)).await.map(drop);
        // Once is enough: a stream that does not come is not waited for by every call.
        self.hears(opened);
    }

    /// The backend session, if one is open.
    pub(crate) fn current(&self) -> Option<Arc<Opened>> {
        self.opened.load_full()
    }

    /// The backend session, opened if need be, and told the level that the client set before. `lost` is one that the backend
    /// has forgotten.
    pub(crate) async fn open(
        self: &Arc<Self>,
        session: &Arc<Session>,
        lost: Option<&Arc<Opened>>,
    ) -> Result<Arc<Opened>, Error> {
        let opened = self.opened(session, lost).await?;
        let wanted = self.wanted.load(Ordering::SeqCst);
        if self.told.load(Ordering::SeqCst) < wanted {
            self.until_told(wanted).await;
        }
        Ok(opened)
    }

    /// Waits until the backend knows the level. What is sent after `logging/setLevel` was answered must not overtake it.
    async fn until_told(&self, wanted: u64) {
        let told = async {
            loop {
                let over = self.telling_over.notified();
                if self.told.load(Ordering::SeqCst) >= wanted {
                    return;
                }
                over.await;
            }
        };
        if timeout(TOLD_WITHIN, told).await.is_err() {
            // Once is enough: a backend that does not answer is not waited for by every call.
            self.note_told(wanted);
        }
    }

    fn note_told(&self, wanted: u64) {
        self.told.fetch_max(wanted, Ordering::SeqCst);
        self.telling_over.notify_waiters();
    }

    async fn opened(
        self: &Arc<Self>,
        session: &Arc<Session>,
        lost: Option<&Arc<Opened>>,
    ) -> Result<Arc<Opened>, Error> {
        if let Some(opened) = self.usable(lost) {
            return Ok(opened);
        }
        // Whoever waits here does so in its own time: a client that leaves leaves the queue.
        let asked = Instant::now();
        let mut last_failure = Arc::clone(&self.opening).lock_owned().await;
        if let Some(opened) = self.usable(lost) {
            return Ok(opened);
        }
        // Whoever waited for a try that failed shares its outcome: a slow backend must not be tried once per waiter.
        if let Some((when, error)) = &*last_failure
            && *when > asked
        {
            return Err(error.clone());
        }
        // The one try at a time is a task of its own: a client that leaves now must not leave a session behind that nobody
        // will end.
        let (leg, session, is_again) = (Arc::clone(self), Arc::clone(session), lost.is_some());
        let opening = tokio::spawn(async move {
            let outcome = leg.open_now(&session).await;
            if is_again {
                let metrics = &leg.backend.metrics;
                if outcome.is_ok() { &metrics.reopened_ok } else { &metrics.reopened_failed }.inc();
            }
            *last_failure = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
            outcome
        });
        opening.await.unwrap_or_else(|_| {
            Err(Error::BackendProtocol { backend: self.backend.name().clone(), what: "its handshake failed".into() })
        })
    }

    fn usable(&self, lost: Option<&Arc<Opened>>) -> Option<Arc<Opened>> {
        self.opened.load_full().filter(|opened| lost.is_none_or(|lost| !Arc::ptr_eq(lost, opened)))
    }

    async fn open_now(self: &Arc<Self>, session: &Arc<Session>) -> Result<Arc<Opened>, Error> {
        let opened = Arc::new(self.handshake(session).await?);
        self.backend.agreed(opened.version);
        let level = session.level();
        if opened.logging()
            && let Some(level) = &level
        {
            // What the client set before holds for this session too.
            self.set_level(&opened, level).await;
        }
        if opened.session_id.is_some() && !self.backend.offers_in_modern_only("resources/subscribe", &opened) {
            for uri in session.untold(&self.backend) {
                let params = jsonrpc::object([("uri", &*jsonrpc::json_string(&uri))]);
                self.tell(&opened, "resources/subscribe", &params).await;
            }
        }
        if self.opened.swap(Some(Arc::clone(&opened))).is_none() {
            self.backend.metrics.sessions.inc();
        }
        if session.level() != level {
            // Whoever set it meanwhile saw no session to be told.
            self.tell_level(session);
        }
        // In this order: whoever closes the leg now either sees the session or is seen here.
        if self.closed.load(Ordering::SeqCst) {
            self.close().await;
            return Err(Error::SessionUnknown);
        }
        session.changed();
        Ok(opened)
    }

    /// Opens a session with the backend. One that has no room for it may be keeping others that nobody uses: each of these gives
    /// way, the longest unused first.
    async fn handshake(&self, session: &Session) -> Result<Opened, Error> {
        loop {
            match client::open(&self.backend, &self.hello, Judged::Yes).await {
                Err(full @ Error::BackendFull { .. }) => match session.give_up_another(&self.backend) {
                    Some(unused) => unused.close().await,
                    None => return Err(full),
                },
                opened => return opened,
            }
        }
    }

    /// Has the backend told the session's level, if a session with it is open: by one task at a time, which goes on until what
    /// it told is what the client set last.
    pub(crate) fn tell_level(self: &Arc<Self>, session: &Arc<Session>) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        if self.telling.swap(true, Ordering::SeqCst) {
            return;
        }
        let (leg, session) = (Arc::clone(self), Arc::clone(session));
        tokio::spawn(async move {
            let mut done = 0;
            loop {
                let wanted = leg.wanted.load(Ordering::SeqCst);
                if wanted == done {
                    leg.telling.store(false, Ordering::SeqCst);
                    // Whoever set another level just before left it to this task.
                    if leg.wanted.load(Ordering::SeqCst) == done || leg.telling.swap(true, Ordering::SeqCst) {
                        return;
                    }
                    continue;
                }
                if let (Some(level), Some(opened)) = (session.level(), leg.current().filter(|opened| opened.logging()))
                {
                    leg.set_level(&opened, &level).await;
                }
                leg.note_told(wanted);
                done = wanted;
            }
        });
    }

    /// Passes `logging/setLevel` on. A backend that refuses goes on at its own level.
    async fn set_level(&self, opened: &Opened, level: &str) {
        let params = format!("{{\"level\":{level}}}");
        self.tell(opened, "logging/setLevel", &params).await;
    }

    /// Asks the backend for something that it may as well refuse.
    async fn tell(&self, opened: &Opened, method: &'static str, params: &str) {
        let ask = client::Ask { id: client::next_id(), method, params: Some(params), max: MAX_TOLD };
        if let Err(error) = client::request(&self.backend, opened, ask, Judged::No).await {
            tracing::debug!(backend = %self.backend.name(), method, %error, "backend not told");
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
    pub(crate) fn has_session_id(&self) -> bool {
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
