//! A session's calls under way, and those that its client left a moment ago: how many there may be, and how one is cancelled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Asker, Held, Session};
use crate::backend::Backend;
use crate::bridge::question;
use crate::error::Error;
use crate::jsonrpc::OwnedId;
use crate::session::{Leg, NEVER};

/// How long a call that its client left can still be cancelled: some clients close the connection and cancel at once, and
/// either may arrive first.
const LEFT_FOR: Duration = Duration::from_secs(10);
/// The same for a call whose stream its client can come back for the rest of; what was asked within it waits as long.
const RESUMABLE_FOR: Duration = Duration::from_mins(10);
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
        Ok(CallGuard::new(self, id, ticket, cancelled))
    }

    /// Notes that a call which its client left is under way again, on a stream that takes up where the last event it had was
    /// `last`. Nothing where that is not known: a client may have missed the end of what it was sent.
    pub(crate) fn take_up(self: &Arc<Self>, leg: &Arc<Leg>, last: &str) -> Option<CallGuard> {
        let mut held = self.held();
        let now = Instant::now();
        let is_it = |left: &Left| left.last.as_deref() == Some(last) && left.until > now && left.way.is_on(leg);
        let left = held.left.iter().position(is_it).and_then(|index| held.left.remove(index))?;
        held.running += 1;
        let call = Call { ticket: left.ticket, way: left.way, is_cancelled: false, cancelled: Arc::default() };
        let cancelled = Arc::clone(&call.cancelled);
        held.calls.insert(left.id.clone(), call);
        let mut guard = CallGuard::new(self, left.id, left.ticket, cancelled);
        guard.last = left.last;
        Some(guard)
    }

    /// Cancels a call, under way or left by its client a moment ago.
    ///
    /// A backend that keeps no session knows a call by its id alone, and another client's call may have the same one: there
    /// the call's connection is closed instead, which is all that such a backend can tell clients by. So it is in the modern
    /// era.
    pub(crate) fn cancel(&self, id: &OwnedId) -> Cancelled {
        let mut held = self.held();
        if let Some(call) = held.calls.get_mut(id) {
            if std::mem::replace(&mut call.is_cancelled, true) {
                return Cancelled::default();
            }
            let (ticket, leg) = (call.ticket, call.way.cancelled());
            if leg.is_none() {
                call.cancelled.notify_one();
            }
            return Cancelled { leg, questions: self.take_back(&mut held, ticket) };
        }
        let is_it = |left: &Left| left.id == *id && left.until > Instant::now();
        let Some(left) = held.left.iter().position(is_it).and_then(|index| held.left.remove(index)) else {
            return Cancelled::default();
        };
        Cancelled { leg: left.way.cancelled(), questions: self.take_back(&mut held, left.ticket) }
    }

    /// Forgets calls that can be taken up no more, and returns who still waits for an answer within them.
    pub(in crate::session) fn lapse(&self, now: Instant) -> Vec<Asker> {
        self.lapse_in(&mut self.held(), now)
    }

    fn lapse_in(&self, held: &mut Held, now: Instant) -> Vec<Asker> {
        let (lapsed, stay) = std::mem::take(&mut held.left).into_iter().partition(|left| left.until <= now);
        held.left = stay;
        let lapsed: VecDeque<Left> = lapsed;
        lapsed.iter().flat_map(|left| self.take_back(held, left.ticket)).collect()
    }

    /// Remembers a call that its client left, in the place of the oldest where there are too many. Returns who waits within
    /// those that are not remembered any more.
    fn leave(&self, held: &mut Held, left: Left, now: Instant) -> Vec<Asker> {
        let mut unanswered = self.lapse_in(held, now);
        if held.left.len() >= MAX_LEFT
            && let Some(oldest) = held.left.pop_front()
        {
            unanswered.extend(self.take_back(held, oldest.ticket));
        }
        held.left.push_back(left);
        unanswered
    }
}

/// What is to be done about a call that was cancelled.
#[derive(Default)]
pub(crate) struct Cancelled {
    /// Where the cancellation is to be passed on to.
    pub(crate) leg: Option<Arc<Leg>>,
    /// Who waits for an answer within the call. The client will give none any more.
    pub(crate) questions: Vec<Asker>,
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

    fn is_on(&self, leg: &Arc<Leg>) -> bool {
        matches!(self, Self::Session(own) if Arc::ptr_eq(own, leg))
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
    ticket: u64,
    /// The last event of its stream that had an id.
    last: Option<Box<str>>,
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
    end: End,
    last: Option<Box<str>>,
}

/// How a call ends when its guard is dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Its backend has answered it.
    Answered,
    /// Its client has been told that there will be no answer.
    Failed,
    /// Its client has left, and cannot come back.
    Left,
    /// Its client can come back for the rest of its stream.
    Resumable,
}

impl CallGuard {
    fn new(session: &Arc<Session>, id: OwnedId, ticket: u64, cancelled: Arc<Notify>) -> Self {
        let session = Arc::clone(session);
        Self { session, id, ticket, cancelled, end: End::Left, last: None }
    }

    /// What its questions are known by.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Notes that the answer is out, unless an error is in its place.
    pub(crate) fn answered(&mut self) {
        if self.end != End::Failed {
            self.end = End::Answered;
        }
    }

    /// Notes that an error is out in the answer's place.
    pub(crate) fn failed(&mut self) {
        self.end = End::Failed;
    }

    /// Notes that the client can come back for the answer, to the stream whose last event was `last`.
    pub(crate) fn resumable(&mut self, last: Option<&str>) {
        self.end = End::Resumable;
        self.last = last.map(Box::from).or_else(|| self.last.take());
    }

    /// Completes when the call's connection is to be closed because it was cancelled.
    pub(crate) fn cancelled(&self) -> Arc<Notify> {
        Arc::clone(&self.cancelled)
    }

    /// Takes the call out of those under way. Returns who still waits for an answer that will not come.
    fn end(&mut self, held: &mut Held) -> Vec<Asker> {
        held.running -= 1;
        // A client that used the id again has its own entry by now.
        let is_ours = held.calls.get(&self.id).is_some_and(|call| call.ticket == self.ticket);
        let call = if is_ours { held.calls.remove(&self.id) } else { None };
        let is_left = matches!(self.end, End::Left | End::Resumable);
        let mut unanswered = Vec::new();
        if let Some(call) = call.filter(|call| is_left && !call.is_cancelled) {
            let now = Instant::now();
            let until = now + if self.end == End::Resumable { RESUMABLE_FOR } else { LEFT_FOR };
            let left = Left { until, ticket: self.ticket, last: self.last.take(), id: self.id.clone(), way: call.way };
            unanswered = self.session.leave(held, left, now);
            if self.end == End::Resumable {
                return unanswered;
            }
        }
        let questions = self.session.take_back(held, self.ticket);
        // A backend that has answered the call has done without.
        if self.end != End::Answered {
            unanswered.extend(questions);
        }
        unanswered
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let session = Arc::clone(&self.session);
        let unanswered = self.end(&mut session.held());
        question::taken_back(unanswered);
        session.touch();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::Ordering;

    use tokio::sync::oneshot;

    use super::*;
    use crate::metrics::Metrics;
    use crate::session::{ClientCapabilities, Sessions};

    /// A session, and a backend.
    fn world() -> (Arc<Session>, Arc<Backend>) {
        let yaml = "listeners: [{ address: '127.0.0.1:0' }]\nbackends: [{ name: a, url: 'http://127.0.0.1:1/' }]\n";
        let config = toolgate_config::parse(Path::new("t.yaml"), yaml, &|_| None).unwrap();
        let connector = crate::backend::http::Connector::new();
        let backend =
            Backend::build(&config.backends[0], &config.health, &connector, &Arc::new(Metrics::new())).unwrap();
        (
            Sessions::new(&config.sessions, crate::seal::secret()).private(ClientCapabilities::default(), None),
            Arc::new(backend),
        )
    }

    /// A call that has asked one thing.
    fn asking(session: &Arc<Session>, backend: &Arc<Backend>, id: u64) -> (Arc<Leg>, CallGuard) {
        let (leg, call) = session.call_on(backend, OwnedId::integer(id)).unwrap();
        session.ask(Asker::Bridge(oneshot::channel().0), Some(call.ticket()));
        (leg, call)
    }

    fn questions(session: &Session) -> usize {
        session.counts.questions.load(Ordering::Relaxed)
    }

    #[test]
    fn a_question_waits_as_long_as_its_call_can_be_taken_up() {
        let (session, backend) = world();
        let (_, mut resumable) = asking(&session, &backend, 1);
        let (_, left) = asking(&session, &backend, 2);
        resumable.resumable(Some("7"));

        drop((resumable, left));
        let now = Instant::now();
        assert_eq!(questions(&session), 1);
        assert!(session.lapse(now + RESUMABLE_FOR / 2).is_empty());
        assert_eq!(session.lapse(now + RESUMABLE_FOR).len(), 1);

        assert_eq!(questions(&session), 0);
    }

    #[test]
    fn the_questions_of_the_oldest_call_go_with_it_where_too_many_were_left() {
        let (session, backend) = world();
        let (_, mut oldest) = asking(&session, &backend, 0);
        oldest.resumable(Some("0"));
        drop(oldest);

        for id in 1..=MAX_LEFT as u64 {
            assert_eq!(questions(&session), 1, "{id}");
            drop(session.call_on(&backend, OwnedId::integer(id)).unwrap());
        }

        assert_eq!(questions(&session), 0);
    }

    #[test]
    fn a_call_is_taken_up_by_its_last_event_once_and_keeps_that_until_there_is_another() {
        let (session, backend) = world();
        let (leg, mut call) = asking(&session, &backend, 1);
        let ticket = call.ticket();
        call.resumable(Some("7"));
        drop(call);

        assert!(session.take_up(&leg, "6").is_none());
        let mut again = session.take_up(&leg, "7").unwrap();
        assert!(session.take_up(&leg, "7").is_none());
        again.resumable(None);
        drop(again);
        let mut again = session.take_up(&leg, "7").unwrap();
        assert_eq!((again.ticket(), questions(&session)), (ticket, 1));
        again.answered();
        drop(again);

        assert!(session.take_up(&leg, "7").is_none());
        assert_eq!((questions(&session), session.held().running), (0, 0));
    }
}
