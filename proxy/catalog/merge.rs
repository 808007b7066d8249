//! Many lists into one: config order, then the backend's own; prefix, rename, description and filter applied.
//!
//! An entry's bytes are the backend's, except the spans of its name and, where the configuration says so, its description.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Instant;

use toolgate_config::{Pin, PinMode};

use super::entry::Entry;
use super::listing::Listing;
use super::render::Keeping;
use super::template::{Origins, Template};
use super::{Freshness, Kind, LONG_NAME, LeftOut, Merged, Omission, Part, PerKind, PromptRoute, Route, render};
use crate::backend::Backend;
use crate::backend::client::{Caching, ServerCapabilities};
use crate::era::Era;
use crate::jsonrpc::json_string;
use crate::limit::Limits;

/// The longest name that is shown (2025-11-25, SEP-986).
const MAX_NAME: usize = 128;

/// Makes one catalog of the backends' last good lists.
pub(crate) fn merge(backends: &[Arc<Backend>], limits: &Limits, pin: &Pin) -> Merged {
    let mut merging = Merging { limits, pin, lists: PerKind::default(), merged: Merged::default(), discover: None };
    let mut capabilities: Vec<ServerCapabilities> = Vec::new();
    let mut instructions = String::new();
    for backend in backends {
        merging.add(backend);
        if let Some(listing) = &*backend.listing.load() {
            capabilities.push(listing.capabilities);
            if let Some(text) = &listing.instructions {
                let gap = if instructions.is_empty() { "" } else { "\n\n" };
                let _ = write!(instructions, "{gap}## {}\n{text}", backend.name());
            }
        }
    }
    let Merging { lists, mut merged, discover, .. } = merging;
    for kind in Kind::ALL {
        let list = lists.get(kind);
        let incomplete = (!list.incomplete.is_empty()).then(|| format!("[{}]", list.incomplete));
        *merged.legacy.get_mut(kind) = render::legacy(kind, &list.legacy, incomplete.as_deref());
        *merged.modern.get_mut(kind) = render::modern(kind, &list.modern, list.keeping, incomplete.as_deref());
    }
    merged.instructions = (!instructions.is_empty()).then(|| instructions.into());
    merged.capabilities = render::capabilities(&capabilities).into();
    merged.discover = render::discover(&merged.capabilities, merged.instructions.as_deref(), discover);
    merged
}

/// One list as it grows.
#[derive(Default)]
struct List {
    legacy: String,
    modern: String,
    /// What holds for all its parts so far.
    keeping: Option<Keeping>,
    /// Backends whose part is missing or stale, as JSON objects.
    incomplete: String,
}

impl List {
    /// Appends an entry for clients of one era; its size.
    fn push(&mut self, era: Era, entry: &Entry, key: Option<&str>, description: Option<&str>) -> usize {
        let list = match era {
            Era::Legacy => &mut self.legacy,
            Era::Modern => &mut self.modern,
        };
        let before = list.len();
        if !list.is_empty() {
            list.push(',');
        }
        entry.write(list, era, key, description);
        list.len() - before
    }

    fn note(&mut self, backend: &Backend, freshness: Freshness, keeping: Keeping) {
        self.keeping = Some(self.keeping.map_or(keeping, |all| all.and(keeping)));
        if freshness != Freshness::Fresh {
            let gap = if self.incomplete.is_empty() { "" } else { "," };
            let _ = write!(
                self.incomplete,
                "{gap}{{\"name\":\"{}\",\"state\":\"{}\"}}",
                backend.name(),
                freshness.as_str()
            );
        }
    }
}

struct Merging<'a> {
    limits: &'a Limits,
    pin: &'a Pin,
    lists: PerKind<List>,
    merged: Merged,
    /// What holds for everything that is told by `server/discover`.
    discover: Option<Keeping>,
}

impl Merging<'_> {
    fn add(&mut self, backend: &Arc<Backend>) {
        let listing = backend.listing.load();
        let failed = backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let freshness = match &*listing {
            None => Freshness::Missing,
            Some(_) if failed => Freshness::Stale,
            Some(_) => Freshness::Fresh,
        };
        let fetched = listing.as_ref().map_or_else(Instant::now, |listing| listing.fetched);
        let caching = listing.as_ref().filter(|_| !failed).map_or(Caching::NONE, |listing| listing.caching);
        let keeping = Keeping::since(fetched, caching);
        self.discover = Some(self.discover.map_or(keeping, |all| all.and(keeping)));
        let mut part = Part {
            backend: backend.name().clone(),
            freshness,
            shown: PerKind::default(),
            bytes: 0,
            left_out: Vec::new(),
        };
        for kind in Kind::ALL {
            let (freshness, caching) = match &*listing {
                Some(listing) if freshness == Freshness::Fresh => listing.state(kind),
                _ => (freshness, Caching::NONE),
            };
            self.lists.get_mut(kind).note(backend, freshness, Keeping::since(fetched, caching));
            if let Some(listing) = &*listing {
                self.add_kind(backend, listing, kind, &mut part);
            }
        }
        if let Some(listing) = &*listing {
            self.add_origins(backend, listing);
        }
        self.merged.parts.push(part);
    }

    fn add_kind(&mut self, backend: &Arc<Backend>, listing: &Listing, kind: Kind, part: &mut Part) {
        let listed = listing.lists.get(kind);
        let is_denied = |own: &str| kind == Kind::Tools && !backend.config.tools.shows(own);
        part.left_out.extend(listed.left_out.iter().filter(|omission| !is_denied(&omission.own)).cloned());
        let mut own_keys = HashSet::new();
        for entry in &listed.entries {
            if is_denied(&entry.own) {
                continue;
            }
            let is_first = own_keys.insert(&*entry.own);
            let unpinned = if kind == Kind::Tools { self.unpinned(backend, entry) } else { None };
            let added = match unpinned {
                _ if !is_first => Err(LeftOut::Duplicate),
                Some(why @ LeftOut::Unpinned { is_shown: false, .. }) => Err(why),
                why => self.add_entry(backend, listing.era, kind, entry, part).map(|other| [why, other]),
            };
            let whys = match added {
                Ok(whys) => {
                    *part.shown.get_mut(kind) += 1;
                    whys
                }
                Err(why) => [Some(why), None],
            };
            let omission = |why| Omission { kind, own: entry.own.clone(), why };
            part.left_out.extend(whys.into_iter().flatten().map(omission));
        }
    }

    /// What there is to say of a tool that is not what was pinned, where that matters.
    fn unpinned(&self, backend: &Backend, entry: &Entry) -> Option<LeftOut> {
        let is_shown = match self.pin.mode {
            PinMode::Off => return None,
            PinMode::Warn => true,
            PinMode::Enforce => false,
        };
        match self.pin.lock.get(backend.name().as_str(), &entry.own) {
            Some(pinned) if *pinned == entry.fingerprint() => None,
            pinned => Some(LeftOut::Unpinned { is_changed: pinned.is_some(), is_shown }),
        }
    }

    /// Adds an entry, or says why not, or why not for everybody.
    fn add_entry(
        &mut self,
        backend: &Arc<Backend>,
        era: Era,
        kind: Kind,
        entry: &Entry,
        part: &mut Part,
    ) -> Result<Option<LeftOut>, LeftOut> {
        match kind {
            Kind::Tools => self.add_tool(backend, era, entry, part),
            Kind::Prompts => self.add_prompt(backend, entry).map(|()| None),
            Kind::Resources => self.add_resource(backend, entry).map(|()| None),
            Kind::Templates => self.add_template(backend, entry).map(|()| None),
        }
    }

    fn add_tool(
        &mut self,
        backend: &Arc<Backend>,
        era: Era,
        entry: &Entry,
        part: &mut Part,
    ) -> Result<Option<LeftOut>, LeftOut> {
        let config = &backend.config;
        let public: Box<str> = config.public_name(&entry.own).into();
        if !is_valid_name(&public) {
            return Err(LeftOut::Name { public });
        }
        if let Some(owner) = self.merged.routes.get(&public) {
            return Err(collision(Kind::Tools, public, &owner.backend));
        }
        let is_spoken_to_as_modern = era == Era::Modern || backend.spoken().is_some_and(|spoken| spoken.modern);
        let header_params = match &entry.header_params {
            Ok(params) => Ok(params.clone()),
            Err(what) if is_spoken_to_as_modern => {
                return Err(LeftOut::HeaderParams { what, for_modern_only: false });
            }
            Err(what) => Err(LeftOut::HeaderParams { what, for_modern_only: true }),
        };
        if public.len() > LONG_NAME {
            tracing::debug!(tool = &*public, "tool name is longer than {LONG_NAME}, which some model providers refuse");
        }
        let given = config.tools.describe.get(&*entry.own).map(|text| Cow::Borrowed(&**text));
        let shortened = || Some(Cow::Owned(entry.short_description(config.tools.max_description? as usize)?));
        let description = given.or_else(shortened);
        let description = description.as_deref();
        let (list, key) = (self.lists.get_mut(Kind::Tools), json_string(&public));
        part.bytes += list.push(Era::Legacy, entry, Some(&key), description);
        if header_params.is_ok() {
            list.push(Era::Modern, entry, Some(&key), description);
        }
        let (header_params, why) = match header_params {
            Ok(params) => (params, None),
            Err(why) => (Box::default(), Some(why)),
        };
        let route = Route {
            backend: Arc::clone(backend),
            public: (&*public).into(),
            own: entry.own.clone(),
            own_json: json_string(&entry.own).into(),
            timeout: backend.timeout_for(&entry.own),
            rules: self.limits.matching(&public, backend.name()),
            header_params,
            metrics: OnceLock::new(),
        };
        self.merged.routes.insert(public, route);
        Ok(why)
    }

    fn add_prompt(&mut self, backend: &Arc<Backend>, entry: &Entry) -> Result<(), LeftOut> {
        let public: Box<str> = [&*backend.config.prefix, &entry.own].concat().into();
        if let Some(owner) = self.merged.prompts.get(&public) {
            return Err(collision(Kind::Prompts, public, &owner.backend));
        }
        self.show(Kind::Prompts, entry, Some(&json_string(&public)));
        let route = PromptRoute {
            backend: Arc::clone(backend),
            own: entry.own.clone(),
            own_json: json_string(&entry.own).into(),
        };
        self.merged.prompts.insert(public, route);
        Ok(())
    }

    fn add_resource(&mut self, backend: &Arc<Backend>, entry: &Entry) -> Result<(), LeftOut> {
        if let Some(owner) = self.merged.resources.get(&entry.own) {
            return Err(collision(Kind::Resources, entry.own.clone(), owner));
        }
        self.show(Kind::Resources, entry, None);
        self.merged.resources.insert(entry.own.clone(), Arc::clone(backend));
        Ok(())
    }

    fn add_template(&mut self, backend: &Arc<Backend>, entry: &Entry) -> Result<(), LeftOut> {
        if let Some(&at) = self.merged.template_at.get(&entry.own) {
            return Err(collision(Kind::Templates, entry.own.clone(), &self.merged.templates[at].1));
        }
        self.show(Kind::Templates, entry, None);
        self.merged.template_at.insert(entry.own.clone(), self.merged.templates.len());
        self.merged.templates.push((Template::read(&entry.own), Arc::clone(backend)));
        Ok(())
    }

    /// To clients of both eras.
    fn show(&mut self, kind: Kind, entry: &Entry, key: Option<&str>) {
        let list = self.lists.get_mut(kind);
        list.push(Era::Legacy, entry, key, None);
        list.push(Era::Modern, entry, key, None);
    }

    fn add_origins(&mut self, backend: &Arc<Backend>, listing: &Listing) {
        let mut origins = Origins::default();
        let listed = [Kind::Resources, Kind::Templates].map(|kind| &listing.lists.get(kind).entries);
        listed.iter().flat_map(|entries| entries.iter()).for_each(|entry| origins.add(&entry.own));
        if listing.capabilities.resources || listed.iter().any(|entries| !entries.is_empty()) {
            self.merged.owners.push((Arc::clone(backend), origins));
        }
    }
}

fn collision(kind: Kind, public: Box<str>, owner: &Backend) -> LeftOut {
    LeftOut::Collision { kind, public, owner: owner.name().clone() }
}

/// What clients and model providers accept as a tool's name.
fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_clients_accept() {
        assert!(is_valid_name("a.B-c_9"));
        assert!(is_valid_name(&"x".repeat(128)));
        for bad in ["", "a/b", "a b", "é", &"x".repeat(129)] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
