//! Merged lists, beside nginx with the same bytes as a file.

use std::fs;

use anyhow::{Context as _, Result};

use crate::bench::{Bench, Load};
use crate::client::{self, Ask, Client};
use crate::drive::Pace;
use crate::figures::Metric;
use crate::process::Process;
use crate::subjects::{Kind, Setup, Subject};

const ROWS: [(&str, usize, usize); 2] = [("list of 3 × 100/16", 3, 100), ("list of 10 × 1,000/16", 10, 1000)];
/// The others do not merge, and serve no files.
const KINDS: [Kind; 4] = [Kind::Nginx, Kind::Envoy, Kind::McpProxy, Kind::Toolgate];

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    for (row, backends, tools) in ROWS {
        for kind in [Kind::Direct, Kind::Bare] {
            bench.figures.miss(row, kind, "it merges nothing");
        }
        let total = backends * tools;
        let (backend, upstreams) = bench.backends(backends, &format!("/tools-{tools}/mcp"))?;
        let port = upstreams.first().context("no backend")?.port;
        let files = bench.stage.scratch.join("files");
        fs::create_dir_all(&files)?;
        let setup = Setup { upstreams, files: Some(files.clone()), ..Setup::default() };
        // nginx passes on to one of them; it is asked for a file.
        let mut subjects = bench.start(&[Kind::Nginx], &setup, tools, &[row]).await;
        subjects.extend(bench.start(&KINDS[1..], &setup, total, &[row]).await);
        let bytes = match subjects.iter().find(|subject| subject.kind == Kind::Toolgate) {
            Some(toolgate) => list(toolgate).await?,
            None => Vec::new(),
        };
        fs::write(files.join("list.json"), &bytes)?;
        for round in 0..bench.plan.rounds {
            for subject in Bench::turn(&subjects, round) {
                one(bench, subject, (&backend, port), row, bytes.len()).await?;
            }
        }
    }
    Ok(())
}

async fn list(subject: &Subject) -> Result<Vec<u8>> {
    let mut client = Client::open(&subject.plain, &Ask::List).await?;
    Ok(client.ask(1).await.context("tools/list")?.bytes.clone())
}

async fn one(
    bench: &mut Bench,
    subject: &Subject,
    (backend, port): (&Process, u16),
    row: &str,
    bytes: usize,
) -> Result<()> {
    let file = subject.kind == Kind::Nginx;
    let ask = if file { Ask::File { path: "/files/list.json".to_owned(), bytes } } else { Ask::List };
    let before = client::lists_seen(port).await?;
    let load = Load { row, target: &subject.plain, asks: &[ask], clients: 16, pace: Pace::Closed };
    let answers = bench.measure(subject, backend, load).await;
    let seen = client::lists_seen(port).await?.saturating_sub(before);
    if let Some(answers) = answers {
        bench.figures.add(row, subject.kind, Metric::Upstream, seen as f64 / answers as f64);
    }
    Ok(())
}
