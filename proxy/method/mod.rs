//! Every JSON-RPC method that clients may use, one row each. What has no row does not exist.

mod lifecycle;
mod lists;
mod notification;
mod prompts;
mod resources;
mod subscriptions;
mod tools;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::dispatch::Exchange;
use crate::era::Era;
use crate::error::Error;
use crate::metrics::{MethodMetrics, Metrics, OTHER};
use crate::reply::Reply;

/// How much of a name that nobody knows is repeated to who typed it.
const MAX_QUOTED: usize = 128;

/// One method.
pub(crate) struct Method {
    /// As it stands in `method`.
    pub(crate) name: &'static str,
    eras: Eras,
    /// Whether a legacy client asks it within its session: all but the one that starts it.
    pub(crate) in_session: bool,
    pub(crate) verb: Verb,
}

/// Which clients know a method.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Eras {
    Both,
    Legacy,
    Modern,
}

impl Method {
    /// Whether clients of an era know it.
    pub(crate) fn is_of(&self, era: Era) -> bool {
        match self.eras {
            Eras::Both => true,
            Eras::Legacy => era == Era::Legacy,
            Eras::Modern => era == Era::Modern,
        }
    }
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

/// The table, sorted by name. Tasks have no row, and are offered to nobody: the two eras have different ones, and a backend that
/// is not told of them does without.
#[rustfmt::skip]
pub(crate) const METHODS: &[Method] = &[
    row("completion/complete", Eras::Both, Verb::Route(prompts::complete)),
    Method { name: "initialize", eras: Eras::Legacy, in_session: false, verb: Verb::Answer(lifecycle::initialize) },
    row("logging/setLevel", Eras::Legacy, Verb::Broadcast(lifecycle::set_level)),
    row("notifications/cancelled", Eras::Legacy, Verb::Route(notification::cancelled)),
    row("notifications/initialized", Eras::Legacy, Verb::Answer(notification::ignored)),
    row("notifications/roots/list_changed", Eras::Legacy, Verb::Broadcast(notification::roots_changed)),
    row("ping", Eras::Legacy, Verb::Answer(lifecycle::ping)),
    row("prompts/get", Eras::Both, Verb::Route(prompts::get)),
    row("prompts/list", Eras::Both, Verb::Merge(lists::prompts)),
    row("resources/list", Eras::Both, Verb::Merge(lists::resources)),
    row("resources/read", Eras::Both, Verb::Route(resources::read)),
    row("resources/subscribe", Eras::Legacy, Verb::Route(resources::subscribe)),
    row("resources/templates/list", Eras::Both, Verb::Merge(lists::templates)),
    row("resources/unsubscribe", Eras::Legacy, Verb::Route(resources::unsubscribe)),
    row("server/discover", Eras::Modern, Verb::Answer(lifecycle::discover)),
    row("subscriptions/listen", Eras::Modern, Verb::Answer(subscriptions::listen)),
    row("tools/call", Eras::Both, Verb::Route(tools::call)),
    row("tools/list", Eras::Both, Verb::Merge(lists::tools)),
];

const fn row(name: &'static str, eras: Eras, verb: Verb) -> Method {
    Method { name, eras, in_session: true, verb }
}

fn no_name() -> Error {
    Error::InvalidParams { what: "`params.name` must be a string".into() }
}

/// The row of a method.
pub(crate) fn find(name: &str) -> Option<&'static Method> {
    index(name).map(|index| &METHODS[index])
}

fn index(name: &str) -> Option<usize> {
    METHODS.binary_search_by_key(&name, |method| method.name).ok()
}

/// The metric handles of every row.
pub(crate) struct Handles {
    /// As they stand in [`METHODS`].
    rows: Vec<Arc<MethodMetrics>>,
    other: Arc<MethodMetrics>,
}

impl Handles {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let rows = METHODS.iter().map(|method| Arc::new(metrics.method(method.name))).collect();
        Self { rows, other: Arc::new(metrics.method(OTHER)) }
    }

    /// The handles of a method by the name a client typed.
    pub(crate) fn find(&self, name: &str) -> &Arc<MethodMetrics> {
        index(name).and_then(|index| self.rows.get(index)).unwrap_or(&self.other)
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
