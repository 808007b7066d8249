//! One pipe: a way to write messages to a backend, and the calls and streams that share what it says.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{OwnedMutexGuard, oneshot, watch};
use toolgate_config::{BackendName, Timeout};

use super::answer::{Listening, Underway};
use super::queue::{Lost, Pieces, queue};
use super::table::{Route, SessionId, Sharing, Table, Trial, changes_sharing};
use super::waiting::Inbox;
use crate::error::Error;
use crate::jsonrpc::{self, Message, Request};

/// How long a client that does not read may hold up the others on its pipe, before it misses what it does not read.
const STALL: Duration = Duration::from_secs(1);

/// How messages are written to a backend.
#[async_trait]
pub(crate) trait Outlet: Send + Sync {
    /// Hands one over, and says how it was taken.
    async fn write(&self, message: Pieces, limit: &Timeout) -> Result<StatusCode, Error>;

    /// Hands one over that may be lost rather than waited for.
    fn write_soon(&self, message: Bytes);
}

/// A pipe.
pub(crate) struct Pipe {
    backend: BackendName,
    outlet: Box<dyn Outlet>,
    table: Mutex<Table>,
    /// Held while what sessions share at the backend changes, until the backend has been told: in the same order.
    changing: Arc<tokio::sync::Mutex<()>>,
    over: watch::Sender<Option<Error>>,
    /// Whether the backend has said anything yet.
    was_heard: AtomicBool,
    /// Messages of the backend that reached nobody.
    dropped: AtomicU64,
}

impl Pipe {
    pub(crate) fn new(backend: &BackendName, sharing: Sharing, outlet: impl Outlet + 'static) -> Arc<Self> {
        Arc::new(Self {
            backend: backend.clone(),
            outlet: Box::new(outlet),
            table: Mutex::new(Table::new(sharing)),
            changing: Arc::default(),
            over: watch::Sender::new(None),
            was_heard: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change is whole, so what a panic left behind is still good.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it: calls under way fail with this error, the first that is given.
    pub(crate) fn end(&self, error: Error) {
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(error);
            is_first
        });
        self.table().close();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// Whether the backend has said anything.
    pub(crate) fn was_heard(&self) -> bool {
        self.was_heard.load(Ordering::Relaxed)
    }

    /// Whether the backend lives and has said nothing yet.
    pub(super) fn is_silent(&self) -> bool {
        !self.was_heard() && !self.is_over()
    }

    /// Completes when it has ended.
    pub(crate) async fn until_over(&self) {
        // The sender lives as long as the pipe.
        let _ = self.over.subscribe().wait_for(Option::is_some).await;
    }

    /// Why it has ended.
    pub(super) fn error(&self) -> Error {
        self.over.borrow().clone().unwrap_or_else(|| self.closed())
    }

    /// What calls are told when a backend leaves.
    pub(crate) fn closed(&self) -> Error {
        Error::BackendClosed { backend: self.backend.clone() }
    }

    /// Takes in what the backend wrote: a message, or a batch of them. Waits where a client is slow, not for long. Whether
    /// that is what it wrote.
    pub(crate) async fn receive(&self, line: Bytes) -> bool {
        self.was_heard.store(true, Ordering::Relaxed);
        if !jsonrpc::is_batch(&line) {
            return self.take(line).await;
        }
        let Ok(messages) = jsonrpc::split_batch(&line) else { return false };
        let mut are_messages = true;
        for message in messages {
            are_messages &= self.take(line.slice_ref(message.as_bytes())).await;
        }
        are_messages
    }

    async fn take(&self, line: Bytes) -> bool {
        let route = self.table().route(&line);
        let is_message = !matches!(route, Route::NoMessage);
        match route {
            Route::Answer(answer, answered) => {
                if answer.send(answered).is_err() {
                    self.note_dropped("answers a client that has left", &line);
                }
            }
            Route::Back(body) => self.outlet.write_soon(body),
            Route::NoMessage => self.note_dropped("is none", &line),
            Route::Nowhere(why) => self.note_dropped(why, &line),
            Route::Streams(streams, message) => {
                for stream in streams {
                    match stream.push_within(STALL, message.clone()).await {
                        Ok(()) => {}
                        Err(Lost::Full) => self.note_dropped("is for a client that does not read", &line),
                        Err(Lost::Gone) => self.note_dropped("is for a client that has left", &line),
                    }
                }
            }
        }
        is_message
    }

    fn note_dropped(&self, why: &str, line: &Bytes) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::debug!(backend = %self.backend, bytes = line.len(), dropped, "a message of the backend {why}");
    }

    /// Notes a request as under way. Returns it as the backend gets it; nothing when the pipe is over.
    pub(super) fn ask(
        self: &Arc<Self>,
        session: &SessionId,
        body: &Bytes,
        request: &Request<'_>,
    ) -> Option<(Underway, Pieces)> {
        let (events, queued) = queue();
        let (answer, answered) = oneshot::channel();
        let (number, message) = self.table().ask(session, body, request, Inbox { events, answer })?;
        Some((Underway::new(self, number, queued, answered), message))
    }

    /// A notification or a response as the backend gets it; nothing when it is none of its business.
    pub(super) fn tell(&self, session: &SessionId, body: &Bytes, message: &Message<'_>) -> Option<Pieces> {
        self.table().tell(session, body, message)
    }

    pub(super) async fn write(&self, message: Pieces, limit: &Timeout) -> Result<StatusCode, Error> {
        self.outlet.write(message, limit).await
    }

    pub(super) fn forget(&self, number: u64) {
        self.table().forget(number);
    }

    /// A call's client has left before the answer.
    pub(super) fn leave(&self, number: u64) {
        let last_words = self.table().leave(number);
        if let Some(body) = last_words {
            self.outlet.write_soon(body);
        }
    }

    /// A stream of what belongs to no call; nothing when the pipe is over.
    pub(super) fn listen(self: &Arc<Self>, session: &SessionId) -> Option<Listening> {
        let (events, queued) = queue();
        let ticket = self.table().listen(session, events)?;
        Some(Listening::new(self, ticket, queued))
    }

    pub(super) fn unlisten(&self, ticket: u64) {
        self.table().unlisten(ticket);
    }

    /// Waits for the turn of a request that changes what sessions share.
    pub(super) async fn turn(&self, request: &Request<'_>) -> Option<OwnedMutexGuard<()>> {
        if !changes_sharing(request) {
            return None;
        }
        Some(Arc::clone(&self.changing).lock_owned().await)
    }

    /// Takes in a request that the backend is not told, because of what its other sessions asked for.
    pub(super) fn absorbs(&self, session: &SessionId, request: &Request<'_>) -> bool {
        self.table().absorbs(session, request)
    }

    pub(super) fn end_session(self: &Arc<Self>, session: &SessionId) {
        self.table().end(session);
        let (pipe, session) = (Arc::clone(self), Arc::clone(session));
        tokio::spawn(async move {
            let _turn = pipe.changing.lock().await;
            let over = pipe.table().give_up(&session);
            over.into_iter().for_each(|body| pipe.outlet.write_soon(body));
        });
    }

    /// Takes in a session of a pipe that is all sessions', by its `initialize`.
    pub(super) fn join(&self, session: &SessionId, initialize: &Request<'_>) {
        self.table().join(session, initialize);
    }

    /// Gives a pipe of the modern era to sessions, if the backend has shown that it is a legacy one.
    pub(super) fn hand_over(&self, to: Sharing) -> Trial {
        self.table().hand_over(to)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.table().is_idle()
    }
}

/// A pipe that is held open: it ends when this is dropped.
pub(crate) struct Held(pub(crate) Arc<Pipe>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end(self.0.closed());
    }
}
