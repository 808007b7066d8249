//! From a request to a reply: era, session, method, verb. Knows nothing of HTTP connections.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use http::Method as HttpMethod;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::batch::Batch;
use crate::bridge::question;
use crate::era::{self, Era, MODERN_VERSION, McpHeaders};
use crate::error::{Error, INVALID_REQUEST, Kind};
use crate::gateway::{self, Gateway, Phase};
use crate::jsonrpc::{self, Id, Message, OwnedId, Params, Response};
use crate::method::{self, Verb};
use crate::metrics::EraLabel;
use crate::news::News;
use crate::record::Record;
use crate::relay::EventId;
use crate::reply::{Body, Reply, Source};
use crate::route;
use crate::session::{ANYONE, Asker, ClientCapabilities, MAX_STREAMS, Session};
use crate::snapshot::Snapshot;

/// What the edge made of an HTTP request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) verb: HttpMethod,
    pub(crate) headers: McpHeaders,
    /// Whether the client would rather have an event stream than JSON, of what is neither yet.
    pub(crate) prefers_events: bool,
    /// The client's address, as trusted proxies tell it.
    pub(crate) client: IpAddr,
    pub(crate) request_id: RequestId,
    pub(crate) started: Instant,
    /// Whether it came when the gateway took no new requests any more, but only what belongs to calls under way.
    pub(crate) is_late: bool,
}

/// One message on its way to a reply.
pub(crate) struct Exchange<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) snapshot: &'a Arc<Snapshot>,
    pub(crate) request: &'a Request,
    pub(crate) body: &'a Bytes,
    /// As it stands in the table.
    pub(crate) method: &'static str,
    id: Option<Id<'a>>,
    pub(crate) params: &'a Params<'a>,
    pub(crate) client: Client,
    pub(crate) record: &'a mut Record,
    /// How it ended, where the reply does not tell.
    pub(crate) ended_as: Option<Kind>,
}

/// Who sent a message.
pub(crate) enum Client {
    /// None before `initialize` has made one.
    Legacy(Option<Arc<Session>>),
    Modern(Modern),
}

/// What a modern request says of its client.
pub(crate) struct Modern {
    pub(crate) capabilities: ClientCapabilities,
    /// As JSON.
    pub(crate) log_level: Option<Box<str>>,
}

impl<'a> Exchange<'a> {
    pub(crate) fn era(&self) -> Era {
        match self.client {
            Client::Legacy(_) => Era::Legacy,
            Client::Modern(_) => Era::Modern,
        }
    }

    /// The session it belongs to.
    pub(crate) fn session(&self) -> Result<&Arc<Session>, Error> {
        match &self.client {
            Client::Legacy(Some(session)) => Ok(session),
            Client::Legacy(None) | Client::Modern(_) => Err(Error::SessionMissing),
        }
    }

    /// The id of the request.
    pub(crate) fn id(&self) -> Result<Id<'a>, Error> {
        self.id.ok_or_else(|| Error::Malformed {
            code: INVALID_REQUEST,
            reason: "a request needs an `id`".into(),
            id: None,
        })
    }

    /// Adds what of the request's head goes on to a backend, beside MCP's own headers.
    pub(crate) fn pass_on(&self, headers: &mut Vec<(HeaderName, HeaderValue)>) {
        headers.push(self.request.request_id.header());
        let trace = &self.request.headers.trace;
        match &self.record.span {
            Some(span) => headers.extend(span.headers(trace)),
            None => headers.extend_from_slice(trace),
        }
    }

    /// Its result, as JSON that is not copied.
    pub(crate) fn result(&self, result: Bytes) -> Result<Reply, Error> {
        self.result_of([result])
    }

    /// The same of pieces.
    pub(crate) fn result_of(&self, pieces: impl IntoIterator<Item = Bytes>) -> Result<Reply, Error> {
        Ok(Reply::result(self.id()?.raw(), pieces))
    }
}

/// Handles a request whose body was read.
pub(crate) async fn handle(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>, request: &Request, body: Bytes) -> Reply {
    if let Err(error) = era::of_verb(&request.verb, &request.headers) {
        // Whatever is wrong with its headers, a request is answered under its id.
        let id = match jsonrpc::parse(&body) {
            Ok(Message::Request(request)) => Some(request.id.owned()),
            Ok(_) | Err(_) => None,
        };
        return refuse(gateway, request, &error, id.as_ref());
    }
    match request.verb {
        HttpMethod::GET => Box::pin(listen(gateway, snapshot, request)).await,
        HttpMethod::DELETE => end(gateway, request),
        _ if jsonrpc::is_batch(&body) => batch(gateway, snapshot, request, &body),
        // Pinned where it is made: what is awaited as it is, is moved as a whole.
        _ => pin!(message(gateway, snapshot, request, body)).await,
    }
}

/// A reply to what is no message, or none of a known method; recorded as such.
pub(crate) fn refuse(gateway: &Gateway, request: &Request, error: &Error, id: Option<&OwnedId>) -> Reply {
    let mut record = Record::new(gateway.methods.other(), request.client, &request.request_id, request.started);
    record.failed(error);
    error.cap().into_iter().for_each(|cap| gateway.metrics.cap_reached(cap));
    let era = if request.headers.are_modern() { Era::Modern } else { Era::Legacy };
    let mut reply = Reply::error(error, id, era);
    reply.record = Some(record);
    reply
}

fn session_of(gateway: &Gateway, request: &Request) -> Result<Arc<Session>, Error> {
    let token = request.headers.session_id.as_ref().ok_or(Error::SessionMissing)?;
    gateway.sessions.find(token.to_str().map_err(|_| Error::SessionUnknown)?, ANYONE)
}

/// GET: the client's own stream, or the rest of one that it came back for.
async fn listen(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>, request: &Request) -> Reply {
    let opened = async {
        if request.is_late {
            return Err(Error::Draining);
        }
        let session = session_of(gateway, request)?;
        let last = match &request.headers.last_event_id {
            Some(id) => Some(id.to_str().ok().and_then(EventId::read).ok_or_else(route::gone)?),
            None => None,
        };
        let is_call = last.as_ref().is_some_and(|last| last.stream == EventId::CALL);
        let guard = session.stream(is_call).ok_or(Error::TooManyStreams { max: MAX_STREAMS })?;
        match last {
            Some(last) if is_call => tokio::select! {
                resumed = route::resume(snapshot, &last, guard) => resumed,
                () = gateway.until(Phase::Cut) => Err(Error::Draining),
            },
            last => Ok(Source::News(Box::new(News::new(gateway, snapshot, guard, last.as_ref())))),
        }
    };
    match opened.await {
        Ok(source) => Reply::events(source),
        Err(error) => refuse(gateway, request, &error, None),
    }
}

/// DELETE: the session is over, here and at every backend.
fn end(gateway: &Arc<Gateway>, request: &Request) -> Reply {
    match session_of(gateway, request) {
        Ok(session) => {
            tokio::spawn(gateway::close(gateway.sessions.end(&session)));
            Reply::status(StatusCode::NO_CONTENT)
        }
        Err(error) => refuse(gateway, request, &error, None),
    }
}

/// POST of an array: legal in one protocol version, and only within a session of it.
fn batch(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>, request: &Request, body: &Bytes) -> Reply {
    let invalid = |reason: &'static str| Error::Malformed { code: INVALID_REQUEST, reason: reason.into(), id: None };
    let session = match era::of_batch(&request.headers).and_then(|()| session_of(gateway, request)) {
        Ok(session) => session,
        Err(error) => return refuse(gateway, request, &error, None),
    };
    if !session.version.has_batches() {
        let error = invalid("a batch is not allowed in this protocol version; send one message per request");
        return refuse(gateway, request, &error, None);
    }
    let messages = match jsonrpc::parse_batch(body) {
        Ok(messages) => messages,
        Err(malformed) => return refuse(gateway, request, &malformed.into(), None),
    };
    let is_request = |message: &Message<'_>| matches!(message, Message::Request(_));
    let is_initialize = |message: &Message<'_>| matches!(message, Message::Request(r) if r.method == "initialize");
    if messages.iter().any(is_initialize) {
        return refuse(gateway, request, &invalid("`initialize` must not be part of a batch"), None);
    }
    let Ok(elements) = jsonrpc::split_batch(body) else {
        return refuse(gateway, request, &invalid("the batch cannot be taken apart"), None);
    };
    let has_requests = messages.iter().any(is_request);
    let elements = elements.into_iter().map(|element| body.slice_ref(element.as_bytes())).collect();
    let mut batch = Batch::new(gateway, snapshot, request.clone(), elements);
    if has_requests {
        return Reply::events(Source::Batch(Box::new(batch)));
    }
    tokio::spawn(async move { while let crate::reply::Next::Chunk(_) = batch.next().await {} });
    Reply::accepted()
}

impl From<jsonrpc::Malformed> for Error {
    fn from(malformed: jsonrpc::Malformed) -> Self {
        Self::Malformed { code: malformed.code, reason: malformed.reason, id: malformed.id }
    }
}

static NONE: LazyLock<Params<'static>> = LazyLock::new(Params::default);

/// POST of one message.
pub(crate) async fn message(gateway: &Arc<Gateway>, snapshot: &Arc<Snapshot>, request: &Request, body: Bytes) -> Reply {
    let parsed = match jsonrpc::parse(&body) {
        Ok(parsed) => parsed,
        Err(malformed) => return refuse(gateway, request, &malformed.into(), None),
    };
    let (name, id, params) = match &parsed {
        Message::Request(r) => (&*r.method, Some(r.id), Some(&*r.params)),
        Message::Notification(n) => (&*n.method, None, Some(&*n.params)),
        Message::Response(response) => ("", response.id, None),
    };
    let mut record = Record::new(gateway.methods.find(name), request.client, &request.request_id, request.started);
    if let (Some(tracer), Message::Request(r)) = (&gateway.tracer, &parsed) {
        record.span = tracer.begin(request, &r.params, r.id);
    }
    let arrived = Arrived { gateway, snapshot, request, body: &body };
    let era = era::of_message(&parsed, &request.headers);
    record.era = if matches!(era, Ok(Era::Legacy)) { EraLabel::Legacy } else { EraLabel::Modern };
    let answered = match (&era, &parsed) {
        (Err(error), _) => Err(error.clone()),
        (Ok(_), Message::Request(r)) if request.is_late && !continues(gateway, &r.params) => Err(Error::Draining),
        (Ok(_), Message::Response(response)) => answer_of_client(arrived, response),
        (Ok(era), _) => {
            // Pinned where it is made: what is handed to `select!` is moved, and this is large.
            let parsed = Parsed { name, id, params: params.unwrap_or(&NONE) };
            let calling = pin!(call(arrived, *era, parsed, &mut record));
            tokio::select! {
                biased;
                answered = calling => answered,
                () = gateway.until(Phase::Cut) => Err(Error::CutShort),
            }
        }
    };
    let (mut reply, kind) = answered.unwrap_or_else(|error| {
        record.failed(&error);
        error.cap().into_iter().for_each(|cap| gateway.metrics.cap_reached(cap));
        let era = if record.era == EraLabel::Modern { Era::Modern } else { Era::Legacy };
        (Reply::error(&error, id.map(Id::owned).as_ref(), era), error.kind())
    });
    if let Body::Whole(_) = reply.body {
        record.noted(kind);
    }
    reply.record = Some(record);
    reply
}

/// Whether a request takes up a call that waits here for its client's input.
fn continues(gateway: &Gateway, params: &Params<'_>) -> bool {
    let state = params.request_state.and_then(jsonrpc::text);
    state.is_some_and(|state| gateway.parked.holds(&gateway.sessions, &state))
}

/// What a message came with.
struct Arrived<'a> {
    gateway: &'a Arc<Gateway>,
    snapshot: &'a Arc<Snapshot>,
    request: &'a Request,
    body: &'a Bytes,
}

/// What was read of a message.
struct Parsed<'a> {
    name: &'a str,
    id: Option<Id<'a>>,
    params: &'a Params<'a>,
}

/// A legacy client's answer to what a backend asked it.
fn answer_of_client(arrived: Arrived<'_>, response: &Response<'_>) -> Result<(Reply, Kind), Error> {
    let session = session_of(arrived.gateway, arrived.request)?;
    // One that nobody waits for any more is taken and dropped, and so is one to what was never asked in this session.
    let asker = response.id.and_then(|id| Some((id, session.answered(&id.owned())?)));
    match asker {
        Some((id, Asker::Backend { leg, opened, id: own })) => {
            if let Some(span) = jsonrpc::span(arrived.body, id.raw()) {
                let body = jsonrpc::splice(arrived.body, &[(span, own.raw().as_bytes())]);
                question::pass_answer(leg, opened, body);
            }
        }
        Some((_, Asker::Bridge(waits))) => {
            let _ = waits.send(arrived.body.clone());
        }
        None => {}
    }
    Ok((Reply::accepted(), Kind::Ok))
}

/// A request or a notification: client, method, verb.
async fn call(arrived: Arrived<'_>, era: Era, parsed: Parsed<'_>, record: &mut Record) -> Result<(Reply, Kind), Error> {
    let Arrived { gateway, snapshot, request, body } = arrived;
    let Parsed { name, id, params } = parsed;
    let method = method::find(name).filter(|method| method.is_of(era));
    let client = match (era, method) {
        (Era::Legacy, Some(method)) if !method.in_session => Client::Legacy(None),
        (Era::Legacy, _) => Client::Legacy(Some(session_of(gateway, request)?)),
        (Era::Modern, _) => Client::Modern(Modern::read(params)),
    };
    if let Client::Legacy(Some(session)) = &client {
        record.session = Some(session.id());
    }
    if let Some(span) = &mut record.span
        && let Some(version) = client.version()
    {
        span.speaks(version);
    }
    let is_notification = name.starts_with("notifications/");
    let Some(method) = method.filter(|_| is_notification != id.is_some()) else {
        return match id {
            // A notification that nobody knows is nobody's business (JSON-RPC 2.0, section 4.1).
            None => Ok((Reply::accepted(), Kind::Ok)),
            Some(_) => Err(Error::MethodNotFound { method: name.chars().take(128).collect() }),
        };
    };
    if !method.in_session || era == Era::Modern {
        snapshot.settle().await;
    }
    let method_name = method.name;
    let mut exchange =
        Exchange { gateway, snapshot, request, body, method: method_name, id, params, client, record, ended_as: None };
    let reply = match method.verb {
        Verb::Answer(answer) => answer(&mut exchange),
        Verb::Merge(run) if request.prefers_events => run(&mut exchange).await.map(Reply::into_events),
        Verb::Broadcast(run) | Verb::Merge(run) | Verb::Route(run) => run(&mut exchange).await,
    }?;
    Ok((reply, exchange.ended_as.unwrap_or(Kind::Ok)))
}

impl Client {
    /// The version of MCP that it speaks, once that is agreed.
    fn version(&self) -> Option<&'static str> {
        match self {
            Self::Legacy(session) => session.as_ref().map(|session| session.version.as_str()),
            Self::Modern(_) => Some(MODERN_VERSION),
        }
    }
}

impl Modern {
    /// The ladder has seen to it that the envelope is whole.
    fn read(params: &Params<'_>) -> Self {
        let meta = params.meta.as_ref();
        Self {
            capabilities: ClientCapabilities::read(meta.and_then(|meta| meta.client_capabilities)),
            log_level: meta.and_then(|meta| meta.log_level).map(|level| level.get().into()),
        }
    }
}

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request is told by in logs and towards backends.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's own if it is presentable, a random one otherwise.
    pub(crate) fn new(given: Option<&HeaderValue>) -> Self {
        const MAX: usize = 128;
        let presentable = |id: &&[u8]| {
            (1..=MAX).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
        };
        // Copied: it outlives the head of the request.
        let given = given.map(HeaderValue::as_bytes).filter(presentable).map(HeaderValue::from_bytes);
        Self(given.and_then(Result::ok).unwrap_or_else(random_id))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The header that bears it.
    pub(crate) fn header(&self) -> (HeaderName, HeaderValue) {
        (REQUEST_ID, self.0.clone())
    }
}

/// Unique, not secret: a number that was drawn once, and a count.
fn random_id() -> HeaderValue {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicU64, Ordering};
    static DRAWN: LazyLock<[u64; 2]> = LazyLock::new(|| {
        let drawn = RandomState::new();
        [drawn.hash_one(0), drawn.hash_one(1)]
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Odd, so that no two counts below 2^64 become the same; large, so that ids that follow each other look different.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let [fixed, first] = *DRAWN;
    let counted = first.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(SPREAD));
    let mut id = (u128::from(fixed) << 64) | u128::from(counted);
    let text = [(); 32].map(|()| {
        let digit = b"0123456789abcdef".get((id & 15) as usize).copied().unwrap_or(b'0');
        id >>= 4;
        digit
    });
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
}
