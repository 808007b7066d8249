//! Whether a call costs more where there are many tools or many backends, and whether a backend that hangs slows others.

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::named;
use crate::backend::tool;
use crate::bench::{Bench, Load};
use crate::client::{Ask, Client};
use crate::drive::Pace;
use crate::mcp::Work;
use crate::process::Process;
use crate::subjects::{Kind, Setup, Subject};

const WORK: Work = Work { bytes: 300, events: 0, delay_ms: 0, fill: 40 };
const CLIENTS: usize = 16;
/// Calls under way to the backend that hangs.
const HANGING: usize = 64;
/// Lists and probes cost what they cost; what is asked here is what a call costs.
const SELDOM: &str =
    "health: { interval: 1h, max_backoff: 1h }\ncatalog: { refresh: 1h, max_tools: 1000000, max_bytes: 1GiB }";

/// One size, running.
struct Grown {
    row: String,
    subject: Subject,
    backend: Process,
    asks: Vec<Ask>,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let mut sizes = Vec::new();
    for &tools in bench.plan.tools {
        sizes.extend(grown(bench, format!("tools: {}", thousands(tools)), 1, tools).await?);
    }
    for &backends in bench.plan.backends {
        sizes.extend(grown(bench, format!("backends: {}", thousands(backends)), backends, 1).await?);
    }
    for round in 0..bench.plan.rounds {
        for Grown { row, subject, backend, asks } in Bench::turn(&sizes, round) {
            let load = Load { row, target: &subject.plain, asks, clients: CLIENTS, pace: Pace::Closed };
            bench.measure(subject, backend, load).await;
        }
    }
    drop(sizes);
    hanging(bench).await
}

/// Starts Toolgate before so much; calls are spread over it from end to end.
async fn grown(bench: &mut Bench, row: String, backends: usize, tools: usize) -> Result<Option<Grown>> {
    let (backend, upstreams) = bench.backends(backends, &format!("/tools-{tools}/mcp"))?;
    let setup = Setup { upstreams, toolgate: SELDOM.to_owned(), ..Setup::default() };
    let Some(subject) = bench.start(&[Kind::Toolgate], &setup, backends * tools, &[&row]).await.pop() else {
        return Ok(None);
    };
    let names = crate::client::tools(&subject.plain).await?;
    let step = names.len().div_ceil(CLIENTS).max(1);
    let asks = names.into_iter().step_by(step).map(|tool| Ask::Call { tool, work: WORK }).collect();
    Ok(Some(Grown { row, subject, backend, asks }))
}

async fn hanging(bench: &mut Bench) -> Result<()> {
    let (backend, upstreams) = bench.backends(2, "/mcp")?;
    let rows = ["beside a good backend", "beside a hanging backend"];
    let setup = Setup { upstreams, toolgate: SELDOM.to_owned(), ..Setup::default() };
    for subject in bench.start(&[Kind::Toolgate], &setup, 2, &rows).await {
        for _ in 0..bench.plan.rounds {
            beside(bench, &subject, &backend, rows[0]).await?;
            let hanging = hang(&subject).await?;
            beside(bench, &subject, &backend, rows[1]).await?;
            drop(hanging);
        }
    }
    Ok(())
}

async fn beside(bench: &mut Bench, subject: &Subject, backend: &Process, row: &str) -> Result<()> {
    let tool = named(&subject.plain, &tool(0)).await?.into_iter().next().context("no tool")?;
    let asks = [Ask::Call { tool, work: WORK }];
    let pace = Pace::Open(bench.plan.rate);
    bench.measure(subject, backend, Load { row, target: &subject.plain, asks: &asks, clients: CLIENTS, pace }).await;
    Ok(())
}

/// Calls that are answered when the run is long over. Dropped, their clients have left.
async fn hang(subject: &Subject) -> Result<JoinSet<()>> {
    let tool = named(&subject.plain, &tool(0)).await?.into_iter().nth(1).context("no second tool")?;
    let ask = Ask::Call { tool, work: Work { delay_ms: 3_600_000, ..WORK } };
    let mut hanging = JoinSet::new();
    for _ in 0..HANGING {
        let mut client = Client::open(&subject.plain, &ask).await?;
        hanging.spawn(async move {
            let _ = client.ask(1).await;
        });
    }
    Ok(hanging)
}

fn thousands(number: usize) -> String {
    match number {
        small if small < 1000 => small.to_string(),
        large => format!("{},{:03}", large / 1000, large % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_as_the_goals_name_them() {
        assert_eq!([1, 10, 100, 1_000, 100_000].map(thousands), ["1", "10", "100", "1,000", "100,000"]);
    }
}
