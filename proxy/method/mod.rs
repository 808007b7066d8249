//! Every JSON-RPC method that clients may use, one row each. What has no row does not exist.

mod lifecycle;
mod notification;
mod tools;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::dispatch::Exchange;
use crate::error::Error;
use crate::metrics::{MethodMetrics, Metrics, OTHER};
use crate::reply::Reply;

/// One method.
pub(crate) struct Method {
    /// As it stands in `method`.
    pub(crate) name: &'static str,
    /// Whether it is asked within a session: all but the one that starts it.
    pub(crate) in_session: bool,
    pub(crate) verb: Verb,
}

/// What is done with a message: one of four things.
pub(crate) enum Verb {
    /// The gateway answers by itself.
    Answer(fn(&mut Exchange<'_>) -> Result<Reply, Error>),
    /// Every backend that the session has used is told, and the gateway answers.
    Broadcast(Run),
    /// The answer is made of all backends' lists.
    Merge(Run),
    /// The one backend that it belongs to answers.
    Route(Run),
}

/// A verb that takes time.
pub(crate) type Run = for<'a> fn(&'a mut Exchange<'_>) -> BoxFuture<'a, Result<Reply, Error>>;

/// The table, sorted by name.
pub(crate) const METHODS: &[Method] = &[
    Method { name: "initialize", in_session: false, verb: Verb::Answer(lifecycle::initialize) },
    Method { name: "logging/setLevel", in_session: true, verb: Verb::Broadcast(lifecycle::set_level) },
    Method { name: "notifications/cancelled", in_session: true, verb: Verb::Route(notification::cancelled) },
    Method { name: "notifications/initialized", in_session: true, verb: Verb::Answer(notification::ignored) },
    Method { name: "ping", in_session: true, verb: Verb::Answer(lifecycle::ping) },
    Method { name: "tools/call", in_session: true, verb: Verb::Route(tools::call) },
    Method { name: "tools/list", in_session: true, verb: Verb::Merge(tools::list) },
];

/// The row of a method.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    METHODS.binary_search_by_key(&name, |method| method.name).ok().map(|index| &METHODS[index])
}

/// The metric handles of every row.
pub(crate) struct Handles {
    rows: HashMap<&'static str, Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
}

impl Handles {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let rows = METHODS.iter().map(|method| (method.name, Arc::new(metrics.method(method.name)))).collect();
        Self { rows, other: Arc::new(metrics.method(OTHER)) }
    }

    /// The handles of a method by the name a client typed.
    pub(crate) fn find(&self, name: &str) -> &Arc<MethodMetrics> {
        self.rows.get(name).unwrap_or(&self.other)
    }

    /// The handles of whatever is no message of a known method.
    pub(crate) fn other(&self) -> &Arc<MethodMetrics> {
        &self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_names_are_unique() {
        assert!(METHODS.is_sorted_by(|left, right| left.name < right.name));
    }

    #[test]
    fn every_row_is_found_and_nothing_else() {
        for method in METHODS {
            assert_eq!(find(method.name).map(|m| m.name), Some(method.name));
        }
        assert!(find("tools/Call").is_none());
        assert!(find("").is_none());
    }
}
