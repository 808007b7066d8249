//! `limits`.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Names;
use super::{name, tool};
use crate::backend::BackendName;
use crate::grammar::{rate, show_duration};
use crate::limit::{DEFAULT_MAX_KEYS, Key, Limit, Rate, Refusal};
use crate::suggest::closest;
use crate::tool::Pattern;
use crate::walk::{Section, Value, quote};

const MOST: u32 = 1_000_000;
/// A cell that takes longer to refill would overflow the limiter's clock sooner than serve anyone.
const LONGEST_REFILL: Duration = Duration::from_secs(365 * 86_400);

pub(super) fn limits(value: &Value<'_>, backends: &Names) -> Option<Vec<Limit>> {
    let mut names = HashSet::new();
    value.list(|value| value.section(|s| limit(s, backends, &mut names)).flatten())
}

fn limit(s: &mut Section<'_>, backends: &Names, names: &mut HashSet<String>) -> Option<Limit> {
    let name = s.required("name", |value| unique_name(value, names));
    let tools = s.optional("tools", |value| tool::patterns(value, "remove it to limit every tool"));
    let backends = s.optional("backends", |value| {
        value.some("remove it to limit every backend", |value| known_backend(value, backends))
    });
    let key = s.optional("key", key).unwrap_or_default();
    let (rate_given, burst_given) = (s.get("rate"), s.get("burst"));
    let concurrency_given = s.get("concurrency");
    if rate_given.is_none() && concurrency_given.is_none() {
        s.value().problem("limits nothing: give `rate`, `concurrency` or both");
    }
    let refusals = [("tool_error", Refusal::ToolError), ("http", Refusal::Http)];
    let limit = Limit {
        tools: tools.unwrap_or_else(|| vec![Pattern("*".to_owned())]),
        backends: backends.unwrap_or_default(),
        key,
        rate: rate_with_burst(rate_given.as_ref(), burst_given.as_ref()),
        concurrency: concurrency_given.and_then(|value| count(&value)),
        refusal: s.optional("refusal", |value| value.choice(&refusals)).unwrap_or_default(),
        max_keys: s.optional("max_keys", |value| value.number(1..=10_000_000)).unwrap_or(DEFAULT_MAX_KEYS),
        // Last, so that every key has been asked for before this gives up.
        name: name?,
    };
    Some(limit)
}

fn unique_name(value: &Value<'_>, names: &mut HashSet<String>) -> Option<String> {
    let text = name(value)?;
    if !names.insert(text.value.clone()) {
        value.problem(format!("another limit is called {}", quote(&text.written)));
    }
    Some(text.value)
}

fn known_backend(value: &Value<'_>, backends: &Names) -> Option<BackendName> {
    let text = value.text()?;
    let name = BackendName(Arc::from(text.value));
    if backends.has(&name) {
        return Some(name);
    }
    let message = format!("no backend is called {}", quote(&text.written));
    match closest(&text.written, backends.written()) {
        Some(near) => value.problem_with(message, format!("did you mean {}?", quote(near))),
        None => value.problem(message),
    }
    None
}

fn key(value: &Value<'_>) -> Option<Key> {
    if value.written() == Some("principal") {
        value.problem_with("no authentication is configured, so there are no principals", "use session or ip");
        return None;
    }
    value.choice(&[("global", Key::Global), ("session", Key::Session), ("ip", Key::Ip)])
}

fn rate_with_burst(rate_given: Option<&Value<'_>>, burst_given: Option<&Value<'_>>) -> Option<Rate> {
    if let (None, Some(burst)) = (rate_given, burst_given) {
        burst.problem_with("a burst without a `rate`", "add `rate`, or use `concurrency`");
    }
    let burst = burst_given.and_then(count);
    let (count, per) = rate_given.and_then(rate)?;
    let burst = burst.unwrap_or(count);
    if let Some(value) = burst_given
        && u64::from(burst.get()) * per.as_secs() > u64::from(count.get()) * LONGEST_REFILL.as_secs()
    {
        value.problem(format!("at this rate it takes more than {} to refill", show_duration(LONGEST_REFILL)));
    }
    Some(Rate { count, per, burst })
}

fn count(value: &Value<'_>) -> Option<NonZeroU32> {
    value.number(1..=MOST).and_then(NonZeroU32::new)
}
