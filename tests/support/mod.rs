//! What the tests stand on: backends and clients in this process, the gateway on free ports, and waits that end.

pub(crate) mod backend;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod modern_client;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod sse_backend;
pub(crate) mod stdio;
pub(crate) mod wire;

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

pub(crate) use self::backend::{Call, CallStream, FakeBackend, FakeModern, Mood, Server};
pub(crate) use self::client::{Answer, Client};
pub(crate) use self::modern_client::ModernClient;
pub(crate) use self::process::Process;
pub(crate) use self::proxy::{Setup, TestProxy};
pub(crate) use self::raw::Raw;

/// How long anything may take that should happen at once. Far longer than it takes, for busy machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits for what must happen.
#[track_caller]
pub(crate) fn within<F: Future>(what: F) -> impl Future<Output = F::Output> {
    within_for(PATIENCE, what)
}

/// As [`within`], where how long it takes is the point.
#[track_caller]
pub(crate) fn within_for<F: Future>(limit: Duration, what: F) -> impl Future<Output = F::Output> {
    let place = Location::caller();
    async move {
        match timeout(limit, what).await {
            Ok(happened) => happened,
            Err(_) => panic!("{place}: it did not happen within {limit:?}"),
        }
    }
}

/// Waits for a fact that can only be looked at, such as a metric.
#[track_caller]
pub(crate) fn eventually<F: AsyncFnMut() -> bool>(fact: F) -> impl Future<Output = ()> {
    eventually_for(PATIENCE, fact)
}

/// As [`eventually`], where it may take longer.
#[track_caller]
pub(crate) fn eventually_for<F: AsyncFnMut() -> bool>(limit: Duration, mut fact: F) -> impl Future<Output = ()> {
    let place = Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let looking = async {
            while !fact().await {
                sleep(LOOK_AGAIN).await;
            }
        };
        if timeout_at(deadline, looking).await.is_err() {
            panic!("{place}: it did not become true within {limit:?}");
        }
    }
}

/// Waits to see that something does not happen. The only waits that take their whole time.
#[track_caller]
pub(crate) fn never_within<F: Future>(limit: Duration, what: F) -> impl Future<Output = ()> {
    let place = Location::caller();
    async move {
        if timeout(limit, what).await.is_ok() {
            panic!("{place}: it happened");
        }
    }
}
