//! How often, and how many at once, tools may be called: which rules cover a tool, and admission by all of them or by
//! none. How a refusal is worded and sent is not decided here.

mod concurrency;
mod key;
mod rate;

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::Quota;
use governor::clock::{Clock, DefaultClock};
use toolgate_config::{BackendName, Key, Limit, Pattern, Refusal};

use concurrency::Slots;
pub(crate) use key::Caller;
use key::CellKey;
use rate::Rate;

/// What a client refused for concurrency is told to wait. Nobody knows when a slot comes free.
pub(crate) const CONCURRENCY_RETRY: Duration = Duration::from_secs(1);

/// Every configured limit, in file order.
#[derive(Debug)]
pub(crate) struct Limits<C: Clock = DefaultClock> {
    rules: Vec<Arc<Rule<C>>>,
}

impl Limits {
    /// The limits of a configuration, with the cells of those `previous` ones that count the same: the rate cells
    /// where name, key, rate, burst and `max_keys` are equal, the calls under way where name and key are.
    pub(crate) fn build(config: &[Limit], previous: Option<&Self>) -> Self {
        Self::with_clock(config.iter().map(Terms::from), previous, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limits<C> {
    fn with_clock(terms: impl Iterator<Item = Terms>, previous: Option<&Self>, clock: &C) -> Self {
        let before = |terms: &Terms| previous?.rules.iter().find(|rule| rule.counts_like(terms));
        let rules = terms.map(|terms| {
            let previous = before(&terms);
            Arc::new(Rule::new(terms, previous.map(Arc::as_ref), clock))
        });
        Self { rules: rules.collect() }
    }

    /// The rules that cover a tool, by its public name. They do not change, so once for each route is enough.
    pub(crate) fn matching(&self, public_tool: &str, backend: &BackendName) -> Vec<Arc<Rule<C>>> {
        self.rules.iter().filter(|rule| rule.covers(public_tool, backend)).map(Arc::clone).collect()
    }

    /// Drops the keys that hold nothing any more. Walks all of them: for a timer, off the threads that serve.
    pub(crate) fn sweep(&self) {
        for rule in &self.rules {
            rule.shared.slots.sweep();
            rule.rate.iter().for_each(|rate| rate.sweep());
        }
    }

    pub(crate) fn rules(&self) -> &[Arc<Rule<C>>] {
        &self.rules
    }
}

/// One configured limit, with its cells. Those are shared with the same rule of other snapshots.
pub(crate) struct Rule<C: Clock = DefaultClock> {
    terms: Terms,
    rate: Option<Arc<Rate<C>>>,
    shared: Arc<Shared>,
}

/// What outlives a change of the rule's numbers.
#[derive(Debug, Default)]
struct Shared {
    /// Held while the rule is asked and charged. Giving back needs no gate: it only ever makes room.
    gate: Mutex<()>,
    slots: Slots,
}

impl<C: Clock + Clone> Rule<C> {
    fn new(terms: Terms, previous: Option<&Self>, clock: &C) -> Self {
        let rate = terms.rate.map(|quota| {
            let kept = previous.and_then(|rule| rule.rate.as_ref()).filter(|rate| rate.serves(quota, terms.max_keys));
            kept.map_or_else(|| Arc::new(Rate::new(quota, terms.max_keys, clock.clone())), Arc::clone)
        });
        let shared = previous.map(|rule| Arc::clone(&rule.shared)).unwrap_or_default();
        Self { terms, rate, shared }
    }

    /// Its name in the configuration.
    pub(crate) fn name(&self) -> &str {
        &self.terms.name
    }

    /// How a call it refuses is answered.
    pub(crate) fn refusal(&self) -> Refusal {
        self.terms.refusal
    }

    /// How many keys it keeps count of now.
    pub(crate) fn keys(&self) -> usize {
        self.shared.slots.keys().max(self.rate.as_ref().map_or(0, |rate| rate.keys()))
    }

    fn counts_like(&self, terms: &Terms) -> bool {
        self.terms.name == terms.name && self.terms.key == terms.key
    }

    fn covers(&self, public_tool: &str, backend: &BackendName) -> bool {
        let Terms { tools, backends, .. } = &self.terms;
        (backends.is_empty() || backends.contains(backend)) && tools.iter().any(|pattern| pattern.matches(public_tool))
    }

    /// Why a call would be refused now, and for how long. Charges nothing.
    fn peek(&self, caller: &Caller) -> Option<(ExceededKind, Duration)> {
        let key = CellKey::new(self.terms.key, caller);
        let rate = self.rate.as_ref().and_then(|rate| rate.peek(key)).map(|wait| (ExceededKind::Rate, wait));
        let full = self.terms.concurrency.is_some_and(|cap| !self.shared.slots.peek(key, cap, self.terms.max_keys));
        let concurrency = full.then_some((ExceededKind::Concurrency, CONCURRENCY_RETRY));
        rate.into_iter().chain(concurrency).max_by_key(|&(_, retry_after)| retry_after)
    }

    /// Charges one call. Its gate has been held since `peek` found room, and what may have happened meanwhile (slots
    /// given back, keys swept, time passed) only makes more, so there is nothing left to refuse.
    fn take(&self, caller: &Caller) -> Option<Slot> {
        let key = CellKey::new(self.terms.key, caller);
        let charged = self.rate.as_ref().is_none_or(|rate| rate.take(key));
        debug_assert!(charged, "limit `{}` refused what it had room for", self.name());
        self.terms
            .concurrency
            .map(|_| Slot { cell: self.shared.slots.take(key, self.terms.max_keys), shared: Arc::clone(&self.shared) })
    }
}

impl<C: Clock> fmt::Debug for Rule<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.terms).finish()
    }
}

/// A limit of the configuration as it is used here.
#[derive(Clone, Debug)]
struct Terms {
    name: String,
    tools: Vec<Pattern>,
    backends: Vec<BackendName>,
    key: Key,
    rate: Option<Quota>,
    concurrency: Option<NonZeroU32>,
    refusal: Refusal,
    max_keys: u32,
}

impl From<&Limit> for Terms {
    fn from(limit: &Limit) -> Self {
        Self {
            name: limit.name.clone(),
            tools: limit.tools.clone(),
            backends: limit.backends.clone(),
            key: limit.key,
            rate: limit.rate.map(|rate| rate::quota(rate.count, rate.per, rate.burst)),
            concurrency: limit.concurrency,
            refusal: limit.refusal,
            max_keys: limit.max_keys,
        }
    }
}

/// Lets a call through when every rule does, and charges all of them; else charges none.
///
/// The rules stay gated from the first look to the last charge, in one order everywhere, so that no call is refused
/// after it was charged, and two calls cannot wait for each other. Nothing here waits for anything but other admissions.
///
/// # Errors
/// The rule whose refusal lasts longest, when any refuses.
pub(crate) fn admit<C: Clock + Clone>(rules: &[Arc<Rule<C>>], caller: &Caller) -> Result<Permit, Exceeded<C>> {
    let _gates = lock(rules);
    let refusals = rules.iter().filter_map(|rule| Some((rule, rule.peek(caller)?)));
    if let Some((rule, (kind, retry_after))) = refusals.max_by_key(|&(_, (_, retry_after))| retry_after) {
        return Err(Exceeded { rule: Arc::clone(rule), kind, retry_after });
    }
    Ok(Permit { _slots: rules.iter().filter_map(|rule| rule.take(caller)).collect() })
}

fn lock<C: Clock>(rules: &[Arc<Rule<C>>]) -> Vec<MutexGuard<'_, ()>> {
    let mut gates: Vec<_> = rules.iter().map(|rule| &rule.shared.gate).collect();
    gates.sort_by_key(|gate| std::ptr::from_ref(*gate));
    gates.dedup_by_key(|gate| std::ptr::from_ref(*gate));
    // What a gate guards is whole after each step, so one that a panic left behind is still good.
    gates.into_iter().map(|gate| gate.lock().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Admission, held until the call's stream ends: dropping it gives its concurrency slots back.
#[derive(Debug)]
#[must_use = "dropping it gives the call's slots back"]
pub(crate) struct Permit {
    _slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    shared: Arc<Shared>,
    cell: CellKey,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.slots.give_back(self.cell);
    }
}

/// A refusal.
#[derive(Debug)]
pub(crate) struct Exceeded<C: Clock = DefaultClock> {
    /// Whose it is.
    pub(crate) rule: Arc<Rule<C>>,
    /// Which part of the rule.
    pub(crate) kind: ExceededKind,
    /// When it is worth asking again.
    pub(crate) retry_after: Duration,
}

/// Which part of a rule refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ExceededKind {
    Concurrency,
    Rate,
}
