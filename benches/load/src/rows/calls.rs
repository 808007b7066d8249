//! `tools/call`: small, through TLS, large, and answered by events.

use anyhow::{Context as _, Result};

use super::named;
use crate::backend::tool;
use crate::bench::{Bench, Load};
use crate::client::{Ask, Target};
use crate::drive::{Fleet, Pace};
use crate::figures::Metric;
use crate::mcp::{Era, Work};
use crate::process::Process;
use crate::subjects::{Kind, Setup, Subject};

struct Row {
    name: &'static str,
    clients: usize,
    work: Work,
    era: Era,
    tls: bool,
    open: bool,
}

const SMALL: Work = Work { bytes: 300, events: 0, delay_ms: 0, fill: 40 };
const KB_64: Work = Work { bytes: 64 << 10, fill: 64 << 10, ..SMALL };
const KB_4: Work = Work { bytes: 4 << 10, fill: 4 << 10, ..SMALL };
const MB: Work = Work { bytes: 1 << 20, fill: 1 << 20, ..SMALL };
const EVENTS: Work = Work { bytes: 0, events: 100, ..SMALL };

const fn row(name: &'static str, clients: usize, work: Work) -> Row {
    Row { name, clients, work, era: Era::Legacy, tls: false, open: false }
}

const ROWS: [Row; 12] = [
    row("call/1", 1, SMALL),
    row("call/16", 16, SMALL),
    row("call/64", 64, SMALL),
    Row { open: true, ..row("call, open loop/64", 64, SMALL) },
    Row { era: Era::Modern, ..row("modern call/16", 16, SMALL) },
    Row { tls: true, ..row("h2/1", 1, SMALL) },
    Row { tls: true, ..row("h2/16", 16, SMALL) },
    Row { tls: true, ..row("h2/64", 64, SMALL) },
    row("4 KB/16", 16, KB_4),
    row("64 KB/16", 16, KB_64),
    row("1 MB/4", 4, MB),
    row("SSE/4", 4, EVENTS),
];
/// Large replies to small requests, to see whether memory follows them.
const REPLIES: [(&str, usize); 2] = [("reply of 1 MB/4", 1 << 20), ("reply of 16 MB/4", 16 << 20)];

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    // A gateway is there for more than one; before a single backend, some peers leave names as they are. Those that pass
    // on pass on to the first.
    let (backend, upstreams) = bench.backends(2, "/mcp")?;
    let setup = Setup { upstreams, ..Setup::default() };
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    let subjects = bench.start(&Kind::ALL, &setup, 1, &names).await;
    for round in 0..bench.plan.rounds {
        eprintln!("load: round {} of {}", round + 1, bench.plan.rounds);
        for row in &ROWS {
            for subject in Bench::turn(&subjects, round) {
                one(bench, subject, &backend, row).await;
            }
        }
    }
    for subject in &subjects {
        let Some(process) = &subject.process else { continue };
        // Where strace cannot attach, the column stays empty.
        if let Err(error) = system_calls(bench, subject, process).await {
            eprintln!("load: system calls of {}: {error:#}", subject.kind.name());
        }
    }
    drop(subjects);
    replies(bench, &setup).await;
    Ok(())
}

/// Each in new processes: what large requests took before is not given back at once.
async fn replies(bench: &mut Bench, setup: &Setup) {
    for (row, bytes) in REPLIES {
        for subject in bench.start(&Kind::ALL[1..], setup, 1, &[row]).await {
            let Some(process) = &subject.process else { continue };
            if let Err(error) = growth(bench, &subject, process, row, bytes).await {
                bench.figures.miss(row, subject.kind, &format!("{error:#}"));
            }
        }
    }
}

async fn one(bench: &mut Bench, subject: &Subject, backend: &Process, row: &Row) {
    let target = match (row.tls, &subject.tls) {
        (false, _) => &subject.plain,
        (true, Some(target)) => target,
        (true, None) => return bench.figures.miss(row.name, subject.kind, "it does not terminate TLS"),
    };
    let target = Target { era: row.era, ..target.clone() };
    match call(subject, row.work).await {
        Ok(ask) => {
            let pace = if row.open { Pace::Open(bench.plan.rate) } else { Pace::Closed };
            let load = Load { row: row.name, target: &target, asks: &[ask], clients: row.clients, pace };
            bench.measure(subject, backend, load).await;
        }
        Err(error) => bench.figures.miss(row.name, subject.kind, &format!("{error:#}")),
    }
}

async fn call(subject: &Subject, work: Work) -> Result<Ask> {
    let name = named(&subject.plain, &tool(0)).await?.into_iter().next().context("the tool is not listed")?;
    Ok(Ask::Call { tool: name, work })
}

/// What was resident at most while large replies passed, beyond what was before.
async fn growth(bench: &mut Bench, subject: &Subject, process: &Process, row: &str, bytes: usize) -> Result<()> {
    let ask = call(subject, Work { bytes, ..SMALL }).await?;
    let mut fleet = Fleet::open(&subject.plain, &[ask], 4).await?;
    // With small replies first, so that what a connection takes at all is there.
    let small = call(subject, SMALL).await?;
    Fleet::open(&subject.plain, &[small], 4).await?.drive(Pace::Closed, bench.plan.warm).await?;
    process.forget_peak()?;
    let before = process.resident();
    let tally = fleet.drive(Pace::Closed, bench.plan.length).await?;
    if let Some(error) = tally.first_error {
        anyhow::bail!("{error}");
    }
    anyhow::ensure!(tally.answers > 0, "no answer in time");
    bench.figures.add(row, subject.kind, Metric::Growth, process.peak().saturating_sub(before) as f64);
    Ok(())
}

/// Counted in a run of its own: what counts them slows the subject down.
async fn system_calls(bench: &mut Bench, subject: &Subject, process: &Process) -> Result<()> {
    let row = "call/16";
    if bench.figures.is_missing(row, subject.kind) {
        return Ok(());
    }
    let ask = call(subject, SMALL).await?;
    let mut fleet = Fleet::open(&subject.plain, &[ask], 16).await?;
    let strace = bench.strace(process)?;
    let tally = fleet.drive(Pace::Closed, bench.plan.length).await?;
    let calls = strace.calls().context("strace counted nothing")?;
    bench.figures.add(row, subject.kind, Metric::Calls, calls as f64 / tally.answers.max(1) as f64);
    Ok(())
}
