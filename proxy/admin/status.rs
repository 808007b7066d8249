//! The status page: what an operator wants to see first, whole without JavaScript, and kept up to date with it. Nothing in it is
//! markup that a backend or a client wrote: text is escaped where it is put in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use maud::{DOCTYPE, Markup, html};

use crate::backend::Backend;
use crate::catalog::drift::{Drift, Seen};
use crate::catalog::{Kind, Merged, Omission};
use crate::error::Kind as Outcome;
use crate::gateway::{Gateway, Phase};
use crate::health::State;
use crate::jsonrpc;
use crate::{COMMIT, cli};

/// What a browser may do with the page: show it, and ask the gateway for more of it.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
pub(super) const STYLE: &str = include_str!("status.css");
pub(super) const SCRIPT: &str = include_str!("status.js");

/// Tools that are shown at once; a search finds the others.
const MAX_TOOLS: usize = 500;
/// Bytes of a definition that are shown; `/catalog` has all of it.
const MAX_DEFINITION: usize = 4 * 1024;

/// A part of the page that is made anew when something in it has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part {
    Gateway,
    Backends,
    Catalog,
    Limits,
    Sessions,
    Errors,
    Drift,
    Reload,
}

impl Part {
    pub(super) const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Backends,
        Self::Catalog,
        Self::Limits,
        Self::Sessions,
        Self::Errors,
        Self::Drift,
        Self::Reload,
    ];

    /// Of the element that holds it.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Backends => "backends",
            Self::Catalog => "catalog",
            Self::Limits => "limits",
            Self::Sessions => "sessions",
            Self::Errors => "errors",
            Self::Drift => "drift",
            Self::Reload => "reload",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::Backends => "Backends",
            Self::Catalog => "Catalog",
            Self::Limits => "Limits",
            Self::Sessions => "Sessions and streams",
            Self::Errors => "What failed last",
            Self::Drift => "What changed at backends",
            Self::Reload => "Last reload",
        }
    }

    pub(super) fn render(self, gateway: &Gateway, search: &str) -> Markup {
        match self {
            Self::Gateway => about(gateway),
            Self::Backends => backends(gateway),
            Self::Catalog => catalog(gateway, search),
            Self::Limits => limits(gateway),
            Self::Sessions => sessions(gateway),
            Self::Errors => errors(gateway),
            Self::Drift => drift(gateway),
            Self::Reload => reload(gateway),
        }
    }
}

/// The whole page; `search` is what tools are looked for by.
pub(super) fn page(gateway: &Gateway, search: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Toolgate" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/status.css";
                script src="/status.js" defer {}
            }
            body {
                a class="skip" href="#backends" { "Skip to the backends" }
                header {
                    h1 { "Toolgate" }
                    div id=(Part::Gateway.id()) { (about(gateway)) }
                    span id="live" class="dim" role="status" { "as of when it was loaded" }
                }
                main {
                    @for part in Part::ALL.into_iter().filter(|part| *part != Part::Gateway) {
                        section aria-labelledby=(format!("{}-title", part.id())) {
                            h2 id=(format!("{}-title", part.id())) { (part.title()) }
                            @if part == Part::Catalog {
                                form method="get" action="/" role="search" {
                                    input type="search" name="q" value=(search) placeholder="Name, owner or words of a description" aria-label="Find tools";
                                    button { "Find" }
                                }
                            }
                            div class="scroll" id=(part.id()) { (part.render(gateway, search)) }
                        }
                    }
                }
            }
        }
    }
}

fn about(gateway: &Gateway) -> Markup {
    let (class, ready) = match (gateway.is_ready(), gateway.phase()) {
        (true, _) => ("good", "takes calls"),
        (false, Phase::Serving) => ("bad", "no backend is usable"),
        (false, _) => ("fair", "is shutting down"),
    };
    html! {
        dl class="facts" {
            div { dt class="dim" { "state" } dd class=(format!("state {class}")) { (ready) } }
            div { dt { "version" } dd { (cli::version()) @if COMMIT.is_none() { " (commit unknown)" } } }
            div { dt { "since" } dd { (time(gateway.began)) } }
        }
    }
}

fn backends(gateway: &Gateway) -> Markup {
    let snapshot = gateway.snapshot();
    html! {
        table {
            thead { tr {
                th { "name" } th { "state" } th { "era" } th class="wide" { "since" } th class="number" { "under way" }
                th class="number" { "tools" } th class="wide" { "first byte, 15 min" } th { "what is wrong" }
            } }
            tbody { @for backend in &snapshot.backends { (backend_row(backend)) } }
        }
    }
}

fn backend_row(backend: &Arc<Backend>) -> Markup {
    let (health, listing) = (&backend.health, backend.listing.load());
    let class = match health.state() {
        State::Healthy => "good",
        State::Degraded | State::Unknown | State::Draining => "fair",
        State::Unhealthy => "bad",
    };
    let tools = listing.as_ref().map(|listing| listing.lists.get(Kind::Tools).entries.len());
    let eras = backend.spoken().map(|spoken| spoken.eras().join(", "));
    let mut wrong = Vec::new();
    if health.refuses_credentials() {
        wrong.push("it refuses the credentials".to_owned());
    }
    let problem = backend.listing_problem();
    let error = backend.last_error().map(|error| error.what);
    wrong.extend(error.filter(|what| problem.as_ref().is_none_or(|problem| !problem.ends_with(what))));
    wrong.extend(problem);
    let synthetic = backend.synthetic.load();
    wrong.extend(
        synthetic.iter().filter_map(|last| last.ended.why.as_ref().map(|why| format!("synthetic call: {why}"))),
    );
    if let Some((failure, when)) = health.last_failure().filter(|_| health.state() != State::Healthy) {
        wrong.push(format!("{} at {}", failure.as_str(), clock(at(when))));
    }
    html! {
        tr {
            td { (backend.name()) }
            td class=(format!("state {class}")) { (health.state().as_str()) }
            td { (eras.as_deref().unwrap_or("not known yet")) }
            td class="wide" { (time(at(health.since()))) }
            td class="number" { (backend.metrics.inflight.get()) }
            td class="number" { @match tools { Some(tools) => (tools), None => "–" } }
            td class="wide" { (sparkline(backend)) }
            td { @if wrong.is_empty() { span class="dim" { "nothing" } } @else { (wrong.join("; ")) } }
        }
    }
}

/// The means of the last intervals as a line, and the last of them in words.
fn sparkline(backend: &Backend) -> Markup {
    let latency = backend.latency();
    let means: Vec<_> = latency.means().collect();
    let most = means.iter().flatten().max().copied().unwrap_or_default();
    let Some(last) = means.iter().rev().flatten().next().filter(|_| !most.is_zero()) else {
        return html! { span class="dim" { "no calls" } };
    };
    // Each interval is a short level line: one alone would not be seen otherwise.
    let point = |(index, mean): (usize, &Option<Duration>)| {
        let height = 1.0 + 22.0 * (1.0 - (*mean)?.as_secs_f64() / most.as_secs_f64());
        let left = index * 2;
        Some(format!("{left},{height:.1} {},{height:.1}", left + 1))
    };
    let points: Vec<_> = means.iter().enumerate().filter_map(point).collect();
    let words = format!("{} at last, {} at most", milliseconds(*last), milliseconds(most));
    html! {
        div class="line" {
            svg viewBox="0 0 120 24" role="img" aria-label=(words) { title { (words) } polyline points=(points.join(" ")) {} }
            span class="dim" { (milliseconds(*last)) }
        }
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn catalog(gateway: &Gateway, search: &str) -> Markup {
    let catalog = gateway.snapshot().catalog();
    let wanted = search.trim().to_lowercase();
    let tools = catalog.definitions(Kind::Tools).into_iter().filter_map(|raw| Tool::read(&catalog, raw.get()));
    let found: Vec<_> = tools.filter(|tool| wanted.is_empty() || tool.has(&wanted)).collect();
    let left_out =
        catalog.parts.iter().flat_map(|part| part.left_out.iter().map(move |omission| (&part.backend, omission)));
    let left_out: Vec<_> = left_out.collect();
    let bytes = catalog.tool_bytes();
    html! {
        p class="dim" {
            (found.len()) " tools, " (bytes) " bytes, some " (super::tokens(bytes)) " tokens"
            @if let Some(budget) = gateway.snapshot().config.catalog.budget { " of a budget of " (budget) " bytes" }
            @if found.len() > MAX_TOOLS { "; the first " (MAX_TOOLS) " are shown" }
        }
        table {
            thead { tr { th { "tool" } th { "owner" } th { "description" } } }
            tbody {
                @for tool in found.iter().take(MAX_TOOLS) {
                    tr {
                        td { code { (tool.name) } }
                        td { (tool.owner) }
                        td { details data-name=(tool.name) { summary { (tool.summary()) } pre { (tool.definition()) } } }
                    }
                }
            }
        }
        @if !left_out.is_empty() {
            h3 { "Left out" }
            table {
                thead { tr { th { "what" } th { "backend" } th { "why" } } }
                tbody {
                    @for (backend, Omission { kind, own, why }) in left_out.iter().take(MAX_TOOLS) {
                        tr { td { (kind.noun()) " " code { (own) } } td { (backend) } td { (why) } }
                    }
                }
            }
        }
    }
}

/// A tool as clients are shown it.
struct Tool<'a> {
    name: String,
    owner: String,
    description: String,
    raw: &'a str,
}

impl<'a> Tool<'a> {
    fn read(catalog: &Merged, raw: &'a str) -> Option<Self> {
        let text = |key| jsonrpc::member(raw, key).and_then(|value| serde_json::from_str::<String>(value).ok());
        let name = text("name")?;
        let owner = catalog.route(&name)?.backend.name().to_string();
        Some(Self { owner, description: text("description").unwrap_or_default(), name, raw })
    }

    fn has(&self, wanted: &str) -> bool {
        [&self.name, &self.owner, &self.description].iter().any(|text| text.to_lowercase().contains(wanted))
    }

    /// The first line of what it says of itself.
    fn summary(&self) -> String {
        const MOST: usize = 120;
        let line = self.description.lines().find(|line| !line.trim().is_empty()).unwrap_or("(it says nothing)");
        match line.char_indices().nth(MOST) {
            Some((end, _)) => line.get(..end).unwrap_or_default().to_owned() + "…",
            None => line.to_owned(),
        }
    }

    fn definition(&self) -> String {
        let indented =
            serde_json::from_str(self.raw).and_then(|value: serde_json::Value| serde_json::to_string_pretty(&value));
        let mut text = indented.unwrap_or_else(|_| self.raw.to_owned());
        if text.len() > MAX_DEFINITION {
            text.truncate(text.floor_char_boundary(MAX_DEFINITION));
            text.push('…');
        }
        text
    }
}

fn limits(gateway: &Gateway) -> Markup {
    let snapshot = gateway.snapshot();
    let refused = |limit: &str, kind| gateway.metrics.limit_refusals(limit, kind);
    let last = gateway.metrics.recent.last();
    let last: Vec<_> = last.into_iter().filter(|failed| failed.outcome == Outcome::Limited).take(10).collect();
    html! {
        @if snapshot.limits.rules().is_empty() { p class="dim" { "There are none." } } @else {
            table {
                thead { tr { th { "limit" } th class="number" { "keys" } th class="number" { "refused for their rate" } th class="number" { "refused for how many at once" } } }
                tbody {
                    @for rule in snapshot.limits.rules() {
                        tr {
                            td { (rule.name()) }
                            td class="number" { (rule.keys()) }
                            td class="number" { (refused(rule.name(), "rate")) }
                            td class="number" { (refused(rule.name(), "concurrency")) }
                        }
                    }
                }
            }
        }
        @if !last.is_empty() {
            h3 { "Refused last" }
            table {
                thead { tr { th { "when" } th { "whom" } th { "tool" } th { "by" } } }
                tbody { @for one in &last {
                    tr {
                        td { (time(one.when)) }
                        td { (one.client) @if !one.session.is_empty() { ", session " code { (one.session) } } }
                        td { code { (one.tool) } }
                        td { (one.error) }
                    }
                } }
            }
        }
    }
}

fn sessions(gateway: &Gateway) -> Markup {
    let (metrics, counts) = (&gateway.metrics, &gateway.sessions.counts);
    let facts = [
        ("sessions held", gateway.sessions.held().to_string()),
        ("of at most", gateway.snapshot().config.sessions.max.to_string()),
        ("answers that stream", metrics.streams.call.get().to_string()),
        ("clients that listen", metrics.streams.client.get().to_string()),
        ("questions unanswered", counts.questions.load(Ordering::Relaxed).to_string()),
        ("subscriptions", counts.subscriptions.load(Ordering::Relaxed).to_string()),
        ("parked calls", metrics.parked.waiting.get().to_string()),
    ];
    html! { dl class="facts" { @for (what, value) in facts { div { dt { (what) } dd { (value) } } } } }
}

fn errors(gateway: &Gateway) -> Markup {
    let last = gateway.metrics.recent.last();
    html! {
        @if last.is_empty() { p class="dim" { "Nothing." } } @else {
            table {
                thead { tr { th { "when" } th { "outcome" } th { "method" } th { "tool" } th { "backend" } th class="wide" { "request" } th { "error" } } }
                tbody { @for one in &last {
                    tr {
                        td { (time(one.when)) }
                        td class="bad" { (one.outcome.as_str()) }
                        td { (one.method) }
                        td { code { (one.tool) } }
                        td { (one.backend) }
                        td class="wide" { code { (one.id) } }
                        td { (one.error) }
                    }
                } }
            }
        }
    }
}

fn drift(gateway: &Gateway) -> Markup {
    let last = gateway.drift.last();
    html! {
        @if last.is_empty() { p class="dim" { "Nothing." } } @else {
            table {
                thead { tr { th { "when" } th { "backend" } th { "change" } th { "tool" } th { "what" } } }
                tbody { @for Seen { backend, drift: Drift { change, tool, detail }, when } in &last {
                    tr {
                        td { (time(*when)) }
                        td { (backend) }
                        td { (change.as_str()) }
                        td { @if let Some(tool) = tool { code { (tool) } } }
                        td { (detail.as_deref().unwrap_or_default()) }
                    }
                } }
            }
        }
    }
}

fn reload(gateway: &Gateway) -> Markup {
    match &*gateway.reloaded.load() {
        None => html! { p class="dim" { "The configuration is the one that it was started with." } },
        Some(last) => html! {
            p { "Generation " (last.generation) ", " (time(last.when)) }
            ul { @for change in &last.changes { li { code { (change) } } } }
        },
    }
}

/// When something was that is told by how long ago it is; to the second, so that it is the same each time.
fn at(instant: Instant) -> SystemTime {
    let then = SystemTime::now().checked_sub(instant.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
    then + Duration::from_millis(500)
}

fn time(when: SystemTime) -> Markup {
    html! { time { (clock(when)) } }
}

/// `06 Nov 1994 08:49:37 UTC`.
fn clock(when: SystemTime) -> String {
    let words = httpdate::fmt_http_date(when);
    words.get(5..25).unwrap_or(&words).to_owned() + " UTC"
}
