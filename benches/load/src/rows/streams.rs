//! Event streams on which nothing happens: what each takes, and what comes back when they are closed.

use anyhow::{Context as _, Result, bail};

use crate::bench::Bench;
use crate::client::{Idle, Opener, Target};
use crate::figures::Metric;
use crate::goals::IDLE;
use crate::mcp::Era;
use crate::process::Process;
use crate::subjects::{Kind, Setup};

const KINDS: [Kind; 5] = [Kind::Nginx, Kind::Bare, Kind::Envoy, Kind::McpProxy, Kind::Toolgate];

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    // Memory that was taken once is not taken again: every row and round begins with a new process.
    for _ in 0..bench.plan.rounds.min(3) {
        for (n, row) in IDLE.into_iter().enumerate() {
            let era = if n < 2 { Era::Legacy } else { Era::Modern };
            let streams = bench.plan.streams[n % 2];
            bench.figures.miss(row, Kind::Direct, "there is no process to measure");
            for kind in KINDS {
                one(bench, row, kind, era, streams).await?;
            }
        }
    }
    Ok(())
}

async fn one(bench: &mut Bench, row: &str, kind: Kind, era: Era, streams: usize) -> Result<()> {
    let (_backend, upstreams) = bench.backends(1, "/mcp")?;
    let setup = Setup { upstreams, ..Setup::default() };
    for subject in bench.start(&[kind], &setup, 1, &[row]).await {
        let Some(process) = &subject.process else { continue };
        let target = Target { era, ..subject.plain.clone() };
        match open(bench, process, &target, streams).await {
            Ok((each, given_back)) => {
                bench.figures.add(row, kind, Metric::Each, each);
                bench.figures.add(row, kind, Metric::GivenBack, given_back);
            }
            Err(error) => bench.figures.miss(row, kind, &format!("{error:#}")),
        }
    }
    Ok(())
}

/// Bytes each, and the share that is given back.
async fn open(bench: &Bench, process: &Process, target: &Target, streams: usize) -> Result<(f64, f64)> {
    let mut sessions = Vec::new();
    let mut opener = Opener::new(target).await?;
    for _ in 0..streams {
        sessions.push(opener.session().await?);
    }
    // What is there once, however many streams there are, is no stream's.
    drop(Idle::open(target, sessions.first().context("no session")?.as_deref()).await?);
    let settle = bench.plan.settle;
    tokio::time::sleep(settle).await;
    let before = process.resident() as f64;
    let mut open = Vec::new();
    for session in &sessions {
        open.push(Idle::open(target, session.as_deref()).await?);
    }
    tokio::time::sleep(settle).await;
    let during = process.resident() as f64;
    drop(open);
    tokio::time::sleep(settle * 2).await;
    let taken = during - before;
    if taken <= 0.0 {
        bail!("too few streams to see what they take");
    }
    let left = (process.resident() as f64 - before).max(0.0);
    Ok((taken / streams as f64, (1.0 - left / taken).max(0.0)))
}
