//! One client session's side of one backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;

use super::Session;
use crate::backend::Backend;
use crate::backend::client::{self, Hello, Judged, Opened};
use crate::error::Error;

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
    pub(super) fn new(backend: &Arc<Backend>, hello: &Hello) -> Self {
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
    pub(super) fn has_session_id(&self) -> bool {
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
