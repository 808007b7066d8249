//! The load harness: one program that is the backend, the client, a bare pingora, and what runs them in turn.
//!
//! `benches/load/run` builds it and calls `load compare`. What is compared stands in [`subjects`], the work in [`rows`], the
//! goals in [`goals`]; figures are kept in [`figures`] and written by [`report`]. Everything listens on 127.0.0.1, on ports
//! that were free; every load is bounded in time and in connections; every process ends with this one.
//!
//! The subject has a core for itself where there are two, and client and backend share another: they are written to need as
//! little of it as they can, and how busy it was is among the figures, for a rate means nothing where they are the limit.
//! CPU per request does not depend on that.

mod backend;
mod bare;
mod bench;
mod chart;
mod client;
mod clock;
mod drive;
mod figures;
mod goals;
mod machine;
mod mcp;
mod process;
mod report;
mod rows;
mod subjects;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::bench::{Bench, PARTS, Plan};
use crate::client::{Ask, Target};
use crate::drive::{Fleet, Pace};
use crate::figures::Figures;
use crate::machine::ProcessorTime;
use crate::mcp::{Era, Work};
use crate::process::{Cores, Role};
use crate::report::Report;
use crate::subjects::{Certificate, Programs, Stage};

/// Connections that one process may have to hold for each idle stream: one to its client, one to its backend.
const FILES_EACH: u64 = 2;
/// Files that are open beside.
const FILES_BESIDE: u64 = 500;
const FILES: u64 = 65_536;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve as an MCP server on free ports, and print them
    Backend {
        #[arg(long, default_value_t = 1)]
        ports: usize,
    },
    /// Pass everything on with pingora and nothing else
    Bare(bare::Bare),
    /// Put a load on one address and print what came of it
    Client(Single),
    /// Write a certificate for localhost and its key into this folder, as tls.crt and tls.key
    Certificate { folder: PathBuf },
    /// Compare Toolgate with its peers
    Compare(Compare),
}

/// One load by hand.
#[derive(clap::Args)]
struct Single {
    /// Where: 127.0.0.1:8080
    address: SocketAddr,
    #[arg(long, default_value = "/mcp")]
    path: String,
    /// The tool that is called; the list is asked for without one
    #[arg(long)]
    tool: Option<String>,
    #[arg(long, default_value_t = 300)]
    bytes: usize,
    #[arg(long, default_value_t = 0)]
    events: usize,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests a second; without, as many as are answered
    #[arg(long)]
    rate: Option<u64>,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[arg(long)]
    modern: bool,
    /// Through TLS and HTTP/2, trusting the certificate in this file
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Compare {
    /// Toolgate's binary
    #[arg(long)]
    toolgate: PathBuf,
    /// What it was built from
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// A peer's binary, or `absent: reason`
    #[arg(long)]
    nginx: String,
    #[arg(long)]
    envoy: String,
    #[arg(long)]
    mcp_proxy: String,
    /// Where results go
    #[arg(long)]
    results: PathBuf,
    /// Where they go too, as results.md, results.json and results.svg
    #[arg(long)]
    publish: Option<PathBuf>,
    #[arg(long)]
    rounds: Option<usize>,
    /// Parts that are run, with commas between them
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Short rounds and small numbers: whether everything works
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match command(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: Arguments) -> Result<()> {
    let (soft, hard) = raise_files()?;
    if let Command::Bare(bare) = &arguments.command {
        return bare::run(bare);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Backend { ports } => backend::run(ports).await,
            Command::Client(single) => one_load(single).await,
            Command::Certificate { folder } => Certificate::new(&folder).map(drop),
            Command::Compare(compare) => run(compare, soft.min(hard)).await,
            Command::Bare(_) => Ok(()),
        }
    })
}

/// As many open files as may be had; children inherit it.
fn raise_files() -> Result<(u64, u64)> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may raise the hard limit; what there is has to do then.
    if hard >= FILES || setrlimit(Resource::RLIMIT_NOFILE, FILES, FILES).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?)
}

async fn one_load(single: Single) -> Result<()> {
    let era = if single.modern { Era::Modern } else { Era::Legacy };
    let tls = single.ca.map(|ca| subjects::trusting(&ca)).transpose()?;
    let target = Target { address: single.address, path: single.path, era, tls };
    let work = Work { bytes: single.bytes, events: single.events, ..Work::default() };
    let ask = single.tool.map_or(Ask::List, |tool| Ask::Call { tool, work });
    let mut fleet = Fleet::open(&target, &[ask], single.connections).await?;
    let pace = single.rate.map_or(Pace::Closed, Pace::Open);
    let tally = fleet.drive(pace, Duration::from_secs(single.seconds)).await?;
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| tally.quantile_us(quantile));
    println!(
        "{:.0} answers/s, {} errors, p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs",
        tally.rate(),
        tally.errors
    );
    if let Some(error) = tally.first_error {
        bail!("{error}");
    }
    Ok(())
}

async fn run(compare: Compare, files: u64) -> Result<()> {
    let mut plan = if compare.quick { Plan::quick() } else { Plan::full() };
    plan.rounds = compare.rounds.unwrap_or(plan.rounds).max(1);
    for part in &compare.only {
        ensure!(PARTS.contains(&part.as_str()), "no part is called {part}: {}", PARTS.join(", "));
    }
    plan.only.clone_from(&compare.only);
    let mut notes = Vec::new();
    fit(&mut plan, files, &mut notes)?;
    let program =
        |given: &str| given.strip_prefix("absent: ").map_or_else(|| Ok(given.into()), |why| Err(why.to_owned()));
    let programs = Programs {
        toolgate: compare.toolgate.clone(),
        commit: compare.commit.clone(),
        nginx: program(&compare.nginx),
        envoy: program(&compare.envoy),
        mcp_proxy: program(&compare.mcp_proxy),
    };
    let mut machine = machine::describe(&programs);
    let before = ProcessorTime::now();
    let scratch = Scratch::new()?;
    let certificate = Certificate::new(&scratch.0)?;
    let cores = Cores::new();
    cores.take(Role::Client)?;
    let stage = Stage { programs, certificate, cores, scratch: scratch.0.clone() };
    let mut bench = Bench { stage, plan, figures: Figures::default() };
    // Either way everything that was started is dropped, and with it ended.
    tokio::select! {
        done = bench.run() => done?,
        signal = interrupted() => bail!("ended by {}", signal?),
    }
    machine["stolen_percent"] = json!(before.and_then(|before| before.stolen_since()));
    let report = Report { figures: &bench.figures, plan: &bench.plan, machine: &machine, notes: &notes };
    report.write(&compare.results, "results")?;
    if let Some(folder) = &compare.publish {
        report.write(folder, "results")?;
    }
    println!("{}", report.markdown());
    Ok(())
}

/// No more streams than there may be open files.
fn fit(plan: &mut Plan, files: u64, notes: &mut Vec<String>) -> Result<()> {
    let most = usize::try_from(files.saturating_sub(FILES_BESIDE) / FILES_EACH)?;
    for streams in &mut plan.streams {
        if *streams > most {
            notes.push(format!("{most} idle streams instead of {streams}: no more files may be open (ulimit -n)"));
            *streams = most;
        }
    }
    Ok(())
}

async fn interrupted() -> Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok("an interrupt"),
        _ = terminate.recv() => Ok("a termination"),
    }
}

/// A folder that is gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("toolgate-load-{}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_streams_where_fewer_files_may_be_open_and_a_note_of_it() {
        let (mut plan, mut notes) = (Plan::full(), Vec::new());

        fit(&mut plan, 4_500, &mut notes).expect("a number");

        assert_eq!(plan.streams, [1_000, 2_000]);
        assert_eq!(notes.len(), 1);
    }
}
