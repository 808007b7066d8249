//! A session's calls under way, and those that its client left a moment ago: how many there may be, and how one is cancelled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Held, Session};
use crate::backend::Backend;
use crate::error::Error;
use crate::jsonrpc::OwnedId;
use crate::session::{Leg, NEVER};

/// How long a call that its client left can still be cancelled: some clients close the connection and cancel at once, and
/// either may arrive first.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// The same for a call whose stream its backend broke off, to be asked for the rest.
const POLLED_FOR: Duration = Duration::from_mins(10);
/// Such calls that are remembered for one session.
const MAX_LEFT: usize = 64;
/// Calls that one session may have under way.
const MAX_CALLS: usize = 256;

impl Session {
    /// Notes a call under way on its side of a backend, until the returned guard is dropped.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn call_on(
        self: &Arc<Self>,
        backend: &Arc<Backend>,
        id: OwnedId,
    ) -> Result<(Arc<Leg>, CallGuard), Error> {
        let mut held = self.held();
        let leg = held.leg(backend, &self.hello);
        // At once: a leg that no call is on may be given up.
        let call = self.note_call(&mut held, id, Way::Session(Arc::clone(&leg)))?;
        Ok((leg, call))
    }

    /// The same for a call over a connection of its own.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub(crate) fn call(self: &Arc<Self>, backend: &Arc<Backend>, id: OwnedId) -> Result<CallGuard, Error> {
        self.note_call(&mut self.held(), id, Way::Connection(Arc::clone(backend)))
    }

    fn note_call(self: &Arc<Self>, held: &mut Held, id: OwnedId, way: Way) -> Result<CallGuard, Error> {
        // What a session of the gateway's own serves is many clients' together, and bounded by the backend's `max_inflight`.
        if held.running >= MAX_CALLS && self.expires != NEVER {
            return Err(Error::TooManyCalls { max: MAX_CALLS });
        }
        held.running += 1;
        held.next_ticket += 1;
        let ticket = held.next_ticket;
        let call = Call { ticket, way, is_cancelled: false, cancelled: Arc::default() };
        let cancelled = Arc::clone(&call.cancelled);
        held.calls.insert(id.clone(), call);
        Ok(CallGuard { session: Arc::clone(self), id, ticket, cancelled, answered: false, is_polled: false })
    }

    /// Cancels a call, under way or left by its client a moment ago. Returns where the cancellation has to be passed on to.
    ///
    /// A backend that keeps no session knows a call by its id alone, and another client's call may have the same one: there
    /// the call's connection is closed instead, which is all that such a backend can tell clients by. So it is in the modern
    /// era.
    pub(crate) fn cancel(&self, id: &OwnedId) -> Option<Arc<Leg>> {
        let mut held = self.held();
        if let Some(call) = held.calls.get_mut(id) {
            if std::mem::replace(&mut call.is_cancelled, true) {
                return None;
            }
            if let Some(leg) = call.way.cancelled() {
                return Some(leg);
            }
            call.cancelled.notify_one();
            return None;
        }
        let is_it = |left: &Left| left.id == *id && left.until > Instant::now();
        let left = held.left.iter().position(is_it).and_then(|index| held.left.remove(index))?;
        left.way.cancelled()
    }
}

/// How a call reached its backend, which is how it is cancelled.
#[derive(Clone)]
enum Way {
    /// As one of a session.
    Session(Arc<Leg>),
    /// By a connection that can be closed.
    Connection(Arc<Backend>),
}

impl Way {
    fn backend(&self) -> &Backend {
        match self {
            Self::Session(leg) => &leg.backend,
            Self::Connection(backend) => backend,
        }
    }

    /// Whom a message cancels it at.
    fn cancelled(&self) -> Option<Arc<Leg>> {
        match self {
            Self::Session(leg) if leg.has_session_id() => Some(Arc::clone(leg)),
            Self::Session(_) | Self::Connection(_) => None,
        }
    }
}

/// A call that its client is not connected to any more, until when it is remembered.
pub(super) struct Left {
    until: Instant,
    id: OwnedId,
    way: Way,
}

/// A call under way, as its session knows it.
pub(super) struct Call {
    ticket: u64,
    way: Way,
    /// Whether that was passed on: it is, once.
    is_cancelled: bool,
    /// Told when the call's connection is to be closed.
    cancelled: Arc<Notify>,
}

impl Call {
    /// The backend that it runs on.
    pub(super) fn backend(&self) -> &Backend {
        self.way.backend()
    }
}

/// A call under way.
pub(crate) struct CallGuard {
    session: Arc<Session>,
    id: OwnedId,
    ticket: u64,
    cancelled: Arc<Notify>,
    answered: bool,
    is_polled: bool,
}

impl CallGuard {
    /// Notes that the answer is out.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Notes that the client will come back for the answer.
    pub(crate) fn polled(&mut self) {
        self.is_polled = true;
    }

    /// Completes when the call's connection is to be closed because it was cancelled.
    pub(crate) fn cancelled(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let mut held = self.session.held();
        held.running -= 1;
        // A client that used the id again has its own entry by now.
        let is_ours = held.calls.get(&self.id).is_some_and(|call| call.ticket == self.ticket);
        if is_ours
            && let Some(call) = held.calls.remove(&self.id)
            && !self.answered
            && !call.is_cancelled
        {
            let now = Instant::now();
            held.left.retain(|left| left.until > now);
            if held.left.len() >= MAX_LEFT {
                held.left.pop_front();
            }
            let until = now + if self.is_polled { POLLED_FOR } else { LEFT_FOR };
            held.left.push_back(Left { until, id: self.id.clone(), way: call.way });
        }
        drop(held);
        self.session.touch();
    }
}
