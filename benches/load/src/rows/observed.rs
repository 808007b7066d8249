//! What limits and the log line cost. Metrics are always counted: they are on both sides.

use anyhow::{Context as _, Result};

use super::named;
use crate::backend::tool;
use crate::bench::{Bench, Load};
use crate::client::Ask;
use crate::drive::Pace;
use crate::mcp::Work;
use crate::subjects::{Kind, Setup};

const WORK: Work = Work { bytes: 300, events: 0, delay_ms: 0, fill: 40 };
/// Every call takes a token and a place of its session's, and none is refused.
const LIMITS: &str = "limits:
  - { name: session, key: session, rate: 1000000/s, burst: 1000000, concurrency: 1000 }
  - { name: all, rate: 1000000/s, burst: 1000000 }";

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let (backend, upstreams) = bench.backends(1, "/mcp")?;
    let off = Setup { upstreams, ..Setup::default() };
    let on = Setup { toolgate: LIMITS.to_owned(), log: Some("info"), ..off.clone() };
    let mut sides = Vec::new();
    for (row, setup) in [("limits and log off", &off), ("limits and log on", &on)] {
        let started = bench.start(&[Kind::Toolgate], setup, 1, &[row]).await;
        sides.extend(started.into_iter().map(|subject| (row, subject)));
    }
    for round in 0..bench.plan.rounds {
        for (row, subject) in Bench::turn(&sides, round) {
            let tool = named(&subject.plain, &tool(0)).await?.into_iter().next().context("no tool")?;
            let asks = [Ask::Call { tool, work: WORK }];
            let load = Load { row, target: &subject.plain, asks: &asks, clients: 16, pace: Pace::Closed };
            bench.measure(subject, &backend, load).await;
        }
    }
    Ok(())
}
