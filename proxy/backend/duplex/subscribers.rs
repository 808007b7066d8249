//! Which sessions of a shared pipe are subscribed to what. The backend takes them all for one client, so it is told that this
//! client does not want to hear of a resource any more only when none of them does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::table::SessionId;
use crate::catalog::is_part;

/// Sessions by the resources that they are subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscribers(BTreeMap<Box<str>, BTreeSet<SessionId>>);

impl Subscribers {
    /// Notes that a session is subscribed. Whether that is new.
    pub(super) fn add(&mut self, session: &SessionId, uri: &str) -> bool {
        self.0.entry(uri.into()).or_default().insert(Arc::clone(session))
    }

    /// Notes that it is not any more. Whether others still are.
    pub(super) fn remove(&mut self, session: &SessionId, uri: &str) -> bool {
        let Some(sessions) = self.0.get_mut(uri) else { return false };
        sessions.remove(session);
        let others_are = !sessions.is_empty();
        if !others_are {
            self.0.remove(uri);
        }
        others_are
    }

    /// Forgets a session. Returns what nobody is subscribed to any more.
    pub(super) fn end(&mut self, session: &SessionId) -> Vec<Box<str>> {
        let its = self.0.iter().filter(|(_, sessions)| sessions.contains(session));
        let its: Vec<_> = its.map(|(uri, _)| uri.clone()).collect();
        its.into_iter().filter(|uri| !self.remove(session, uri)).collect()
    }

    /// Who is to hear that a resource was updated, which may be a part of what a session is subscribed to (2025-11-25,
    /// Resources).
    pub(super) fn of(&self, updated: &str) -> BTreeSet<&SessionId> {
        let named = self.0.iter().filter(|(uri, _)| is_part(updated, uri));
        named.flat_map(|(_, sessions)| sessions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribers(all: &[(&str, &str)]) -> Subscribers {
        let mut subscribers = Subscribers::default();
        all.iter().for_each(|(session, uri)| assert!(subscribers.add(&SessionId::from(*session), uri)));
        subscribers
    }

    #[test]
    fn the_last_one_to_leave_is_known() {
        let (a, b) = (SessionId::from("a"), SessionId::from("b"));
        let mut subscribers = subscribers(&[("a", "x"), ("b", "x"), ("a", "y")]);
        assert!(!subscribers.add(&a, "x"), "a is already");

        assert!(subscribers.remove(&b, "x"));
        assert!(subscribers.remove(&b, "x"), "a still is");
        assert_eq!(subscribers.end(&a), ["x".into(), "y".into()]);
        assert!(subscribers.0.is_empty());
    }

    #[test]
    fn news_are_for_who_is_subscribed_to_it_or_to_what_it_is_part_of() {
        let subscribers = subscribers(&[("a", "file:///d"), ("b", "file:///d/x"), ("c", "file:///dd")]);
        for (updated, expected) in
            [("file:///d", "a"), ("file:///d/x", "ab"), ("file:///d#1", "a"), ("file:///dd", "c"), ("other:", "")]
        {
            let of: String = subscribers.of(updated).into_iter().map(|session| &**session).collect();
            assert_eq!(of, expected, "{updated}");
        }
    }
}
