//! From exec to the first answer, with three backends, one of them dead; what is resident then, and the program's size.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::bench::Bench;
use crate::client;
use crate::figures::Metric;
use crate::process::{Process, Role};
use crate::subjects::{Kind, Setup, Upstream, free_port};

const ROW: &str = "start";
/// Starts are short, and vary more than loads.
const STARTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    bench.figures.miss(ROW, Kind::Direct, "there is nothing to start");
    let (_backend, mut upstreams) = bench.backends(2, "/mcp")?;
    upstreams.push(Upstream { port: free_port()?, path: "/mcp".to_owned() });
    let setup = Setup { upstreams, ..Setup::default() };
    for _ in 0..bench.plan.rounds * STARTS {
        for kind in bench.present(&Kind::ALL[1..]) {
            if bench.figures.is_missing(ROW, kind) {
                continue;
            }
            match start(bench, kind, &setup).await {
                Ok((took, resident)) => {
                    bench.figures.add(ROW, kind, Metric::Millis, took.as_secs_f64() * 1e3);
                    bench.figures.add(ROW, kind, Metric::Resident, resident);
                }
                Err(error) => bench.figures.miss(ROW, kind, &format!("{error:#}")),
            }
        }
    }
    for kind in bench.present(&[Kind::Nginx, Kind::Envoy, Kind::McpProxy, Kind::Toolgate]) {
        if let (false, Ok(program)) = (bench.figures.is_missing(ROW, kind), bench.stage.programs.path(kind)) {
            bench.figures.add(ROW, kind, Metric::Size, std::fs::metadata(program)?.len() as f64);
        }
    }
    Ok(())
}

/// How long it took to the first answer, and what is resident a little later.
async fn start(bench: &Bench, kind: Kind, setup: &Setup) -> Result<(Duration, f64)> {
    let launch = bench.stage.prepare(kind, setup)?;
    let target = launch.target(&bench.stage);
    let ended_by = if kind == Kind::Nginx { Signal::SIGTERM } else { Signal::SIGKILL };
    let began = Instant::now();
    let how = bench.stage.start(Role::Subject, ended_by);
    let mut process = Process::start_bare(&launch.program, &launch.arguments, how)?;
    while let Err(error) = client::initialize(&target).await {
        if process.has_ended() || began.elapsed() > PATIENCE {
            bail!("not started: {error:#}");
        }
        // No longer than what is to be told apart. A busy wait would take the core from the backends.
        std::thread::sleep(Duration::from_micros(100));
    }
    let took = began.elapsed();
    tokio::time::sleep(bench.plan.settle).await;
    Ok((took, process.resident() as f64))
}
