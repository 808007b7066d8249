//! What a client gets: JSON whole, a stream, or nothing but a status. The edge writes it.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::admin::live::Live;
use crate::backend::sse;
use crate::batch::Batch;
use crate::bridge::crossing::Crossing;
use crate::era::Era;
use crate::error::{Error, Kind, retry_after_ms, retry_after_secs};
use crate::jsonrpc::{self, Message, OwnedId};
use crate::news::{Listen, News};
use crate::record::Record;
use crate::relay::Relay;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The headers of an event stream.
const EVENT_STREAM: [(HeaderName, HeaderValue); 3] = [
    (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
    (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    // nginx and its kin would hold events back otherwise.
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
];

/// A reply, ready to be written.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Body,
    /// Ended when the last byte is out.
    pub(crate) record: Option<Box<Record>>,
}

/// The body of a reply.
pub(crate) enum Body {
    /// All there, in pieces that follow each other.
    Whole(Vec<Bytes>),
    Stream(Source),
}

/// Where a stream's bytes come from. All are large, and moved a good deal.
pub(crate) enum Source {
    Batch(Box<Batch>),
    Crossing(Box<Crossing>),
    Listen(Box<Listen>),
    News(Box<News>),
    Relay(Box<Relay>),
    /// Of the operator's page.
    Status(Box<Live>),
}

/// How a stream ended that is complete.
#[derive(Clone, Debug)]
pub(crate) enum End {
    As(Kind),
    /// With a backend's error of this code.
    RpcError(i64),
    /// With this error, be it told in the answer's place or not.
    Failed(Error),
}

impl End {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::As(kind) => *kind,
            Self::RpcError(_) => Kind::RpcError,
            Self::Failed(error) => error.kind(),
        }
    }
}

/// What comes next on a stream.
#[derive(Debug)]
pub(crate) enum Next {
    Chunk(Bytes),
    /// It is complete, and ended so.
    End(End),
    /// It broke off where nothing can be put right: the client must not take it for complete.
    Broken(Error),
}

impl Source {
    /// The next bytes. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Next {
        match self {
            Self::Batch(batch) => Box::pin(batch.next()).await,
            Self::Crossing(crossing) => crossing.next().await,
            Self::Listen(listen) => listen.next().await,
            Self::News(news) => news.next().await,
            Self::Relay(relay) => relay.next().await,
            Self::Status(live) => live.next().await,
        }
    }

    /// Whether a comment may be written now: it is an event stream, and no event has begun.
    pub(crate) fn takes_comments(&self) -> bool {
        match self {
            Self::Batch(batch) => batch.takes_comments(),
            Self::Crossing(_) | Self::Listen(_) | Self::News(_) | Self::Status(_) => true,
            Self::Relay(relay) => relay.takes_comments(),
        }
    }

    /// Whether it ends by itself. One that does not is ended as soon as the gateway goes down.
    pub(crate) fn ends(&self) -> bool {
        !matches!(self, Self::Listen(_) | Self::News(_) | Self::Status(_))
    }

    /// Whether it is no client's.
    pub(crate) fn is_operators(&self) -> bool {
        matches!(self, Self::Status(_))
    }

    /// Ends it early: the bytes that tell the client so, if there is a way to.
    pub(crate) fn cut(&mut self, error: &Error) -> Option<Bytes> {
        match self {
            Self::Batch(batch) => batch.cut(error),
            Self::Listen(listen) => Some(listen.cut()),
            Self::News(_) | Self::Status(_) => Some(Bytes::new()),
            Self::Relay(relay) => relay.cut(error),
            Self::Crossing(crossing) => Some(crossing.cut(error)),
        }
    }

    /// How it ended, if everything that matters to its client is out already.
    pub(crate) fn outcome(&self) -> Option<End> {
        match self {
            Self::Batch(_) => None,
            Self::Listen(_) | Self::News(_) | Self::Status(_) => Some(End::As(Kind::Ok)),
            Self::Relay(relay) => relay.outcome(),
            Self::Crossing(crossing) => crossing.outcome(),
        }
    }

    pub(crate) fn is_event_stream(&self) -> bool {
        match self {
            Self::Batch(_) | Self::Crossing(_) | Self::Listen(_) | Self::News(_) | Self::Status(_) => true,
            Self::Relay(relay) => relay.is_event_stream(),
        }
    }
}

impl Reply {
    /// JSON, all there.
    pub(crate) fn json(pieces: Vec<Bytes>) -> Self {
        Self { status: StatusCode::OK, headers: vec![(CONTENT_TYPE, JSON)], body: Body::Whole(pieces), record: None }
    }

    /// The result of a request; `pieces` are JSON together and not copied.
    pub(crate) fn result(id: &str, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let head = ["{\"jsonrpc\":\"2.0\",\"id\":", id, ",\"result\":"].concat();
        Self::json(std::iter::once(head.into()).chain(pieces).chain([Bytes::from_static(b"}")]).collect())
    }

    /// 202: taken, nothing to say.
    pub(crate) fn accepted() -> Self {
        Self::status(StatusCode::ACCEPTED)
    }

    /// A status and no body.
    pub(crate) fn status(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()), record: None }
    }

    /// A stream of events.
    pub(crate) fn events(source: Source) -> Self {
        Self { status: StatusCode::OK, headers: EVENT_STREAM.to_vec(), body: Body::Stream(source), record: None }
    }

    /// An error, in the shape that fits it and the client's era.
    pub(crate) fn error(error: &Error, id: Option<&OwnedId>, era: Era) -> Self {
        let own_id = if let Error::Malformed { id, .. } = error { id.as_ref() } else { None };
        let body = match (error, id.or(own_id).map(OwnedId::raw)) {
            (Error::Limited { in_band: true, limit, retry_after, .. }, Some(id)) => {
                jsonrpc::result_body(id, &refusal(error, limit, *retry_after, era))
            }
            (_, None) if era == Era::Modern => jsonrpc::error_body_without_id(&error.object()),
            (_, id) => jsonrpc::error_body(id, &error.object()),
        };
        let mut reply = Self::json(vec![body]);
        let is_unknown = era == Era::Modern && matches!(error, Error::MethodNotFound { .. });
        // A method that is not there is not found (2026-07-28, Streamable HTTP).
        reply.status = if is_unknown { StatusCode::NOT_FOUND } else { error.status() };
        if let Some(after) = error.retry_after() {
            reply.headers.push((RETRY_AFTER, HeaderValue::from(retry_after_secs(after))));
        }
        if let Error::MethodNotAllowed { allow, .. } = error {
            reply.headers.push((ALLOW, HeaderValue::from_static(allow)));
        }
        if matches!(error, Error::UnsupportedEncoding) {
            // What would be read (RFC 9110, section 15.5.16).
            reply.headers.push((ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        }
        reply
    }
}

impl Reply {
    /// The same as an event stream, for who would rather have one.
    pub(crate) fn into_events(mut self) -> Self {
        if let Body::Whole(pieces) = &self.body
            && self.status == StatusCode::OK
            && !pieces.is_empty()
        {
            self.body = Body::Whole(vec![sse::event(&pieces.concat())]);
            self.headers.retain(|(name, _)| name != CONTENT_TYPE);
            self.headers.extend(EVENT_STREAM);
        }
        self
    }
}

/// A reply, unless it is an error of a backend, as far as that can be known before much of it has come.
pub(crate) async fn peek(mut reply: Reply) -> Option<Reply> {
    let is_error = match &mut reply.body {
        Body::Whole(pieces) => {
            let whole = pieces.concat();
            matches!(jsonrpc::parse(&whole), Ok(Message::Response(response)) if response.error)
        }
        Body::Stream(source) => match source {
            Source::Relay(relay) => relay.look_ahead().await,
            Source::Crossing(crossing) => crossing.look_ahead().await,
            Source::Batch(_) | Source::Listen(_) | Source::News(_) | Source::Status(_) => false,
        },
    };
    (!is_error).then_some(reply)
}

/// A refusal as a tool result, which an agent reads where an error would be swallowed by its SDK.
fn refusal(error: &Error, limit: &str, retry_after: std::time::Duration, era: Era) -> String {
    let kind = if era == Era::Modern { "\"resultType\":\"complete\"," } else { "" };
    let text = jsonrpc::json_string(&error.to_string());
    let (limit, retry_after) = (jsonrpc::json_string(limit), retry_after_ms(retry_after));
    format!(
        "{{{kind}\"content\":[{{\"type\":\"text\",\"text\":{text}}}],\"isError\":true,\
         \"_meta\":{{\"toolgate/limit\":{limit},\"retryAfterMs\":{retry_after}}}}}"
    )
}
