//! One run: which rows, how long, and how a row is measured.

use std::time::Duration;

use anyhow::Result;

use crate::client::{Ask, Target};
use crate::drive::{Fleet, Pace, Tally};
use crate::figures::{Figures, Metric};
use crate::process::{self, Process, Role};
use crate::rows;
use crate::subjects::{Kind, Setup, Stage, Subject, Upstream};

/// How much is done. Every number here bounds what a run takes, in time and in connections.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Of each measurement, and of the load before it that is not measured.
    pub(crate) length: Duration,
    pub(crate) warm: Duration,
    /// How long memory is left alone before it is read.
    pub(crate) settle: Duration,
    /// Requests a second in open loops.
    pub(crate) rate: u64,
    pub(crate) streams: [usize; 2],
    pub(crate) sessions: usize,
    pub(crate) tools: &'static [usize],
    pub(crate) backends: &'static [usize],
    /// The parts that are run; all, when there are none.
    pub(crate) only: Vec<String>,
}

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            rounds: 5,
            length: Duration::from_secs(2),
            warm: Duration::from_millis(300),
            settle: Duration::from_secs(2),
            rate: 2000,
            streams: [1_000, 10_000],
            sessions: 100_000,
            tools: &[10, 100, 1_000, 10_000, 100_000],
            backends: &[1, 10, 100, 1_000],
            only: Vec::new(),
        }
    }

    /// Whether everything works: a minute, and figures that mean little.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            length: Duration::from_millis(200),
            warm: Duration::from_millis(50),
            settle: Duration::from_millis(300),
            rate: 500,
            streams: [50, 200],
            sessions: 500,
            tools: &[10, 100_000],
            backends: &[1, 1_000],
            ..Self::full()
        }
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

/// One load on one subject.
pub(crate) struct Load<'a> {
    pub(crate) row: &'a str,
    pub(crate) target: &'a Target,
    pub(crate) asks: &'a [Ask],
    pub(crate) clients: usize,
    pub(crate) pace: Pace,
}

/// A run that is under way.
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) plan: Plan,
    pub(crate) figures: Figures,
}

/// What is run, and the name that picks it.
pub(crate) const PARTS: [&str; 7] = ["calls", "lists", "streams", "sessions", "start", "growth", "observed"];

impl Bench {
    pub(crate) async fn run(&mut self) -> Result<()> {
        for kind in Kind::ALL {
            if let Err(why) = self.stage.programs.path(kind) {
                self.figures.absent.insert(kind, why);
            }
        }
        let parts: Vec<_> = PARTS.into_iter().filter(|part| self.plan.has(part)).collect();
        for part in parts {
            eprintln!("load: {part}");
            match part {
                "calls" => rows::calls::run(self).await?,
                "lists" => rows::lists::run(self).await?,
                "streams" => rows::streams::run(self).await?,
                "sessions" => rows::sessions::run(self).await?,
                "start" => rows::start::run(self).await?,
                "growth" => rows::growth::run(self).await?,
                _ => rows::observed::run(self).await?,
            }
        }
        Ok(())
    }

    /// Those of these that could be installed.
    pub(crate) fn present(&self, kinds: &[Kind]) -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| !self.figures.absent.contains_key(kind)).collect()
    }

    /// Starts these subjects. One that does not start has no figures in these rows.
    pub(crate) async fn start(&mut self, kinds: &[Kind], setup: &Setup, tools: usize, rows: &[&str]) -> Vec<Subject> {
        let mut started = Vec::new();
        for kind in self.present(kinds) {
            match self.stage.subject(kind, setup, tools).await {
                Ok(subject) => started.push(subject),
                Err(error) => rows.iter().for_each(|row| self.figures.miss(row, kind, &format!("{error:#}"))),
            }
        }
        started
    }

    /// Puts a load on a subject and keeps what came of it. Answers that are errors leave no figure. Gives how many there
    /// were, those of the load that is not measured too.
    pub(crate) async fn measure(&mut self, subject: &Subject, backend: &Process, load: Load<'_>) -> Option<u64> {
        if self.figures.is_missing(load.row, subject.kind) {
            return None;
        }
        let why = match self.loaded(subject, backend, &load).await {
            Ok(tally) if tally.errors == 0 && tally.answers > 0 => return Some(tally.answers),
            Ok(tally) => {
                let (errors, all) = (tally.errors, tally.errors + tally.answers);
                let first = tally.first_error.as_deref().unwrap_or("no answer in time");
                format!("{errors} of {all} answers were errors: {first}")
            }
            Err(error) => format!("{error:#}"),
        };
        self.figures.miss(load.row, subject.kind, &why);
        None
    }

    async fn loaded(&mut self, subject: &Subject, backend: &Process, load: &Load<'_>) -> Result<Tally> {
        let mut fleet = Fleet::open(load.target, load.asks, load.clients).await?;
        let warm = fleet.drive(load.pace, self.plan.warm).await?;
        if warm.errors > 0 {
            return Ok(warm);
        }
        let subjects = || subject.process.as_ref().map(Process::cpu);
        let loads = || process::cpu(std::process::id()) + backend.cpu();
        let (before, loads_before) = (subjects(), loads());
        let tally = fleet.drive(load.pace, self.plan.length).await?;
        let (after, loads_after) = (subjects(), loads());

        let answers = tally.answers.max(1) as f64;
        let mut add = |metric, value| self.figures.add(load.row, subject.kind, metric, value);
        add(Metric::Rate, tally.rate());
        add(Metric::P50, tally.quantile_us(0.5));
        add(Metric::P99, tally.quantile_us(0.99));
        add(Metric::P999, tally.quantile_us(0.999));
        add(Metric::Client, (loads_after - loads_before).as_secs_f64() / tally.seconds);
        if let (Some(before), Some(after), Some(process)) = (before, after, &subject.process) {
            let spent = after.saturating_sub(before).as_secs_f64() * 1e6;
            add(Metric::Cpu, spent / answers);
            add(Metric::Resident, process.resident() as f64);
            if !tally.next_events.is_empty() {
                let events = (tally.first_event.len() + tally.next_events.len()) as f64;
                add(Metric::CpuEvent, spent / events);
            }
        }
        if !tally.next_events.is_empty() {
            add(Metric::FirstEvent, tally.first_event.value_at_quantile(0.99) as f64);
            add(Metric::NextEvent, tally.next_events.value_at_quantile(0.99) as f64);
        }
        Ok(Tally { answers: warm.answers + tally.answers, ..tally })
    }

    /// A process of backends, all with this path.
    pub(crate) fn backends(&self, count: usize, path: &str) -> Result<(Process, Vec<Upstream>)> {
        let (process, ports) = self.stage.backend(count)?;
        Ok((process, ports.into_iter().map(|port| Upstream { port, path: path.to_owned() }).collect()))
    }

    /// These, beginning with another one each round: who comes first is nobody's advantage.
    pub(crate) fn turn<T>(items: &[T], round: usize) -> impl Iterator<Item = &T> {
        let first = round % items.len().max(1);
        items.iter().skip(first).chain(items.iter().take(first))
    }

    pub(crate) fn strace(&self, process: &Process) -> Result<process::Strace> {
        let start = self.stage.start(Role::Client, nix::sys::signal::Signal::SIGINT);
        process::Strace::attach(process, start, &self.stage.scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another() {
        let rounds: Vec<Vec<_>> = (0..3).map(|round| Bench::turn(&[1, 2, 3], round).copied().collect()).collect();

        assert_eq!(rounds, [[1, 2, 3], [2, 3, 1], [3, 1, 2]]);
    }
}
