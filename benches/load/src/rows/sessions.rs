//! Legacy sessions that nobody uses.

use anyhow::Result;

use crate::bench::Bench;
use crate::client::{Opener, Target};
use crate::figures::Metric;
use crate::process::Process;
use crate::subjects::{Kind, Setup};

const ROW: &str = "sessions";
/// Opened before anything is measured, so that what is there once is there.
const FIRST: usize = 100;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    for kind in [Kind::Direct, Kind::Nginx, Kind::Bare] {
        bench.figures.miss(ROW, kind, "its sessions are the backend's");
    }
    for kind in [Kind::Envoy, Kind::McpProxy, Kind::Toolgate] {
        let (_backend, upstreams) = bench.backends(1, "/mcp")?;
        let setup = Setup { upstreams, ..Setup::default() };
        for subject in bench.start(&[kind], &setup, 1, &[ROW]).await {
            let Some(process) = &subject.process else { continue };
            match each(bench, process, &subject.plain).await {
                Ok(each) => bench.figures.add(ROW, kind, Metric::Each, each),
                Err(error) => bench.figures.miss(ROW, kind, &format!("{error:#}")),
            }
        }
    }
    Ok(())
}

async fn each(bench: &Bench, process: &Process, target: &Target) -> Result<f64> {
    let mut opener = Opener::new(target).await?;
    for _ in 0..FIRST {
        opener.session().await?;
    }
    tokio::time::sleep(bench.plan.settle).await;
    let before = process.resident() as f64;
    for _ in 0..bench.plan.sessions {
        opener.session().await?;
    }
    tokio::time::sleep(bench.plan.settle).await;
    Ok((process.resident() as f64 - before).max(0.0) / bench.plan.sessions as f64)
}
