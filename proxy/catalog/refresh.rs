//! Keeps the last good lists of one backend: a connection of the gateway's own, listed on start, on a timer, when the backend
//! says that something changed, when it recovers, and when a client asks for what nobody knows.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use toolgate_config::Catalog as Settings;

use super::Kind;
use super::drift;
use super::follow::Following;
use super::listing::{Lapse, Lister, Listing};
use super::webhook;
use crate::backend::Backend;
use crate::backend::client::{Judged, Own};
use crate::backend::era;
use crate::gateway::Gateway;
use crate::health::Signal;

/// The shortest time between two listings of a backend, whoever asks.
pub(crate) const FLOOR: Duration = Duration::from_millis(500);
/// The first pause after a failed listing; it doubles up to `catalog.refresh`.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The gateway's own connection to a backend, and the task that listens to what the backend tells on it.
struct Discovery {
    own: Own,
    following: Option<Following>,
}

/// Runs until the backend is retired.
pub(crate) async fn run(gateway: Arc<Gateway>, backend: Arc<Backend>) {
    let _series = backend.metrics.series();
    let mut discovery: Option<Discovery> = None;
    let mut retry = FIRST_RETRY;
    while !backend.is_retired() {
        let settings = gateway.snapshot().config.catalog;
        let listed = tokio::select! {
            listed = list(&backend, &mut discovery, &settings) => listed,
            () = backend.until_retired() => break,
        };
        let pause = match &listed {
            Ok(_) => {
                retry = FIRST_RETRY;
                settings.refresh
            }
            Err(_) => {
                let pause = retry.min(settings.refresh);
                retry = (retry * 2).min(settings.refresh);
                pause
            }
        };
        settle(&gateway, &backend, listed, &settings);
        sleep(FLOOR).await;
        tokio::select! {
            () = sleep(pause.saturating_sub(FLOOR)) => {}
            () = backend.relist.notified() => {}
            () = backend.until_retired() => break,
        }
    }
    if let Some(discovery) = discovery {
        discovery.own.close(&backend).await;
    }
}

/// Lists a backend once, which may take this long, and ends the session that it took.
pub(crate) async fn list_once(backend: &Arc<Backend>, settings: &Settings, limit: Duration) {
    let mut discovery = None;
    let listed = timeout(limit, list(backend, &mut discovery, settings)).await;
    match listed.unwrap_or_else(|_| Err(format!("it was not listed within {}s", limit.as_secs_f64()))) {
        Ok(listing) => {
            backend.list_arrived(&Arc::new(listing));
            backend.listing_ended(None);
        }
        Err(reason) => backend.listing_ended(Some(reason)),
    }
    if let Some(discovery) = discovery {
        discovery.own.close(backend).await;
    }
}

/// Takes in how a listing went.
pub(super) fn settle(gateway: &Gateway, backend: &Backend, listed: Result<Listing, String>, settings: &Settings) {
    let name = backend.name().as_str();
    let refreshes = &gateway.metrics.catalog_refreshes;
    match listed {
        Ok(listing) => {
            refreshes.with_label_values(&[name, "ok"]).inc();
            let listing = Arc::new(listing);
            let before = backend.list_arrived(&listing);
            tell_failures(name, before.as_deref(), &listing);
            note_drift(gateway, backend, &listing);
            backend.listing_ended(None);
            // What a call that was answered is worth.
            backend.note(backend.health.observe(Signal::CallOk, std::time::Instant::now()));
        }
        Err(reason) => {
            refreshes.with_label_values(&[name, "failed"]).inc();
            let is_new = backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).is_none();
            if is_new {
                tracing::warn!(backend = name, reason, "backend not listed");
            }
            backend.listing_ended(Some(reason));
            let failing_since =
                backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|f| f.since);
            if failing_since.is_some_and(|since| since.elapsed() >= settings.stale_for)
                && backend.listing.swap(None).is_some()
            {
                tracing::warn!(backend = name, "backend has been away for `catalog.stale_for`; its tools go");
            }
        }
    }
    gateway.remerge();
    backend.listing_merged();
}

/// Counts, logs and remembers what is different from the last time that the backend was listed, however long ago.
fn note_drift(gateway: &Gateway, backend: &Backend, listing: &Arc<Listing>) {
    let Some(before) = backend.listed_last.swap(Some(Arc::clone(listing))) else { return };
    let drifts = drift::between(&before, listing);
    for drift in &drifts {
        let labels = [backend.name().as_str(), drift.change.as_str()];
        gateway.metrics.catalog_drift.with_label_values(&labels).inc();
    }
    webhook::tell(gateway, backend, &drifts);
    gateway.drift.saw(backend.name(), drifts);
}

/// Logs which kinds were not listed, when that is new.
fn tell_failures(name: &str, before: Option<&Listing>, listing: &Listing) {
    for kind in Kind::ALL {
        let was = before.is_some_and(|before| before.failures.get(kind).is_some());
        if let Some(reason) = listing.failures.get(kind).as_deref().filter(|_| !was) {
            tracing::warn!(backend = name, kind = kind.field(), reason, "not listed; the list before stays");
        }
    }
}

/// Lists a backend, opening its session anew, once, if it was forgotten.
async fn list(
    backend: &Arc<Backend>,
    discovery: &mut Option<Discovery>,
    settings: &Settings,
) -> Result<Listing, String> {
    let had_session = discovery.is_some();
    let deadline = Instant::now() + settings.timeout;
    let mut listed = list_connected(backend, discovery, settings, deadline).await;
    if had_session && matches!(listed, Err(Lapse::SessionLost)) {
        *discovery = None;
        listed = list_connected(backend, discovery, settings, deadline).await;
    }
    listed.map_err(|lapse| {
        backend.doubt_era();
        if let Some(Discovery { own, .. }) = discovery.take()
            && !matches!(lapse, Lapse::SessionLost)
        {
            // Nobody waits: it may be why the listing failed that the backend does not answer.
            let backend = Arc::clone(backend);
            tokio::spawn(async move { own.close(&backend).await });
        }
        lapse.reason(backend)
    })
}

/// Lists by the deadline. A process has the time to start beside it, which what it is asked then has deadlines for.
async fn list_connected(
    backend: &Arc<Backend>,
    discovery: &mut Option<Discovery>,
    settings: &Settings,
    deadline: Instant,
) -> Result<Listing, Lapse> {
    let too_long = || Lapse::Listing(format!("listing took longer than {}s", settings.timeout.as_secs_f64()));
    let connecting = connect(backend, discovery);
    let (discovery, deadline) = if backend.is_run() {
        (connecting.await?, Instant::now() + settings.timeout)
    } else {
        (timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err(too_long()))?, deadline)
    };
    let previous = backend.listing.load_full();
    Lister::new(backend, &discovery.own, settings, deadline).list(previous.as_deref()).await
}

/// The connection to list over. A session is kept for as long as it lasts and nothing new is to be found out; what has none
/// says anew each time what it is.
async fn connect<'a>(backend: &Arc<Backend>, discovery: &'a mut Option<Discovery>) -> Result<&'a mut Discovery, Lapse> {
    let is_settled = !era::is_due(backend) && backend.spoken().is_none_or(|spoken| !spoken.modern);
    let keeps = is_settled && matches!(discovery, Some(Discovery { own: Own::Legacy(_), .. }));
    if !keeps {
        let own = era::open(backend, Judged::Yes).await?;
        let before = discovery.take();
        if let Some(Discovery { own: old @ Own::Legacy(_), .. }) = &before {
            let (backend, old) = (Arc::clone(backend), old.clone());
            tokio::spawn(async move { old.close(&backend).await });
        }
        backend.own.store(Some(Arc::new(own.clone())));
        let following = Following::start(backend, &own, before.and_then(|before| before.following));
        *discovery = Some(Discovery { own, following });
    }
    discovery.as_mut().ok_or(Lapse::SessionLost)
}
