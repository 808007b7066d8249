//! Every metric family, in one place. Handles are resolved once (per backend, per tool, per method), never per request.
//!
//! Label values come from the configuration, from a fetched catalog or from closed enums, never from what a client
//! typed: that is [`OTHER`]. The registry is ours and passed in; nothing here is global.

mod cap;
mod series;
mod tool;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

pub(crate) use self::cap::Cap;
pub(crate) use self::series::Series;
use self::series::{BACKEND, Forget, Hold, forget};
use self::tool::ToolKey;
pub(crate) use self::tool::{Counted, ToolMetrics};
use crate::COMMIT;
use crate::catalog::drift::Change;
use crate::catalog::webhook;
use crate::error::Kind;
use crate::health::synthetic::Verdict;
use crate::log;
use crate::recent::Recent;

/// The label value for whatever has none of its own.
pub(crate) const OTHER: &str = "_OTHER";
/// Tools with series of their own; the calls of further ones are counted together under [`OTHER`].
pub(crate) const MAX_TOOL_SERIES: usize = 1_000;

/// Seconds, from a quick local tool to a long job: OpenTelemetry's advice for MCP.
const CALL_BUCKETS: &[f64] = &[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Seconds the gateway itself takes.
const OVERHEAD_BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05];

/// How probes, listings, reloads and calls that a limit covers end.
const PROBES: [&str; 6] = ["connect", "credentials", "ok", "protocol", "status", "timeout"];
const REFRESHES: [&str; 2] = ["failed", "ok"];
const RELOADS: [&str; 3] = ["applied", "rejected", "unchanged"];
const REFUSALS: [&str; 2] = ["concurrency", "rate"];

/// The families, and the registry they are gathered from.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    tool_calls: IntCounterVec,
    tool_call_seconds: HistogramVec,
    first_byte_seconds: HistogramVec,
    pub(crate) overhead_seconds: Histogram,
    inflight: IntGaugeVec,
    pub(crate) connections: IntGaugeVec,
    pub(crate) streams: Streams,
    pub(crate) sessions: IntGauge,
    backend_sessions: IntGaugeVec,
    sessions_reopened: IntCounterVec,
    pub(crate) backend_state: IntGaugeVec,
    pub(crate) backend_up: IntGaugeVec,
    pub(crate) backend_transitions: IntCounterVec,
    pub(crate) backend_info: IntGaugeVec,
    pub(crate) backend_era_changes: IntCounterVec,
    pub(crate) probes: IntCounterVec,
    pub(crate) probe_seconds: HistogramVec,
    pub(crate) catalog_tools: IntGaugeVec,
    pub(crate) catalog_entries: IntGaugeVec,
    pub(crate) catalog_bytes: IntGauge,
    pub(crate) catalog_backend_bytes: IntGaugeVec,
    /// 0 where there is none.
    pub(crate) catalog_budget: IntGauge,
    pub(crate) catalog_age_seconds: GaugeVec,
    pub(crate) catalog_incomplete: IntGauge,
    pub(crate) catalog_collisions: IntGauge,
    pub(crate) catalog_refused_tools: IntGaugeVec,
    pub(crate) catalog_unpinned_tools: IntGaugeVec,
    pub(crate) catalog_refreshes: IntCounterVec,
    pub(crate) catalog_drift: IntCounterVec,
    pub(crate) catalog_revision: IntGauge,
    pub(crate) webhook_messages: IntCounterVec,
    synthetic_calls: IntCounterVec,
    synthetic_seconds: HistogramVec,
    pub(crate) parked: ParkedMetrics,
    pub(crate) questions: IntGauge,
    pub(crate) subscriptions: IntGauge,
    caps: IntCounterVec,
    limit_refusals: IntCounterVec,
    /// What failed last.
    pub(crate) recent: Arc<Recent>,
    pub(crate) limit_keys: IntGaugeVec,
    pub(crate) reloads: IntCounterVec,
    pub(crate) reload_ok: IntGauge,
    pub(crate) reload_ok_time: Gauge,
    pub(crate) certificate_not_after: GaugeVec,
    pub(crate) backend_certificate_not_after: GaugeVec,
    pub(crate) sessions_max: IntGauge,
    pub(crate) connections_max: IntGaugeVec,
    tools: Mutex<HashMap<ToolKey, Arc<ToolMetrics>>>,
    other_tool: Arc<ToolMetrics>,
    /// How the series of a backend are ended, family by family.
    of_backends: Vec<Forget>,
    /// By the names of backends.
    held: Mutex<HashMap<Box<str>, Weak<Series>>>,
}

/// Registers a family; a name is used once, so this cannot fail.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: prometheus::Result<C>) -> C {
    #[expect(clippy::expect_used, reason = "names and labels are literals here, and a test registers them all")]
    let family = family.expect("a metric family has a valid name and labels");
    #[expect(clippy::expect_used, reason = "as above: each name stands once")]
    registry.register(Box::new(family.clone())).expect("a metric family is registered once");
    family
}

/// The kinds of family used below, each registered as it is made; those that tell backends apart are noted.
struct Maker {
    registry: Registry,
    of_backends: RefCell<Vec<Forget>>,
}

impl Maker {
    fn noted<B>(&self, family: MetricVec<B>, labels: &[&str]) -> MetricVec<B>
    where
        B: MetricVecBuilder + 'static,
        MetricVec<B>: Collector,
    {
        if labels.contains(&BACKEND) {
            self.of_backends.borrow_mut().push(forget(&family));
        }
        family
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.noted(registered(&self.registry, IntCounterVec::new(Opts::new(name, help), labels)), labels)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.noted(registered(&self.registry, IntGaugeVec::new(Opts::new(name, help), labels)), labels)
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.noted(registered(&self.registry, GaugeVec::new(Opts::new(name, help), labels)), labels)
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        registered(&self.registry, IntGauge::new(name, help))
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.noted(registered(&self.registry, HistogramVec::new(options, labels)), labels)
    }
}

impl Metrics {
    /// Every family at zero.
    #[expect(clippy::too_many_lines, reason = "a catalogue: one line a family")]
    pub(crate) fn new() -> Self {
        let make = Maker { registry: Registry::new(), of_backends: RefCell::default() };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // `/proc` may be out of reach; everything else is counted all the same.
        let _ = make.registry.register(Box::new(process));
        let tool_calls = make.counters(
            "toolgate_tool_calls_total",
            "Tool calls by how they ended; transport, JSON-RPC and tool failures apart",
            &["backend", "tool", "outcome"],
        );
        let tool_call_seconds = make.seconds(
            "toolgate_tool_call_duration_seconds",
            "Tool calls from request to last byte",
            &["backend", "tool"],
            CALL_BUCKETS,
        );
        let parked = make.counters(
            "toolgate_parked_calls_ended_total",
            "Calls of modern clients that waited for input a legacy backend asked for, by what became of them",
            &["outcome"],
        );
        let parked = ParkedMetrics {
            waiting: make.gauge("toolgate_parked_calls", "Calls of modern clients that wait for input"),
            resumed: parked.with_label_values(&["resumed"]),
            lapsed: parked.with_label_values(&["lapsed"]),
            refused: parked.with_label_values(&["refused"]),
        };
        let streams = make.gauges("toolgate_streams", "Open event streams towards clients", &["kind"]);
        let streams = Streams {
            call: streams.with_label_values(&["call"]),
            client: streams.with_label_values(&["client"]),
            json: streams.with_label_values(&["json"]),
            operator: streams.with_label_values(&["operator"]),
        };
        let caps = make.counters("toolgate_caps_reached_total", "Times that a cap was reached", &["cap"]);
        let reloads = make.counters("toolgate_config_reloads_total", "Reloads by outcome", &["outcome"]);
        let webhook_messages = make.counters(
            "toolgate_webhook_messages_total",
            "Messages that tell the webhook of changes in what backends offer, by what became of them",
            &["outcome"],
        );
        // What was never counted is 0, not absent: a rate of it is one, and an alert can be tried.
        Cap::ALL.iter().for_each(|cap| drop(caps.with_label_values(&[cap.as_str()])));
        RELOADS.iter().for_each(|outcome| drop(reloads.with_label_values(&[outcome])));
        webhook::OUTCOMES.iter().for_each(|outcome| drop(webhook_messages.with_label_values(&[outcome])));
        // Logging belongs to the process, and began before there was a gateway.
        registered(&make.registry, Ok(log::DROPPED.clone()));
        let other_tool = Arc::new(ToolMetrics::new(&tool_calls, &tool_call_seconds, OTHER, OTHER));
        make.gauges("toolgate_build_info", "Always 1; version and commit are labels", &["version", "commit"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT.unwrap_or("unknown")])
            .set(1);
        Self {
            requests: make.counters(
                "toolgate_requests_total",
                "Client messages by method and how they ended",
                &["method", "era", "outcome"],
            ),
            request_seconds: make.seconds(
                "toolgate_request_duration_seconds",
                "Client messages from first byte in to last byte out",
                &["method"],
                CALL_BUCKETS,
            ),
            tool_calls,
            tool_call_seconds,
            first_byte_seconds: make.seconds(
                "toolgate_upstream_first_byte_seconds",
                "From a request sent to a backend to the first byte of its answer",
                &["backend"],
                CALL_BUCKETS,
            ),
            overhead_seconds: registered(
                &make.registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "toolgate_overhead_seconds",
                        "Time a tool call spends in the gateway before it is sent on",
                    )
                    .buckets(OVERHEAD_BUCKETS.to_vec()),
                ),
            ),
            inflight: make.gauges("toolgate_upstream_inflight", "Requests under way to a backend", &["backend"]),
            connections: make.gauges("toolgate_connections", "Open client connections", &["listener"]),
            streams,
            sessions: make.gauge("toolgate_sessions", "Client sessions that something is held for"),
            backend_sessions: make.gauges("toolgate_backend_sessions", "Open sessions with a backend", &["backend"]),
            sessions_reopened: make.counters(
                "toolgate_backend_sessions_reopened_total",
                "Sessions that a backend had forgotten, by whether opening them again worked",
                &["backend", "result"],
            ),
            backend_state: make.gauges(
                "toolgate_backend_state",
                "1 for the state a backend is in, 0 for the others",
                &["backend", "state"],
            ),
            backend_up: make.gauges("toolgate_backend_up", "Whether a backend takes calls", &["backend"]),
            backend_transitions: make.counters(
                "toolgate_backend_transitions_total",
                "Changes of a backend's state",
                &["backend", "from", "to"],
            ),
            backend_info: make.gauges(
                "toolgate_backend_info",
                "Always 1; what a backend speaks is the labels",
                &["backend", "era", "version"],
            ),
            backend_era_changes: make.counters(
                "toolgate_backend_era_changes_total",
                "Times a backend was found to speak another era than before",
                &["backend"],
            ),
            probes: make.counters("toolgate_probes_total", "Health probes by result", &["backend", "result"]),
            probe_seconds: make.seconds(
                "toolgate_probe_duration_seconds",
                "Whole health probes",
                &["backend"],
                CALL_BUCKETS,
            ),
            catalog_tools: make.gauges("toolgate_catalog_tools", "Tools shown to clients", &["backend"]),
            catalog_entries: make.gauges(
                "toolgate_catalog_entries",
                "Tools, prompts, resources and resource templates shown to clients",
                &["backend", "kind"],
            ),
            catalog_bytes: make.gauge("toolgate_catalog_bytes", "Size of the merged tool list"),
            catalog_backend_bytes: make.gauges(
                "toolgate_catalog_backend_bytes",
                "Size of a backend's part of the merged tool list",
                &["backend"],
            ),
            catalog_budget: make.gauge(
                "toolgate_catalog_budget_bytes",
                "Size that the merged tool list should not go beyond; 0 for none",
            ),
            catalog_age_seconds: make.float_gauges(
                "toolgate_catalog_age_seconds",
                "Age of the list of a backend that is being served",
                &["backend"],
            ),
            catalog_incomplete: make
                .gauge("toolgate_catalog_incomplete_backends", "Backends whose list is missing or stale"),
            catalog_collisions: make
                .gauge("toolgate_catalog_collisions", "Tools hidden because another one has their name"),
            catalog_refused_tools: make.gauges(
                "toolgate_catalog_refused_tools",
                "Tools left out because their definition or name would break clients",
                &["backend"],
            ),
            catalog_unpinned_tools: make.gauges(
                "toolgate_catalog_unpinned_tools",
                "Tools that are not pinned, or not as they were pinned",
                &["backend"],
            ),
            catalog_refreshes: make.counters(
                "toolgate_catalog_refreshes_total",
                "Listings of a backend by result",
                &["backend", "result"],
            ),
            catalog_drift: make.counters(
                "toolgate_catalog_drift_total",
                "Changes of what a backend offers, by kind",
                &["backend", "change"],
            ),
            catalog_revision: make.gauge("toolgate_catalog_revision", "Counts changes of the merged tool list"),
            webhook_messages,
            synthetic_calls: make.counters(
                "toolgate_synthetic_calls_total",
                "Calls of the gateway's own, by how they ended; clients' calls are counted elsewhere",
                &["backend", "result"],
            ),
            synthetic_seconds: make.seconds(
                "toolgate_synthetic_call_duration_seconds",
                "Calls of the gateway's own, the handshake before them included",
                &["backend"],
                CALL_BUCKETS,
            ),
            parked,
            questions: make.gauge("toolgate_questions", "Questions of backends that clients have yet to answer"),
            subscriptions: make.gauge("toolgate_subscriptions", "Resources that sessions are subscribed to"),
            caps,
            recent: Arc::default(),
            limit_refusals: make.counters(
                "toolgate_limit_refusals_total",
                "Calls refused by a limit",
                &["limit", "kind"],
            ),
            limit_keys: make.gauges("toolgate_limit_keys", "Keys a limit keeps count of", &["limit"]),
            reloads,
            reload_ok: make.gauge(
                "toolgate_config_last_reload_successful",
                "Whether the configuration on disk is the one running",
            ),
            reload_ok_time: registered(
                &make.registry,
                Gauge::new(
                    "toolgate_config_last_reload_success_timestamp_seconds",
                    "When the configuration that runs was loaded",
                ),
            ),
            certificate_not_after: make.float_gauges(
                "toolgate_tls_certificate_not_after_timestamp_seconds",
                "When a listener's certificate expires",
                &["file"],
            ),
            backend_certificate_not_after: make.float_gauges(
                "toolgate_backend_certificate_not_after_timestamp_seconds",
                "When the certificate that a backend showed last expires",
                &["backend"],
            ),
            sessions_max: make.gauge("toolgate_sessions_max", "Client sessions that something may be held for at once"),
            connections_max: make.gauges(
                "toolgate_connections_max",
                "Client connections that may be open",
                &["listener"],
            ),
            tools: Mutex::default(),
            other_tool,
            of_backends: make.of_backends.into_inner(),
            held: Mutex::default(),
            registry: make.registry,
        }
    }

    /// The text exposition, for `/metrics`.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        // Writing to a Vec cannot fail, and our families are consistent by construction.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        text
    }

    /// The handles of a backend; what is counted of it elsewhere begins at 0.
    pub(crate) fn backend(self: &Arc<Self>, name: &str) -> BackendMetrics {
        let series = self.series(name);
        PROBES.iter().for_each(|result| drop(self.probes.with_label_values(&[name, result])));
        Change::ALL.iter().for_each(|change| drop(self.catalog_drift.with_label_values(&[name, change.as_str()])));
        REFRESHES.iter().for_each(|result| drop(self.catalog_refreshes.with_label_values(&[name, result])));
        drop(self.backend_era_changes.with_label_values(&[name]));
        BackendMetrics {
            hold: Hold::new(series),
            first_byte: self.first_byte_seconds.with_label_values(&[name]),
            inflight: self.inflight.with_label_values(&[name]),
            sessions: self.backend_sessions.with_label_values(&[name]),
            reopened_ok: self.sessions_reopened.with_label_values(&[name, "ok"]),
            reopened_failed: self.sessions_reopened.with_label_values(&[name, "failed"]),
        }
    }

    /// The handles of a backend's synthetic call.
    pub(crate) fn synthetic(&self, name: &str) -> SyntheticMetrics {
        SyntheticMetrics {
            results: Verdict::ALL.map(|verdict| self.synthetic_calls.with_label_values(&[name, verdict.as_str()])),
            seconds: self.synthetic_seconds.with_label_values(&[name]),
        }
    }

    /// The handles of a method, by its name in the method table.
    pub(crate) fn method(&self, name: &'static str) -> MethodMetrics {
        MethodMetrics {
            name,
            requests: self.requests.clone(),
            legacy: Default::default(),
            modern: Default::default(),
            seconds: self.request_seconds.with_label_values(&[name]),
            recent: Arc::clone(&self.recent),
        }
    }

    /// The counts of spans by what became of them, which begin where requests are traced.
    #[cfg(feature = "otel")]
    pub(crate) fn spans(&self) -> IntCounterVec {
        let help = "Spans of requests by what became of them: sent, or dropped because there were too many or nobody took them";
        registered(&self.registry, IntCounterVec::new(Opts::new("toolgate_spans_total", help), &["result"]))
    }

    /// Counts that a cap was reached.
    pub(crate) fn cap_reached(&self, cap: Cap) {
        self.caps.with_label_values(&[cap.as_str()]).inc();
    }

    /// Begins to count a limit's refusals.
    pub(crate) fn limit(&self, limit: &str) {
        REFUSALS.iter().for_each(|kind| drop(self.limit_refusals.with_label_values(&[limit, kind])));
    }

    /// Counts a refusal.
    /// How many calls a limit has refused for a reason.
    pub(crate) fn limit_refusals(&self, limit: &str, kind: &str) -> u64 {
        self.limit_refusals.with_label_values(&[limit, kind]).get()
    }

    pub(crate) fn limit_refused(&self, limit: &str, kind: &str) {
        self.limit_refusals.with_label_values(&[limit, kind]).inc();
    }
}

/// The streams that are open towards clients, by what they are.
pub(crate) struct Streams {
    /// The answer to a request.
    pub(crate) call: IntGauge,
    /// A client's own.
    pub(crate) client: IntGauge,
    /// An answer that is no event stream, on its way.
    pub(crate) json: IntGauge,
    /// A status page that is kept up to date.
    pub(crate) operator: IntGauge,
}

/// What is counted of calls that wait for their client's input.
#[derive(Clone)]
pub(crate) struct ParkedMetrics {
    pub(crate) waiting: IntGauge,
    /// Taken up again.
    pub(crate) resumed: IntCounter,
    /// Given up: nobody came back in time.
    pub(crate) lapsed: IntCounter,
    /// Never parked: there were too many.
    pub(crate) refused: IntCounter,
}

/// What is counted for one backend on the request path.
pub(crate) struct BackendMetrics {
    hold: Hold,
    pub(crate) first_byte: Histogram,
    pub(crate) inflight: IntGauge,
    pub(crate) sessions: IntGauge,
    pub(crate) reopened_ok: IntCounter,
    pub(crate) reopened_failed: IntCounter,
}

impl BackendMetrics {
    /// The backend's series, to be held by whoever counts under its name; nothing once it is retired: then nothing is to be
    /// counted under the name any more.
    pub(crate) fn series(&self) -> Option<Arc<Series>> {
        self.hold.series()
    }

    /// Lets the series end when nobody else holds them.
    pub(crate) fn retire(&self) {
        self.hold.release();
    }
}

/// What is counted of calls of the gateway's own to one backend.
pub(crate) struct SyntheticMetrics {
    results: [IntCounter; Verdict::ALL.len()],
    seconds: Histogram,
}

impl SyntheticMetrics {
    /// Counts one that ended.
    pub(crate) fn ended(&self, verdict: Verdict, took: Duration) {
        self.results[verdict as usize].inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

/// Which era a message was counted under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EraLabel {
    Legacy,
    Modern,
}

/// What is counted for one method.
pub(crate) struct MethodMetrics {
    name: &'static str,
    requests: IntCounterVec,
    legacy: [OnceLock<IntCounter>; Kind::ALL.len()],
    modern: [OnceLock<IntCounter>; Kind::ALL.len()],
    seconds: Histogram,
    pub(crate) recent: Arc<Recent>,
}

impl MethodMetrics {
    /// The label value.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Counts a message that was answered.
    pub(crate) fn ended(&self, era: EraLabel, kind: Kind, took: Duration) {
        let (cells, era) = match era {
            EraLabel::Legacy => (&self.legacy, "legacy"),
            EraLabel::Modern => (&self.modern, "modern"),
        };
        cells[kind as usize].get_or_init(|| self.requests.with_label_values(&[self.name, era, kind.as_str()])).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_every_family_and_counts_under_its_labels() {
        let metrics = Arc::new(Metrics::new());
        let counted = Counted::under(&metrics.tool("files", "files__read"), metrics.series("files"));
        counted.ended(Kind::ToolError, Duration::from_millis(3));

        let text = String::from_utf8(metrics.text()).unwrap();

        assert!(
            text.contains("toolgate_tool_calls_total{backend=\"files\",outcome=\"tool_error\",tool=\"files__read\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn what_was_never_counted_is_0() {
        let metrics = Arc::new(Metrics::new());
        let _files = metrics.backend("files");
        metrics.limit("slowly");

        let text = String::from_utf8(metrics.text()).unwrap();

        for cap in Cap::ALL {
            assert!(text.contains(&format!("toolgate_caps_reached_total{{cap=\"{}\"}} 0\n", cap.as_str())), "{text}");
        }
        for series in [
            "toolgate_config_reloads_total{outcome=\"rejected\"}",
            "toolgate_probes_total{backend=\"files\",result=\"timeout\"}",
            "toolgate_catalog_refreshes_total{backend=\"files\",result=\"failed\"}",
            "toolgate_catalog_drift_total{backend=\"files\",change=\"tool_removed\"}",
            "toolgate_backend_era_changes_total{backend=\"files\"}",
            "toolgate_limit_refusals_total{kind=\"rate\",limit=\"slowly\"}",
        ] {
            assert!(text.contains(&format!("{series} 0\n")), "{series}");
        }
    }
}
