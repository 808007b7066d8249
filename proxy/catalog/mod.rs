//! The catalog: what all backends have under its public names, and where each of it goes.
//!
//! Answered from memory. A background task per backend ([`refresh`]) keeps the last good lists of each; [`merge`] makes one
//! of them, ready to be sent in either era's words and byte-identical until something changed.

pub(crate) mod drift;
mod entry;
pub(crate) mod fingerprint;
pub(crate) mod follow;
pub(crate) mod listing;
pub(crate) mod merge;
pub(crate) mod param;
mod part;
pub(crate) mod refresh;
mod render;
pub(crate) mod template;
#[cfg(test)]
mod tests;
pub(crate) mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use serde_json::value::RawValue;
use toolgate_config::{BackendName, Timeout};

use self::param::HeaderParam;
pub(crate) use self::part::is_part;
use self::template::{Origins, Template};
use crate::backend::Backend;
use crate::era::Era;
use crate::limit::Rule;
use crate::metrics::{Counted, Metrics, ToolMetrics};

/// What tells that a resource has changed.
pub(crate) const RESOURCE_UPDATED: &str = "notifications/resources/updated";

/// Tool names beyond this length are shown, with a warning: some model providers refuse them.
pub(crate) const LONG_NAME: usize = 64;

/// What backends list.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl Kind {
    /// Every kind, in declaration order.
    pub(crate) const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// What a list of it is asked for with.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The key of the list in a result; also the word for them all.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// What people call them all.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Templates => "resource templates",
            Self::Tools | Self::Prompts | Self::Resources => self.field(),
        }
    }

    /// The word for one of them.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
            Self::Resources => "resource",
            Self::Templates => "resourceTemplate",
        }
    }
}

/// Something for each kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerKind<T>([T; 4]);

impl<T> PerKind<T> {
    pub(crate) fn get(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }

    pub(crate) fn get_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

/// Counts changes of what clients see, from 1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Revisions {
    pub(crate) tools: u64,
    pub(crate) prompts: u64,
    /// Of resources and of their templates.
    pub(crate) resources: u64,
}

impl Revisions {
    pub(crate) const FIRST: Self = Self { tools: 1, prompts: 1, resources: 1 };

    /// Counts what differs between two catalogs. Returns whether anything does.
    pub(crate) fn count(&mut self, old: &Merged, new: &Merged) -> bool {
        let before = *self;
        self.tools += u64::from(old.differs(new, Kind::Tools));
        self.prompts += u64::from(old.differs(new, Kind::Prompts));
        self.resources += u64::from(old.differs(new, Kind::Resources) || old.differs(new, Kind::Templates));
        *self != before
    }
}

/// Where a public tool name goes.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    pub(crate) public: Arc<str>,
    /// The backend's own name for it.
    pub(crate) own: Box<str>,
    /// The same as a JSON string.
    pub(crate) own_json: Box<str>,
    pub(crate) timeout: Timeout,
    /// Every limit that covers it.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// The arguments that are repeated in headers.
    pub(crate) header_params: Box<[HeaderParam]>,
    metrics: OnceLock<Arc<ToolMetrics>>,
}

impl Route {
    /// A call of it, to be counted; its handles are made at the first one.
    pub(crate) fn counted(&self, metrics: &Metrics) -> Counted {
        // A reload may have removed the backend since the world of this call was taken.
        let Some(series) = self.backend.metrics.series() else { return metrics.other_tool() };
        let tool = self.metrics.get_or_init(|| metrics.tool(self.backend.name().as_str(), &self.public));
        Counted::under(tool, series)
    }
}

/// Where a public prompt name goes.
pub(crate) struct PromptRoute {
    pub(crate) backend: Arc<Backend>,
    /// The backend's own name for it.
    pub(crate) own: Box<str>,
    /// The same as a JSON string.
    pub(crate) own_json: Box<str>,
}

/// How the lists of a backend got into the catalog.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Freshness {
    /// Its last listing worked.
    Fresh,
    /// Its last listing failed: the one before is shown.
    Stale,
    /// There is none to show.
    Missing,
}

impl Freshness {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Missing => "missing",
        }
    }
}

/// What the catalog holds of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) backend: BackendName,
    pub(crate) freshness: Freshness,
    /// How much of it is shown.
    pub(crate) shown: PerKind<usize>,
    /// Bytes of its tools' definitions as they are shown.
    pub(crate) bytes: usize,
    pub(crate) left_out: Vec<Omission>,
}

/// Something that a backend lists and that is not shown.
#[derive(Clone, Debug)]
pub(crate) struct Omission {
    pub(crate) kind: Kind,
    /// The backend's own name or URI of it.
    pub(crate) own: Box<str>,
    pub(crate) why: LeftOut,
}

/// Why something is not shown.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum LeftOut {
    /// Another one, earlier in the file's order, has its public name.
    Collision { kind: Kind, public: Box<str>, owner: BackendName },
    /// The backend lists it twice.
    Duplicate,
    /// Its `x-mcp-header` annotations break the rules; whether legacy clients see it all the same.
    HeaderParams { what: &'static str, for_modern_only: bool },
    /// Its definition would break clients.
    Malformed(&'static str),
    /// Its public name is not one that clients accept.
    Name { public: Box<str> },
    /// It can only be called as a task.
    TaskOnly,
    /// It is not what `toolgate pin` has written down: whether it stands there as something else, and whether it is shown all
    /// the same.
    Unpinned { is_changed: bool, is_shown: bool },
}

impl LeftOut {
    /// Whether clients could do nothing with it, whoever owns its name and whoever trusts it.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Collision { .. } | Self::Unpinned { .. })
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collision { kind, public, owner } => {
                write!(f, "backend `{owner}` already has a {} `{public}`", kind.noun())
            }
            Self::Duplicate => f.write_str("the backend lists it twice"),
            Self::HeaderParams { what, for_modern_only: true } => {
                write!(f, "not shown to clients of 2026-07-28: `x-mcp-header` {what}")
            }
            Self::HeaderParams { what, for_modern_only: false } => write!(f, "`x-mcp-header` {what}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::Name { public } => {
                write!(f, "`{public}` is not 1 to 128 of A-Za-z0-9_.-; give it another name with `tools.rename`")
            }
            Self::Unpinned { is_changed, is_shown } => {
                f.write_str(if *is_shown { "shown, though " } else { "" })?;
                f.write_str(if *is_changed {
                    "its definition is not the one that was pinned; to trust it run `toolgate pin`"
                } else {
                    "it is not pinned; to trust it run `toolgate pin`"
                })
            }
            Self::TaskOnly => f.write_str("it can only be called as a task, which is not spoken here"),
        }
    }
}

/// A result in one era's words.
#[derive(Clone, Default)]
struct Rendered {
    /// The whole of it, as it was when all of it had just been fetched.
    result: Bytes,
    /// Where in it the entries of a list are: what clients are told changes of.
    entries: Range<usize>,
    /// Where in it is said for how long it may be kept.
    ttl: Range<usize>,
    /// Until when that is, where it is said and comes to an end.
    until: Option<Instant>,
}

impl Rendered {
    fn entries(&self) -> &[u8] {
        self.result.get(self.entries.clone()).unwrap_or_default()
    }

    /// The result in pieces, with how long it may be kept from now on.
    fn pieces(&self, now: Instant) -> Vec<Bytes> {
        let Some(until) = self.until else { return vec![self.result.clone()] };
        let left = until.saturating_duration_since(now).as_millis().to_string();
        vec![self.result.slice(..self.ttl.start), left.into(), self.result.slice(self.ttl.end..)]
    }
}

/// The merged catalog. Immutable; a change makes a new one.
#[derive(Default)]
pub(crate) struct Merged {
    legacy: PerKind<Rendered>,
    modern: PerKind<Rendered>,
    routes: HashMap<Box<str>, Route, foldhash::fast::RandomState>,
    prompts: HashMap<Box<str>, PromptRoute>,
    /// By URI.
    resources: HashMap<Box<str>, Arc<Backend>>,
    /// In the order of the list.
    templates: Vec<(Template, Arc<Backend>)>,
    /// Where in `templates` each is, by exactly its text.
    template_at: HashMap<Box<str>, usize>,
    /// Backends that have resources, in file order, with what their URIs begin with.
    owners: Vec<(Arc<Backend>, Origins)>,
    /// In file order.
    pub(crate) parts: Vec<Part>,
    /// The backends' instructions, joined.
    pub(crate) instructions: Option<Box<str>>,
    /// What a legacy client is told in `initialize`: a JSON object.
    pub(crate) capabilities: Box<str>,
    /// The result of `server/discover`.
    discover: Rendered,
}

impl Merged {
    /// What answers a request for a list, in pieces.
    pub(crate) fn answer(&self, kind: Kind, era: Era, now: Instant) -> Vec<Bytes> {
        self.rendered(kind, era).pieces(now)
    }

    /// What answers `server/discover`, in pieces.
    pub(crate) fn discovered(&self, now: Instant) -> Vec<Bytes> {
        self.discover.pieces(now)
    }

    /// A list as it was when all of it had just been fetched.
    pub(crate) fn list(&self, kind: Kind, era: Era) -> &Bytes {
        &self.rendered(kind, era).result
    }

    /// Bytes of all definitions of tools as they are shown.
    pub(crate) fn tool_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// What of a kind legacy clients are shown, which is all that anybody is. Each definition is left as it is: not every
    /// number in one fits into a number here.
    pub(crate) fn definitions(&self, kind: Kind) -> Vec<&RawValue> {
        let result =
            serde_json::from_slice::<BTreeMap<&str, &RawValue>>(self.list(kind, Era::Legacy)).unwrap_or_default();
        let list = result.get(kind.field()).and_then(|list| serde_json::from_str(list.get()).ok());
        list.unwrap_or_default()
    }

    fn rendered(&self, kind: Kind, era: Era) -> &Rendered {
        match era {
            Era::Legacy => self.legacy.get(kind),
            Era::Modern => self.modern.get(kind),
        }
    }

    /// Whether clients of either era see something else in `newer`.
    fn differs(&self, newer: &Self, kind: Kind) -> bool {
        let differ = |era| self.rendered(kind, era).entries() != newer.rendered(kind, era).entries();
        differ(Era::Legacy) || differ(Era::Modern)
    }

    /// Where a public tool name goes. It is looked up whole, never split.
    pub(crate) fn route(&self, public: &str) -> Option<&Route> {
        self.routes.get(public)
    }

    /// The public names of all tools, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let mut names: Vec<_> = self.routes.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Where a public prompt name goes.
    pub(crate) fn prompt(&self, public: &str) -> Option<&PromptRoute> {
        self.prompts.get(public)
    }

    /// Who has a resource: by its URI, or else by the template that fits it best.
    pub(crate) fn resource(&self, uri: &str) -> Option<&Arc<Backend>> {
        self.resources.get(uri).or_else(|| {
            let fitting = self.templates.iter().filter(|(template, _)| template.matches(uri));
            // Of equals the first in the list, as with everything else here.
            fitting.rev().max_by_key(|(template, _)| template.literals()).map(|(_, backend)| backend)
        })
    }

    /// Who may have a resource that nobody lists, the likeliest first.
    pub(crate) fn resource_owners(&self, uri: &str) -> Vec<&Arc<Backend>> {
        let mut owners: Vec<_> = self.owners.iter().collect();
        owners.sort_by_key(|(_, origins)| std::cmp::Reverse(origins.likeness(uri)));
        owners.into_iter().map(|(backend, _)| backend).collect()
    }

    /// Logs the tools that are not what was pinned and were so, or were not there, before. Of many not all are told.
    pub(crate) fn tell_unpinned(&self, before: &Self) {
        const TOLD: usize = 16;
        let unpinned = |merged: &'_ Self| {
            let of = |part: &Part| {
                let tools = part.left_out.iter().filter(|omission| matches!(omission.why, LeftOut::Unpinned { .. }));
                tools.map(|tool| (part.backend.clone(), tool.own.clone(), tool.why.clone())).collect::<Vec<_>>()
            };
            merged.parts.iter().flat_map(of).collect::<Vec<_>>()
        };
        let known: std::collections::HashSet<_> = unpinned(before).into_iter().collect();
        let mut new = unpinned(self).into_iter().filter(|tool| !known.contains(tool));
        for (backend, tool, why) in new.by_ref().take(TOLD) {
            tracing::warn!(%backend, tool = &*tool, %why, "tool is not pinned");
        }
        let more = new.count();
        if more > 0 {
            tracing::warn!(more, "more tools are not pinned than are told");
        }
    }

    /// Who has a template, by exactly its text.
    pub(crate) fn template(&self, uri_template: &str) -> Option<&Arc<Backend>> {
        self.template_at.get(uri_template).map(|&at| &self.templates[at].1)
    }
}

/// Whether a notification says that something its sender lists has changed.
pub(crate) fn is_list_change(method: &str) -> bool {
    matches!(
        method,
        "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
    )
}
