//! `check --live`: what the backends of a configuration say, and what is wrong with it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use toolgate_config::{Catalog as Settings, Config, Pattern, Tools};

use super::{FAILURE, LIST_DEADLINE, OK, print, problem};
use crate::backend::Backend;
use crate::catalog::{Kind, LONG_NAME, LeftOut, Merged, Omission, Part, refresh};
use crate::gateway::Gateway;

/// A certificate that lasts less than this is a problem.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Asks every backend, and prints what each says as soon as it does; then what comes of putting them together. [`FAILURE`] when
/// one cannot be listed, has a certificate that expires within two weeks, or something that clients are not shown.
pub(super) async fn check(gateway: &Arc<Gateway>) -> u8 {
    let snapshot = gateway.snapshot();
    let mut code = ask(&snapshot.backends, &snapshot.config.catalog).await;
    let is_bad =
        |backend: &Arc<Backend>| backend.listing_problem().is_some() || lasts(backend).is_some_and(|left| left < SOON);
    let (_, merged) = snapshot.remerge();
    let (findings, is_wrong) = findings(&merged.parts);
    let idle = idle_patterns(&snapshot.config, &snapshot.backends, &merged);
    code = code.max(print(&(findings + &long_names(merged.names()) + &idle)));
    if is_wrong || snapshot.backends.iter().any(is_bad) { code.max(FAILURE) } else { code }
}

/// Asks backends, and prints what each says as soon as it does, or why it cannot be listed.
pub(super) async fn ask(backends: &[Arc<Backend>], settings: &Settings) -> u8 {
    let asking = backends.iter().map(|backend| async move {
        let began = Instant::now();
        refresh::list_once(backend, settings, LIST_DEADLINE).await;
        let took = began.elapsed();
        (backend, took, problem(backend).await)
    });
    let mut asking: FuturesUnordered<_> = asking.collect();
    let mut code = OK;
    while let Some((backend, took, problem)) = asking.next().await {
        code = code.max(print(&problem.map_or_else(|| told(backend, took), |problem| problem + "\n")));
    }
    code
}

/// What one backend is.
fn told(backend: &Backend, took: Duration) -> String {
    let mut said = format!("backend `{}`: ", backend.name());
    let versions = backend.spoken().map(|spoken| spoken.versions()).unwrap_or_default();
    let versions: Vec<_> = versions.into_iter().map(|(era, version)| format!("{era} {version}")).collect();
    said.push_str(&versions.join(" and "));
    if let Some(listing) = &*backend.listing.load() {
        for kind in Kind::ALL {
            let _ = write!(said, ", {} {}", listing.lists.get(kind).entries.len(), kind.words());
        }
        for kind in Kind::ALL {
            if let Some(failure) = listing.failures.get(kind) {
                let _ = write!(said, ", {} not listed: {failure}", kind.words());
            }
        }
    }
    if let Some(left) = lasts(backend) {
        let _ = write!(said, ", certificate for {} days", left.as_secs() / 86_400);
    }
    let _ = writeln!(said, " ({} ms)", took.as_millis());
    said
}

/// How long its certificate is valid still; nothing of a backend that has none.
fn lasts(backend: &Backend) -> Option<Duration> {
    Some(backend.certificate_not_after()?.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What is left out of the lists, and whether anything of that is wrong.
pub(super) fn findings<'a>(parts: impl IntoIterator<Item = &'a Part>) -> (String, bool) {
    let (mut said, mut is_wrong) = (String::new(), false);
    for part in parts {
        for Omission { kind, own, why } in &part.left_out {
            let is_shown = matches!(why, LeftOut::Unpinned { is_shown: true, .. });
            is_wrong |= !is_shown;
            let what = if is_shown { "" } else { "left out: " };
            let _ = writeln!(said, "backend `{}`: {} `{own}` {what}{why}", part.backend, kind.noun());
        }
    }
    (said, is_wrong)
}

/// Patterns and names of tools in the configuration that no tool has: most likely they were mistyped, and what they were to hold
/// back is not. Not wrong, for tools come and go; nothing is said of what a backend that was not listed may have.
fn idle_patterns(config: &Config, backends: &[Arc<Backend>], merged: &Merged) -> String {
    let mut said = String::new();
    for backend in backends {
        let Some(listing) = &*backend.listing.load() else { continue };
        let tools = listing.lists.get(Kind::Tools);
        let left_out = tools.left_out.iter().map(|omission| &omission.own);
        let names: Vec<_> = tools.entries.iter().map(|tool| &tool.own).chain(left_out).collect();
        let has = |is_it: &dyn Fn(&str) -> bool| names.iter().any(|own| is_it(own));
        let Tools { allow, deny, rename, describe, .. } = &backend.config.tools;
        let timeouts = backend.config.tool_timeouts.iter().flat_map(|timeout| &timeout.tools);
        let patterns = allow.iter().chain(deny).chain(timeouts).filter(|pattern| !has(&|own| pattern.matches(own)));
        let keys = rename.keys().chain(describe.keys()).filter(|name| !has(&|own| own == *name));
        for wanted in patterns.map(Pattern::as_str).chain(keys.map(String::as_str)) {
            let _ = writeln!(said, "backend `{}`: it has no tool `{wanted}`, which its section names", backend.name());
        }
    }
    if backends.iter().all(|backend| backend.listing.load().is_some()) {
        for limit in &config.limits {
            for pattern in limit.tools.iter().filter(|pattern| !merged.names().any(|name| pattern.matches(name))) {
                let _ = writeln!(said, "limit `{}`: no tool is called `{}`", limit.name, pattern.as_str());
            }
        }
    }
    said
}

/// Names that some clients refuse.
pub(super) fn long_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut said = String::new();
    for name in names.filter(|name| name.len() > LONG_NAME) {
        let _ = writeln!(
            said,
            "tool `{name}`: its name has more than {LONG_NAME} characters, which some model providers refuse"
        );
    }
    said
}
