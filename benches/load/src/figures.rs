//! What was measured: every round's value, and the medians that verdicts are made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::subjects::Kind;

/// One quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Answers, or streams, a second.
    Rate,
    P50,
    P99,
    P999,
    /// Microseconds of processor time an answer.
    Cpu,
    /// System calls an answer.
    Calls,
    /// Resident bytes, after the load.
    Resident,
    /// Bytes that were resident at most, beyond those before the load.
    Growth,
    /// Nanoseconds from the backend to the client, 99 % of first events and 99 % of all others.
    FirstEvent,
    NextEvent,
    /// Microseconds of processor time an event.
    CpuEvent,
    /// Bytes each.
    Each,
    /// The share, of 1, of what was taken that was given back.
    GivenBack,
    /// Milliseconds.
    Millis,
    /// The program's bytes.
    Size,
    /// Requests that the backend saw for each answer.
    Upstream,
    /// How busy the core of the client was, of 1.
    Client,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "requests/s",
            Self::P50 => "p50 µs",
            Self::P99 => "p99 µs",
            Self::P999 => "p99.9 µs",
            Self::Cpu => "CPU µs each",
            Self::Calls => "system calls each",
            Self::Resident => "resident MB",
            Self::Growth => "growth MB",
            Self::FirstEvent => "first event p99 µs",
            Self::NextEvent => "next events p99 µs",
            Self::CpuEvent => "CPU µs an event",
            Self::Each => "bytes each",
            Self::GivenBack => "given back %",
            Self::Millis => "ms",
            Self::Size => "MB",
            Self::Upstream => "upstream requests each",
            Self::Client => "load core busy %",
        }
    }

    /// A value as the tables show it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Resident | Self::Growth | Self::Size => decimals(value / 1e6),
            Self::FirstEvent | Self::NextEvent => decimals(value / 1e3),
            Self::GivenBack | Self::Client => format!("{:.0}", value * 100.0),
            Self::Rate
            | Self::P50
            | Self::P99
            | Self::P999
            | Self::Cpu
            | Self::Calls
            | Self::CpuEvent
            | Self::Each
            | Self::Millis
            | Self::Upstream => decimals(value),
        }
    }
}

/// As many decimals as mean something.
pub(crate) fn decimals(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Median, least and most of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

/// All that was measured, and why what is missing is missing.
#[derive(Default)]
pub(crate) struct Figures {
    values: BTreeMap<(String, Kind, Metric), Vec<f64>>,
    missing: BTreeMap<(String, Kind), String>,
    /// Rows in the order in which they were measured.
    rows: Vec<String>,
    pub(crate) absent: BTreeMap<Kind, String>,
}

impl Figures {
    pub(crate) fn add(&mut self, row: &str, kind: Kind, metric: Metric, value: f64) {
        self.name(row);
        self.values.entry((row.to_owned(), kind, metric)).or_default().push(value);
    }

    /// Notes why there is no figure. The first reason stays, and takes away what other rounds gave.
    pub(crate) fn miss(&mut self, row: &str, kind: Kind, why: &str) {
        self.name(row);
        self.values.retain(|(of, by, _), _| (of.as_str(), *by) != (row, kind));
        self.missing.entry((row.to_owned(), kind)).or_insert_with(|| why.to_owned());
    }

    pub(crate) fn is_missing(&self, row: &str, kind: Kind) -> bool {
        self.missing.contains_key(&(row.to_owned(), kind))
    }

    fn name(&mut self, row: &str) {
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
    }

    pub(crate) fn spread(&self, row: &str, kind: Kind, metric: Metric) -> Option<Spread> {
        self.values.get(&(row.to_owned(), kind, metric)).and_then(|values| Spread::of(values))
    }

    pub(crate) fn median(&self, row: &str, kind: Kind, metric: Metric) -> Option<f64> {
        self.spread(row, kind, metric).map(|spread| spread.median)
    }

    /// What one subject's values are to another's of the same row: the median of the rounds' own ratios. Subjects follow each
    /// other within a round, and a machine that is slower in one round than in the next is so for both; medians taken apart may
    /// come from rounds that differ.
    pub(crate) fn ratio(&self, row: &str, kind: Kind, to: Kind, metric: Metric) -> Option<f64> {
        let values = |kind| self.values.get(&(row.to_owned(), kind, metric));
        let (own, others) = (values(kind)?, values(to)?);
        let ratios: Vec<_> = own.iter().zip(others).map(|(own, other)| own / other).collect();
        Spread::of(&ratios).filter(|_| own.len() == others.len()).map(|spread| spread.median)
    }

    pub(crate) fn why_missing(&self, row: &str, kind: Kind) -> Option<&str> {
        self.missing.get(&(row.to_owned(), kind)).map(String::as_str)
    }

    pub(crate) fn rows(&self) -> &[String] {
        &self.rows
    }

    /// What was measured in a row, for whomever.
    pub(crate) fn metrics(&self, row: &str) -> Vec<Metric> {
        let mut found: Vec<_> = self.values.keys().filter(|(of, ..)| of == row).map(|(_, _, metric)| *metric).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(crate) fn json(&self) -> Value {
        let values = self.values.iter().map(|((row, kind, metric), values)| {
            let spread = Spread::of(values);
            let median = spread.map(|spread| spread.median);
            json!({ "row": row, "subject": kind.name(), "metric": format!("{metric:?}"), "median": median, "rounds": values })
        });
        let missing = self.missing.iter();
        let missing = missing.map(|((row, kind), why)| json!({ "row": row, "subject": kind.name(), "why": why }));
        let absent = self.absent.iter().map(|(kind, why)| json!({ "subject": kind.name(), "why": why }));
        json!({
            "values": values.collect::<Vec<_>>(),
            "missing": missing.collect::<Vec<_>>(),
            "absent": absent.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let mut figures = Figures::default();
        // The machine is twice as slow in some rounds, which are not the same number before and after the middle.
        for (nginx, toolgate) in [(10.0, 12.0), (20.0, 25.0), (10.0, 13.0)] {
            figures.add("row", Kind::Nginx, Metric::Cpu, nginx);
            figures.add("row", Kind::Toolgate, Metric::Cpu, toolgate);
        }

        assert_eq!(figures.ratio("row", Kind::Toolgate, Kind::Nginx, Metric::Cpu), Some(1.25));
        assert_eq!(figures.ratio("row", Kind::Toolgate, Kind::Direct, Metric::Cpu), None);
        figures.add("row", Kind::Nginx, Metric::Cpu, 10.0);
        assert_eq!(figures.ratio("row", Kind::Toolgate, Kind::Nginx, Metric::Cpu), None, "rounds that are not pairs");
    }

    #[test]
    fn medians_of_odd_and_even_rounds() {
        let spread = |median, least, most| Some(Spread { median, least, most });

        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_row_that_failed_once_has_no_figure() {
        let mut figures = Figures::default();
        figures.add("call/16", Kind::Envoy, Metric::Rate, 1.0);
        figures.miss("call/16", Kind::Envoy, "3 of 10 answers were errors");
        figures.miss("call/16", Kind::Envoy, "something else");

        assert_eq!(figures.median("call/16", Kind::Envoy, Metric::Rate), None);
        assert_eq!(figures.why_missing("call/16", Kind::Envoy), Some("3 of 10 answers were errors"));
    }
}
