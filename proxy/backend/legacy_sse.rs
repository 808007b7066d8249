//! Backends that speak HTTP+SSE, the transport of 2024-11-05: a GET opens the stream on which everything is said, and its first
//! event tells where to POST. The connection is the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use toolgate_config::{BackendName, Instances, Timeout, Url};

use super::duplex::{Duplex, Held, Opener, Outlet, Pieces, Pipe, Sharing};
use super::http::Http;
use super::sse::{Event, Events};
use super::{Body, LastError, Outgoing, Transport as _};
use crate::error::{Error, MaxBytes, Phase};
use crate::metrics::{Cap, Metrics};

/// The longest event that is read.
const MAX_EVENT: MaxBytes = MaxBytes::fixed(16 * 1024 * 1024);
/// How long a stream may be silent. Servers of that time sent no comments, and a session is long.
const SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Messages under way that nobody waits for, to one session.
const MAX_UNAWAITED: usize = 16;
/// The longest answer to a POST that is read, and how long that may take: it says nothing that matters.
const FAREWELL: (MaxBytes, Duration) = (MaxBytes::fixed(64 * 1024), Duration::from_millis(50));

/// Connects to the event stream.
struct LegacySse {
    backend: BackendName,
    http: Http,
    url: Url,
    metrics: Arc<Metrics>,
}

/// The transport of a backend whose event stream is at a URL.
pub(crate) fn transport((backend, url): (&BackendName, &Url), http: Http, metrics: &Arc<Metrics>) -> Duplex {
    let (url, metrics) = (url.clone(), Arc::clone(metrics));
    let opener = LegacySse { backend: backend.clone(), http, url, metrics };
    Duplex::new(backend, Instances::Session, opener)
}

impl LegacySse {
    fn broken(&self, what: &'static str) -> Error {
        Error::BackendProtocol { backend: self.backend.clone(), what: what.into() }
    }

    /// Connects, and reads up to where it says to POST to.
    async fn connect(&self, limit: &Timeout) -> Result<(Stream, Url), Error> {
        let mut timeout = *limit;
        timeout.idle = SILENCE;
        let (headers, body) = (Vec::new(), Bytes::new());
        let request = Outgoing { verb: Method::GET, headers, body, timeout, repeatable: true, replica: None };
        let incoming = self.http.send(request).await?;
        let (backend, status) = (self.backend.clone(), incoming.status.as_u16());
        match incoming.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Error::BackendCredentials { backend, status });
            }
            StatusCode::OK => {}
            _ => return Err(Error::BackendStatus { backend, status, retry_after: incoming.retry_after() }),
        }
        if !incoming.is_event_stream() {
            return Err(self.broken("its URL gives no event stream"));
        }
        let (backend, metrics) = (self.backend.clone(), Arc::clone(&self.metrics));
        let mut stream = Stream { backend, metrics, body: incoming.body, events: Events::new(MAX_EVENT.bytes) };
        let first = stream.next().await?.ok_or_else(|| self.broken("its event stream ended at once"))?;
        if first.event != "endpoint" {
            return Err(self.broken("its event stream does not begin with `endpoint`"));
        }
        let endpoint = self.url.join(&first.data);
        Ok((stream, endpoint.ok_or_else(|| self.broken("its `endpoint` is not on the same server"))?))
    }
}

#[async_trait]
impl Opener for LegacySse {
    async fn open(&self, sharing: Sharing, limit: &Timeout) -> Result<Held, Error> {
        let after = limit.first_byte;
        let connected = timeout(after, self.connect(limit)).await.unwrap_or_else(|_| {
            Err(Error::BackendTimeout { backend: self.backend.clone(), phase: Phase::FirstByte, after })
        });
        let (stream, endpoint) = connected?;
        let post = Post {
            http: Arc::new(self.http.posting_to(&endpoint.path)?),
            backend: self.backend.clone(),
            unawaited: Arc::new(Semaphore::new(MAX_UNAWAITED)),
            limit: *limit,
        };
        let pipe = Pipe::new(&self.backend, sharing, post);
        tokio::spawn(read(stream, Arc::clone(&pipe)));
        Ok(Held(pipe))
    }

    fn carries_modern(&self) -> bool {
        false
    }

    fn last_error(&self) -> Option<LastError> {
        self.http.last_error()
    }

    fn certificate_not_after(&self) -> Option<SystemTime> {
        self.http.certificate_not_after()
    }

    async fn until_closed(&self) {}
}

/// An event stream.
struct Stream {
    backend: BackendName,
    metrics: Arc<Metrics>,
    body: Box<dyn Body>,
    events: Events,
}

impl Stream {
    /// The next event; `None` at the end, however it comes.
    ///
    /// # Errors
    /// When it is longer than it may be.
    async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.events.next() {
                return Ok(Some(event));
            }
            let Ok(Some(chunk)) = self.body.next().await else { return Ok(None) };
            if self.events.push(&chunk).is_err() {
                self.metrics.cap_reached(Cap::Event);
                let backend = self.backend.clone();
                return Err(Error::TooLong { backend, what: "an event of its stream", max: MAX_EVENT });
            }
        }
    }
}

/// Reads until the stream or the pipe ends, and each ends the other.
async fn read(mut stream: Stream, pipe: Arc<Pipe>) {
    let reading = async {
        loop {
            match stream.next().await {
                Ok(Some(event)) if event.event == "message" => {
                    pipe.receive(event.data.into()).await;
                }
                Ok(Some(_)) => {}
                Ok(None) => return pipe.closed(),
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = reading => pipe.end(error),
        () = pipe.until_over() => {}
    }
}

/// POSTs messages.
struct Post {
    http: Arc<Http>,
    backend: BackendName,
    unawaited: Arc<Semaphore>,
    limit: Timeout,
}

#[async_trait]
impl Outlet for Post {
    async fn write(&self, message: Pieces, limit: &Timeout) -> Result<StatusCode, Error> {
        post(&self.http, &self.backend, message.whole(), *limit).await
    }

    fn write_soon(&self, message: Bytes) {
        let Ok(place) = Arc::clone(&self.unawaited).try_acquire_owned() else {
            tracing::debug!(backend = %self.backend, "it takes messages slowly; one to it is lost");
            return;
        };
        let (http, backend, limit) = (Arc::clone(&self.http), self.backend.clone(), self.limit);
        tokio::spawn(async move {
            if let Err(error) = post(&http, &backend, message, limit).await {
                tracing::debug!(%backend, %error, "a message to it is lost");
            }
            drop(place);
        });
    }
}

async fn post(http: &Http, backend: &BackendName, body: Bytes, timeout: Timeout) -> Result<StatusCode, Error> {
    let request = Outgoing { verb: Method::POST, headers: Vec::new(), body, timeout, repeatable: false, replica: None };
    let mut incoming = http.send(request).await?;
    // Read so that the connection can be used again.
    let _ = tokio::time::timeout(FAREWELL.1, incoming.collect(FAREWELL.0, backend)).await;
    Ok(incoming.status)
}
