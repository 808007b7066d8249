//! Several servers that are one backend: each request goes to one of them.
//!
//! A session lives where it began, so its id, as the rest of the gateway has it, begins with the number of its replica:
//! nothing is remembered here. What belongs to no session goes to the replica with the fewest requests under way; a stream on
//! which news are waited for is none of these. One that fails again and again is ejected for a while, but never the last one.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use toolgate_config::{BackendName, Url};

use super::{Body, Endpoint, Incoming, LastError, Outgoing, Transport, passive_failure};
use crate::error::{Error, Phase};
use crate::fields::Fields;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// Failures in a row that eject a replica.
const FAILURES: u32 = 3;
/// How long it is ejected at first; that doubles.
const FIRST_EJECTION: Duration = Duration::from_secs(10);
/// The longest that it is.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// The transport.
pub(crate) struct Replicas {
    backend: BackendName,
    replicas: Vec<Arc<Replica>>,
    /// Where the search for the least busy one starts, so that equals take turns.
    turn: AtomicUsize,
    /// Where each round of turns starts: what comes in a rhythm, such as probes between calls, must not always meet the same.
    rounds: RandomState,
}

struct Replica {
    address: String,
    transport: Box<dyn Transport>,
    inflight: AtomicU32,
    record: Mutex<Record>,
}

/// How a replica has been doing.
#[derive(Debug, Default)]
struct Record {
    /// In a row.
    failures: u32,
    /// In a row.
    ejections: u32,
    ejected_until: Option<Instant>,
}

impl Record {
    fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let left = self.ejected_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether it is time for an ejection.
    fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.failures >= FAILURES
    }

    fn eject(&mut self, now: Instant) -> Duration {
        let pause = FIRST_EJECTION.saturating_mul(1 << self.ejections.min(16)).min(LONGEST_EJECTION);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = Some(now + pause);
        pause
    }
}

impl Replica {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.record().ejected_for(now).is_some()
    }
}

impl Replicas {
    pub(crate) fn new<'a, T: Transport + 'static>(
        backend: &BackendName,
        replicas: impl Iterator<Item = (&'a Url, T)>,
    ) -> Self {
        let replica = |(url, transport): (&Url, T)| Replica {
            address: url.to_string(),
            transport: Box::new(transport),
            inflight: AtomicU32::new(0),
            record: Mutex::default(),
        };
        let replicas = replicas.map(|entry| Arc::new(replica(entry))).collect();
        Self { backend: backend.clone(), replicas, turn: AtomicUsize::new(0), rounds: RandomState::new() }
    }

    /// The least busy replica that is not ejected, other than one that was tried.
    fn choose(&self, now: Instant, tried: Option<usize>) -> Option<usize> {
        let count = self.replicas.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let offset = self.rounds.hash_one(turn.checked_div(count)?) as usize % count;
        let first = turn % count + offset;
        let in_turn = (first..first + count).map(|index| index % count).filter(|index| Some(*index) != tried);
        in_turn
            .filter_map(|index| Some((index, self.replicas.get(index)?)))
            .min_by_key(|(_, replica)| (replica.is_ejected(now), replica.inflight.load(Ordering::Relaxed)))
            .map(|(index, _)| index)
    }

    /// Sends to one of them and notes how it went. Ids of sessions get its number.
    async fn send_to(&self, index: usize, request: Outgoing) -> Result<Incoming, Error> {
        let Some(replica) = self.replicas.get(index) else { return Ok(lost()) };
        let underway = (!rests(&request)).then(|| Underway::new(replica));
        let answer = replica.transport.send(request).await;
        let mut incoming = match answer {
            Ok(incoming) => incoming,
            Err(error) => {
                if passive_failure(&error).is_some() {
                    self.failed(index, Instant::now());
                }
                return Err(error);
            }
        };
        replica.record().succeeded();
        if let Some(id) = incoming.headers.remove(SESSION_ID) {
            let tagged = [index.to_string().as_bytes(), b".", id.as_bytes()].concat();
            // It was a header value, and still is.
            if let Ok(tagged) = HeaderValue::from_bytes(&tagged) {
                incoming.headers.push(SESSION_ID, tagged);
            }
        }
        if let Some(underway) = underway {
            incoming.body = Box::new(Counted { body: incoming.body, _underway: underway });
        }
        Ok(incoming)
    }

    fn failed(&self, index: usize, now: Instant) {
        let Some(replica) = self.replicas.get(index) else { return };
        let others_left =
            self.replicas.iter().enumerate().any(|(other, replica)| other != index && !replica.is_ejected(now));
        let mut record = replica.record();
        if record.failed() && others_left && record.ejected_for(now).is_none() {
            let pause = record.eject(now);
            tracing::warn!(backend = %self.backend, endpoint = replica.address, ?pause, "endpoint ejected");
        }
    }

    /// A request of a session, which goes to where that began.
    async fn send_within(&self, index: usize, request: Outgoing) -> Result<Incoming, Error> {
        match self.send_to(index, request).await {
            // It did not run, and that server is gone with the session: a new one begins elsewhere.
            Err(error) if never_ran(&error) => {
                tracing::debug!(backend = %self.backend, %error, "the endpoint of a session cannot be reached");
                Ok(lost())
            }
            answer => answer,
        }
    }

    async fn send_anywhere(&self, request: Outgoing) -> Result<Incoming, Error> {
        let unreachable = || Error::BackendConnect { backend: self.backend.clone() };
        let now = Instant::now();
        let wanted = request.replica.filter(|index| self.replicas.get(*index).is_some_and(|it| !it.is_ejected(now)));
        let first = wanted.or_else(|| self.choose(now, None)).ok_or_else(unreachable)?;
        let again = request.clone();
        let failure = match self.send_to(first, request).await {
            Err(error) if may_be_tried_elsewhere(&error, again.repeatable) => error,
            answer => return answer,
        };
        let Some(second) = self.choose(Instant::now(), Some(first)) else { return Err(failure) };
        tracing::debug!(backend = %self.backend, error = %failure, "an endpoint failed; trying another");
        self.send_to(second, again).await
    }
}

#[async_trait]
impl Transport for Replicas {
    async fn send(&self, mut request: Outgoing) -> Result<Incoming, Error> {
        let Some((_, id)) = request.headers.iter_mut().find(|(name, _)| *name == SESSION_ID) else {
            return self.send_anywhere(request).await;
        };
        let Some((index, own)) = id.to_str().ok().and_then(untagged) else { return Ok(lost()) };
        *id = own;
        self.send_within(index, request).await
    }

    fn has_others(&self) -> bool {
        let now = Instant::now();
        self.replicas.iter().any(|replica| {
            let record = replica.record();
            record.failures == 0 && record.ejected_for(now).is_none()
        })
    }

    fn next_replica(&self) -> Option<usize> {
        self.choose(Instant::now(), None)
    }

    fn replica_of(&self, session_id: &HeaderValue) -> Option<usize> {
        session_id.to_str().ok().and_then(untagged).map(|(index, _)| index)
    }

    fn last_error(&self) -> Option<LastError> {
        self.replicas.iter().filter_map(|replica| replica.transport.last_error()).max_by_key(|error| error.when)
    }

    fn certificate_not_after(&self) -> Option<SystemTime> {
        self.replicas.iter().filter_map(|replica| replica.transport.certificate_not_after()).min()
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let now = Instant::now();
        let endpoint = |replica: &Arc<Replica>| Endpoint {
            address: replica.address.clone(),
            inflight: replica.inflight.load(Ordering::Relaxed),
            ejected_for: replica.record().ejected_for(now),
        };
        self.replicas.iter().map(endpoint).collect()
    }
}

/// The number of a session's replica, and the session's id there.
fn untagged(id: &str) -> Option<(usize, HeaderValue)> {
    let (index, own) = id.split_once('.')?;
    Some((index.parse().ok()?, HeaderValue::from_str(own).ok()?))
}

/// Whether a request opens a stream that has no end of its own and is silent most of the time: it is no work.
fn rests(request: &Outgoing) -> bool {
    let listens = |(name, value): &(HeaderName, HeaderValue)| *name == METHOD && *value == "subscriptions/listen";
    request.verb == Method::GET || request.headers.iter().any(listens)
}

fn never_ran(error: &Error) -> bool {
    matches!(error, Error::BackendConnect { .. } | Error::BackendTimeout { phase: Phase::Connect, .. })
}

fn may_be_tried_elsewhere(error: &Error, repeatable: bool) -> bool {
    never_ran(error)
        || matches!(error, Error::BackendUnread { .. })
        || repeatable && matches!(error, Error::BackendClosed { .. })
}

/// What says that a session is no more.
fn lost() -> Incoming {
    Incoming { status: StatusCode::NOT_FOUND, headers: Fields::default(), body: Box::new(Nothing) }
}

struct Nothing;

#[async_trait]
impl Body for Nothing {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }
}

/// A request under way, until its answer has ended.
struct Underway(Arc<Replica>);

impl Underway {
    fn new(replica: &Arc<Replica>) -> Self {
        replica.inflight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(replica))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that counts until it is dropped.
struct Counted {
    body: Box<dyn Body>,
    _underway: Underway,
}

#[async_trait]
impl Body for Counted {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.body.next().await
    }
}

#[cfg(test)]
mod tests {
    use toolgate_config::Timeout;

    use super::*;

    /// Answers, or cannot be connected to.
    struct Fake {
        answers: bool,
        asked: Arc<AtomicU32>,
    }

    #[async_trait]
    impl Transport for Fake {
        async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if !self.answers {
                return Err(Error::BackendConnect { backend: config().0 });
            }
            let mut incoming = lost();
            incoming.status = StatusCode::OK;
            incoming.headers = request.headers.into_iter().collect();
            Ok(incoming)
        }
    }

    fn config() -> (BackendName, Vec<Url>) {
        let yaml =
            "listeners: [{ address: '127.0.0.1:0' }]\nbackends: [{ name: a, urls: ['http://a/', 'http://b/'] }]\n";
        let config = toolgate_config::parse(std::path::Path::new("t.yaml"), yaml, &|_| None).unwrap();
        let toolgate_config::Reach::Remote(remote) = &config.backends[0].reach else { panic!("no URLs") };
        (config.backends[0].name.clone(), remote.urls.clone())
    }

    /// Two replicas, which answer or not, and how often each was asked.
    fn replicas(answers: [bool; 2]) -> (Replicas, [Arc<AtomicU32>; 2]) {
        let (name, urls) = config();
        let asked = [Arc::default(), Arc::default()];
        let fakes = answers.iter().zip(&asked).map(|(&answers, asked)| Fake { answers, asked: Arc::clone(asked) });
        (Replicas::new(&name, urls.iter().zip(fakes)), asked)
    }

    fn post(session: Option<&str>) -> Outgoing {
        let headers = session.map(|id| (SESSION_ID, id.parse().unwrap())).into_iter().collect();
        Outgoing {
            verb: Method::POST,
            headers,
            body: Bytes::new(),
            timeout: Timeout::default(),
            repeatable: false,
            replica: None,
        }
    }

    #[tokio::test]
    async fn a_session_id_is_the_replicas_own_there_and_ours_here() {
        let (replicas, asked) = replicas([true, true]);

        let incoming = replicas.send(post(Some("1.their.own"))).await.unwrap();

        assert_eq!(incoming.headers.get(SESSION_ID).unwrap(), "1.their.own");
        assert_eq!(asked.map(|asked| asked.load(Ordering::SeqCst)), [0, 1]);
        for unknown in ["2.x", "x", "-1.x", ".x", "1"] {
            assert_eq!(replicas.send(post(Some(unknown))).await.unwrap().status, 404, "{unknown}");
        }
    }

    #[tokio::test]
    async fn requests_under_way_count_until_their_bodies_are_dropped() {
        let (replicas, asked) = replicas([true, true]);

        let held = replicas.send(post(Some("0.x"))).await.unwrap();
        for _ in 0..3 {
            replicas.send(post(None)).await.unwrap();
        }
        assert_eq!(asked[1].load(Ordering::SeqCst), 3);
        drop(held);

        assert!(replicas.endpoints().iter().all(|endpoint| endpoint.inflight == 0));
    }

    #[tokio::test]
    async fn streams_that_rest_are_no_load() {
        let (replicas, asked) = replicas([true, true]);
        let mut get = post(Some("0.x"));
        get.verb = Method::GET;
        let mut listen = post(Some("0.x"));
        listen.headers.push((METHOD, HeaderValue::from_static("subscriptions/listen")));

        let _resting = (replicas.send(get).await.unwrap(), replicas.send(listen).await.unwrap());

        assert!(replicas.endpoints().iter().all(|endpoint| endpoint.inflight == 0));
        for _ in 0..20 {
            replicas.send(post(None)).await.unwrap();
        }
        let asked = asked.map(|asked| asked.load(Ordering::SeqCst));
        assert_eq!(asked, [12, 10]);
    }

    #[tokio::test]
    async fn equals_take_turns_whatever_comes_between() {
        let (replicas, asked) = replicas([true, true]);
        let mut calls = [0, 0];

        for _ in 0..64 {
            // A probe, and then a call.
            replicas.send(post(None)).await.unwrap();
            let before = asked.each_ref().map(|asked| asked.load(Ordering::SeqCst));
            replicas.send(post(None)).await.unwrap();
            let to_first = asked[0].load(Ordering::SeqCst) > before[0];
            calls[usize::from(!to_first)] += 1;
        }

        assert_eq!(asked.map(|asked| asked.load(Ordering::SeqCst)), [64, 64]);
        assert!(calls.iter().all(|calls| *calls > 8), "{calls:?}");
    }

    #[tokio::test]
    async fn what_fails_again_and_again_is_left_out() {
        let (replicas, asked) = replicas([false, true]);

        for _ in 0..20 {
            assert_eq!(replicas.send(post(None)).await.unwrap().status, 200);
        }

        assert_eq!(asked[0].load(Ordering::SeqCst), FAILURES);
        assert!(replicas.endpoints()[0].ejected_for.is_some());
        assert_eq!(replicas.send(post(Some("0.x"))).await.unwrap().status, 404);
    }

    #[tokio::test]
    async fn the_last_one_is_never_left_out() {
        let (replicas, _) = replicas([false, false]);

        for _ in 0..20 {
            assert!(replicas.send(post(None)).await.is_err());
        }

        assert_eq!(replicas.endpoints().iter().filter(|endpoint| endpoint.ejected_for.is_some()).count(), 1);
    }

    #[test]
    fn an_ejection_is_twice_as_long_as_the_one_before_until_a_success() {
        let (mut record, now) = (Record::default(), Instant::now());
        assert!(!record.failed() && !record.failed() && record.failed());

        let pauses = [(); 7].map(|()| record.eject(now).as_secs());
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(record.ejected_for(now + LONGEST_EJECTION), None);
        assert!(record.failed(), "one more failure is enough");

        record.succeeded();
        assert_eq!(record.eject(now), FIRST_EJECTION);
    }
}
