//! What failed last, for the operator's status page: the log has more, and for longer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::Kind;

/// Failures that are remembered.
const REMEMBERED: usize = 50;
/// Bytes of an error's text that are remembered.
const MAX_TEXT: usize = 512;

/// A message of a client that did not end well.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) when: SystemTime,
    /// The request's.
    pub(crate) id: Box<str>,
    pub(crate) client: IpAddr,
    /// The first digits of the session, where there is one.
    pub(crate) session: Box<str>,
    pub(crate) method: &'static str,
    /// As clients call it; empty for what is no call.
    pub(crate) tool: Box<str>,
    pub(crate) backend: Box<str>,
    pub(crate) outcome: Kind,
    pub(crate) error: Box<str>,
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Failed>>);

impl Recent {
    pub(crate) fn note(&self, mut failed: Failed) {
        if failed.error.len() > MAX_TEXT {
            let end = failed.error.floor_char_boundary(MAX_TEXT);
            failed.error = [failed.error.get(..end).unwrap_or_default(), "…"].concat().into();
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.pop_back();
        }
        all.push_front(failed);
    }

    /// The newest first.
    pub(crate) fn last(&self) -> Vec<Failed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_last_are_remembered_and_no_text_is_longer_than_it_may_be() {
        let recent = Recent::default();
        for number in 0..REMEMBERED + 3 {
            let client = Ipv4Addr::LOCALHOST.into();
            let error = "é".repeat(MAX_TEXT).into();
            let (id, session, tool, backend) = (number.to_string().into(), "".into(), "".into(), "".into());
            let (when, method, outcome) = (SystemTime::now(), "ping", Kind::Internal);
            recent.note(Failed { when, id, client, session, method, tool, backend, outcome, error });
        }

        let last = recent.last();

        assert_eq!((last.len(), &*last[0].id), (REMEMBERED, &*(REMEMBERED + 2).to_string()));
        assert!(last[0].error.len() <= MAX_TEXT + '…'.len_utf8());
    }
}
