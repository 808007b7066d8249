//! One backend's prober: the handshake, or `server/discover`, and the first page of its tools, as a client would, and the
//! session ended afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{Failure, Signal, State};
use crate::backend::Backend;
use crate::backend::client::{Judged, Outcome, Own};
use crate::backend::era;
use crate::era::Era;
use crate::error::{Error, METHOD_NOT_FOUND, MaxBytes};
use crate::gateway::Gateway;

/// The largest page that a probe reads.
const MAX_PAGE: MaxBytes = MaxBytes::fixed(16 * 1024 * 1024);

/// Runs until the backend is retired.
pub(crate) async fn run(gateway: Arc<Gateway>, backend: Arc<Backend>) {
    let _series = backend.metrics.series();
    while !backend.is_retired() {
        let limit = gateway.snapshot().config.health.timeout;
        let started = Instant::now();
        let signal = tokio::select! {
            signal = probe(&backend, limit) => signal,
            () = backend.until_retired() => return,
        };
        let (name, result) = (backend.name().as_str(), result(signal));
        gateway.metrics.probes.with_label_values(&[name, result]).inc();
        gateway.metrics.probe_seconds.with_label_values(&[name]).observe(started.elapsed().as_secs_f64());
        let before = backend.health.state();
        backend.note(backend.health.observe(signal, Instant::now()));
        if before == State::Unhealthy && backend.health.state() != State::Unhealthy {
            backend.relist.notify_one();
        }
        gateway.measure();
        let pause = backend.health.next_probe(spread());
        tokio::select! {
            () = sleep(pause) => {}
            () = backend.until_retired() => return,
        }
    }
}

/// Something in 0..1 that differs from probe to probe, so that probes of many gateways do not fall together.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let bits = RandomState::new().build_hasher().finish() >> 40;
    f64::from(u32::try_from(bits).unwrap_or(0)) / f64::from(1_u32 << 24)
}

fn result(signal: Signal) -> &'static str {
    match signal {
        Signal::ProbeOk | Signal::CallOk => "ok",
        Signal::ProbeCredentials => "credentials",
        Signal::ProbeFailed(failure) | Signal::CallFailed(failure) => failure.as_str(),
    }
}

/// One probe, which may take this long. The start of a process is not counted: it is bounded by the deadlines of what the
/// process is asked first.
async fn probe(backend: &Arc<Backend>, limit: Duration) -> Signal {
    // A probe of a command goes over the connection that there is: a new one would be a new process each time.
    let own = backend.own.load_full().filter(|_| backend.is_run());
    let is_to_start = backend.is_run() && own.is_none();
    let (opened, opening) = oneshot::channel();
    let probing = Arc::clone(backend);
    // In a task of its own: a probe that runs out of time must still end the session that it may have opened.
    let mut probe = tokio::spawn(async move {
        match own {
            Some(own) => probe_over(&own, &probing).await,
            None => probe_anew(&probing, opened).await,
        }
    });
    if is_to_start {
        // It is dropped when there is nothing to open.
        let _ = opening.await;
    }
    loop {
        match timeout(limit, &mut probe).await {
            Ok(signal) => return signal.unwrap_or(Signal::ProbeFailed(Failure::Protocol)),
            // The one before has ended.
            Err(_) if backend.is_starting() => {}
            Err(_) => return Signal::ProbeFailed(Failure::Timeout),
        }
    }
}

async fn probe_anew(backend: &Arc<Backend>, opened: oneshot::Sender<()>) -> Signal {
    let own = match era::open(backend, Judged::No).await {
        Ok(own) => own,
        Err(error) => return failed(&error),
    };
    let _ = opened.send(());
    let listed = own.request(backend, "tools/list", None, MAX_PAGE, Judged::No).await;
    let closing = Arc::clone(backend);
    tokio::spawn(async move { own.close(&closing).await });
    match listed {
        // A server may have prompts and resources only.
        Ok(Outcome::Result(_) | Outcome::Error { code: METHOD_NOT_FOUND }) => Signal::ProbeOk,
        Ok(Outcome::Error { .. } | Outcome::SessionLost) => Signal::ProbeFailed(Failure::Protocol),
        Err(error) => failed(&error),
    }
}

async fn probe_over(own: &Own, backend: &Backend) -> Signal {
    let method = match own.era() {
        Era::Legacy => "ping",
        Era::Modern => "server/discover",
    };
    let answered = own.request(backend, method, None, MAX_PAGE, Judged::No).await;
    let signal = match answered {
        Ok(Outcome::Result(_) | Outcome::Error { .. }) => Signal::ProbeOk,
        Ok(Outcome::SessionLost) => Signal::ProbeFailed(Failure::Connect),
        Err(error) => failed(&error),
    };
    if signal != Signal::ProbeOk {
        // It is opened anew by the next listing.
        backend.own.store(None);
        backend.relist.notify_one();
    }
    signal
}

fn failed(error: &Error) -> Signal {
    if matches!(error, Error::BackendCredentials { .. }) {
        return Signal::ProbeCredentials;
    }
    let failure = match () {
        () if matches!(error, Error::BackendConnect { .. } | Error::BackendClosed { .. }) => Failure::Connect,
        () if matches!(error, Error::BackendTimeout { .. }) => Failure::Timeout,
        () if matches!(error, Error::BackendStatus { status: 500.., .. }) => Failure::Status,
        () => Failure::Protocol,
    };
    Signal::ProbeFailed(failure)
}
