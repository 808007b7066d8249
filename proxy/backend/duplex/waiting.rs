//! Who waits on one pipe: calls for their answers, listeners for what belongs to no call. Here it is decided who takes what is
//! not named as anybody's.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::levels::Change;
use super::queue::Sender;
use super::table::{Answered, SessionId};
use crate::era::Severity;

/// What a call is for, where that decides what it is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Plain,
    /// A handshake or a ping. Wants its result and nothing else.
    Handshake,
    /// A stream of news, open as long as its client listens.
    Listen,
}

/// Where a call is told what belongs to it.
pub(super) struct Inbox {
    pub(super) events: Sender,
    pub(super) answer: oneshot::Sender<Answered>,
}

pub(super) struct Call {
    /// JSON, as its client wrote it.
    pub(super) id: Bytes,
    /// JSON, as its client wrote it.
    pub(super) token: Option<Bytes>,
    pub(super) session: SessionId,
    pub(super) purpose: Purpose,
    /// What it subscribes its session to, where that is not subscribed already.
    pub(super) subscribes: Option<Box<str>>,
    /// What it asks for, of a pipe that is all sessions'.
    pub(super) sets_level: Option<Change>,
    /// The least severe level that it wants to hear of, of a pipe of the modern era.
    pub(super) log_level: Option<Severity>,
    /// None when its client has left.
    pub(super) inbox: Option<Inbox>,
}

pub(super) struct Listener {
    pub(super) ticket: u64,
    pub(super) session: SessionId,
    pub(super) events: Sender,
}

/// All of them.
#[derive(Default)]
pub(super) struct Waiting {
    /// By the id towards the backend, oldest first.
    pub(super) calls: BTreeMap<u64, Call>,
    /// At most one a session.
    pub(super) listeners: Vec<Listener>,
}

impl Waiting {
    /// Calls under way that take what is not named as theirs, oldest first.
    pub(super) fn underway(&self) -> impl DoubleEndedIterator<Item = (&SessionId, &Sender)> {
        self.plain().map(|(call, events)| (&call.session, events))
    }

    fn plain(&self) -> impl DoubleEndedIterator<Item = (&Call, &Sender)> {
        let plain = self.calls.values().filter(|call| call.purpose == Purpose::Plain);
        plain.filter_map(|call| Some((call, &call.inbox.as_ref()?.events)))
    }

    pub(super) fn listening(&self) -> impl DoubleEndedIterator<Item = (&SessionId, &Sender)> {
        self.listeners.iter().map(|listener| (&listener.session, &listener.events))
    }

    pub(super) fn only_call(&self) -> Option<(&SessionId, &Sender)> {
        let mut calls = self.underway();
        calls.next().filter(|_| calls.next().is_none())
    }

    /// The only call, if it asked for what is logged at this level.
    pub(super) fn only_call_that_hears(&self, level: Option<Severity>) -> Option<(&SessionId, &Sender)> {
        let mut calls = self.plain();
        let (call, events) = calls.next().filter(|_| calls.next().is_none())?;
        let hears = call.log_level.is_some_and(|least| level.is_none_or(|level| level >= least));
        hears.then_some((&call.session, events))
    }

    /// Nothing tells whose an unnamed message is where several sessions wait: it is nobody's then.
    pub(super) fn oldest_call_of_the_only_session(&self) -> Option<(&SessionId, &Sender)> {
        self.oldest_call_of_the_only_session_that(|_| true)
    }

    /// The same where it can be only certain sessions'.
    pub(super) fn oldest_call_of_the_only_session_that(
        &self,
        may_be_its: impl Fn(&SessionId) -> bool,
    ) -> Option<(&SessionId, &Sender)> {
        let mut calls = self.underway().filter(|(session, _)| may_be_its(session));
        calls.next().filter(|(session, _)| calls.all(|(other, _)| other == *session))
    }

    pub(super) fn oldest_call(&self) -> Option<(&SessionId, &Sender)> {
        self.underway().next()
    }

    pub(super) fn newest_listener(&self) -> Option<(&SessionId, &Sender)> {
        self.listening().next_back()
    }
}
