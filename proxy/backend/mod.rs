//! One MCP server behind the gateway, and the seam through which bytes reach it.
//!
//! Nothing past [`Backend::build`] knows which transport a backend has.

pub(crate) mod client;
pub(crate) mod duplex;
pub(crate) mod era;
pub(crate) mod http;
pub(crate) mod latency;
mod legacy_sse;
mod replicas;
pub(crate) mod sse;
mod stdio;
mod transport;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use toolgate_config::{
    Backend as Config, BackendName, Health as HealthConfig, HttpTransport, Protocol, Reach, Timeout,
};

use self::era::Spoken;
use self::latency::Latency;
pub(crate) use self::transport::{Body, Endpoint, Incoming, LastError, Outgoing, Transport};
use crate::catalog::listing::Listing;
use crate::catalog::refresh::FLOOR;
use crate::era::{Era, Version};
use crate::error::{Error, Phase};
use crate::health::{Failure, Health, Signal, State, Transition, synthetic};
use crate::metrics::{BackendMetrics, Cap, Metrics, Series};
use crate::tls::TlsError;

/// Why a backend could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("backend `{backend}`: a header or the path cannot be sent")]
    Head { backend: BackendName },
    #[error("backend `{backend}`: {problem}")]
    Tls { backend: BackendName, problem: TlsError },
    #[error("backend `{backend}`: there can be no TLS to it: {problem}")]
    Connect { backend: BackendName, problem: String },
    #[error("{problem}")]
    Traces { problem: String },
}

/// One configured MCP server, as it runs. Shared by every snapshot whose section for it is the same.
pub(crate) struct Backend {
    /// Unique in this process; a backend whose section changed gets a new one.
    pub(crate) uid: u64,
    pub(crate) config: Config,
    pub(crate) health: Health,
    pub(crate) metrics: BackendMetrics,
    /// Which eras it speaks, as far as is known.
    spoken: ArcSwapOption<Spoken>,
    /// Held while that is replaced.
    learning: Mutex<()>,
    /// Held while it is found out.
    finding: tokio::sync::Mutex<()>,
    /// The gateway's own connection to it, while there is one.
    pub(crate) own: ArcSwapOption<client::Own>,
    /// The last good lists of what it has.
    pub(crate) listing: ArcSwapOption<Listing>,
    /// The last ones, even if they are too old to be shown: what comes next is compared with them.
    pub(crate) listed_last: ArcSwapOption<Listing>,
    /// Whether a list has come in that does not stand in the catalog yet.
    is_merging: AtomicBool,
    /// Why the last listing failed and since when they fail, if it did.
    pub(crate) listing_failure: Mutex<Option<ListingFailure>>,
    /// Whether a first listing was tried, well or badly.
    pub(crate) listed_once: AtomicBool,
    /// Asks for a listing now.
    pub(crate) relist: Notify,
    /// Counts listings that ended, for whoever waits for one.
    pub(crate) listings: tokio::sync::watch::Sender<u64>,
    latency: Mutex<Latency>,
    /// How its synthetic call ended last.
    pub(crate) synthetic: ArcSwapOption<synthetic::Last>,
    retired: AtomicBool,
    retiring: Notify,
    inflight: AtomicU32,
    transport: Box<dyn Transport>,
    shared: Arc<Metrics>,
}

/// Since when listing a backend fails, and why.
#[derive(Clone, Debug)]
pub(crate) struct ListingFailure {
    pub(crate) since: Instant,
    pub(crate) reason: String,
}

static NEXT_UID: AtomicU64 = AtomicU64::new(1);

impl Backend {
    /// Makes a backend ready to be used; dials nothing.
    ///
    /// # Errors
    /// When its TLS files do not fit together.
    pub(crate) fn build(
        config: &Config,
        health: &HealthConfig,
        connector: &http::Connector,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let uid = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        let backend = Self {
            uid,
            transport: transport(config, connector, metrics)?,
            health: Health::new(*health, Instant::now()),
            metrics: metrics.backend(config.name.as_str()),
            spoken: ArcSwapOption::from(Spoken::configured(config.protocol).map(Arc::new)),
            learning: Mutex::default(),
            finding: tokio::sync::Mutex::default(),
            own: ArcSwapOption::empty(),
            listing: ArcSwapOption::empty(),
            listed_last: ArcSwapOption::empty(),
            is_merging: AtomicBool::new(false),
            listing_failure: Mutex::default(),
            listed_once: AtomicBool::new(false),
            relist: Notify::new(),
            listings: tokio::sync::watch::Sender::new(0),
            latency: Mutex::default(),
            synthetic: ArcSwapOption::empty(),
            retired: AtomicBool::new(false),
            retiring: Notify::new(),
            inflight: AtomicU32::new(0),
            shared: Arc::clone(metrics),
            config: config.clone(),
        };
        Ok(backend)
    }

    pub(crate) fn name(&self) -> &BackendName {
        &self.config.name
    }

    /// Whether the gateway runs it, as a process.
    pub(crate) fn is_run(&self) -> bool {
        matches!(self.config.reach, Reach::Command(_))
    }

    /// Whether a process that answers requests of the modern era has yet to say its first word.
    pub(crate) fn is_starting(&self) -> bool {
        self.transport.is_starting()
    }

    /// Which eras it speaks, as far as is known.
    pub(crate) fn spoken(&self) -> Option<Arc<Spoken>> {
        self.spoken.load_full()
    }

    /// The era in which it is spoken to for a client of `client`: the client's own if it can be. `None` while it is not
    /// known.
    pub(crate) fn era_for(&self, client: Era) -> Option<Era> {
        self.spoken.load().as_ref().map(|spoken| spoken.era_for(client))
    }

    /// Whether what a method is for is offered in the modern era only, by a backend with which a legacy session is open. What
    /// legacy clients are told of it is what it declares in the era that it is listed in.
    pub(crate) fn offers_in_modern_only(&self, method: &str, opened: &client::Opened) -> bool {
        let offers = |listing: &Listing| listing.era == Era::Modern && listing.capabilities.offers(method);
        !opened.capabilities.offers(method)
            && self.spoken().is_some_and(|spoken| spoken.modern)
            && self.listing.load().as_ref().is_some_and(|listing| offers(listing))
    }

    /// Takes in what it speaks, as made out of what was known; a change is logged and counted; that a modern backend turns
    /// out to speak legacy too is none: it was not asked before a legacy client came. Whether there was anything to take in.
    fn learn(&self, made_of: impl FnOnce(Option<&Spoken>) -> Option<Spoken>) -> bool {
        let _alone = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.spoken();
        let Some(spoken) = made_of(before.as_deref()) else { return false };
        let (name, info) = (self.name().as_str(), &self.shared.backend_info);
        let (now, eras) = (spoken.versions(), spoken.eras());
        self.spoken.store(Some(Arc::new(spoken)));
        let Some(_series) = self.metrics.series() else { return true };
        for (era, version) in before.iter().flat_map(|before| before.versions()).filter(|old| !now.contains(old)) {
            // What never was set is not there to be removed.
            let _ = info.remove_label_values(&[name, era, version]);
        }
        for (era, version) in now {
            info.with_label_values(&[name, era, version]).set(1);
        }
        if let Some(was) = before.map(|before| before.eras()).filter(|was| *was != eras) {
            if was == ["modern"] && eras.contains(&"modern") {
                tracing::info!(backend = name, "backend speaks legacy too");
            } else {
                let (was, is) = (was.join(" and "), eras.join(" and "));
                tracing::warn!(backend = name, from = was, to = is, "backend changed its era");
                self.shared.backend_era_changes.with_label_values(&[name]).inc();
            }
        }
        true
    }

    /// Takes in that a legacy handshake for a client has agreed on a version.
    pub(crate) fn agreed(&self, version: Version) {
        let is_known = |spoken: &Spoken| spoken.versions().contains(&("legacy", version.as_str()));
        self.learn(|known| known.filter(|known| !is_known(known)).map(|known| known.agreed(version)));
    }

    /// Takes in that it is of no use in the legacy era. Whether it can be spoken to otherwise.
    pub(crate) fn refused_legacy(&self) -> bool {
        self.learn(|known| known.filter(|known| known.modern).map(Spoken::modern_only))
    }

    /// Has what it speaks looked at again by the next listing, where the configuration leaves that open.
    pub(crate) fn doubt_era(&self) {
        if self.config.protocol == Protocol::Auto {
            self.learn(|known| known.map(Spoken::doubted));
        }
    }

    /// Takes over what its namesake of before is known to speak and to have, to be looked at again.
    pub(crate) fn take_over(&self, namesake: &Self) {
        self.listing.store(namesake.listing.load_full());
        self.listed_last.store(namesake.listed_last.load_full());
        if let Some(spoken) = namesake.spoken()
            && self.config.protocol == Protocol::Auto
        {
            self.spoken.store(Some(Arc::new(spoken.doubted())));
        }
    }

    /// Counts that a cap was reached by something of it.
    pub(crate) fn cap_reached(&self, cap: Cap) {
        self.shared.cap_reached(cap);
    }

    /// Logs and counts that an event on a stream of its own is longer than one may be. The stream is opened anew.
    pub(crate) fn said_too_much(&self) {
        let (backend, max) = (self.name().as_str(), sse::MAX_OWN_EVENT.bytes);
        tracing::warn!(backend, max, "an event on the backend's own stream is too long; the stream is opened anew");
        self.cap_reached(Cap::Event);
    }

    /// Which of its replicas is to get what comes next and belongs to no session yet, where there are several.
    pub(crate) fn next_replica(&self) -> Option<usize> {
        self.transport.next_replica()
    }

    /// Which of its replicas a session is with, where there are several.
    pub(crate) fn replica_of(&self, opened: &client::Opened) -> Option<usize> {
        self.transport.replica_of(opened.session_id.as_ref()?)
    }

    /// How a process of it failed last, where the gateway runs it; of others why they cannot be reached, as long as they cannot.
    pub(crate) fn last_error(&self) -> Option<LastError> {
        self.transport.last_error()
    }

    /// When the certificate that it showed last stops being valid, of several replicas the one that does so first.
    pub(crate) fn certificate_not_after(&self) -> Option<SystemTime> {
        self.transport.certificate_not_after()
    }

    /// Its replicas, where there are several.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.transport.endpoints()
    }

    /// How long it took of late.
    pub(crate) fn latency(&self) -> MutexGuard<'_, Latency> {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends whatever runs for it, for a stop.
    pub(crate) async fn close(&self) {
        self.transport.close().await;
    }

    /// The deadlines of a tool, by the backend's own name for it.
    pub(crate) fn timeout_for(&self, own_tool: &str) -> Timeout {
        let special = self.config.tool_timeouts.iter().find(|t| t.tools.iter().any(|p| p.matches(own_tool)));
        special.map_or(self.config.timeout, |t| t.timeout)
    }

    /// A place among the requests under way, or the refusal when there is none.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Slot, Error> {
        if !self.health.allows_calls() {
            let down_for = now.saturating_duration_since(self.health.since());
            return Err(Error::BackendUnavailable { backend: self.name().clone(), down_for });
        }
        let cap = self.config.max_inflight;
        let slot = Slot { backend: Arc::clone(self), _series: self.metrics.series() };
        self.metrics.inflight.inc();
        if self.inflight.fetch_add(1, Ordering::Relaxed) >= cap {
            return Err(Error::BackendBusy { backend: self.name().clone(), cap });
        }
        Ok(slot)
    }

    /// Sends a request; how it went counts for the backend's health.
    pub(crate) async fn send(&self, request: Outgoing) -> Result<Incoming, Error> {
        self.send_judged(request, |_| true).await
    }

    /// Sends a request of the gateway's own, which counts for the backend's health if it fails.
    pub(crate) async fn send_own(&self, request: Outgoing) -> Result<Incoming, Error> {
        self.send_judged(request, |signal| signal != Signal::CallOk).await
    }

    async fn send_judged(&self, request: Outgoing, counts: fn(Signal) -> bool) -> Result<Incoming, Error> {
        let started = Instant::now();
        let answer = self.transport.send(request).await;
        let now = Instant::now();
        let signal = match &answer {
            Ok(incoming) => {
                self.metrics.first_byte.observe(now.saturating_duration_since(started).as_secs_f64());
                Some(match incoming.status.is_server_error() {
                    true => Signal::CallFailed(Failure::Status),
                    false => Signal::CallOk,
                })
            }
            // That a process ended tells little: it may have been one session's alone, or the end of many calls at once. The
            // next probe shows whether there can be another.
            Err(Error::BackendClosed { .. } | Error::BackendConnect { .. }) if self.is_run() => None,
            // A replica that fails is left out, and no call needs it.
            Err(_) if self.transport.has_others() => None,
            Err(error) => passive_failure(error).map(Signal::CallFailed),
        };
        let signal = signal.filter(|signal| counts(*signal));
        self.note(signal.and_then(|signal| self.health.observe(signal, now)));
        answer
    }

    /// Sends a request of the gateway's own that says nothing about the backend's health, or whose outcome is judged apart.
    pub(crate) async fn send_unjudged(&self, request: Outgoing) -> Result<Incoming, Error> {
        self.transport.send(request).await
    }

    /// Logs and counts a change of health, and sees to what follows from it.
    pub(crate) fn note(&self, transition: Option<Transition>) {
        let Some(Transition { from, to, reason }) = transition else { return };
        let name = self.name().as_str();
        let (was, is) = (from.as_str(), to.as_str());
        if to == State::Healthy {
            tracing::info!(backend = name, from = was, to = is, %reason, "backend changed state");
        } else {
            tracing::warn!(backend = name, from = was, to = is, %reason, "backend changed state");
        }
        if let Some(_series) = self.metrics.series() {
            self.shared.backend_transitions.with_label_values(&[name, from.as_str(), to.as_str()]).inc();
        }
        self.relist.notify_one();
    }

    /// Tells everything that works for this backend to end: a reload replaced or removed it.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        let _ = self.health.drain(Instant::now());
        self.metrics.retire();
        self.retiring.notify_waiters();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Completes when the backend is retired.
    pub(crate) async fn until_retired(&self) {
        let notified = self.retiring.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_retired() {
            notified.await;
        }
    }

    /// Why the last listing failed, if it did.
    pub(crate) fn listing_problem(&self) -> Option<String> {
        self.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|f| f.reason.clone())
    }

    /// Takes a list in, which has to be merged next. Returns the one before.
    pub(crate) fn list_arrived(&self, listing: &Arc<Listing>) -> Option<Arc<Listing>> {
        self.is_merging.store(true, Ordering::Release);
        self.listing.swap(Some(Arc::clone(listing)))
    }

    /// Whether what the backend has was looked at a moment ago, and stands in the catalog.
    pub(crate) fn is_listed(&self) -> bool {
        // In this order: a list that has arrived since is not merged yet.
        self.listing.load().as_ref().is_some_and(|listing| listing.fetched.elapsed() < FLOOR) && self.is_known()
    }

    /// Whether what the backend has stands in the catalog, as far as it was ever listed.
    pub(crate) fn is_known(&self) -> bool {
        self.listing.load().is_some() && !self.is_merging.load(Ordering::Acquire)
    }

    /// Records how a listing went that was tried.
    pub(crate) fn listing_ended(&self, failure: Option<String>) {
        let mut slot = self.listing_failure.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = failure
            .map(|reason| ListingFailure { since: slot.as_ref().map_or_else(Instant::now, |f| f.since), reason });
    }

    /// Wakes who waits for a listing: after it has been merged, for they look there.
    pub(crate) fn listing_merged(&self) {
        self.is_merging.store(false, Ordering::Release);
        self.listed_once.store(true, Ordering::Release);
        self.listings.send_modify(|n| *n += 1);
    }
}

/// The one place that knows which transports there are.
fn transport(
    config: &Config,
    connector: &http::Connector,
    metrics: &Arc<Metrics>,
) -> Result<Box<dyn Transport>, BuildError> {
    let remote = match &config.reach {
        Reach::Command(command) => return Ok(Box::new(stdio::transport(&config.name, command, metrics))),
        Reach::Remote(remote) => remote,
    };
    let http = |url| http::Http::new(http::Target { backend: &config.name, remote, url }, connector);
    Ok(match (remote.transport, remote.urls.as_slice()) {
        (HttpTransport::Sse, [url, ..]) => Box::new(legacy_sse::transport((&config.name, url), http(url)?, metrics)),
        (HttpTransport::StreamableHttp, [url]) => Box::new(http(url)?),
        (HttpTransport::Sse | HttpTransport::StreamableHttp, urls) => {
            let replicas = urls.iter().map(|url| Ok((url, http(url)?))).collect::<Result<Vec<_>, _>>()?;
            Box::new(replicas::Replicas::new(&config.name, replicas.into_iter()))
        }
    })
}

/// Which failures of a request speak against the health of who should have answered it.
fn passive_failure(error: &Error) -> Option<Failure> {
    if matches!(error, Error::BackendConnect { .. } | Error::BackendClosed { .. }) {
        return Some(Failure::Connect);
    }
    let too_slow = matches!(error, Error::BackendTimeout { phase: Phase::Connect | Phase::FirstByte, .. });
    too_slow.then_some(Failure::Timeout)
}

/// A place among the requests under way to a backend, until dropped.
pub(crate) struct Slot {
    backend: Arc<Backend>,
    _series: Option<Arc<Series>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.backend.inflight.fetch_sub(1, Ordering::Relaxed);
        self.backend.metrics.inflight.dec();
    }
}
