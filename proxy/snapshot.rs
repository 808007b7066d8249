//! Everything one request needs, built whole and swapped whole.
//!
//! A request takes the snapshot once and keeps it to its end, streams included. A reload builds a new one, which takes
//! over from the old whatever belongs to sections that did not change: backends with their connections, health and lists,
//! limits with their cells.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, timeout_at};
use toolgate_config::Config;

use crate::backend::http::Connector;
use crate::backend::{Backend, BuildError};
use crate::catalog::Merged;
use crate::catalog::merge::merge;
use crate::catalog::webhook::Webhook;
use crate::limit::Limits;
use crate::metrics::Metrics;
use crate::upgrade::LISTED_WITHIN;

/// How long the first clients of a fresh process wait for backends that have not been listed yet. Later ones never wait.
const SETTLE: Duration = Duration::from_secs(1);

/// The immutable world of a request; the catalog in it is replaced as backends change.
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    /// In file order.
    pub(crate) backends: Vec<Arc<Backend>>,
    pub(crate) limits: Limits,
    /// Who is told of changes in what backends offer.
    pub(crate) webhook: Option<Arc<Webhook>>,
    catalog: ArcSwap<Merged>,
    /// Held while a catalog is made, so that an older one never replaces a newer.
    merging: Mutex<()>,
    settled: AtomicBool,
    made: Instant,
}

impl Snapshot {
    /// Builds the world of a configuration, on top of the one before.
    ///
    /// # Errors
    /// When a backend's TLS files do not fit together. The one before is not touched.
    pub(crate) fn build(
        config: Arc<Config>,
        previous: Option<&Self>,
        connector: &Connector,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let kept = |wanted: &toolgate_config::Backend| {
            previous?.backends.iter().find(|backend| backend.config == *wanted).map(Arc::clone)
        };
        let mut backends = Vec::with_capacity(config.backends.len());
        for wanted in &config.backends {
            backends.push(match kept(wanted) {
                Some(backend) => backend,
                None => {
                    let backend = Backend::build(wanted, &config.health, connector, metrics)?;
                    // Most changes of a section leave its tools what they were; until it is listed anew they are shown as they
                    // were, so that clients do not see them vanish and come back.
                    let namesake = previous.and_then(|p| p.backends.iter().find(|b| b.name() == backend.name()));
                    if let Some(namesake) = namesake {
                        backend.take_over(namesake);
                    }
                    Arc::new(backend)
                }
            });
        }
        let webhook = Webhook::build(config.webhook.as_ref(), previous.and_then(|p| p.webhook.as_ref()), connector)?;
        let limits = Limits::build(&config.limits, previous.map(|p| &p.limits));
        let catalog = ArcSwap::from_pointee(merge(&backends, &limits, &config.pin));
        Ok(Self {
            backends,
            limits,
            webhook,
            catalog,
            merging: Mutex::new(()),
            settled: AtomicBool::new(previous.is_some()),
            made: Instant::now(),
            config,
        })
    }

    pub(crate) fn catalog(&self) -> Arc<Merged> {
        self.catalog.load_full()
    }

    /// Makes the catalog anew from the backends' lists. Returns the one before, and the new one.
    pub(crate) fn remerge(&self) -> (Arc<Merged>, Arc<Merged>) {
        let _merging = self.merging.lock().unwrap_or_else(PoisonError::into_inner);
        let merged = Arc::new(merge(&self.backends, &self.limits, &self.config.pin));
        (self.catalog.swap(Arc::clone(&merged)), merged)
    }

    /// Waits, right after a start, until every backend was listed or [`SETTLE`] is over.
    pub(crate) async fn settle(&self) {
        if self.settled.load(Ordering::Acquire) {
            return;
        }
        for backend in &self.backends {
            let mut listings = backend.listings.subscribe();
            let first = listings.wait_for(|count| *count > 0);
            if timeout_at(self.made + SETTLE, first).await.is_err() {
                break;
            }
        }
        self.settled.store(true, Ordering::Release);
    }

    /// The backends whose lists are shown, and which take calls.
    pub(crate) fn listed_now(&self) -> Vec<String> {
        let is_shown = |backend: &&Arc<Backend>| backend.listing.load().is_some() && backend.health.allows_calls();
        self.backends.iter().filter(is_shown).map(|backend| backend.name().to_string()).collect()
    }

    /// Waits, right after a start, until each of these backends that there is was listed, or could not be, or
    /// [`LISTED_WITHIN`] is over.
    pub(crate) async fn listed(&self, names: &[String]) {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let deadline = self.made + LISTED_WITHIN;
        for backend in self.backends.iter().filter(|backend| names.contains(backend.name().as_str())) {
            let mut listings = backend.listings.subscribe();
            if timeout_at(deadline, listings.wait_for(|count| *count > 0)).await.is_err() {
                tracing::warn!(backend = %backend.name(), "not listed yet; serving without it");
            }
        }
    }

    /// The backends that `newer` does not have any more.
    pub(crate) fn retired_by(&self, newer: &Self) -> Vec<Arc<Backend>> {
        let kept: HashSet<u64> = newer.backends.iter().map(|backend| backend.uid).collect();
        self.backends.iter().filter(|backend| !kept.contains(&backend.uid)).map(Arc::clone).collect()
    }

    /// The backends that `older` did not have.
    pub(crate) fn added_to(&self, older: Option<&Self>) -> Vec<Arc<Backend>> {
        let had: HashSet<u64> = older.into_iter().flat_map(|s| &s.backends).map(|backend| backend.uid).collect();
        self.backends.iter().filter(|backend| !had.contains(&backend.uid)).map(Arc::clone).collect()
    }
}
