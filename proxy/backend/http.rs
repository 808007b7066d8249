//! A backend over HTTP/1.1: pingora's connector, connection pool and client session, and the rule when to send twice.
//!
//! A request is sent again, on a new connection, only when a kept-alive connection failed before the request was
//! complete on it (so it never ran), or when the caller says that running twice is harmless.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, StatusCode};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora_http::RequestHeader;
use tokio::time::{Instant, timeout, timeout_at};
use toolgate_config::{BackendName, Header, Remote, Url};

use super::{Body, BuildError, Incoming, Outgoing, Transport};
use crate::error::{Error, Phase};
use crate::tls;

/// How long an unused connection is kept. Below the 5 s after which common MCP servers (Node, uvicorn) close theirs, so
/// that a request rarely meets a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// How long the answer of a backend is waited for that has stopped reading the request.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Unused connections kept, over all backends.
pub(crate) const POOL_SIZE: usize = 1024;

/// Connects and pools, for every HTTP backend of a process.
#[derive(Clone)]
pub(crate) struct Connector(Arc<TransportConnector>);

impl Connector {
    /// An empty pool. Reads the system's trusted certificates.
    pub(crate) fn new() -> Self {
        Self(Arc::new(TransportConnector::new(Some(pingora_core::connectors::ConnectorOptions::new(POOL_SIZE)))))
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
    connector: Connector,
    host: String,
    port: u16,
    https: bool,
    server_name: String,
    ca: Option<Arc<[WrappedX509]>>,
    identity: Option<Arc<CertKey>>,
    /// Keeps this backend's connections apart from another's at the same address: their TLS may differ.
    group: u64,
    post: RequestHeader,
    get: RequestHeader,
    delete: RequestHeader,
    last_peer: ArcSwapOption<HttpPeer>,
}

impl Http {
    /// Prepares everything that does not depend on the request.
    ///
    /// # Errors
    /// When the TLS files do not fit together.
    pub(crate) fn new(target: Target<'_>, connector: Connector, group: u64) -> Result<Self, BuildError> {
        let Target { backend, remote, url } = target;
        let in_tls = |problem| BuildError::Tls { backend: backend.clone(), problem };
        let ca = remote.tls.ca.as_ref().map(tls::ca_certificates).transpose().map_err(in_tls)?;
        let identity = match (&remote.tls.cert, &remote.tls.key) {
            (Some(cert), Some(key)) => Some(tls::client_identity(cert, key).map_err(in_tls)?),
            _ => None,
        };
        let unreadable = |()| BuildError::Unreadable { backend: backend.clone() };
        Ok(Self {
            backend: backend.clone(),
            connector,
            host: url.host.clone(),
            port: url.port,
            https: url.https,
            server_name: remote.server_name(url).to_owned(),
            ca: ca
                .map(|list| parsed(|| list.iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect()))
                .transpose()
                .map_err(unreadable)?,
            identity: identity
                .map(|(chain, key)| {
                    let chain: Vec<_> = chain.iter().map(|der| der.to_vec()).collect();
                    parsed(|| Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
                })
                .transpose()
                .map_err(unreadable)?,
            group,
            post: template(&Method::POST, target)?,
            get: template(&Method::GET, target)?,
            delete: template(&Method::DELETE, target)?,
            last_peer: ArcSwapOption::empty(),
        })
    }

    /// The same server at another path, which it gave itself.
    pub(crate) fn posting_to(&self, path: &str) -> Result<Self, Error> {
        let broken = |_| self.broken("it gave a path that cannot be sent");
        let mut post = self.post.clone();
        post.set_raw_path(path.as_bytes()).map_err(broken)?;
        Ok(Self {
            backend: self.backend.clone(),
            connector: self.connector.clone(),
            host: self.host.clone(),
            server_name: self.server_name.clone(),
            ca: self.ca.clone(),
            identity: self.identity.clone(),
            post,
            get: self.get.clone(),
            delete: self.delete.clone(),
            last_peer: ArcSwapOption::new(self.last_peer.load_full()),
            ..*self
        })
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, self.https, self.server_name.clone());
        peer.group_key = self.group;
        peer.client_cert_key.clone_from(&self.identity);
        peer.options.ca.clone_from(&self.ca);
        peer
    }

    /// A connection that is kept alive, if there is one.
    async fn reuse(&self) -> Option<(Stream, Arc<HttpPeer>)> {
        let peer = self.last_peer.load_full()?;
        Some((self.connector.0.reused_stream(&*peer).await?, peer))
    }

    /// A new connection to the first address that takes one.
    async fn connect(&self, limit: Duration) -> Result<(Stream, Arc<HttpPeer>), Error> {
        let unreachable = || Error::BackendConnect { backend: self.backend.clone() };
        let connecting = async {
            let addresses = tokio::net::lookup_host((&*self.host, self.port)).await.map_err(|cause| {
                tracing::debug!(backend = %self.backend, %cause, "name not resolved");
                unreachable()
            })?;
            for address in addresses {
                let peer = Arc::new(self.peer(address));
                match self.connector.0.new_stream(&*peer).await {
                    Ok(stream) => {
                        self.last_peer.store(Some(Arc::clone(&peer)));
                        return Ok((stream, peer));
                    }
                    Err(cause) => tracing::debug!(backend = %self.backend, %address, %cause, "not connected"),
                }
            }
            Err(unreachable())
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| {
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::Connect, after: limit })
        })
    }

    fn head(&self, request: &Outgoing) -> Result<Box<RequestHeader>, Error> {
        let template = match request.verb {
            Method::GET => &self.get,
            Method::DELETE => &self.delete,
            _ => &self.post,
        };
        let mut head = Box::new(template.clone());
        let mut insert = |name: http::HeaderName, value: HeaderValue| {
            head.insert_header(name, value).map_err(|_| self.broken("a header could not be set"))
        };
        for (name, value) in &request.headers {
            insert(name.clone(), value.clone())?;
        }
        if request.verb == Method::POST {
            insert(CONTENT_LENGTH, HeaderValue::from(request.body.len()))?;
        }
        Ok(head)
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::BackendProtocol { backend: self.backend.clone(), what: what.into() }
    }

    /// Writes the request whole. An error means that the backend cannot have seen all of it.
    async fn write(&self, session: &mut HttpSession, request: &Outgoing) -> Result<(), Error> {
        let closed = |cause: Box<pingora_core::Error>| {
            tracing::debug!(backend = %self.backend, %cause, "request not written");
            Error::BackendUnread { backend: self.backend.clone() }
        };
        session.write_request_header(self.head(request)?).await.map_err(closed)?;
        if !request.body.is_empty() {
            session.write_body(&request.body).await.map_err(closed)?;
        }
        session.finish_body().await.map_err(closed)?;
        Ok(())
    }

    /// Reads the final response head, past informational ones.
    async fn read_head(&self, session: &mut HttpSession) -> Result<(), Error> {
        loop {
            session.read_response().await.map_err(|cause| {
                tracing::debug!(backend = %self.backend, %cause, "no response");
                if *cause.etype() == pingora_core::ErrorType::InvalidHTTPHeader {
                    return self.broken("its response is not HTTP");
                }
                Error::BackendClosed { backend: self.backend.clone() }
            })?;
            match session.get_status() {
                Some(StatusCode::SWITCHING_PROTOCOLS) => return Err(self.broken("it switched protocols")),
                Some(status) if status.is_informational() => {}
                _ => return Ok(()),
            }
        }
    }

    /// One try on one connection. The flag tells whether the request was complete on it.
    async fn exchange(&self, stream: Stream, request: &Outgoing) -> Result<HttpSession, (Error, bool)> {
        let mut session = HttpSession::new(stream);
        let limit = request.timeout.first_byte;
        let mut sent = false;
        let exchanging = async {
            if let Err(error) = self.write(&mut session, request).await {
                // A backend may answer before it has read everything, and close: what it said counts then.
                let answered = timeout(LAST_WORDS, self.read_head(&mut session)).await;
                return if matches!(answered, Ok(Ok(()))) { Ok(()) } else { Err(error) };
            }
            sent = true;
            self.read_head(&mut session).await
        };
        let outcome = timeout(limit, exchanging).await.unwrap_or_else(|_| {
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::FirstByte, after: limit })
        });
        match outcome {
            Ok(()) => Ok(session),
            Err(error) => Err((error, sent)),
        }
    }
}

#[async_trait]
impl Transport for Http {
    async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
        let mut first_failure = None;
        if let Some((stream, peer)) = self.reuse().await {
            match self.exchange(stream, &request).await {
                Ok(session) => return incoming(self, session, peer, &request),
                Err((error @ Error::BackendTimeout { .. }, _)) => return Err(error),
                Err((error, sent)) if sent && !request.repeatable => return Err(error),
                Err((error, _)) => first_failure = Some(error),
            }
        }
        let (stream, peer) = self.connect(request.timeout.connect).await?;
        if let Some(error) = first_failure {
            tracing::debug!(backend = %self.backend, %error, "a kept-alive connection was closed; trying a new one");
        }
        match self.exchange(stream, &request).await {
            Ok(session) => incoming(self, session, peer, &request),
            Err((error, _)) => Err(error),
        }
    }
}

fn incoming(http: &Http, session: HttpSession, peer: Arc<HttpPeer>, request: &Outgoing) -> Result<Incoming, Error> {
    let head = session.resp_header().ok_or_else(|| http.broken("it sent no response head"))?;
    let (status, headers) = (head.status, head.headers.clone());
    let body = HttpBody {
        backend: http.backend.clone(),
        connector: http.connector.clone(),
        session: Some(session),
        peer,
        idle: request.timeout.idle,
        waiting: None,
    };
    Ok(Incoming { status, headers, body: Box::new(body) })
}

/// Runs pingora's certificate parser, which panics on what it cannot read.
fn parsed<T>(parse: impl FnOnce() -> T) -> Result<T, ()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse)).map_err(drop)
}

/// What every request to a backend carries. `Host` is the backend's own: servers on loopback refuse any other.
fn template(verb: &Method, target: Target<'_>) -> Result<RequestHeader, BuildError> {
    let bad = || BuildError::Head { backend: target.backend.clone() };
    let mut head = RequestHeader::build(verb.clone(), target.url.path.as_bytes(), Some(12)).map_err(|_| bad())?;
    let mut insert = |name: http::HeaderName, value: &str| {
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        head.insert_header(name, value).map_err(|_| bad())
    };
    insert(HOST, &target.url.authority)?;
    insert(ACCEPT_ENCODING, "identity")?;
    insert(http::header::USER_AGENT, concat!("toolgate/", env!("CARGO_PKG_VERSION")))?;
    match *verb {
        Method::POST => {
            insert(CONTENT_TYPE, "application/json")?;
            insert(ACCEPT, "application/json, text/event-stream")?;
        }
        Method::GET => insert(ACCEPT, "text/event-stream")?,
        _ => {}
    }
    for Header { name, value, .. } in &target.remote.headers {
        insert(name.clone(), value.expose())?;
    }
    Ok(head)
}

/// A response body. Read to its end, its connection goes back to the pool; dropped before, it is closed, which is how a
/// backend learns that its client left.
struct HttpBody {
    backend: BackendName,
    connector: Connector,
    session: Option<HttpSession>,
    peer: Arc<HttpPeer>,
    idle: Duration,
    /// Since when the backend is waited for. Kept apart from the future that waits, which may be dropped and made anew.
    waiting: Option<Instant>,
}

#[async_trait]
impl Body for HttpBody {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(session) = &mut self.session else { return Ok(None) };
        let until = *self.waiting.get_or_insert_with(Instant::now) + self.idle;
        let read = timeout_at(until, session.read_body_bytes()).await;
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
        let Some(mut session) = self.session.take() else { return Ok(None) };
        if let Some(error) = failed {
            return Err(error);
        }
        session.respect_keepalive();
        if let Some(stream) = session.reuse().await {
            self.connector.0.release_stream(stream, self.peer.reuse_hash(), Some(KEEP_ALIVE));
        }
        Ok(None)
    }
}
