//! Connections that wait for their next request. The one that waited least is taken first: it is the likeliest to live, and
//! what is not needed grows old and goes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::connection::Connection;
use crate::clock;

/// How long an unused connection is kept. Below the 5 s after which common MCP servers (Node, uvicorn) close theirs, so
/// that a request rarely meets a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// How often those are looked for that were kept for long enough.
const SWEEP: Duration = Duration::from_secs(1);
/// Unused connections kept, over all backends.
pub(crate) const POOL_SIZE: usize = 1024;

/// What the pools of a process have in common.
#[derive(Default)]
pub(super) struct Shared {
    /// Connections in all of them.
    kept: AtomicUsize,
    pools: Mutex<Vec<Weak<Pool>>>,
    is_swept: AtomicBool,
}

/// The connections to one server.
pub(super) struct Pool {
    shared: Arc<Shared>,
    /// The newest last.
    idle: Mutex<VecDeque<(Instant, Connection)>>,
}

impl Pool {
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let pool = Arc::new(Self { shared: Arc::clone(shared), idle: Mutex::default() });
        let mut pools = lock(&shared.pools);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        drop(pools);
        pool
    }

    /// A connection that a request can be sent on.
    pub(super) fn take(&self) -> Option<Connection> {
        let oldest = clock::recent().checked_sub(KEEP_ALIVE);
        let mut idle = lock(&self.idle);
        while let Some((since, mut connection)) = idle.pop_back() {
            self.shared.kept.fetch_sub(1, Ordering::Relaxed);
            if oldest.is_none_or(|oldest| since > oldest) && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end. Whether it is fit is looked at when it is taken.
    pub(super) fn give_back(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if self.shared.kept.fetch_add(1, Ordering::Relaxed) >= POOL_SIZE {
            self.shared.kept.fetch_sub(1, Ordering::Relaxed);
            if idle.pop_front().is_none() {
                return;
            }
        }
        idle.push_back((clock::recent(), connection));
        drop(idle);
        self.shared.sweep();
    }

    fn forget_older(&self, than: Instant) {
        let mut idle = lock(&self.idle);
        let old = idle.iter().take_while(|(since, _)| *since <= than).count();
        self.shared.kept.fetch_sub(old, Ordering::Relaxed);
        idle.drain(..old);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shared.kept.fetch_sub(idle.len(), Ordering::Relaxed);
    }
}

impl Shared {
    /// Has what grows old closed, as long as there is something to be closed.
    fn sweep(self: &Arc<Self>) {
        if self.is_swept.load(Ordering::Relaxed) || self.is_swept.swap(true, Ordering::SeqCst) {
            return;
        }
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                sleep(SWEEP).await;
                let pools: Vec<_> = lock(&shared.pools).iter().filter_map(Weak::upgrade).collect();
                if let Some(than) = Instant::now().checked_sub(KEEP_ALIVE) {
                    pools.iter().for_each(|pool| pool.forget_older(than));
                }
                if shared.kept.load(Ordering::Relaxed) == 0 {
                    shared.is_swept.store(false, Ordering::SeqCst);
                    // Whoever gave one back just before left it to this task.
                    if shared.kept.load(Ordering::SeqCst) == 0 || shared.is_swept.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
            }
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole, so what a panic left behind is still good.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
