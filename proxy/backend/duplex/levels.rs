//! Which log level each session of a shared pipe asked for. The backend takes them all for one client, so it is told the most
//! verbose of them, and each session hears what it asked for of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::table::SessionId;
use crate::era::Severity;

/// Levels by the sessions that asked for them.
#[derive(Debug, Default)]
pub(super) struct Levels {
    asked: BTreeMap<SessionId, Severity>,
    /// What the backend was told last, as far as it is known to have taken it.
    told: Option<Severity>,
}

/// What a session asked for, and what it had asked for before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    asked: Severity,
    before: Option<Severity>,
}

impl Levels {
    /// Takes in what a session asks for, if the backend need not be told.
    pub(super) fn absorbs(&mut self, session: &SessionId, asked: Severity) -> bool {
        let before = self.asked.insert(Arc::clone(session), asked);
        if self.verbosest() == self.told {
            return true;
        }
        self.put_back(session, before);
        false
    }

    /// Takes in what a session asks for, and what the backend is told therefore.
    pub(super) fn ask(&mut self, session: &SessionId, asked: Severity) -> (Severity, Change) {
        let before = self.asked.insert(Arc::clone(session), asked);
        let told = self.verbosest().unwrap_or(asked);
        self.told = Some(told);
        (told, Change { asked, before })
    }

    /// The backend did not take it: the session asked for nothing.
    pub(super) fn refused(&mut self, session: &SessionId, change: Change) {
        // Unless it has asked for something else by now.
        if self.asked.get(session) == Some(&change.asked) {
            self.put_back(session, change.before);
        }
        self.told = None;
    }

    /// Forgets a session. What the backend is to be told, if anything: no level can be taken back, so the last one stays.
    pub(super) fn end(&mut self, session: &SessionId) -> Option<Severity> {
        self.asked.remove(session)?;
        let rest = self.verbosest().filter(|rest| Some(*rest) != self.told)?;
        self.told = Some(rest);
        Some(rest)
    }

    /// Whether a session hears of what is logged. One that asked for no level hears of all that there is.
    pub(super) fn hears(&self, session: &SessionId, logged: Option<Severity>) -> bool {
        // What is of no level is of any.
        let asked = self.asked.get(session);
        logged.is_none_or(|logged| asked.is_none_or(|asked| logged >= *asked))
    }

    fn verbosest(&self) -> Option<Severity> {
        self.asked.values().min().copied()
    }

    fn put_back(&mut self, session: &SessionId, before: Option<Severity>) {
        match before {
            Some(before) => self.asked.insert(Arc::clone(session), before),
            None => self.asked.remove(session),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severity(level: &str) -> Severity {
        Severity::read(level).unwrap()
    }

    /// What the backend is told, if anything, when a session asks for a level.
    fn ask(levels: &mut Levels, session: &SessionId, level: &str) -> Option<&'static str> {
        let asked = severity(level);
        (!levels.absorbs(session, asked)).then(|| levels.ask(session, asked).0.as_str())
    }

    #[test]
    fn the_backend_is_told_the_most_verbose_level_and_only_when_that_changes() {
        let (alice, bob) = (SessionId::from("a"), SessionId::from("b"));
        let mut levels = Levels::default();

        assert_eq!(ask(&mut levels, &alice, "error"), Some("error"));
        assert_eq!(ask(&mut levels, &bob, "alert"), None);
        assert_eq!(ask(&mut levels, &bob, "debug"), Some("debug"));
        assert_eq!(ask(&mut levels, &alice, "notice"), None);
        assert_eq!(ask(&mut levels, &bob, "critical"), Some("notice"), "alice's");
        assert_eq!(levels.end(&alice).map(Severity::as_str), Some("critical"));
        assert_eq!(levels.end(&alice), None);
        assert_eq!(levels.end(&bob), None, "nobody asks for anything else");
    }

    #[test]
    fn a_session_hears_what_it_asked_for_and_one_that_did_not_hears_all() {
        let (alice, bob) = (SessionId::from("a"), SessionId::from("b"));
        let mut levels = Levels::default();
        ask(&mut levels, &alice, "warning");

        for (logged, heard) in [("debug", [false, true]), ("warning", [true, true]), ("alert", [true, true])] {
            assert_eq!([&alice, &bob].map(|it| levels.hears(it, Severity::read(logged))), heard, "{logged}");
        }
        assert!(levels.hears(&alice, None));
    }

    #[test]
    fn what_the_backend_refuses_is_not_asked_for() {
        let (alice, bob) = (SessionId::from("a"), SessionId::from("b"));
        let mut levels = Levels::default();
        ask(&mut levels, &alice, "error");
        let (_, change) = levels.ask(&alice, severity("debug"));

        levels.refused(&alice, change);

        assert!(!levels.hears(&alice, Severity::read("debug")), "it had asked for errors");
        assert_eq!(ask(&mut levels, &bob, "critical"), Some("error"), "nobody knows what the backend is at");
    }
}
