//! The downstream edge: HTTP in, [`Request`] out; [`Reply`] in, HTTP out. Here an error becomes bytes, and here a client that
//! has left is noticed.

mod rules;
pub(crate) mod socket;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::time::{sleep_until, timeout};
use toolgate_config::{Listener, ListenerTimeout};

use self::rules::Pass;
use crate::admin;
use crate::backend::sse;
use crate::demo;
use crate::dispatch::{self, Request};
use crate::era::McpHeaders;
use crate::error::{Error, Kind};
use crate::gateway::{Gateway, Phase};
use crate::reply::{Body, Next, Reply, Source};

/// How much of a refused body is read and thrown away, so that the client gets to read why.
const LINGER: (usize, Duration) = (8 * 1024 * 1024, Duration::from_secs(1));
/// Between two requests of one connection that was used before; also the deadlines of the operator's listener.
const ADMIN_MAX_BODY: u64 = 64 * 1024;

/// What is served at an address.
pub(crate) enum Site {
    /// MCP, by the rules of this listener in the configuration.
    Public { listener: usize },
    /// The operator's pages.
    Admin,
    /// A small MCP server of the demo.
    Demo(demo::Server),
}

/// Serves the connections of one address.
pub(crate) struct Edge {
    gateway: Arc<Gateway>,
    site: Site,
    options: HttpServerOptions,
}

/// Headers that every reply to a request gets.
type Headers = Vec<(HeaderName, HeaderValue)>;

/// How writing a reply ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Written {
    Whole,
    /// The connection is of no more use.
    Broken,
}

/// How a stream ended.
enum Ended {
    Failed(Error),
    /// The client left, or did not read.
    Left,
    Well(Kind),
}

/// The head of a request, as far as it is needed past the rules.
struct Head {
    request: Request,
    length: Option<u64>,
    expects: bool,
    path: String,
    extra: Headers,
}

#[async_trait]
impl HttpServerApp for Edge {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let timeouts = self.timeouts();
        if !self.read_head(&mut session, &timeouts).await {
            return None;
        }
        let idle = (self.gateway.phase() == Phase::Serving).then(|| timeouts.idle.as_secs().max(1));
        session.set_keepalive(idle);
        session.set_write_timeout(Some(timeouts.write));
        session.set_read_timeout(None);
        if self.serve(&mut session).await == Written::Broken {
            session.shutdown().await;
            return None;
        }
        let mut settings = HttpPersistentSettings::for_session(&session);
        settings.set_user_context(Box::new(Reused));
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Marks a connection on which a request was served before.
struct Reused;

impl Edge {
    pub(crate) fn new(gateway: &Arc<Gateway>, site: Site) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = matches!(site, Site::Public { .. });
        let edge = Self { gateway: Arc::clone(gateway), site, options: HttpServerOptions::default() };
        options.h2_idle_timeout = Some(edge.timeouts().idle);
        Self { options, ..edge }
    }

    /// Serves a connection to its end.
    pub(crate) async fn connection(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) {
        use pingora_core::apps::ServerApp as _;
        self.process_new(stream, shutdown).await;
    }

    fn listener(&self) -> Option<(Arc<crate::snapshot::Snapshot>, usize)> {
        match self.site {
            Site::Public { listener } => Some((self.gateway.snapshot(), listener)),
            Site::Admin | Site::Demo(_) => None,
        }
    }

    pub(crate) fn timeouts(&self) -> ListenerTimeout {
        self.with_listener(|listener| listener.timeout.clone()).unwrap_or_default()
    }

    /// Connections that may be open at once, where the configuration says so.
    pub(crate) fn max_connections(&self) -> Option<usize> {
        self.with_listener(|listener| listener.max_connections as usize)
    }

    fn with_listener<T>(&self, read: impl FnOnce(&Listener) -> T) -> Option<T> {
        let (snapshot, index) = self.listener()?;
        snapshot.config.listeners.get(index).map(read)
    }

    /// Reads a request head. False when there is none to answer: the client left, was too slow, or the gateway goes down.
    async fn read_head(&self, session: &mut ServerSession, timeouts: &ListenerTimeout) -> bool {
        if session.is_http2() {
            return true;
        }
        let is_reused = session.take_connection_user_context().is_some();
        let limit = if is_reused { timeouts.idle + timeouts.header } else { timeouts.header };
        session.set_keepalive(Some(limit.as_secs().max(1)));
        let read = tokio::select! {
            biased;
            read = timeout(limit, session.read_request()) => read,
            () = self.gateway.until(Phase::Draining), if is_reused => return false,
        };
        let error = match read {
            Ok(Ok(there_is_one)) => return there_is_one,
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "request head refused");
                let too_large = cause.to_string().contains("larger than");
                let problem = if too_large { "the request head is too large" } else { "the request is not valid HTTP" };
                Error::HttpMalformed { problem, too_large }
            }
            Err(_) if is_reused => return false,
            Err(_) => Error::RequestTimeout,
        };
        session.set_keepalive(None);
        let _ = write_whole(session, Reply::error(&error, None), &[]).await;
        session.shutdown().await;
        false
    }

    /// Serves one request whose head was read.
    async fn serve(&self, session: &mut ServerSession) -> Written {
        let started = Instant::now();
        let head = match self.head(session, started) {
            Ok(head) => head,
            Err((reply, extra)) => return self.refuse(session, *reply, &extra).await,
        };
        let mut extra = head.extra.clone();
        if let Ok(id) = HeaderValue::from_str(&head.request.request_id) {
            extra.push((HeaderName::from_static("x-request-id"), id));
        }
        let body = match self.read_body(session, &head).await {
            Ok(body) => body,
            Err(Error::ClientClosed) => return Written::Broken,
            Err(error) => {
                let reply = dispatch::refuse(&self.gateway, &head.request, &error, None);
                return self.refuse(session, reply, &extra).await;
            }
        };
        let Some(reply) = self.answer(session, head, body).await else { return Written::Broken };
        self.write(session, reply, &extra).await
    }

    /// Applies the rules to a request head; what they refuse is a reply already.
    fn head(&self, session: &ServerSession, started: Instant) -> Result<Head, (Box<Reply>, Headers)> {
        let header = session.req_header();
        let peer = session.client_addr().and_then(|addr| addr.as_inet()).map(std::net::SocketAddr::ip);
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let number = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
        let mut head = Head {
            request: Request {
                verb: header.method.clone(),
                headers: McpHeaders::read(&header.headers),
                client: peer.to_canonical(),
                request_id: dispatch::request_id(header.headers.get("x-request-id")),
                started,
            },
            length: header.headers.get(CONTENT_LENGTH).and_then(number),
            expects: expects_continue(&header.headers),
            path: header.uri.path().to_owned(),
            extra: Vec::new(),
        };
        let Some((snapshot, index)) = self.listener() else {
            // A web page in the operator's browser has no business here.
            if let Some(origin) = header.headers.get(http::header::ORIGIN).filter(|_| !is_safe(&header.method)) {
                let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                return Err((Box::new(Reply::error(&Error::OriginForbidden { origin }, None)), Vec::new()));
            }
            return Ok(head);
        };
        let Some(listener) = snapshot.config.listeners.get(index) else { return Ok(head) };
        head.request.client = rules::client(peer, &listener.trusted_proxies, &header.headers);
        head.extra = rules::cors(listener, &header.headers);
        match rules::judge(listener, &header.method, &header.uri, &header.headers) {
            Ok(Pass::Request) => Ok(head),
            Ok(Pass::Preflight) => {
                head.extra.extend(rules::preflight(&header.headers));
                Err((Box::new(Reply::status(StatusCode::NO_CONTENT)), head.extra))
            }
            Err(error) => Err((Box::new(dispatch::refuse(&self.gateway, &head.request, &error, None)), head.extra)),
        }
    }

    /// Reads the body whole, under its cap and its deadline.
    async fn read_body(&self, session: &mut ServerSession, head: &Head) -> Result<Bytes, Error> {
        let (cap, deadline) = self
            .with_listener(|listener| (listener.max_body, listener.timeout.body))
            .unwrap_or_else(|| (ADMIN_MAX_BODY, ListenerTimeout::default().body));
        if head.length.is_some_and(|length| length > cap) {
            return Err(Error::BodyTooLarge { cap });
        }
        if head.expects {
            session.write_continue_response().await.map_err(|_| Error::ClientClosed)?;
        }
        let reading = async {
            let mut whole = BytesMut::new();
            let mut first: Option<Bytes> = None;
            while let Some(chunk) = session.read_request_body().await.map_err(|_| Error::ClientClosed)? {
                let so_far = first.as_ref().map_or(whole.len(), Bytes::len);
                if (so_far + chunk.len()) as u64 > cap {
                    return Err(Error::BodyTooLarge { cap });
                }
                // Most bodies come in one piece, which is then not copied.
                match first.take() {
                    None if whole.is_empty() => first = Some(chunk),
                    earlier => {
                        whole.extend_from_slice(&earlier.unwrap_or_default());
                        whole.extend_from_slice(&chunk);
                    }
                }
            }
            Ok(first.unwrap_or_else(|| whole.freeze()))
        };
        timeout(deadline, reading).await.unwrap_or(Err(Error::BodyTimeout { deadline }))
    }

    /// Finds the reply, unless the client leaves first: then whatever is done for it is dropped.
    async fn answer(&self, session: &mut ServerSession, head: Head, body: Bytes) -> Option<Reply> {
        let answering = async {
            match &self.site {
                Site::Public { .. } => dispatch::handle(&self.gateway, head.request, body).await,
                Site::Admin => admin::answer(&self.gateway, &head.request.verb, &head.path).await,
                Site::Demo(server) => server.answer(&head.request.verb, &body).await,
            }
        };
        tokio::select! {
            reply = answering => Some(reply),
            _ = session.read_body_or_idle(true) => None,
            () = self.gateway.until(Phase::Cut) => Some(Reply::error(&Error::Draining, None)),
        }
    }

    /// Writes a refusal; reads on for a while if the client is still sending, so that it gets to see it.
    async fn refuse(&self, session: &mut ServerSession, reply: Reply, extra: &[(HeaderName, HeaderValue)]) -> Written {
        if session.is_body_done() {
            return self.write(session, reply, extra).await;
        }
        session.set_keepalive(None);
        let written = self.write(session, reply, extra).await;
        if session.is_http2() {
            return written;
        }
        let (most, longest) = LINGER;
        let mut left = most;
        let _ = timeout(longest, async {
            while let Ok(Some(chunk)) = session.read_request_body().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    break;
                }
            }
        })
        .await;
        Written::Broken
    }

    async fn write(&self, session: &mut ServerSession, reply: Reply, extra: &[(HeaderName, HeaderValue)]) -> Written {
        match reply.body {
            Body::Whole(_) => write_whole(session, reply, extra).await,
            Body::Stream(_) => self.stream(session, reply, extra).await,
        }
    }

    /// Relays a stream until it ends, the client leaves or the gateway goes down.
    async fn stream(
        &self,
        session: &mut ServerSession,
        mut reply: Reply,
        extra: &[(HeaderName, HeaderValue)],
    ) -> Written {
        let Body::Stream(mut source) = std::mem::replace(&mut reply.body, Body::Whole(Vec::new())) else {
            return Written::Broken;
        };
        let Some(head) = response_head(session, &reply, extra, None) else { return Written::Broken };
        if session.write_response_header(Box::new(head)).await.is_err() {
            return Written::Broken;
        }
        let kind = match source.is_event_stream() {
            true if source.ends() => "call",
            true => "client",
            false => "json",
        };
        let gauge = self.gateway.metrics.streams.with_label_values(&[kind]);
        gauge.inc();
        let ended = self.relay(session, &mut source).await;
        gauge.dec();
        let kind = match &ended {
            Ended::Well(kind) => Some(*kind),
            Ended::Failed(error) => Some(error.kind()),
            Ended::Left => source.outcome(),
        };
        // Whatever the stream holds on to, the connection to its backend above all, goes before the last byte is awaited.
        drop(source);
        let written = match ended {
            Ended::Well(_) => session.write_response_body(Bytes::new(), true).await.is_ok(),
            // The client must not take what it got for complete.
            Ended::Failed(_) | Ended::Left => false,
        };
        if let (Some(record), Some(kind)) = (reply.record, kind) {
            record.end(kind);
        }
        if written { Written::Whole } else { Written::Broken }
    }

    /// Moves bytes until there are no more to be moved.
    async fn relay(&self, session: &mut ServerSession, source: &mut Source) -> Ended {
        let keep_alive = self.with_listener(|l| l.keep_alive).unwrap_or(toolgate_config::DEFAULT_KEEP_ALIVE);
        let last_phase = if source.ends() { Phase::Cut } else { Phase::Draining };
        let stopping = self.gateway.until(last_phase);
        tokio::pin!(stopping);
        let mut written = tokio::time::Instant::now();
        loop {
            let comments = source.takes_comments();
            let chunk = tokio::select! {
                biased;
                next = source.next() => match next {
                    Next::Chunk(chunk) => chunk,
                    Next::End(kind) => return Ended::Well(kind),
                    Next::Broken(error) => return Ended::Failed(error),
                },
                _ = session.read_body_or_idle(true) => return Ended::Left,
                () = &mut stopping => {
                    let Some(last) = source.cut(&Error::Draining) else { return Ended::Failed(Error::Draining) };
                    let _ = session.write_response_body(last, false).await;
                    return Ended::Well(source.outcome().unwrap_or(Kind::Internal));
                }
                () = sleep_until(written + keep_alive), if comments => Bytes::from_static(sse::KEEP_ALIVE),
            };
            if session.write_response_body(chunk, false).await.is_err() {
                return Ended::Left;
            }
            written = tokio::time::Instant::now();
        }
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Writes a reply that is all there.
async fn write_whole(session: &mut ServerSession, mut reply: Reply, extra: &[(HeaderName, HeaderValue)]) -> Written {
    let Body::Whole(pieces) = std::mem::replace(&mut reply.body, Body::Whole(Vec::new())) else {
        return Written::Broken;
    };
    let length = pieces.iter().map(Bytes::len).sum();
    let Some(head) = response_head(session, &reply, extra, Some(length)) else { return Written::Broken };
    let mut writing = session.write_response_header(Box::new(head)).await;
    for piece in pieces {
        if writing.is_ok() {
            writing = session.write_response_body(piece, false).await;
        }
    }
    if writing.is_ok() {
        writing = session.write_response_body(Bytes::new(), true).await;
    }
    match writing {
        Ok(()) => {
            reply.record.into_iter().for_each(crate::record::Record::written);
            Written::Whole
        }
        Err(_) => Written::Broken,
    }
}

/// The head of a reply; `length` of its body, if it is known here.
fn response_head(
    session: &ServerSession,
    reply: &Reply,
    extra: &[(HeaderName, HeaderValue)],
    length: Option<usize>,
) -> Option<ResponseHeader> {
    let mut head = ResponseHeader::build(reply.status, Some(reply.headers.len() + extra.len() + 4)).ok()?;
    for (name, value) in reply.headers.iter().chain(extra) {
        head.insert_header(name.clone(), value.clone()).ok()?;
    }
    let is_h2 = session.is_http2();
    match length {
        Some(_) if reply.status == StatusCode::NO_CONTENT => {}
        Some(length) => head.insert_header(CONTENT_LENGTH, length).ok()?,
        None if is_h2 || head.headers.contains_key(CONTENT_LENGTH) => {}
        // HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
        None if session_version(session) == Version::HTTP_10 => head.insert_header(CONNECTION, "close").ok()?,
        None => head.insert_header(TRANSFER_ENCODING, "chunked").ok()?,
    }
    Some(head)
}

fn session_version(session: &ServerSession) -> Version {
    session.req_header().version
}

/// Whether a verb may change something.
pub(crate) fn is_safe(verb: &Method) -> bool {
    matches!(*verb, Method::GET | Method::HEAD)
}
