//! A transport made of pipes, each one stream of messages in both directions, that looks like HTTP to the rest.
//!
//! POST of `initialize` opens a pipe and is answered with a session id of our making; POST with that id writes to the pipe
//! and is answered with what belongs to the request, as JSON or as an event stream; GET streams what belongs to none;
//! DELETE ends it; an id whose pipe is gone gets 404. Requests of the modern era, which knows no sessions, share a pipe; one on
//! which a backend showed that it does not speak that era is the next session's.
//!
//! What opens pipes, and reads them, is elsewhere: `stdio`, `legacy_sse`.

mod answer;
pub(crate) mod fuzzing;
mod levels;
mod pipe;
mod queue;
mod rewrite;
mod subscribers;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;
use toolgate_config::{BackendName, Instances, Timeout};

use self::answer::{bare, beginning_with, json};
pub(crate) use self::pipe::{Held, Outlet, Pipe};
pub(crate) use self::queue::{Pieces, Receiver, Sender, queue};
pub(crate) use self::table::Sharing;
use self::table::{Answered, SessionId, Trial};
use super::{Incoming, LastError, Outgoing, Transport};
use crate::error::{Error, Full, METHOD_NOT_FOUND, Phase};
use crate::jsonrpc::{self, ErrorObject, Message, Request};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The first version without sessions. Versions are dates, which sort.
const FIRST_MODERN: &str = "2026-07-28";
/// How long a session may go without its first request after `initialize`: nobody knows its id, or it would have come.
const CONFIRM: Duration = Duration::from_secs(30);
/// How long a pipe that is nobody's own is kept without anybody who needs it.
const IDLE: Duration = Duration::from_secs(300);
/// Sessions that share one pipe.
const MAX_SHARING: u32 = 100_000;

/// Opens pipes.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    /// Starts a process, or connects.
    async fn open(&self, sharing: Sharing, limit: &Timeout) -> Result<Held, Error>;

    /// Whether its pipes can carry the modern era.
    fn carries_modern(&self) -> bool;

    /// How what it starts failed last, if it did.
    fn last_error(&self) -> Option<LastError> {
        None
    }

    /// When the certificate that it was shown last stops being valid.
    fn certificate_not_after(&self) -> Option<SystemTime> {
        None
    }

    /// Completes when nothing is left of the pipes that have ended.
    async fn until_closed(&self);
}

/// The transport.
pub(crate) struct Duplex {
    backend: BackendName,
    opener: Box<dyn Opener>,
    instances: Instances,
    sessions: Mutex<HashMap<SessionId, Session>>,
    shared: tokio::sync::Mutex<Option<Shared>>,
    modern: tokio::sync::Mutex<Option<Modern>>,
    random: SystemRandom,
}

/// A session that was handed out.
struct Session {
    pipe: Arc<Held>,
    born: Instant,
    /// Whether it was ever used.
    confirmed: bool,
}

/// The pipe of all sessions, and what its handshake came to.
struct Shared {
    pipe: Arc<Held>,
    result: Box<str>,
    /// When a session last began or ended.
    used: Instant,
}

/// The pipe of the modern era.
struct Modern {
    pipe: Arc<Held>,
    used: Instant,
}

impl Duplex {
    pub(crate) fn new(backend: &BackendName, instances: Instances, opener: impl Opener + 'static) -> Self {
        Self {
            backend: backend.clone(),
            opener: Box::new(opener),
            instances,
            sessions: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            modern: tokio::sync::Mutex::default(),
            random: SystemRandom::new(),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // Each change is whole, so what a panic left behind is still good.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(&self, request: &Outgoing) -> Result<Incoming, Error> {
        let Ok(message) = jsonrpc::parse(&request.body) else { return Ok(bare(StatusCode::BAD_REQUEST)) };
        if let Some(id) = header(request, &SESSION_ID) {
            return match self.find(id) {
                Some((session, pipe)) => self.exchange(&pipe.0, &session, request, &message).await,
                None => Ok(bare(StatusCode::NOT_FOUND)),
            };
        }
        if header(request, &PROTOCOL_VERSION).is_some_and(|version| version >= FIRST_MODERN) {
            return self.modern(request, &message).await;
        }
        match &message {
            Message::Request(r) if r.method == "initialize" => self.initialize(request, r).await,
            Message::Notification(_) | Message::Request(_) | Message::Response(_) => Ok(bare(StatusCode::BAD_REQUEST)),
        }
    }

    /// The pipe of a session, if there still is one.
    fn find(&self, id: &str) -> Option<(SessionId, Arc<Held>)> {
        let mut sessions = self.sessions();
        let (id, session) =
            sessions.get_key_value(id).map(|(id, session)| (Arc::clone(id), Arc::clone(&session.pipe)))?;
        if session.0.is_over() {
            sessions.remove(&id);
            return None;
        }
        if let Some(entry) = sessions.get_mut(&id) {
            entry.confirmed = true;
        }
        Some((id, session))
    }

    /// A request, a notification or a response on a pipe.
    async fn exchange(
        &self,
        pipe: &Arc<Pipe>,
        session: &SessionId,
        request: &Outgoing,
        message: &Message<'_>,
    ) -> Result<Incoming, Error> {
        if let Message::Request(asked) = message {
            return self.ask(pipe, session, request, asked).await;
        }
        let Some(told) = pipe.tell(session, &request.body, message) else { return Ok(bare(StatusCode::ACCEPTED)) };
        let status = self.in_time(request, pipe.write(told, &request.timeout)).await?;
        if status.is_success() { Ok(bare(StatusCode::ACCEPTED)) } else { Ok(refused(pipe, status)) }
    }

    async fn ask(
        &self,
        pipe: &Arc<Pipe>,
        session: &SessionId,
        request: &Outgoing,
        asked: &Request<'_>,
    ) -> Result<Incoming, Error> {
        let turn = self.in_time(request, async { Ok(pipe.turn(asked).await) }).await?;
        // What a session asks for that was ended meanwhile, nobody would give up.
        if turn.is_some() && !session.is_empty() && !self.sessions().contains_key(session) {
            return Ok(bare(StatusCode::NOT_FOUND));
        }
        if pipe.absorbs(session, asked) {
            return Ok(json(StatusCode::OK, jsonrpc::result_body(asked.id.raw(), "{}").into()));
        }
        let Some((mut underway, message)) = pipe.ask(session, &request.body, asked) else {
            return Ok(bare(StatusCode::NOT_FOUND));
        };
        let (writer, limit) = (Arc::clone(pipe), request.timeout);
        // In a task of its own: what the server says first must not cut the request short.
        let mut writing = tokio::spawn(async move {
            let _turn = turn;
            timeout(limit.first_byte, writer.write(message, &limit)).await.unwrap_or_else(|_| Err(writer.error()))
        });
        let begun = self.in_time(request, async {
            let written = tokio::select! {
                biased;
                // It may answer before it is known to have taken the request.
                said = underway.next() => return Ok(Ok(said?)),
                written = &mut writing => written.unwrap_or_else(|_| Err(pipe.error())),
            };
            match written {
                Ok(status) if status.is_success() => Ok(Ok(underway.next().await?)),
                refused => Ok(Err(refused)),
            }
        });
        match begun.await? {
            Ok(said) => Ok(beginning_with(said, underway, &self.backend, request.timeout.idle)),
            Err(refusal) => {
                underway.forget();
                refusal.map(|status| refused(pipe, status))
            }
        }
    }

    async fn in_time<T>(&self, request: &Outgoing, what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let after = request.timeout.first_byte;
        timeout(after, what).await.unwrap_or_else(|_| {
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::FirstByte, after })
        })
    }

    // === sessions ===

    async fn initialize(&self, request: &Outgoing, asked: &Request<'_>) -> Result<Incoming, Error> {
        self.sweep();
        let id = self.new_id();
        let (pipe, message) = match self.instances {
            Instances::Session => {
                let pipe = self.open(Sharing::Session, request).await?;
                match self.handshake(&pipe.0, &id, request, asked).await? {
                    Ok(Answered { message, result: Some(_) }) => (pipe, message),
                    // Nobody gets a session out of an error, so nobody will end it.
                    Ok(Answered { message, result: None }) => return Ok(json(StatusCode::OK, message)),
                    Err(status) => return Ok(bare(status)),
                }
            }
            Instances::Shared => match self.join(&id, request, asked).await? {
                Ok((pipe, result)) => {
                    pipe.0.join(&id, asked);
                    (pipe, jsonrpc::result_body(asked.id.raw(), &result).into())
                }
                Err(incoming) => return Ok(incoming),
            },
        };
        let mut incoming = json(StatusCode::OK, message);
        if let Ok(value) = HeaderValue::from_str(&id) {
            incoming.headers.push(SESSION_ID, value);
        }
        self.sessions().insert(id, Session { pipe, born: Instant::now(), confirmed: false });
        Ok(incoming)
    }

    /// The pipe of all sessions and the result of its handshake, which is done with whoever comes first.
    async fn join(
        &self,
        id: &SessionId,
        request: &Outgoing,
        asked: &Request<'_>,
    ) -> Result<Result<(Arc<Held>, Box<str>), Incoming>, Error> {
        let mut shared = self.shared.lock().await;
        if self.sessions().len() >= MAX_SHARING as usize {
            return Err(Error::BackendFull { backend: self.backend.clone(), of: Full::Sessions, max: MAX_SHARING });
        }
        if let Some(shared) = shared.as_mut().filter(|shared| !shared.pipe.0.is_over()) {
            shared.used = Instant::now();
            // Whoever comes from asking what the backend speaks leaves nothing behind.
            self.left_over(Sharing::Shared).await;
            return Ok(Ok((Arc::clone(&shared.pipe), shared.result.clone())));
        }
        let pipe = self.open(Sharing::Shared, request).await?;
        match self.handshake(&pipe.0, id, request, asked).await? {
            Ok(Answered { result: Some(result), .. }) => {
                let result: Box<str> = result.get().into();
                *shared = Some(Shared { pipe: Arc::clone(&pipe), result: result.clone(), used: Instant::now() });
                Ok(Ok((pipe, result)))
            }
            Ok(Answered { message, result: None }) => Ok(Err(json(StatusCode::OK, message))),
            Err(status) => Ok(Err(bare(status))),
        }
    }

    /// A pipe for a handshake: the one on which the backend showed that it needs one, or a new one.
    async fn open(&self, sharing: Sharing, request: &Outgoing) -> Result<Arc<Held>, Error> {
        match self.left_over(sharing).await {
            Some(pipe) => Ok(pipe),
            None => self.opener.open(sharing, &request.timeout).await.map(Arc::new),
        }
    }

    /// The pipe of the modern era, where that is of no use for it. One that cannot be used otherwise either is ended.
    async fn left_over(&self, sharing: Sharing) -> Option<Arc<Held>> {
        let mut modern = self.modern.lock().await;
        let trial = modern.as_ref().filter(|modern| !modern.pipe.0.is_over())?.pipe.0.hand_over(sharing);
        match trial {
            Trial::Modern => None,
            Trial::Refused => modern.take().map(|modern| modern.pipe),
            Trial::Silent => {
                *modern = None;
                None
            }
        }
    }

    async fn handshake(
        &self,
        pipe: &Arc<Pipe>,
        id: &SessionId,
        request: &Outgoing,
        asked: &Request<'_>,
    ) -> Result<Result<Answered, StatusCode>, Error> {
        let Some((mut underway, message)) = pipe.ask(id, &request.body, asked) else { return Err(pipe.error()) };
        let writing = pipe.write(message, &request.timeout);
        let shaken = self.in_time(request, async {
            tokio::pin!(writing);
            tokio::select! {
                biased;
                answered = underway.answer() => return answered.map(Ok),
                written = &mut writing => match written? {
                    status if !status.is_success() => return Ok(Err(status)),
                    _ => {}
                },
            }
            underway.answer().await.map(Ok)
        });
        shaken.await
    }

    /// 128 random bits, in hex.
    fn new_id(&self) -> SessionId {
        let mut bits = [0; 16];
        // Without randomness there would be no TLS either; a clash of ids is then the smaller problem.
        let _ = self.random.fill(&mut bits);
        format!("{:032x}", u128::from_be_bytes(bits)).into()
    }

    /// Drops sessions that have died, and those that nobody ever used.
    fn sweep(&self) {
        let is_good =
            |session: &Session| !session.pipe.0.is_over() && (session.confirmed || session.born.elapsed() < CONFIRM);
        self.sessions().retain(|_, session| is_good(session));
    }

    fn listen(&self, request: &Outgoing) -> Incoming {
        let Some(id) = header(request, &SESSION_ID) else { return bare(StatusCode::METHOD_NOT_ALLOWED) };
        let listening = self.find(id).and_then(|(session, pipe)| pipe.0.listen(&session));
        listening.map_or_else(|| bare(StatusCode::NOT_FOUND), |listening| listening.incoming())
    }

    fn delete(&self, request: &Outgoing) -> Incoming {
        let Some(id) = header(request, &SESSION_ID) else { return bare(StatusCode::METHOD_NOT_ALLOWED) };
        let ended = self.sessions().remove_entry(id);
        match ended {
            Some((id, session)) => {
                match self.instances {
                    Instances::Session => session.pipe.0.end(session.pipe.0.closed()),
                    Instances::Shared => {
                        session.pipe.0.end_session(&id);
                        // Where somebody holds it, a session begins.
                        if let Some(shared) = self.shared.try_lock().ok().as_mut().and_then(|shared| shared.as_mut()) {
                            shared.used = Instant::now();
                        }
                    }
                }
                bare(StatusCode::NO_CONTENT)
            }
            None => bare(StatusCode::NOT_FOUND),
        }
    }

    // === the modern era ===

    async fn modern(&self, request: &Outgoing, message: &Message<'_>) -> Result<Incoming, Error> {
        if !self.opener.carries_modern() {
            let error = ErrorObject { code: METHOD_NOT_FOUND, message: "Method not found".into(), data: None };
            let Message::Request(asked) = message else { return Ok(bare(StatusCode::NOT_FOUND)) };
            let body = jsonrpc::error_body(Some(asked.id.raw()), &error);
            return Ok(json(StatusCode::NOT_FOUND, body.into()));
        }
        let pipe = {
            let mut modern = self.modern.lock().await;
            let now = Instant::now();
            match modern.as_mut().filter(|modern| !modern.pipe.0.is_over()) {
                Some(modern) => {
                    modern.used = now;
                    Arc::clone(&modern.pipe)
                }
                None => {
                    let pipe = Arc::new(self.opener.open(Sharing::Modern, &request.timeout).await?);
                    *modern = Some(Modern { pipe: Arc::clone(&pipe), used: now });
                    pipe
                }
            }
        };
        self.exchange(&pipe.0, &SessionId::from(""), request, message).await
    }

    /// Drops the pipe of either era once nobody needs it: a backend may speak both, and its clients one.
    fn drop_idle(&self, now: Instant) {
        let is_old = |used: Instant| now.saturating_duration_since(used) >= IDLE;
        if let Ok(mut modern) = self.modern.try_lock() {
            modern.take_if(|modern| is_old(modern.used) && modern.pipe.0.is_idle());
        }
        if let Ok(mut shared) = self.shared.try_lock() {
            shared.take_if(|shared| is_old(shared.used) && self.sessions().is_empty());
        }
    }
}

#[async_trait]
impl Transport for Duplex {
    async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
        self.drop_idle(Instant::now());
        match request.verb {
            Method::GET => Ok(self.listen(&request)),
            Method::DELETE => Ok(self.delete(&request)),
            _ => self.post(&request).await,
        }
    }

    fn is_starting(&self) -> bool {
        self.modern.try_lock().is_ok_and(|modern| modern.as_ref().is_some_and(|modern| modern.pipe.0.is_silent()))
    }

    fn last_error(&self) -> Option<LastError> {
        self.opener.last_error()
    }

    fn certificate_not_after(&self) -> Option<SystemTime> {
        self.opener.certificate_not_after()
    }

    async fn close(&self) {
        let sessions = std::mem::take(&mut *self.sessions());
        let shared = self.shared.lock().await.take().map(|shared| shared.pipe);
        let modern = self.modern.lock().await.take().map(|modern| modern.pipe);
        // Requests under way hold pipes too, so it is not enough to drop them.
        let pipes = sessions.into_values().map(|session| session.pipe).chain(shared).chain(modern);
        pipes.for_each(|pipe| pipe.0.end(pipe.0.closed()));
        self.opener.until_closed().await;
    }
}

/// What a message that was not taken comes to. One that belongs to a session that is gone ends the pipe.
fn refused(pipe: &Pipe, status: StatusCode) -> Incoming {
    if status == StatusCode::NOT_FOUND {
        pipe.end(pipe.closed());
    }
    bare(status)
}

fn header<'a>(request: &'a Outgoing, name: &HeaderName) -> Option<&'a str> {
    request.headers.iter().find(|(given, _)| given == name).and_then(|(_, value)| value.to_str().ok())
}
