//! What a run leaves behind: the table of goals, all figures, and the chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bench::Plan;
use crate::chart;
use crate::figures::{Figures, Metric, Spread};
use crate::goals::GOALS;
use crate::subjects::Kind;

/// A run that is over.
pub(crate) struct Report<'a> {
    pub(crate) figures: &'a Figures,
    pub(crate) plan: &'a Plan,
    pub(crate) machine: &'a Value,
    /// What the reader has to know beside the figures.
    pub(crate) notes: &'a [String],
}

impl Report<'_> {
    /// Writes `NAME.md`, `NAME.json` and `NAME.svg`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(format!("{name}.md")), self.markdown())?;
        fs::write(folder.join(format!("{name}.json")), format!("{:#}\n", self.json()))?;
        fs::write(folder.join(format!("{name}.svg")), chart::svg(self.figures))?;
        Ok(())
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Benchmarks\n\n");
        text.push_str(&self.head());
        text.push_str(&self.goals());
        let mut footnotes = Footnotes::default();
        for row in self.figures.rows() {
            self.row(row, &mut text, &mut footnotes);
        }
        text.push_str(&footnotes.text());
        text
    }

    fn head(&self) -> String {
        let Plan { rounds, length, streams: [fewer, more], sessions, rate, .. } = self.plan;
        let text = |name: &str| self.machine[name].as_str().unwrap_or("?").to_owned();
        let mut head = format!(
            "Made by `benches/load/run`: {rounds} round(s) of {} ms each; open loops at {rate} requests/s; {fewer} and {more} idle \
             streams; {sessions} sessions. {} cores of {}, Linux {}; load average before the run {}, {} % of \
             the processor time that was wanted went to other machines on the same hardware. The subject has a core of its \
             own where there are two. Figures are medians of the rounds; a ratio to nginx is the median of the rounds' own \
             ratios, as the machine's speed differs more between rounds than within one.\n\n",
            length.as_millis(),
            self.machine["cores"],
            text("cpu"),
            text("kernel"),
            text("load_before"),
            self.machine["stolen_percent"].as_f64().map_or_else(|| "?".to_owned(), |percent| format!("{percent:.1}")),
        );
        for (name, version) in self.machine["versions"].as_object().into_iter().flatten() {
            let _ = writeln!(head, "- {name}: {}", version.as_str().unwrap_or("?"));
        }
        for (kind, why) in &self.figures.absent {
            let _ = writeln!(head, "- {}: absent: {why}", kind.name());
        }
        for note in self.notes {
            let _ = writeln!(head, "- {note}");
        }
        head
    }

    fn goals(&self) -> String {
        let mut table = String::from("\n| work | goal | measured | reached |\n| --- | --- | --- | --- |\n");
        for goal in GOALS {
            let verdict = goal.verdict(self.figures);
            let reached = match verdict.reached {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "not measured",
            };
            let _ = writeln!(table, "| {} | {} | {} | {reached} |", goal.work, goal.goal, verdict.measured);
        }
        table
    }

    /// One table: subjects down, metrics across.
    fn row(&self, row: &str, text: &mut String, footnotes: &mut Footnotes) {
        let metrics = self.figures.metrics(row);
        let heads: Vec<_> = metrics.iter().map(|metric| metric.name()).collect();
        let lines = "| --- ".repeat(metrics.len());
        let _ = writeln!(text, "\n## {row}\n\n| | {} |\n| --- {lines}|", heads.join(" | "));
        for kind in Kind::ALL.into_iter().filter(|kind| !self.figures.absent.contains_key(kind)) {
            let why = self.figures.why_missing(row, kind);
            let values = metrics.iter().map(|metric| match (self.figures.spread(row, kind, *metric), why) {
                (Some(spread), _) => shown(*metric, spread),
                (None, Some(why)) => format!("–{}", footnotes.of(why)),
                (None, None) => "–".to_owned(),
            });
            let values: Vec<_> = values.collect();
            let nothing = why.is_none() && values.iter().all(|value| value == "–");
            if !nothing {
                let _ = writeln!(text, "| {} | {} |", kind.name(), values.join(" | "));
            }
        }
    }

    fn json(&self) -> Value {
        let goals = GOALS.iter().map(|goal| {
            let verdict = goal.verdict(self.figures);
            json!({ "work": goal.work, "goal": goal.goal, "measured": verdict.measured, "reached": verdict.reached })
        });
        json!({
            "machine": self.machine,
            "plan": {
                "rounds": self.plan.rounds,
                "length_ms": u64::try_from(self.plan.length.as_millis()).unwrap_or(u64::MAX),
                "rate": self.plan.rate,
                "streams": self.plan.streams,
                "sessions": self.plan.sessions,
            },
            "notes": self.notes,
            "goals": goals.collect::<Vec<_>>(),
            "figures": self.figures.json(),
        })
    }
}

/// Median, and least to most where rounds differ.
fn shown(metric: Metric, spread: Spread) -> String {
    let Spread { median, least, most } = spread;
    let (median, least, most) = (metric.show(median), metric.show(least), metric.show(most));
    if least == most { median } else { format!("{median} ({least}–{most})") }
}

/// Why figures are missing, each reason once.
#[derive(Default)]
struct Footnotes(Vec<String>);

impl Footnotes {
    fn of(&mut self, why: &str) -> String {
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let known = self.0.iter().position(|known| *known == why).unwrap_or_else(|| {
            self.0.push(why);
            self.0.len() - 1
        });
        format!("[^{}]", known + 1)
    }

    fn text(&self) -> String {
        let notes = self.0.iter().enumerate().map(|(n, why)| format!("[^{}]: {why}\n", n + 1));
        format!("\n{}", notes.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn markdown(figures: &Figures) -> String {
        let plan = Plan { length: Duration::from_secs(1), ..Plan::quick() };
        Report { figures, plan: &plan, machine: &json!({ "cores": 2 }), notes: &[] }.markdown()
    }

    #[test]
    fn says_why_a_figure_is_missing_and_who_is_absent() {
        let mut figures = Figures::default();
        figures.absent.insert(Kind::Envoy, "no such package".to_owned());
        figures.add("call/16", Kind::Nginx, Metric::Rate, 40_000.0);
        figures.miss("call/16", Kind::McpProxy, "HTTP 405");

        let text = markdown(&figures);

        assert!(text.contains("- Envoy MCP router: absent: no such package\n"), "{text}");
        assert!(text.contains("| nginx | 40000 |\n") && text.contains("| mcp-proxy | –[^1] |\n"), "{text}");
        assert!(text.contains("[^1]: HTTP 405\n") && !text.contains("| Toolgate |"), "{text}");
    }

    #[test]
    fn a_goal_without_figures_is_not_called_reached() {
        let text = markdown(&Figures::default());

        assert_eq!(text.matches("| – | not measured |").count(), GOALS.len());
        assert!(!text.contains("| yes |"));
    }

    #[test]
    fn rounds_show_their_median_and_their_range() {
        let spread = Spread { median: 2.0, least: 1.0, most: 3.0 };

        assert_eq!(shown(Metric::Cpu, spread), "2.00 (1.00–3.00)");
        assert_eq!(shown(Metric::Resident, Spread { median: 2e6, least: 2e6, most: 2e6 }), "2.00");
    }
}
