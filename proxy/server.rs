//! The downstream edge: HTTP in, [`Request`] out; [`Reply`] in, HTTP out. Here an error becomes bytes, and here a client that
//! has left is noticed.

pub(crate) mod accept;
mod body;
mod downstream;
mod http1;
mod http2;
mod rules;
mod write;

use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, ORIGIN};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::sleep;
use toolgate_config::{DEFAULT_KEEP_ALIVE, Listener, ListenerTimeout};

use self::accept::{Socket, Stream};
use self::body::Announced;
use self::downstream::Downstream;
use self::http1::{Http1, MAX_HEADERS, Unread};
use self::rules::Pass;
use self::write::{Writer, Written};
use crate::admin;
use crate::deadline::{Alarm, within};
use crate::demo;
use crate::dispatch::{self, REQUEST_ID, Request, RequestId};
use crate::era::{Era, McpHeaders};
use crate::error::{Error, MaxBytes};
use crate::fields::Fields;
use crate::gateway::{Gateway, Phase};
use crate::reply::{Body, Reply};
use crate::snapshot::Snapshot;
use crate::underway::Counted;

/// Headers that every reply to a request gets.
type Headers = Vec<(HeaderName, HeaderValue)>;

/// The largest body that the operator's pages and the demo's servers take.
const OWN_MAX_BODY: MaxBytes = MaxBytes::fixed(64 * 1024);
/// The largest request head, path and headers together: what HTTP/2 is limited to as well.
const MAX_HEAD: usize = 64 * 1024;

/// For a first request that was on its way when the gateway went down.
const LAST_CHANCE: Duration = Duration::from_secs(1);

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
}

/// The world of one request, taken once.
struct World<'a> {
    snapshot: &'a Arc<Snapshot>,
    /// The rules of the listener; there are none for what is no listener of clients.
    listener: Option<&'a Listener>,
    timeout: ListenerTimeout,
    /// Whether its connection came when new requests were not taken any more.
    is_late: bool,
}

/// The head of a request, as far as it is needed past the rules.
struct Head {
    request: Request,
    announced: Announced,
    /// Of the operator's pages, with the query.
    path: String,
    extra: Headers,
}

impl Edge {
    /// Whether a connection without TLS speaks HTTP/2; nothing when it is of no use.
    async fn speaks_http2(&self, mut socket: Socket) -> Option<(Socket, bool)> {
        let is_http2 = tokio::select! {
            is_http2 = socket.speaks_http2(), if self.takes_h2c() => is_http2?,
            () = self.last_chance(), if self.takes_h2c() => return None,
            else => false,
        };
        Some((socket, is_http2))
    }

    /// Whether HTTP/2 is served without TLS.
    fn takes_h2c(&self) -> bool {
        self.is_public()
    }

    /// When no connections are accepted any more. What is the gateway's own goes last: the operator looks on until all is over.
    fn shuts(&self) -> Phase {
        if self.is_public() { Phase::Closing } else { Phase::Over }
    }

    /// When connections without a request are closed.
    fn ends(&self) -> Phase {
        if self.is_public() { Phase::Draining } else { Phase::Over }
    }

    fn is_public(&self) -> bool {
        matches!(self.site, Site::Public { .. })
    }

    /// Has a stop wait for a connection; not for one that came too late for anything but what belongs to calls under way, nor
    /// for the gateway's own.
    fn count(&self) -> Option<Counted> {
        // In this order: a stop that has begun meanwhile has seen it.
        let counted = self.gateway.under_way.count();
        (self.is_public() && self.gateway.phase() < Phase::Draining).then_some(counted)
    }

    /// Completes when a connection that was just opened as the gateway went down has had its time to send a request.
    async fn last_chance(&self) {
        self.gateway.until(self.ends()).await;
        sleep(LAST_CHANCE).await;
    }

    /// Serves a connection that speaks HTTP/1 to its end.
    async fn http1(&self, stream: Stream, peer: IpAddr, is_late: bool) {
        let mut http1 = Box::new(Http1::new(stream, peer));
        let (mut is_reused, mut alarm) = (false, Alarm::default());
        // For the whole connection: to begin and to stop waiting takes longer than to wait.
        let mut ending = pin!(self.gateway.until(self.ends()));
        while self.read_head(&mut http1, is_reused, &mut alarm, ending.as_mut()).await {
            let mut downstream = Downstream::Http1(http1);
            let written = self.exchange(&mut downstream, is_late).await;
            let keeps_alive = written == Written::Whole && downstream.keeps_alive();
            let Downstream::Http1(back) = downstream else { return };
            http1 = back;
            if !keeps_alive {
                break;
            }
            is_reused = true;
        }
        http1.shutdown().await;
    }

    /// Serves one request.
    async fn exchange(&self, downstream: &mut Downstream, is_late: bool) -> Written {
        let snapshot = self.gateway.snapshot();
        let world = World { is_late, ..self.world(&snapshot) };
        self.close_soon(downstream);
        downstream.set_write_timeout(world.timeout.write);
        self.serve(downstream, &world).await
    }

    /// Has a connection closed after its request when a stop has begun.
    fn close_soon(&self, downstream: &mut Downstream) {
        if self.is_public() && self.gateway.phase() != Phase::Serving {
            downstream.close();
        }
    }

    pub(crate) fn new(gateway: &Arc<Gateway>, site: Site) -> Self {
        Self { gateway: Arc::clone(gateway), site }
    }

    fn world<'a>(&self, snapshot: &'a Arc<Snapshot>) -> World<'a> {
        let listener = match self.site {
            Site::Public { listener } => snapshot.config.listeners.get(listener),
            Site::Admin | Site::Demo(_) => None,
        };
        World { snapshot, listener, timeout: listener.map(|l| l.timeout.clone()).unwrap_or_default(), is_late: false }
    }

    /// How long a TLS handshake may take.
    fn handshake_timeout(&self) -> Duration {
        self.world(&self.gateway.snapshot()).timeout.handshake
    }

    /// How long the head of a connection's first request may take.
    fn head_timeout(&self) -> Duration {
        self.world(&self.gateway.snapshot()).timeout.header
    }

    /// Connections that may be open at once, where the configuration says so.
    fn max_connections(&self) -> Option<usize> {
        self.world(&self.gateway.snapshot()).listener.map(|listener| listener.max_connections as usize)
    }

    /// Reads a request head. False when there is none to answer: the client left, was too slow, or the gateway goes down.
    async fn read_head(
        &self,
        http1: &mut Http1,
        is_reused: bool,
        alarm: &mut Alarm,
        ending: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let deadlines = self.world(&self.gateway.snapshot()).timeout;
        http1.write_timeout = deadlines.write;
        let begun = tokio::select! {
            biased;
            begun = alarm.within(if is_reused { deadlines.idle } else { deadlines.header }, http1.begun()) => begun,
            () = ending, if is_reused => return false,
            () = self.last_chance(), if !is_reused => return false,
        };
        if begun != Ok(true) {
            return false;
        }
        let read = tokio::select! {
            biased;
            read = within(deadlines.header, http1.next()) => read,
            () = self.last_chance() => return false,
        };
        let error = match read {
            Ok(Ok(())) => return true,
            Ok(Err(Unread::Closed)) => return false,
            Ok(Err(Unread::TooLarge)) => head_too_large(),
            Ok(Err(Unread::TooMany)) => too_many_headers(),
            Ok(Err(Unread::Malformed)) => {
                Error::HttpMalformed { problem: "the request is not valid HTTP".into(), too_large: false }
            }
            Err(_) => Error::RequestTimeout,
        };
        let request = Request {
            verb: Method::POST,
            headers: McpHeaders::default(),
            prefers_events: false,
            client: http1.peer,
            request_id: RequestId::new(None),
            started: Instant::now(),
            is_late: false,
        };
        let reply = dispatch::refuse(&self.gateway, &request, &error, None);
        if let Body::Whole(pieces) = &reply.body {
            http1.keeps_alive = false;
            http1.begin(reply.status, [&reply.headers, &[]], Some(pieces.iter().map(Bytes::len).sum()));
            // A client that does not read it is gone, too.
            let _ = http1.send(pieces, true).await;
        }
        false
    }

    /// Serves one request whose head was read.
    async fn serve(&self, downstream: &mut Downstream, world: &World<'_>) -> Written {
        let mut head = self.head(downstream, world);
        let judged = self.judge(downstream, world, &mut head);
        head.extra.push(head.request.request_id.header());
        let extra = std::mem::take(&mut head.extra);
        let keep_alive = world.listener.map_or(DEFAULT_KEEP_ALIVE, |listener| listener.keep_alive);
        let writer = Writer { gateway: &self.gateway, extra: &extra, keep_alive };
        let mut refusal = match judged {
            Err(refusal) => *refusal,
            Ok(()) => {
                let configured = |listener: &Listener| MaxBytes::configured("max_body", listener.max_body);
                let max = world.listener.map_or(OWN_MAX_BODY, configured);
                match body::read(downstream, head.announced, max, world.timeout.body).await {
                    Err(Error::ClientClosed) => return Written::Broken,
                    Err(error) => dispatch::refuse(&self.gateway, &head.request, &error, None),
                    Ok(body) => {
                        // What it does is not cut short by the end of the call that it is for.
                        let _counted = world.is_late.then(|| self.gateway.under_way.count());
                        let reply = self.answer(downstream, world, &head, body).await;
                        let Some(mut reply) = reply else { return Written::Broken };
                        self.close_soon(downstream);
                        return writer.write(downstream, &mut reply).await;
                    }
                }
            }
        };
        if downstream.is_body_done() {
            return writer.write(downstream, &mut refusal).await;
        }
        downstream.close();
        let written = writer.write(downstream, &mut refusal).await;
        body::linger(downstream).await;
        if downstream.is_http2() { written } else { Written::Broken }
    }

    /// Picks from a request head what is needed past the rules.
    fn head(&self, downstream: &Downstream, world: &World<'_>) -> Head {
        let header = downstream.head();
        let peer = downstream.peer();
        let trusted = world.listener.map_or(&[][..], |listener| &listener.trusted_proxies);
        let number = |value: &HeaderValue| value.to_str().ok()?.parse().ok();
        Head {
            request: Request {
                verb: header.method.clone(),
                headers: McpHeaders::read(&header.headers),
                prefers_events: rules::prefers_events(&header.headers),
                client: rules::client(peer, trusted, &header.headers),
                request_id: RequestId::new(header.headers.get(REQUEST_ID)),
                started: Instant::now(),
                is_late: world.is_late,
            },
            announced: Announced {
                length: header.headers.get(CONTENT_LENGTH).and_then(number),
                expects: expects_continue(&header.headers),
            },
            path: match self.site {
                Site::Admin => header.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
                Site::Public { .. } | Site::Demo(_) => String::new(),
            },
            extra: Vec::new(),
        }
    }

    /// Applies the rules to a request head; what they refuse has its reply already.
    fn judge(&self, downstream: &Downstream, world: &World<'_>, head: &mut Head) -> Result<(), Box<Reply>> {
        let header = downstream.head();
        let refused = |error: &Error| Err(Box::new(dispatch::refuse(&self.gateway, &head.request, error, None)));
        if size(&header.headers) + header.uri.path().len() > MAX_HEAD {
            return refused(&head_too_large());
        }
        let Some(listener) = world.listener else {
            // A web page in the operator's browser has no business here.
            return match header.headers.get(ORIGIN).filter(|_| !is_safe(&header.method)) {
                Some(origin) => {
                    let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                    Err(Box::new(Reply::error(&Error::OriginForbidden { origin }, None, Era::Legacy)))
                }
                None => Ok(()),
            };
        };
        head.extra = rules::cors(listener, &header.headers);
        match rules::judge(listener, &header.method, &header.uri, &header.headers) {
            Ok(Pass::Request) => Ok(()),
            Ok(Pass::Preflight) => {
                head.extra.extend(rules::preflight(&header.headers));
                Err(Box::new(Reply::status(StatusCode::NO_CONTENT)))
            }
            Err(error) => refused(&error),
        }
    }

    /// Finds the reply, unless the client leaves first: then whatever is done for it is dropped.
    async fn answer(&self, downstream: &mut Downstream, world: &World<'_>, head: &Head, body: Bytes) -> Option<Reply> {
        // Pinned where it is made: what is handed to `select!` is moved, and this is large.
        let answering = pin!(async {
            match &self.site {
                Site::Public { .. } => dispatch::handle(&self.gateway, world.snapshot, &head.request, body).await,
                Site::Admin => Box::pin(admin::answer(&self.gateway, &head.request.verb, &head.path)).await,
                Site::Demo(server) => Box::pin(server.answer(&head.request.verb, &body)).await,
            }
        });
        tokio::select! {
            reply = answering => Some(reply),
            () = pin!(downstream.left()) => None,
        }
    }
}

fn head_too_large() -> Error {
    let problem = format!("the request head is larger than {}", MaxBytes::fixed(MAX_HEAD));
    Error::HttpMalformed { problem: problem.into(), too_large: true }
}

fn too_many_headers() -> Error {
    let problem = format!("the request has more than {MAX_HEADERS} header fields, the most that the gateway takes");
    Error::HttpMalformed { problem: problem.into(), too_large: true }
}

fn expects_continue(headers: &Fields) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn size(headers: &Fields) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Whether a verb changes nothing.
pub(crate) fn is_safe(verb: &Method) -> bool {
    matches!(*verb, Method::GET | Method::HEAD)
}
