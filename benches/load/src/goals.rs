//! The goals, and whether they were reached: nothing but arithmetic over medians, of values or of the ratios in each round.
//! Where a figure is missing there is no verdict, and never a good one.

use crate::figures::{Figures, Metric, decimals};
use crate::subjects::Kind;

/// Which way a goal looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// A row of the table.
pub(crate) struct Goal {
    pub(crate) work: &'static str,
    /// In words; the bound's unit is the value's.
    pub(crate) goal: &'static str,
    bound: Bound,
    unit: &'static str,
    value: fn(&Figures) -> Option<f64>,
}

/// A goal after a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    /// `None` without the figures that it takes.
    pub(crate) reached: Option<bool>,
    pub(crate) measured: String,
}

impl Goal {
    pub(crate) fn verdict(&self, figures: &Figures) -> Verdict {
        // A ratio to nothing is no figure.
        let value = (self.value)(figures).filter(|value| value.is_finite());
        Verdict {
            reached: value.map(|value| self.bound.holds(value)),
            measured: value.map_or_else(|| "–".to_owned(), |value| format!("{}{}", decimals(value), self.unit)),
        }
    }
}

const SMALL: &str = "`tools/call`, 300 B JSON, keep-alive, 1 worker";
const TLS: &str = "the same through TLS + h2";
const LARGE: &str = "64 KB and 1 MB bodies and replies";
const EVENTS: &str = "SSE reply of 100 events";
const LISTS: &str = "merged `tools/list`";
const STREAMS: &str = "idle GET / listen streams";
const START: &str = "start";
const GROWTH: &str = "growth";

/// Every goal, in the order of the issue that set them.
pub(crate) const GOALS: &[Goal] = &[
    Goal {
        work: SMALL,
        goal: "CPU per request ≤ 1.3 × nginx (16 and 64 connections, the worse)",
        bound: Bound::AtMost(1.3),
        unit: " ×",
        value: |figures| worst(["call/16", "call/64"].map(|row| to_nginx(figures, row, Metric::Cpu))),
    },
    Goal {
        work: SMALL,
        goal: "added p50 at one connection ≤ 1.5 × nginx's",
        bound: Bound::AtMost(1.5),
        unit: " ×",
        value: added_p50,
    },
    Goal {
        work: SMALL,
        goal: "requests/s at 64 connections ≥ 0.8 × nginx",
        bound: Bound::AtLeast(0.8),
        unit: " ×",
        value: |figures| to_nginx(figures, "call/64", Metric::Rate),
    },
    Goal {
        work: SMALL,
        goal: "requests/s at 64 connections ≥ 3 × the best other MCP gateway",
        bound: Bound::AtLeast(3.0),
        unit: " ×",
        value: |figures| to_gateways(figures, "call/64", Metric::Rate, f64::max),
    },
    Goal {
        work: SMALL,
        goal: "CPU per request at 64 connections ≤ 0.25 × the best other MCP gateway",
        bound: Bound::AtMost(0.25),
        unit: " ×",
        value: |figures| to_gateways(figures, "call/64", Metric::Cpu, f64::min),
    },
    Goal {
        work: TLS,
        goal: "CPU per request ≤ 1.3 × nginx doing the same (16 and 64 connections, the worse)",
        bound: Bound::AtMost(1.3),
        unit: " ×",
        value: |figures| worst(["h2/16", "h2/64"].map(|row| to_nginx(figures, row, Metric::Cpu))),
    },
    Goal {
        work: LARGE,
        goal: "64 KB: CPU per request ≤ 1.2 × nginx",
        bound: Bound::AtMost(1.2),
        unit: " ×",
        value: |figures| to_nginx(figures, "64 KB/16", Metric::Cpu),
    },
    Goal {
        work: LARGE,
        goal: "1 MB: CPU per request ≤ 1.2 × nginx",
        bound: Bound::AtMost(1.2),
        unit: " ×",
        value: |figures| to_nginx(figures, "1 MB/4", Metric::Cpu),
    },
    Goal {
        work: LARGE,
        goal: "memory does not follow the reply: growth with 16 MB replies ≤ 1 MB for each connection",
        bound: Bound::AtMost(1.0),
        unit: " MB",
        value: |figures| Some(toolgate(figures, "reply of 16 MB/4", Metric::Growth)? / 4e6),
    },
    Goal {
        work: EVENTS,
        goal: "first event within 1 ms of leaving the backend (p99, load's own share included)",
        bound: Bound::AtMost(1.0),
        unit: " ms",
        value: |figures| Some(toolgate(figures, "SSE/4", Metric::FirstEvent)? / 1e6),
    },
    Goal {
        work: EVENTS,
        goal: "each next event within 1 ms (p99, load's own share included)",
        bound: Bound::AtMost(1.0),
        unit: " ms",
        value: |figures| Some(toolgate(figures, "SSE/4", Metric::NextEvent)? / 1e6),
    },
    Goal {
        work: EVENTS,
        goal: "CPU per event ≤ 2 × nginx",
        bound: Bound::AtMost(2.0),
        unit: " ×",
        value: |figures| to_nginx(figures, "SSE/4", Metric::CpuEvent),
    },
    Goal {
        work: LISTS,
        goal: "3 × 100 tools: requests/s ≥ 0.8 × nginx with the bytes as a file",
        bound: Bound::AtLeast(0.8),
        unit: " ×",
        value: |figures| to_nginx(figures, "list of 3 × 100/16", Metric::Rate),
    },
    Goal {
        work: LISTS,
        goal: "10 × 1,000 tools: requests/s ≥ 0.8 × nginx with the bytes as a file",
        bound: Bound::AtLeast(0.8),
        unit: " ×",
        value: |figures| to_nginx(figures, "list of 10 × 1,000/16", Metric::Rate),
    },
    Goal {
        work: LISTS,
        goal: "from memory: no upstream exchange",
        bound: Bound::AtMost(0.01),
        unit: " each",
        value: |figures| toolgate(figures, "list of 3 × 100/16", Metric::Upstream),
    },
    Goal {
        work: STREAMS,
        goal: "≤ 16 KB each (GET and listen, fewer and more, the worst)",
        bound: Bound::AtMost(16.0),
        unit: " KB",
        value: |figures| Some(worst(IDLE.map(|row| toolgate(figures, row, Metric::Each)))? / 1024.0),
    },
    Goal {
        work: STREAMS,
        goal: "≥ 80 % given back after close (the worst)",
        bound: Bound::AtLeast(80.0),
        unit: " %",
        value: |figures| {
            let shares = IDLE.map(|row| toolgate(figures, row, Metric::GivenBack));
            Some(shares.into_iter().collect::<Option<Vec<_>>>()?.into_iter().fold(f64::INFINITY, f64::min) * 100.0)
        },
    },
    Goal {
        work: "100,000 legacy sessions at rest",
        goal: "≤ 1 KB each",
        bound: Bound::AtMost(1024.0),
        unit: " B",
        value: |figures| toolgate(figures, "sessions", Metric::Each),
    },
    Goal {
        work: START,
        goal: "exec to first answered request ≤ 10 ms, 3 backends, one of them dead",
        bound: Bound::AtMost(10.0),
        unit: " ms",
        value: |figures| toolgate(figures, "start", Metric::Millis),
    },
    Goal {
        work: START,
        goal: "resident at rest ≤ 10 MB",
        bound: Bound::AtMost(10.0),
        unit: " MB",
        value: |figures| Some(toolgate(figures, "start", Metric::Resident)? / 1e6),
    },
    Goal {
        work: START,
        goal: "stripped binary ≤ 10 MB (static or not: see the versions)",
        bound: Bound::AtMost(10.0),
        unit: " MB",
        value: |figures| Some(toolgate(figures, "start", Metric::Size)? / 1e6),
    },
    Goal {
        work: GROWTH,
        goal: "CPU per call flat from 10 to 100,000 tools (≤ 1.1 ×)",
        bound: Bound::AtMost(1.1),
        unit: " ×",
        value: |figures| rows(figures, "tools: 100,000", "tools: 10", Metric::Cpu),
    },
    Goal {
        work: GROWTH,
        goal: "CPU per request flat from 1 to 1,000 backends (≤ 1.1 ×)",
        bound: Bound::AtMost(1.1),
        unit: " ×",
        value: |figures| rows(figures, "backends: 1,000", "backends: 1", Metric::Cpu),
    },
    Goal {
        work: GROWTH,
        goal: "one hanging backend: the others' p99 ≤ 1.1 × what it was",
        bound: Bound::AtMost(1.1),
        unit: " ×",
        value: |figures| rows(figures, "beside a hanging backend", "beside a good backend", Metric::P99),
    },
    Goal {
        work: "limits, metrics, log line on",
        goal: "together ≤ 10 % of CPU per request (metrics cannot be turned off and count on both sides)",
        bound: Bound::AtMost(10.0),
        unit: " %",
        value: |figures| {
            let on = toolgate(figures, "limits and log on", Metric::Cpu)?;
            Some((1.0 - toolgate(figures, "limits and log off", Metric::Cpu)? / on) * 100.0)
        },
    },
];

/// The rows of idle streams.
pub(crate) const IDLE: [&str; 4] =
    ["GET streams, fewer", "GET streams, more", "listen streams, fewer", "listen streams, more"];

fn toolgate(figures: &Figures, row: &str, metric: Metric) -> Option<f64> {
    figures.median(row, Kind::Toolgate, metric)
}

fn to_nginx(figures: &Figures, row: &str, metric: Metric) -> Option<f64> {
    figures.ratio(row, Kind::Toolgate, Kind::Nginx, metric)
}

/// To whichever other gateway is best; one of them has to be there.
fn to_gateways(figures: &Figures, row: &str, metric: Metric, better: fn(f64, f64) -> f64) -> Option<f64> {
    let others = Kind::ALL.into_iter().filter(|kind| kind.is_gateway() && *kind != Kind::Toolgate);
    let best = others.filter_map(|kind| figures.median(row, kind, metric)).reduce(better)?;
    Some(toolgate(figures, row, metric)? / best)
}

fn rows(figures: &Figures, row: &str, base: &str, metric: Metric) -> Option<f64> {
    Some(toolgate(figures, row, metric)? / toolgate(figures, base, metric)?)
}

/// What Toolgate adds to a direct call, beside what nginx adds. Where nginx adds nothing that can be seen, no ratio means
/// anything.
fn added_p50(figures: &Figures) -> Option<f64> {
    let p50 = |kind| figures.median("call/1", kind, Metric::P50);
    let direct = p50(Kind::Direct)?;
    let nginx = p50(Kind::Nginx)? - direct;
    (nginx > 0.0).then_some((p50(Kind::Toolgate)? - direct) / nginx)
}

/// The largest of all; one that is missing leaves none.
fn worst<const N: usize>(values: [Option<f64>; N]) -> Option<f64> {
    values.into_iter().collect::<Option<Vec<_>>>()?.into_iter().reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(goal: &str, figures: &Figures) -> Verdict {
        let goal = GOALS.iter().find(|known| known.goal.starts_with(goal)).expect("a goal of that name");
        goal.verdict(figures)
    }

    fn cpu(nginx: f64, toolgate: f64, rows: &[&str]) -> Figures {
        let mut figures = Figures::default();
        for row in rows {
            figures.add(row, Kind::Nginx, Metric::Cpu, nginx);
            figures.add(row, Kind::Toolgate, Metric::Cpu, toolgate);
        }
        figures
    }

    #[test]
    fn a_goal_is_reached_at_its_bound_and_missed_beyond() {
        let rows = ["call/16", "call/64"];

        assert_eq!(verdict("CPU per request ≤ 1.3 × nginx (", &cpu(10.0, 13.0, &rows)).reached, Some(true));
        assert_eq!(verdict("CPU per request ≤ 1.3 × nginx (", &cpu(10.0, 13.1, &rows)).reached, Some(false));
    }

    #[test]
    fn without_a_figure_there_is_no_verdict() {
        let none = Verdict { reached: None, measured: "–".to_owned() };
        assert!(GOALS.iter().all(|goal| goal.verdict(&Figures::default()) == none));

        assert_eq!(verdict("CPU per request ≤ 1.3 × nginx (", &cpu(10.0, 11.0, &["call/16"])), none);
        assert_eq!(verdict("64 KB: CPU", &cpu(0.0, 11.0, &["64 KB/16"])), none);
    }

    #[test]
    fn the_best_other_gateway_is_the_one_to_beat() {
        let mut figures = Figures::default();
        for (kind, rate) in [(Kind::Envoy, 8.0), (Kind::McpProxy, 10.0), (Kind::Nginx, 99.0), (Kind::Toolgate, 25.0)] {
            figures.add("call/64", kind, Metric::Rate, rate);
        }

        let verdict = verdict("requests/s at 64 connections ≥ 3", &figures);

        assert_eq!(verdict, Verdict { reached: Some(false), measured: "2.50 ×".to_owned() });
    }

    #[test]
    fn what_is_added_is_beside_the_direct_call() {
        let mut figures = Figures::default();
        for (kind, p50) in [(Kind::Direct, 40.0), (Kind::Nginx, 60.0), (Kind::Toolgate, 69.0)] {
            figures.add("call/1", kind, Metric::P50, p50);
        }

        assert_eq!(verdict("added p50", &figures).measured, "1.45 ×");
    }
}
