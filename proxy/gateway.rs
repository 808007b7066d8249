//! What outlives a snapshot: sessions, metrics, connections, the phase of a stop; and the loops beside the request path.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use toolgate_config::Config;

use crate::backend::http::Connector;
use crate::backend::{Backend, BuildError};
use crate::bridge::parked::Parked;
use crate::catalog::drift::History;
use crate::catalog::webhook::{self, Outbox};
use crate::catalog::{Freshness, Kind, LeftOut, Merged, Revisions, refresh};
use crate::era::Era;
use crate::health::{State, probe, synthetic};
use crate::metrics::Metrics;
use crate::reload::{Reloaded, Reloader};
use crate::seal::{self, Secret};
use crate::session::{Leg, Sessions};
use crate::snapshot::Snapshot;
use crate::trace::Tracer;
use crate::underway::UnderWay;

/// How often what is no longer needed is looked for.
const SWEEP: Duration = Duration::from_secs(15);
/// How often freed memory is looked for.
const GIVE_BACK: Duration = Duration::from_millis(1_200);
/// Backend sessions closed at once.
const CLOSES_AT_ONCE: usize = 32;
/// How long one sweep, or a stop, waits for backends to end sessions, and for processes to end. Longer than one of either may
/// take: there may be more sessions than are closed at once.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Over how long streams are ended whose clients go on at another process.
pub(crate) const SPREAD: Duration = Duration::from_secs(5);

/// Asks for an upgrade, and wants to know the new process's id, or why there is none.
pub(crate) type Asked = oneshot::Sender<Result<u32, String>>;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    Serving,
    /// Not ready any more, still serving; connections are closed after their request.
    LameDuck,
    /// No new requests; idle connections are closed, calls under way go on, and what belongs to them is taken.
    Draining,
    /// Calls still under way are ended.
    Cut,
    /// No connections any more but the operator's; sessions with backends are ended.
    Closing,
    /// Nothing runs any more that the operator could look at.
    Over,
}

/// The gateway.
pub(crate) struct Gateway {
    snapshot: ArcSwap<Snapshot>,
    pub(crate) sessions: Sessions,
    /// Calls that wait for their client's input.
    pub(crate) parked: Parked,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connector: Connector,
    /// What traces requests, where that is configured.
    pub(crate) tracer: Option<Arc<Tracer>>,
    /// Counts changes of the merged catalog.
    pub(crate) revision: watch::Sender<Revisions>,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether another process serves new connections.
    pub(crate) handed_over: watch::Sender<bool>,
    /// Has another process take over, where this one was started in a way that can be repeated.
    pub(crate) upgrader: OnceLock<mpsc::Sender<Asked>>,
    /// What a stop waits for.
    pub(crate) under_way: UnderWay,
    pub(crate) methods: crate::method::Handles,
    /// What has changed in what backends offer.
    pub(crate) drift: History,
    /// Who is told of it, and has not been yet.
    pub(crate) outbox: Outbox,
    generation: AtomicU64,
    /// What the last reload changed, if there was one.
    pub(crate) reloaded: ArcSwapOption<Reloaded>,
    /// When this process was put together.
    pub(crate) began: SystemTime,
    /// The loops that hold a session of the gateway's own with a backend, and end it when the backend is retired.
    listers: Mutex<Vec<JoinHandle<()>>>,
    /// What takes up new configurations; set once, when the gateway is put together.
    pub(crate) reloader: OnceLock<Arc<Reloader>>,
}

impl Gateway {
    /// Builds the first world; starts nothing.
    ///
    /// # Errors
    /// When TLS files do not fit together, or something is configured that this build does not have.
    pub(crate) fn build(config: Arc<Config>) -> Result<Arc<Self>, BuildError> {
        Self::succeed(config, seal::secret())
    }

    /// The same with the secret of the process that this one takes over from.
    pub(crate) fn succeed(config: Arc<Config>, secret: Secret) -> Result<Arc<Self>, BuildError> {
        let metrics = Arc::new(Metrics::new());
        let connector = Connector::new();
        let tracer = config.traces.as_ref().map(|traces| Tracer::new(traces, &connector, &metrics)).transpose()?;
        let under_way = UnderWay::new();
        let snapshot = Snapshot::build(Arc::clone(&config), None, &connector, &metrics)?;
        Ok(Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            sessions: Sessions::new(&config.sessions, secret),
            parked: Parked::new(metrics.parked.clone(), under_way.clone()),
            methods: crate::method::Handles::new(&metrics),
            metrics,
            connector,
            tracer,
            revision: watch::Sender::new(Revisions::FIRST),
            phase: watch::Sender::new(Phase::Serving),
            handed_over: watch::Sender::new(false),
            upgrader: OnceLock::new(),
            under_way,
            drift: History::default(),
            outbox: Outbox::default(),
            generation: AtomicU64::new(1),
            reloaded: ArcSwapOption::empty(),
            began: SystemTime::now(),
            listers: Mutex::default(),
            reloader: OnceLock::new(),
        }))
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Counts the configurations that ran, from 1.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Completes when a stop has come as far as `phase`.
    pub(crate) fn until(&self, phase: Phase) -> impl Future<Output = ()> + use<> {
        let mut phases = self.phase.subscribe();
        async move {
            // The sender lives as long as the gateway; without one there is nothing left to wait for.
            let _ = phases.wait_for(|now| *now >= phase).await.map(drop);
        }
    }

    /// Completes when another process serves new connections.
    pub(crate) async fn until_handed_over(&self) {
        // As above.
        let _ = self.handed_over.subscribe().wait_for(|over| *over).await.map(drop);
    }

    /// Completes when a stream that does not end by itself is to be ended. Where another process has taken over, its client will
    /// be there at once: so not all of them at the same time.
    pub(crate) async fn until_streams_end(&self) {
        self.until(Phase::LameDuck).await;
        if *self.handed_over.borrow() {
            let thousandths = RandomState::new().hash_one(()) % 1000;
            sleep(SPREAD * u32::try_from(thousandths).unwrap_or(0) / 1000).await;
        } else {
            self.until(Phase::Draining).await;
        }
    }

    /// Lists every backend once, outside of any loop, and merges. One that takes longer than `limit` has failed.
    pub(crate) async fn list_once(&self, limit: Duration) -> Arc<Snapshot> {
        let snapshot = self.snapshot();
        let settings = snapshot.config.catalog;
        let listings = snapshot.backends.iter().map(|backend| refresh::list_once(backend, &settings, limit));
        futures_util::future::join_all(listings).await;
        snapshot.remerge();
        snapshot.backends.iter().for_each(|backend| backend.listing_merged());
        snapshot
    }

    /// Starts the loops of the first world.
    pub(crate) fn start(self: &Arc<Self>) {
        for backend in self.snapshot().added_to(None) {
            self.tend(backend);
        }
        if let Some(tracer) = &self.tracer {
            tracer.start();
        }
        tokio::spawn(sweep(Arc::clone(self)));
        tokio::spawn(give_back(Arc::clone(self)));
        tokio::spawn(webhook::run(Arc::clone(self)));
        self.measure();
    }

    /// Takes up a new world: swap, then retire what is gone and start what is new.
    pub(crate) fn swap(self: &Arc<Self>, next: Snapshot) {
        let next = Arc::new(next);
        let config = Arc::clone(&next.config);
        let previous = self.snapshot.swap(Arc::clone(&next));
        self.sessions.reconfigure(&config.sessions);
        for backend in &next.backends {
            backend.health.reconfigure(config.health);
        }
        for backend in previous.retired_by(&next) {
            backend.retire();
            self.forget(&backend, &next);
        }
        for backend in next.added_to(Some(&previous)) {
            self.tend(backend);
        }
        self.generation.fetch_add(1, Ordering::Relaxed);
        // Whoever listens to backends looks at which there are now.
        self.revision.send_modify(|_| {});
        // Lists may have come in for the old world since the new one was built.
        next.remerge();
        self.announce(&previous.catalog(), &next.catalog());
        self.measure();
    }

    /// Makes the catalog anew, and tells clients if it changed.
    pub(crate) fn remerge(&self) {
        let snapshot = self.snapshot();
        let (old, new) = snapshot.remerge();
        self.announce(&old, &new);
        self.measure();
    }

    fn announce(&self, old: &Merged, new: &Merged) {
        new.tell_unpinned(old);
        let size = |catalog: &Merged| catalog.tool_bytes() as u64;
        if let Some(budget) = self.snapshot().config.catalog.budget
            && (size(old) <= budget) != (size(new) <= budget)
        {
            let (bytes, budget) = (size(new), budget);
            if bytes > budget {
                tracing::warn!(bytes, budget, "the list of tools has outgrown its budget");
            } else {
                tracing::info!(bytes, budget, "the list of tools is within its budget again");
            }
        }
        self.revision.send_if_modified(|revisions| revisions.count(old, new));
    }

    fn tend(self: &Arc<Self>, backend: Arc<Backend>) {
        let lister = tokio::spawn(refresh::run(Arc::clone(self), Arc::clone(&backend)));
        let mut listers = self.listers.lock().unwrap_or_else(PoisonError::into_inner);
        listers.retain(|lister| !lister.is_finished());
        listers.push(lister);
        drop(listers);
        tokio::spawn(probe::run(Arc::clone(self), Arc::clone(&backend)));
        if let Some(wanted) = backend.config.synthetic.clone() {
            tokio::spawn(synthetic::run(Arc::clone(self), backend, wanted));
        }
    }

    /// Whether at least one backend takes calls and the gateway is not going down.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
            && self.snapshot().backends.iter().any(|b| matches!(b.health.state(), State::Healthy | State::Degraded))
    }

    /// Brings the gauges that mirror the catalog and the backends up to date.
    pub(crate) fn measure(&self) {
        let (snapshot, metrics) = (self.snapshot(), &self.metrics);
        let catalog = snapshot.catalog();
        metrics.catalog_bytes.set(to_gauge(catalog.list(Kind::Tools, Era::Legacy).len()));
        metrics
            .catalog_budget
            .set(snapshot.config.catalog.budget.map_or(0, |budget| budget.try_into().unwrap_or(i64::MAX)));
        metrics.catalog_revision.set(i64::try_from(self.revision.borrow().tools).unwrap_or(i64::MAX));
        let (mut incomplete, mut collisions) = (0, 0);
        for (part, backend) in catalog.parts.iter().zip(&snapshot.backends) {
            let name = part.backend.as_str();
            // One that a reload has removed meanwhile is measured no more.
            let Some(_series) = backend.metrics.series() else { continue };
            incomplete += i64::from(part.freshness != Freshness::Fresh);
            let tools = part.left_out.iter().filter(|omission| omission.kind == Kind::Tools);
            let refused = tools.clone().filter(|omission| omission.why.is_refusal()).count();
            let unpinned = tools.filter(|omission| matches!(omission.why, LeftOut::Unpinned { .. })).count();
            collisions += part.left_out.iter().filter(|one| matches!(one.why, LeftOut::Collision { .. })).count();
            metrics.catalog_tools.with_label_values(&[name]).set(to_gauge(*part.shown.get(Kind::Tools)));
            metrics.catalog_backend_bytes.with_label_values(&[name]).set(to_gauge(part.bytes));
            metrics.catalog_refused_tools.with_label_values(&[name]).set(to_gauge(refused));
            metrics.catalog_unpinned_tools.with_label_values(&[name]).set(to_gauge(unpinned));
            for kind in Kind::ALL {
                let shown = to_gauge(*part.shown.get(kind));
                metrics.catalog_entries.with_label_values(&[name, kind.field()]).set(shown);
            }
        }
        metrics.catalog_incomplete.set(incomplete);
        metrics.catalog_collisions.set(to_gauge(collisions));
        metrics.sessions.set(to_gauge(self.sessions.held()));
        metrics.sessions_max.set(snapshot.config.sessions.max.into());
        let counts = &self.sessions.counts;
        metrics.questions.set(to_gauge(counts.questions.load(Ordering::Relaxed)));
        metrics.subscriptions.set(to_gauge(counts.subscriptions.load(Ordering::Relaxed)));
        for backend in &snapshot.backends {
            let (name, state) = (backend.name().as_str(), backend.health.state());
            let Some(_series) = backend.metrics.series() else { continue };
            for known in State::ALL {
                let is_it = i64::from(known == state);
                metrics.backend_state.with_label_values(&[name, known.as_str()]).set(is_it);
            }
            metrics.backend_up.with_label_values(&[name]).set(i64::from(backend.health.allows_calls()));
            if let Some(since) = backend.certificate_not_after().and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
                metrics.backend_certificate_not_after.with_label_values(&[name]).set(since.as_secs_f64());
            }
            if let Some(listing) = &*backend.listing.load() {
                metrics.catalog_age_seconds.with_label_values(&[name]).set(listing.fetched.elapsed().as_secs_f64());
            }
        }
        for rule in snapshot.limits.rules() {
            metrics.limit(rule.name());
            metrics.limit_keys.with_label_values(&[rule.name()]).set(to_gauge(rule.keys()));
        }
    }

    /// Ends the series that tell the state of a backend whose name is gone. Those that count end with its last call.
    fn forget(&self, backend: &Backend, next: &Snapshot) {
        if next.backends.iter().any(|b| b.name() == backend.name()) {
            return;
        }
        let (name, metrics) = (backend.name().as_str(), &self.metrics);
        let of_tools = [&metrics.catalog_tools, &metrics.catalog_refused_tools, &metrics.catalog_unpinned_tools];
        for gauge in of_tools.into_iter().chain([&metrics.catalog_backend_bytes, &metrics.backend_up]) {
            let _ = gauge.remove_label_values(&[name]);
        }
        let _ = metrics.catalog_age_seconds.remove_label_values(&[name]);
        let _ = metrics.backend_certificate_not_after.remove_label_values(&[name]);
        for state in State::ALL {
            let _ = metrics.backend_state.remove_label_values(&[name, state.as_str()]);
        }
        for kind in Kind::ALL {
            let _ = metrics.catalog_entries.remove_label_values(&[name, kind.field()]);
        }
        for (era, version) in backend.spoken().iter().flat_map(|spoken| spoken.versions()) {
            let _ = metrics.backend_info.remove_label_values(&[name, era, version]);
        }
    }

    /// Ends every backend session, clients' and the gateway's own, and every process, for a stop. All at the same time: none of
    /// them has to wait for a backend that hangs.
    pub(crate) async fn close_sessions(&self) {
        self.parked.clear();
        let snapshot = self.snapshot();
        snapshot.backends.iter().for_each(|backend| backend.retire());
        let listers = std::mem::take(&mut *self.listers.lock().unwrap_or_else(PoisonError::into_inner));
        let listers = timeout(CLOSE_DEADLINE, futures_util::future::join_all(listers));
        // Processes end with their sessions, and soon; here they are waited for.
        let processes = futures_util::future::join_all(snapshot.backends.iter().map(|backend| backend.close()));
        let processes = timeout(CLOSE_DEADLINE, processes);
        let _ = tokio::join!(listers, close(self.sessions.drain()), processes);
    }
}

fn to_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Ends backend sessions, some at once, not for long.
pub(crate) async fn close(legs: Vec<Arc<Leg>>) {
    let closing = stream::iter(legs).for_each_concurrent(CLOSES_AT_ONCE, |leg| async move { leg.close().await });
    let _ = timeout(CLOSE_DEADLINE, closing).await;
}

/// Releases what is no longer needed, until the gateway goes down.
async fn sweep(gateway: Arc<Gateway>) {
    let mut ticks = interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = gateway.until(Phase::Draining) => return,
        }
        close(gateway.sessions.sweep(Instant::now())).await;
        let snapshot = gateway.snapshot();
        snapshot.backends.iter().for_each(|backend| backend.latency().sample(&backend.metrics.first_byte));
        let sweeping = Arc::clone(&snapshot);
        // Millions of keys take a while to walk.
        let _ = tokio::task::spawn_blocking(move || sweeping.limits.sweep()).await;
        let catalog = snapshot.catalog();
        gateway
            .metrics
            .retain_tools(|of, tool| catalog.route(tool).is_some_and(|route| route.backend.name().as_str() == of));
        gateway.measure();
    }
}

/// Has memory that was freed a while ago given back to the system, until the gateway goes down. The allocator looks for such
/// when it takes or frees a page, which it does not where nothing happens: after all clients have left, of all times.
async fn give_back(gateway: Arc<Gateway>) {
    /// More than it keeps for later.
    const PAGE: usize = 768 * 1024;
    let mut ticks = interval(GIVE_BACK);
    loop {
        tokio::select! {
            _ = ticks.tick() => drop(std::hint::black_box(Vec::<u8>::with_capacity(PAGE))),
            () = gateway.until(Phase::Draining) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn a_backend_that_never_answers_is_missing_for_a_reason() {
        // It is connected to by the kernel, and nobody reads.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let yaml =
            format!("listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, url: 'http://{address}' }}]");
        let config = toolgate_config::parse(Path::new("t.yaml"), &yaml, &|_| None).unwrap();
        let gateway = Gateway::build(Arc::new(config)).unwrap();

        let snapshot = gateway.list_once(Duration::from_millis(50)).await;

        assert_eq!(snapshot.backends[0].listing_problem().as_deref(), Some("it was not listed within 0.05s"));
        assert_eq!(snapshot.catalog().parts[0].freshness, Freshness::Missing);
    }
}
