//! The seam: one request to a backend and the head of its answer, however they get there.

use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use toolgate_config::{BackendName, Timeout};

use crate::error::{Error, MaxBytes};
use crate::fields::Fields;
use crate::framing::is_of_type;

/// How bytes reach a backend.
#[async_trait]
pub(crate) trait Transport: Send + Sync {
    /// Sends one request and returns the head of its answer, the body still to be read.
    async fn send(&self, request: Outgoing) -> Result<Incoming, Error>;

    /// Ends whatever runs for it, and waits until that is over.
    async fn close(&self) {}

    /// Whether a process that answers requests of the modern era has yet to say its first word.
    fn is_starting(&self) -> bool {
        false
    }

    /// Whether it can do without what failed last: there are others.
    fn has_others(&self) -> bool {
        false
    }

    /// Which replica is to get what comes next and belongs to no session yet, where there are several.
    fn next_replica(&self) -> Option<usize> {
        None
    }

    /// The replica of a session, by the session's id here.
    fn replica_of(&self, _session_id: &HeaderValue) -> Option<usize> {
        None
    }

    /// How what runs for it failed last, if it did, or why it cannot be reached, as long as it cannot.
    fn last_error(&self) -> Option<LastError> {
        None
    }

    /// When the certificate that the backend showed last stops being valid; of several the one that does so first.
    fn certificate_not_after(&self) -> Option<SystemTime> {
        None
    }

    /// The replicas that it chooses from, where there are several.
    fn endpoints(&self) -> Vec<Endpoint> {
        Vec::new()
    }
}

/// How something that the gateway runs or connects to failed, for the operator.
#[derive(Clone, Debug)]
pub(crate) struct LastError {
    pub(crate) what: String,
    pub(crate) when: Instant,
}

/// One of several replicas, for the operator.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Its URL, without the query, which may hold a token.
    pub(crate) address: String,
    pub(crate) inflight: u32,
    /// How long it is still left out, if it is.
    pub(crate) ejected_for: Option<Duration>,
}

/// One request to a backend. What every request to it carries is added by the transport.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) verb: Method,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    pub(crate) timeout: Timeout,
    /// Whether running it twice is harmless.
    pub(crate) repeatable: bool,
    /// Where it is sent to if it can be, of what belongs to no session yet.
    pub(crate) replica: Option<usize>,
}

/// The answer of a backend.
pub(crate) struct Incoming {
    pub(crate) status: StatusCode,
    pub(crate) headers: Fields,
    pub(crate) body: Box<dyn Body>,
}

impl Incoming {
    /// A JSON body that is all there.
    pub(crate) fn json(status: StatusCode, body: Bytes) -> Self {
        let headers = Fields::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { status, headers, body: Box::new(Whole(Some(body))) }
    }

    /// Whether the body is an event stream.
    pub(crate) fn is_event_stream(&self) -> bool {
        is_of_type(&self.headers, "text/event-stream")
    }

    /// Whether the body is JSON.
    pub(crate) fn is_json(&self) -> bool {
        is_of_type(&self.headers, "application/json")
    }

    /// When it is worth trying again, where it says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
        let until = || httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok();
        value.parse().ok().map(Duration::from_secs).or_else(until)
    }

    /// The body whole, up to `max`.
    pub(crate) async fn collect(&mut self, max: MaxBytes, backend: &BackendName) -> Result<Bytes, Error> {
        let mut whole = bytes::BytesMut::new();
        while let Some(chunk) = self.body.next().await? {
            if whole.len() + chunk.len() > max.bytes {
                return Err(Error::BackendProtocol {
                    backend: backend.clone(),
                    what: format!("its answer is longer than {max}").into(),
                });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

/// The body of an answer. Dropped before its end, the backend sees its client leave.
#[async_trait]
pub(crate) trait Body: Send {
    /// The next bytes, never empty; `None` at the end. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Option<Bytes>, Error>;
}

/// A body that is all there.
struct Whole(Option<Bytes>);

#[async_trait]
impl Body for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}
