//! A backend over HTTP/1.1: its connections, and the rule when to send twice.
//!
//! A request is sent again, on a new connection, only when a kept-alive connection failed before the request was
//! complete on it (so it never ran), or when the caller says that running twice is harmless.
//!
//! A request is one write, a stream that waits holds no buffer, and a connection that waits has no task of its own.

mod connection;
mod dial;
mod pool;

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};
use toolgate_config::{BackendName, Header, Remote, Url};

use self::connection::{Connection, Head, Unread};
use self::dial::{Dial, Tls};
use self::pool::{Pool, Shared};
use super::{Body, BuildError, Incoming, LastError, Outgoing, Transport};
use crate::deadline::at_once;
use crate::error::{Error, Phase};
use crate::framing::Framing;
use crate::tls;

/// How long the answer of a backend is waited for that has stopped reading the request.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What the HTTP backends of a process have in common.
#[derive(Clone, Default)]
pub(crate) struct Connector(Arc<Shared>);

impl Connector {
    /// An empty pool.
    pub(crate) fn new() -> Self {
        Self::default()
    }
}

/// One URL of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) backend: &'a BackendName,
    pub(crate) remote: &'a Remote,
    pub(crate) url: &'a Url,
}

/// One HTTP backend, or one replica of it.
pub(crate) struct Http {
    backend: BackendName,
    dial: Dial,
    pool: Arc<Pool>,
    post: Arc<[u8]>,
    get: Arc<[u8]>,
    delete: Arc<[u8]>,
    /// Why there was no connection, until there is one.
    unreachable: Arc<Mutex<Option<LastError>>>,
}

impl Http {
    /// Prepares everything that does not depend on the request.
    ///
    /// # Errors
    /// When the TLS files do not fit together.
    pub(crate) fn new(target: Target<'_>, connector: &Connector) -> Result<Self, BuildError> {
        let Target { backend, url, .. } = target;
        Ok(Self {
            backend: backend.clone(),
            dial: Dial {
                host: url.host.as_str().into(),
                port: url.port,
                tls: url.https.then(|| tls_of(target)).transpose()?,
                not_after: Arc::default(),
            },
            pool: Pool::new(&connector.0),
            post: template(&Method::POST, &url.path, target)?,
            get: template(&Method::GET, &url.path, target)?,
            delete: template(&Method::DELETE, &url.path, target)?,
            unreachable: Arc::default(),
        })
    }

    /// The same server at another path, which it gave itself.
    pub(crate) fn posting_to(&self, path: &str) -> Result<Self, Error> {
        let rest = self.post.iter().position(|byte| *byte == b'\n').and_then(|end| self.post.get(end + 1..));
        let line = request_line(&Method::POST, path);
        let (Some(rest), Some(line)) = (rest, line) else {
            return Err(self.broken("it gave a path that cannot be sent"));
        };
        Ok(Self {
            backend: self.backend.clone(),
            dial: self.dial.clone(),
            pool: Arc::clone(&self.pool),
            post: [line.as_bytes(), rest].concat().into(),
            get: Arc::clone(&self.get),
            delete: Arc::clone(&self.delete),
            unreachable: Arc::clone(&self.unreachable),
        })
    }

    /// A new connection to the first address that takes one.
    async fn connect(&self, limit: Duration) -> Result<Connection, Error> {
        let connecting = async {
            let (host, mut why) = (&self.dial.host, String::new());
            match self.dial.addresses().await {
                Ok(addresses) => {
                    for address in addresses {
                        match self.dial.connect(address).await {
                            Ok(stream) => {
                                *self.unreachable() = None;
                                return Ok(Connection::new(stream));
                            }
                            Err(cause) => why = format!("cannot be reached at {address}: {cause}"),
                        }
                        tracing::debug!(backend = %self.backend, why, "not connected");
                    }
                }
                Err(cause) => why = format!("cannot be reached: the name `{host}` is not resolved: {cause}"),
            }
            *self.unreachable() = Some(LastError { what: why, when: std::time::Instant::now() });
            Err(Error::BackendConnect { backend: self.backend.clone() })
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| {
            // What was wrong before is not what is wrong now, which the error tells by itself.
            *self.unreachable() = None;
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::Connect, after: limit })
        })
    }

    fn unreachable(&self) -> MutexGuard<'_, Option<LastError>> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn head(&self, request: &Outgoing) -> Vec<u8> {
        let template = match request.verb {
            Method::GET => &self.get,
            Method::DELETE => &self.delete,
            _ => &self.post,
        };
        let mut head = Vec::with_capacity(template.len() + 512 + request.body.len().min(connection::COPIED));
        head.extend_from_slice(template);
        for (name, value) in &request.headers {
            push_header(&mut head, name, value.as_bytes());
        }
        if request.verb == Method::POST {
            push_header(&mut head, &CONTENT_LENGTH, request.body.len().to_string().as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::BackendProtocol { backend: self.backend.clone(), what: what.into() }
    }

    /// Reads the final response head, past informational ones.
    async fn read_head(&self, connection: &mut Connection) -> Result<Head, Error> {
        loop {
            let head = connection.head().await.map_err(|cause| {
                tracing::debug!(backend = %self.backend, %cause, "no response");
                if matches!(cause, Unread::Malformed) {
                    return self.broken("its response is not HTTP");
                }
                Error::BackendClosed { backend: self.backend.clone() }
            })?;
            match head.status {
                StatusCode::SWITCHING_PROTOCOLS => return Err(self.broken("it switched protocols")),
                status if status.is_informational() => {}
                _ => return Ok(head),
            }
        }
    }

    /// Writes a request and reads the head of its answer; `sent` tells whether the request was complete.
    async fn answered(&self, connection: &mut Connection, request: &Outgoing, sent: &mut bool) -> Result<Head, Error> {
        if let Err(cause) = connection.write(self.head(request), &request.body).await {
            tracing::debug!(backend = %self.backend, %cause, "request not written");
            // A backend may answer before it has read everything, and close: what it said counts then.
            let answered = timeout(LAST_WORDS, Box::pin(self.read_head(connection))).await;
            let unread = || Error::BackendUnread { backend: self.backend.clone() };
            return answered.ok().and_then(Result::ok).ok_or_else(unread);
        }
        *sent = true;
        self.read_head(connection).await
    }

    /// One try on one connection. The flag tells whether the request was complete on it.
    async fn exchange(&self, mut connection: Connection, request: &Outgoing) -> Result<Incoming, (Error, bool)> {
        let limit = request.timeout.first_byte;
        let mut sent = false;
        let outcome = {
            let mut alarm = std::mem::take(&mut connection.alarm);
            let answered = self.answered(&mut connection, request, &mut sent);
            let outcome = alarm.within(limit, answered).await.unwrap_or_else(|_| {
                Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::FirstByte, after: limit })
            });
            connection.alarm = alarm;
            outcome
        };
        let head = outcome.map_err(|error| (error, sent))?;
        let (framing, is_reusable) = Framing::of_response(head.version, head.status, &head.headers)
            .map_err(|_| (self.broken("its response is not HTTP"), true))?;
        let body = HttpBody {
            backend: self.backend.clone(),
            pool: Arc::clone(&self.pool),
            connection: Some(connection),
            framing,
            is_reusable: is_reusable && sent,
            idle: request.timeout.idle,
            waiting: None,
        };
        Ok(Incoming { status: head.status, headers: head.headers, body: Box::new(body) })
    }
}

#[async_trait]
impl Transport for Http {
    async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
        let mut first_failure = None;
        if let Some(connection) = self.pool.take() {
            match self.exchange(connection, &request).await {
                Ok(incoming) => return Ok(incoming),
                Err((error @ Error::BackendTimeout { .. }, _)) => return Err(error),
                Err((error, sent)) if sent && !request.repeatable => return Err(error),
                Err((error, _)) => first_failure = Some(error),
            }
        }
        // Boxed, as it is rarely needed: what is larger than the rest makes all of it that large.
        let connection = Box::pin(self.connect(request.timeout.connect)).await?;
        if let Some(error) = first_failure {
            tracing::debug!(backend = %self.backend, %error, "a kept-alive connection was closed; trying a new one");
        }
        self.exchange(connection, &request).await.map_err(|(error, _)| error)
    }

    fn last_error(&self) -> Option<LastError> {
        self.unreachable().clone()
    }

    fn certificate_not_after(&self) -> Option<SystemTime> {
        let seconds = self.dial.not_after.load(Ordering::Relaxed);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| seconds > 0)
    }
}

fn tls_of(target: Target<'_>) -> Result<Tls, BuildError> {
    let Target { backend, remote, url } = target;
    let in_tls = |problem| BuildError::Tls { backend: backend.clone(), problem };
    let ca = remote.tls.ca.as_ref().map(tls::ca_certificates).transpose().map_err(in_tls)?;
    let identity = match (&remote.tls.cert, &remote.tls.key) {
        (Some(cert), Some(key)) => Some(tls::client_identity(cert, key).map_err(in_tls)?),
        _ => None,
    };
    Tls::new(ca, identity, remote.server_name(url))
        .map_err(|problem| BuildError::Connect { backend: backend.clone(), problem: problem.to_string() })
}

/// The first line of a request, where the path can be sent.
fn request_line(verb: &Method, path: &str) -> Option<String> {
    let is_sent = path.starts_with('/') && path.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    is_sent.then(|| format!("{verb} {path} HTTP/1.1\r\n"))
}

/// What every request to a backend begins with. `Host` is the backend's own: servers on loopback refuse any other.
fn template(verb: &Method, path: &str, target: Target<'_>) -> Result<Arc<[u8]>, BuildError> {
    let bad = || BuildError::Head { backend: target.backend.clone() };
    let mut head = request_line(verb, path).ok_or_else(bad)?.into_bytes();
    let mut push = |name: &HeaderName, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|_| bad())?;
        push_header(&mut head, name, value.as_bytes());
        Ok(())
    };
    let own = &target.remote.headers;
    let is_own = |name: &HeaderName| own.iter().any(|header| header.name == *name);
    let (user_agent, both) = (concat!("toolgate/", env!("CARGO_PKG_VERSION")), "application/json, text/event-stream");
    let mut common = vec![(HOST, &*target.url.authority), (ACCEPT_ENCODING, "identity"), (USER_AGENT, user_agent)];
    match *verb {
        Method::POST => common.extend([(CONTENT_TYPE, "application/json"), (ACCEPT, both)]),
        Method::GET => common.push((ACCEPT, "text/event-stream")),
        _ => {}
    }
    for (name, value) in common.iter().filter(|(name, _)| !is_own(name)) {
        push(name, value)?;
    }
    for Header { name, value, .. } in own {
        push(name, value.expose())?;
    }
    Ok(head.into())
}

/// Names are written as people write them: there are servers that know no other spelling.
fn push_header(head: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    match name.as_str() {
        // Those of every call.
        "content-length" => head.extend_from_slice(b"Content-Length"),
        "mcp-protocol-version" => head.extend_from_slice(b"Mcp-Protocol-Version"),
        "mcp-session-id" => head.extend_from_slice(b"Mcp-Session-Id"),
        "x-request-id" => head.extend_from_slice(b"X-Request-Id"),
        other => {
            let mut begins = true;
            for byte in other.bytes() {
                head.push(if begins { byte.to_ascii_uppercase() } else { byte });
                begins = byte == b'-';
            }
        }
    }
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// A response body. Read to its end, its connection goes back to the pool; dropped before, it is closed, which is how a
/// backend learns that its client left.
struct HttpBody {
    backend: BackendName,
    pool: Arc<Pool>,
    connection: Option<Connection>,
    framing: Framing,
    is_reusable: bool,
    idle: Duration,
    /// Since when the backend is waited for. Kept apart from the future that waits, which may be dropped and made anew.
    waiting: Option<Instant>,
}

#[async_trait]
impl Body for HttpBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let read = {
            let mut body = pin!(connection.body(&mut self.framing));
            // What is there already is not waited for, nor timed.
            match at_once(body.as_mut()).await {
                Some(read) => Ok(read),
                None => timeout_at(*self.waiting.get_or_insert_with(Instant::now) + self.idle, body).await,
            }
        };
        let failed = match read {
            Ok(Ok(Some(bytes))) => {
                self.waiting = None;
                return Ok(Some(bytes));
            }
            Ok(Ok(None)) => None,
            Ok(Err(cause)) => {
                tracing::debug!(backend = %self.backend, %cause, "response cut short");
                Some(Error::BackendClosed { backend: self.backend.clone() })
            }
            Err(_) => {
                Some(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::Idle, after: self.idle })
            }
        };
        let Some(connection) = self.connection.take() else { return Ok(None) };
        if let Some(error) = failed {
            return Err(error);
        }
        if self.is_reusable {
            self.pool.give_back(connection);
        }
        Ok(None)
    }
}
