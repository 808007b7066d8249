//! `plan`: what a reload with a configuration would change in a gateway that runs. The gateway is asked what it runs and what
//! clients see; the backends that would be new to it are asked what they have, as `check --live` does. Nothing is changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use toolgate_config::restart_only;

use super::ask::Operator;
use super::{CONFIG, FAILURE, OK, asking, checked, fail, live, print};
use crate::catalog::Merged;
use crate::catalog::listing::Listing;
use crate::difference::{self, Difference};
use crate::gateway::Gateway;

/// What stands for what is not shown.
const HIDDEN: &str = "***";

/// `plan`: prints what would change. [`OK`] when a reload would take the file up, [`CONFIG`] when it would be rejected,
/// [`FAILURE`] when the gateway does not answer, or a backend that it would have to ask.
pub fn plan(path: &Path, against: &Operator) -> u8 {
    let config = match checked(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let running = match Running::ask(against) {
        Ok(running) => running,
        Err(problem) => return fail(FAILURE, problem),
    };
    let next = config.redacted();
    let change = Change::between(&running.config, &next);
    let said = print(&change.told(&running.config, &next));
    let code = asking(path, config, async |gateway: &Arc<Gateway>| {
        let (said, unknown) = tools(gateway, &running, &change).await;
        let (verdict, code) = verdict(&change, &unknown);
        said.max(print(&format!("{}: {verdict}\n", path.display()))).max(code)
    });
    code.max(said)
}

/// What a gateway says of itself.
struct Running {
    config: Value,
    catalog: Catalog,
}

#[derive(Deserialize)]
struct Catalog {
    /// In the order of the configuration, as are their tools.
    backends: Vec<Part>,
    tools: Vec<Tool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    backend: String,
    /// How many of its tools are shown.
    tools: usize,
    left_out: Vec<LeftOut>,
}

#[derive(Deserialize)]
struct LeftOut {
    /// The backend's own name for it, where it is a tool.
    tool: Option<String>,
    /// Who has its public name, where somebody has.
    owner: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

/// Whose a tool is, and what that backend calls it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Owner {
    backend: String,
    own: String,
}

/// Tools by their public names.
type Tools = BTreeMap<String, Owner>;

impl Running {
    fn ask(operator: &Operator) -> Result<Self, String> {
        Ok(Self { config: operator.page("/config")?, catalog: operator.page("/catalog")? })
    }

    /// What clients see.
    fn tools(&self) -> Tools {
        let sections = backends(&self.config);
        let mut names = self.catalog.tools.iter();
        let mut tools = Tools::new();
        for part in &self.catalog.backends {
            for Tool { name } in names.by_ref().take(part.tools) {
                let own = sections.get(&*part.backend).map_or(&**name, |section| own_name(section, name));
                tools.insert(name.clone(), Owner { backend: part.backend.clone(), own: own.to_owned() });
            }
        }
        tools
    }

    /// A backend's own names of what clients would see, were they not somebody else's.
    fn left_out(&self, backend: &str) -> impl Iterator<Item = &str> {
        let parts = self.catalog.backends.iter().filter(move |part| part.backend == backend);
        parts.flat_map(|part| &part.left_out).filter(|one| one.owner.is_some()).filter_map(|one| one.tool.as_deref())
    }
}

/// The sections of backends, by their names.
fn backends(config: &Value) -> BTreeMap<&str, &Value> {
    let sections = config.get("backends").and_then(Value::as_array).into_iter().flatten();
    sections.filter_map(|section| Some((section.get("name")?.as_str()?, section))).collect()
}

/// The names of those that are among `others` too, in order.
fn order(config: &Value, others: &BTreeMap<&str, &Value>) -> String {
    let sections = config.get("backends").and_then(Value::as_array).into_iter().flatten();
    let names = sections.filter_map(|section| section.get("name")?.as_str());
    names.filter(|name| others.contains_key(name)).collect::<Vec<_>>().join(", ")
}

/// What a backend with this section calls a tool that clients know by this name.
fn own_name<'a>(section: &'a Value, public: &'a str) -> &'a str {
    let prefix = section.get("prefix").and_then(Value::as_str).unwrap_or_default();
    let shown = public.strip_prefix(prefix).unwrap_or(public);
    let renamed = section.pointer("/tools/rename").and_then(Value::as_object);
    renamed.and_then(|renamed| renamed.iter().find(|(_, to)| *to == shown)).map_or(shown, |(own, _)| own)
}

/// What is different between two configurations.
struct Change {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    /// Of backends that are in both, where it is another one.
    order: Option<[String; 2]>,
    /// Of backends that are in both, and of everything else.
    keys: Vec<Difference>,
    /// What cannot change while a process runs.
    restart_only: Vec<String>,
    /// Whether what backends have is looked at otherwise, whichever they are.
    asks_all: bool,
}

impl Change {
    fn between(old: &Value, new: &Value) -> Self {
        let (before, after) = (backends(old), backends(new));
        let names = |of: &BTreeMap<&str, &Value>, is_meant: &dyn Fn(&str, &Value) -> bool| {
            let meant = of.iter().filter(|(name, section)| is_meant(name, section));
            meant.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()
        };
        let added = names(&after, &|name, _| !before.contains_key(name));
        let removed = names(&before, &|name, _| !after.contains_key(name));
        let changed = names(&after, &|name, section| before.get(name).is_some_and(|was| *was != section));
        let whole: Vec<_> = added.iter().chain(&removed).map(|name| section_of(name)).collect();
        let mut keys = difference::between(old, new);
        keys.retain(|one| !whole.iter().any(|section| one.key.starts_with(section)));
        let pins = [old, new].map(|config| config.pointer("/pin/mode").and_then(Value::as_str));
        // It is not read, and unless it is given it lies where the configuration does.
        keys.retain(|one| one.key != "pin.file" || pins != [Some("off"); 2]);
        // A fingerprint is of the definition as the backend wrote it, which the gateway does not show.
        let asks_all = pins.contains(&Some("enforce")) || old.get("catalog") != new.get("catalog");
        let orders = [order(old, &after), order(new, &before)];
        let order = (orders[0] != orders[1]).then_some(orders);
        Self { added, removed, changed, order, keys, restart_only: restart_only(old, new), asks_all }
    }

    /// Whether a backend is asked what it has.
    fn asks(&self, backend: &str) -> bool {
        self.asks_all || self.added.iter().chain(&self.changed).any(|name| name == backend)
    }

    fn told(&self, old: &Value, new: &Value) -> String {
        let mut said = String::new();
        for (backends, what) in [(&self.added, "added"), (&self.removed, "removed"), (&self.changed, "changed")] {
            for name in backends {
                let _ = writeln!(said, "backend `{name}`: {what}");
            }
        }
        if let Some([before, after]) = &self.order {
            let _ = writeln!(said, "backends, whose order says who keeps a name: {before} → {after}");
        }
        for Difference { key, old, new } in &self.keys {
            let none = "none".to_owned();
            let _ = writeln!(said, "{key}: {} → {}", old.as_ref().unwrap_or(&none), new.as_ref().unwrap_or(&none));
        }
        for field in &self.restart_only {
            let _ = writeln!(said, "{field}: cannot change while the gateway runs");
        }
        let was = difference::values(old);
        let hidden = difference::values(new)
            .into_iter()
            .filter(|(key, value)| value.contains(HIDDEN) && was.get(key).is_some_and(|was| was.contains(HIDDEN)));
        let hidden: Vec<_> = hidden.map(|(key, _)| key).collect();
        if !hidden.is_empty() {
            let _ = writeln!(said, "credentials: not shown, so not compared: {}", hidden.join(", "));
        }
        said
    }
}

/// What the keys of a backend begin with.
fn section_of(backend: &str) -> String {
    format!("backends[{backend}].")
}

/// Asks the backends that have to be asked and prints what clients would see otherwise. Returns the code of that, and the
/// backends that could not be listed.
async fn tools(gateway: &Gateway, running: &Running, change: &Change) -> (u8, BTreeSet<String>) {
    let snapshot = gateway.snapshot();
    let mut before = running.tools();
    let (asked, known): (Vec<_>, Vec<_>) =
        snapshot.backends.iter().map(Arc::clone).partition(|backend| change.asks(backend.name().as_str()));
    for backend in known {
        let name = backend.name().as_str();
        let shown = before.values().filter(|owner| owner.backend == name).map(|owner| &*owner.own);
        backend.list_arrived(&Arc::new(Listing::named(shown.chain(running.left_out(name)))));
    }
    let mut code = live::ask(&asked, &snapshot.config.catalog).await;
    let (_, merged) = snapshot.remerge();
    let mut after = merged_tools(&merged);
    let unknown = asked.iter().filter(|backend| backend.listing_problem().is_some());
    let unknown: BTreeSet<_> = unknown.map(|backend| backend.name().to_string()).collect();
    // What is not known of a backend says nothing about its tools, nor about whoever would have their names.
    after.retain(|public, _| before.get(public).is_none_or(|owner| !unknown.contains(&owner.backend)));
    before.retain(|_, owner| !unknown.contains(&owner.backend));
    let parts = merged.parts.iter().filter(|part| change.asks(part.backend.as_str()));
    let new = after.keys().filter(|public| !before.contains_key(*public)).map(String::as_str);
    code = code.max(print(&(live::findings(parts).0 + &live::long_names(new) + &changes(&before, &after))));
    (code, unknown)
}

fn merged_tools(merged: &Merged) -> Tools {
    let owned = |public: &str| {
        let route = merged.route(public)?;
        let owner = Owner { backend: route.backend.name().to_string(), own: route.own.to_string() };
        Some((public.to_owned(), owner))
    };
    merged.names().filter_map(owned).collect()
}

/// What becomes of tools, a line each: those that were there before, then those that are new.
fn changes(before: &Tools, after: &Tools) -> String {
    let named = |tools: &'_ Tools| -> HashMap<Owner, String> {
        tools.iter().map(|(public, owner)| (owner.clone(), public.clone())).collect()
    };
    let (was_named, is_named) = (named(before), named(after));
    let mut said = String::new();
    for (public, owner) in before {
        let renamed = is_named.get(owner).filter(|name| *name != public);
        if let Some(name) = renamed {
            let _ = writeln!(said, "tool `{public}`: renamed, to `{name}`");
        }
        match after.get(public) {
            Some(next) if next.backend != owner.backend => {
                let _ = writeln!(
                    said,
                    "tool `{public}`: moved, from backend `{}` to backend `{}`",
                    owner.backend, next.backend
                );
            }
            Some(next) if next.own != owner.own => {
                let (backend, own) = (&owner.backend, &owner.own);
                let _ = writeln!(said, "tool `{public}`: now `{}` of backend `{backend}`, which was `{own}`", next.own);
            }
            None if renamed.is_none() => {
                let _ = writeln!(said, "tool `{public}`: lost, of backend `{}`", owner.backend);
            }
            Some(_) | None => {}
        }
    }
    for (public, owner) in after {
        if !before.contains_key(public) && !was_named.contains_key(owner) {
            let _ = writeln!(said, "tool `{public}`: gained, of backend `{}`", owner.backend);
        }
    }
    said
}

/// What would become of a reload, and the exit code that says so.
fn verdict(change: &Change, unknown: &BTreeSet<String>) -> (String, u8) {
    let tools = unknown.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let is_nothing =
        change.added.is_empty() && change.removed.is_empty() && change.order.is_none() && change.keys.is_empty();
    match (&*change.restart_only, &*tools) {
        ([], "") if is_nothing => ("a reload would change nothing of what is shown".to_owned(), OK),
        ([], "") => ("a reload would take it up".to_owned(), OK),
        ([], tools) => {
            (format!("a reload would take it up, and which tools there would be is unknown of {tools}"), FAILURE)
        }
        (fields, _) => (
            format!("a reload would be rejected because of {}; restart the gateway to take it up", fields.join(", ")),
            CONFIG,
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tools(all: &[(&str, &str, &str)]) -> Tools {
        let owner = |backend: &str, own: &str| Owner { backend: backend.to_owned(), own: own.to_owned() };
        all.iter().map(|(public, backend, own)| ((*public).to_owned(), owner(backend, own))).collect()
    }

    #[test]
    fn what_becomes_of_a_tool_is_told_once() {
        let before = tools(&[("a", "x", "a"), ("b", "x", "b"), ("c", "x", "c"), ("d", "x", "d"), ("e", "x", "e")]);
        let after = tools(&[("a", "x", "a"), ("b2", "x", "b"), ("c", "y", "c"), ("e", "x", "f"), ("g", "x", "g")]);

        let said = changes(&before, &after);

        let lines = [
            "tool `b`: renamed, to `b2`",
            "tool `c`: moved, from backend `x` to backend `y`",
            "tool `d`: lost, of backend `x`",
            "tool `e`: now `f` of backend `x`, which was `e`",
            "tool `g`: gained, of backend `x`",
        ];
        assert_eq!(said.lines().collect::<Vec<_>>(), lines);
        assert_eq!(changes(&before, &before), "");
    }

    #[test]
    fn own_names_are_found_behind_prefix_and_rename() {
        let section = json!({ "prefix": "a__", "tools": { "rename": { "q": "search" } } });

        assert_eq!(["a__search", "a__other", "odd"].map(|name| own_name(&section, name)), ["q", "other", "odd"]);
    }

    #[test]
    fn a_backend_that_comes_or_goes_is_one_change() {
        let old = json!({ "backends": [{ "name": "a", "url": "1" }, { "name": "b", "url": "2" }] });
        let new = json!({ "backends": [{ "name": "b", "url": "3" }, { "name": "c", "url": "4" }] });

        let change = Change::between(&old, &new);

        assert_eq!(
            (&*change.added, &*change.removed, &*change.changed),
            (&["c".to_owned()][..], &["a".to_owned()][..], &["b".to_owned()][..])
        );
        assert_eq!(change.told(&old, &new).lines().last(), Some("backends[b].url: \"2\" → \"3\""));
    }
}
