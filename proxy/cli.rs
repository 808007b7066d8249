//! What the commands do. Each returns its exit code.

mod ask;
mod live;
mod plan;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use toolgate_config::{Config, Lock, Log};

pub use self::ask::{Operator, health, upgrade};
pub use self::plan::plan;
use crate::app::{App, Running};
use crate::backend::Backend;
use crate::catalog::{Kind, Omission};
use crate::gateway::Gateway;
use crate::reload::Reloader;
use crate::upgrade::{Launch, Predecessor, taken_over};
use crate::{COMMIT, demo, log};

/// Fine.
pub const OK: u8 = 0;
/// Anything else.
pub const FAILURE: u8 = 1;
/// The command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// The configuration is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// How long `tools` waits for each backend.
const LIST_DEADLINE: Duration = Duration::from_secs(10);
/// How long it waits for the processes of those that could not be listed to end.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// The version, and the commit where it is known.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| match COMMIT {
        Some(commit) => format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    });
    &VERSION
}

fn fail(code: u8, problem: impl std::fmt::Display) -> u8 {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{problem}");
    code
}

fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => OK,
        Err(_) => FAILURE,
    }
}

fn load(path: &Path) -> Result<Config, u8> {
    toolgate_config::load(path).map_err(|report| fail(CONFIG, report))
}

/// The same where everything that can be found wrong without a network matters.
fn checked(path: &Path) -> Result<Config, u8> {
    let config = load(path)?;
    match crate::app::check(config.clone()) {
        Ok(()) => Ok(config),
        Err(problem) => Err(fail(CONFIG, format!("{}: {problem}", path.display()))),
    }
}

/// `run`: serves until a signal ends it.
pub fn run(path: PathBuf) -> u8 {
    let launch = match Launch::of_this() {
        Ok(launch) => launch,
        Err(problem) => return fail(FAILURE, format!("this program's own path: {problem}")),
    };
    let config = match load(&path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _log = match log::start(&config.log, log::Out::Stdout) {
        Ok(log) => log,
        Err(problem) => return fail(FAILURE, format!("{}: log.calls: {problem}", path.display())),
    };
    let threads = config.threads;
    let (estate, predecessor) = match taken_over() {
        Ok(taken) => taken.unzip(),
        Err(problem) => return fail(FAILURE, problem),
    };
    let bound = match estate {
        Some(estate) => App::succeed(config, estate),
        None => App::bind(config),
    };
    match bound {
        Ok(app) => serve(app, threads, Some(Origin { path, launch, predecessor })),
        Err(problem) => fail(start_code(&problem), format!("{}: {problem}", path.display())),
    }
}

/// What a gateway has that runs from a file.
struct Origin {
    path: PathBuf,
    launch: Launch,
    /// Whom it takes over from.
    predecessor: Option<Predecessor>,
}

/// `demo`: the same, without a file.
pub fn demo() -> u8 {
    let _log = log::start(&Log::default(), log::Out::Stdout);
    match demo::build() {
        Ok(app) => {
            print(&demo::greeting());
            serve(app, None, None)
        }
        Err(problem) => fail(FAILURE, problem),
    }
}

/// What a start that failed exits with: files that do not fit together are the configuration's fault, a taken port is not.
fn start_code(problem: &crate::StartError) -> u8 {
    match problem {
        crate::StartError::Bind { .. } => FAILURE,
        crate::StartError::Tls { .. } | crate::StartError::Traces { .. } => CONFIG,
    }
}

fn runtime(threads: Option<u32>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads as usize);
    }
    builder.enable_all().build()
}

fn serve(app: App, threads: Option<u32>, origin: Option<Origin>) -> u8 {
    let runtime = match runtime(threads) {
        Ok(runtime) => runtime,
        Err(problem) => return fail(FAILURE, problem),
    };
    let served = runtime.block_on(async {
        let (path, launch, predecessor) = match origin {
            Some(Origin { path, launch, predecessor }) => (Some(path), Some(launch), predecessor),
            None => (None, None, None),
        };
        let running = if predecessor.is_some() { app.start_listed().await? } else { app.start()? };
        for address in running.addresses() {
            tracing::info!(%address, "serving MCP");
        }
        tracing::info!(address = %running.admin_address(), "serving the operator");
        let reloader = path.map(|path| running.follow(path));
        if let Some(predecessor) = predecessor {
            // One that is gone has left its sockets behind, and they are served now.
            let _ = predecessor.relieve();
        }
        tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
        until_stopped(running, reloader, launch).await
    });
    // What still runs belongs to nobody any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Ok(()) => OK,
        Err(problem) => fail(FAILURE, problem),
    }
}

/// Tells systemd, or whoever else has started this with `NOTIFY_SOCKET` (sd_notify(3)).
fn tell(states: &[NotifyState<'_>]) {
    if let Err(problem) = sd_notify::notify(states) {
        tracing::warn!(%problem, "the service manager could not be told");
    }
}

/// Handles signals: SIGHUP reloads, SIGUSR2 has another process take over, SIGTERM and SIGINT drain, and a second one of those
/// ends at once.
async fn until_stopped(
    running: Running,
    reloader: Option<Arc<Reloader>>,
    launch: Option<Launch>,
) -> std::io::Result<()> {
    let (mut hup, mut term) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let (mut int, mut usr2) = (signal(SignalKind::interrupt())?, signal(SignalKind::user_defined2())?);
    let mut asked = launch.is_some().then(|| running.upgrades());
    let is_stopped = loop {
        let asker = tokio::select! {
            _ = hup.recv() => {
                if let Some(reloader) = &reloader {
                    reloader.reload().await;
                }
                continue;
            }
            _ = term.recv() => break true,
            _ = int.recv() => break true,
            _ = usr2.recv() => None,
            Some(asker) = async { asked.as_mut()?.recv().await }, if asked.is_some() => Some(asker),
        };
        let Some(launch) = &launch else {
            tracing::warn!("only a gateway that `toolgate run` has started is upgraded");
            continue;
        };
        let outcome = tokio::select! {
            outcome = running.upgrade(launch) => outcome,
            _ = term.recv() => break true,
            _ = int.recv() => break true,
        };
        if let Err(problem) = &outcome {
            tracing::error!(%problem, "not upgraded");
        }
        let is_relieved = outcome.is_ok();
        if let Some(asker) = asker {
            // Who asked may have left.
            let _ = asker.send(outcome.map_err(|problem| problem.to_string()));
        }
        if is_relieved {
            break false;
        }
    };
    if is_stopped {
        tell(&[NotifyState::Stopping]);
    }
    let second = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    running.stop_unless(second).await;
    Ok(())
}

/// `check`: everything that can be found wrong without a network, and with one if it is to be `live`.
pub fn check(path: &Path, live: bool) -> u8 {
    let config = match checked(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let said = print(&format!("{}: ok\n", path.display()));
    if live { asking(path, config, live::check).max(said) } else { said }
}

/// `schema`.
pub fn schema() -> u8 {
    match serde_json::to_string_pretty(&toolgate_config::schema()) {
        Ok(schema) => print(&(schema + "\n")),
        Err(problem) => fail(FAILURE, problem),
    }
}

/// `dashboard`: what `deploy/grafana` holds.
pub fn dashboard() -> u8 {
    print(include_str!("../deploy/grafana/toolgate.json"))
}

/// `alerts`: what `deploy/prometheus` holds.
pub fn alerts() -> u8 {
    print(include_str!("../deploy/prometheus/toolgate.rules.yml"))
}

/// `tools`: asks every backend once and prints the tools of all, as they wrote them. Each backend that could not be listed is
/// named with the reason, and makes it [`FAILURE`].
pub fn tools(path: &Path) -> u8 {
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    asking(path, config, list)
}

/// Does something with a gateway that serves nobody.
fn asking(path: &Path, config: Config, does: impl AsyncFnOnce(&Arc<Gateway>) -> u8) -> u8 {
    let _log = log::start(&Log::default(), log::Out::Stderr);
    let gateway = match Gateway::build(Arc::new(config)) {
        Ok(gateway) => gateway,
        Err(problem) => return fail(CONFIG, format!("{}: {}", path.display(), crate::StartError::from(problem))),
    };
    let runtime = match runtime(Some(1)) {
        Ok(runtime) => runtime,
        Err(problem) => return fail(FAILURE, problem),
    };
    let outcome = runtime.block_on(does(&gateway));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// `pin`: asks backends once and writes down how their tools are defined, and what is different from before. What was pinned of
/// a backend that could not be listed stays, and makes it [`FAILURE`].
pub fn pin(path: &Path, only: &[String]) -> u8 {
    let mut config = match toolgate_config::load_unlocked(path) {
        Ok(config) => config,
        Err(report) => return fail(CONFIG, report),
    };
    let names: Vec<String> = config.backends.iter().map(|backend| backend.name.to_string()).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(name)) {
        return fail(USAGE, format!("there is no backend `{unknown}`; there are: {}", names.join(", ")));
    }
    let file = config.pin.file.clone();
    let mut lock = match std::fs::read_to_string(&file).map(|text| Lock::read(&text)) {
        Ok(Ok(lock)) => lock,
        // What it says of the others would be lost.
        Ok(Err(wrong)) if !only.is_empty() => {
            return fail(FAILURE, format!("{} {wrong}; pin all backends to make it anew", file.display()));
        }
        // This is what makes it right.
        Ok(Err(wrong)) => {
            let _ = fail(OK, format!("{} {wrong}; it is made anew", file.display()));
            Lock::default()
        }
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => Lock::default(),
        Err(problem) => return fail(FAILURE, format!("{}: {problem}", file.display())),
    };
    // Nobody would miss what is pinned of a backend that is gone, and one that comes back under its name is not to be trusted.
    lock.retain(|backend| names.iter().any(|name| name == backend));
    config.backends.retain(|backend| only.is_empty() || only.iter().any(|name| name == backend.name.as_str()));
    let asked = async |gateway: &Arc<Gateway>| {
        let snapshot = gateway.list_once(LIST_DEADLINE).await;
        let mut code = OK;
        for backend in &snapshot.backends {
            match problem(backend).await {
                Some(problem) => code = fail(FAILURE, format!("{problem}; its tools stay pinned as they were")),
                None => code = code.max(print(&pinned(&mut lock, backend))),
            }
        }
        if let Err(problem) = write_whole(&file, &lock.to_string()) {
            return fail(FAILURE, format!("{}: {problem}", file.display()));
        }
        code.max(print(&format!("{}: written\n", file.display())))
    };
    asking(path, config, asked)
}

/// Pins the tools of a backend as they are; says what is different from before.
fn pinned(lock: &mut Lock, backend: &Backend) -> String {
    let (name, listing) = (backend.name(), backend.listing.load());
    let mut tools = BTreeMap::new();
    for entry in listing.iter().flat_map(|listing| &listing.lists.get(Kind::Tools).entries) {
        tools.entry(entry.own.to_string()).or_insert_with(|| entry.fingerprint());
    }
    let mut said = String::new();
    for (tool, print) in &tools {
        match lock.get(name.as_str(), tool) {
            Some(before) if before == print => {}
            Some(_) => said += &format!("backend `{name}`: `{tool}` has changed\n"),
            None => said += &format!("backend `{name}`: `{tool}` is new\n"),
        }
    }
    for (gone, _) in lock.of(name.as_str()).filter(|(tool, _)| !tools.contains_key(*tool)) {
        said += &format!("backend `{name}`: `{gone}` is gone\n");
    }
    said += &format!("backend `{name}`: {} tools pinned\n", tools.len());
    lock.set(name.as_str(), tools);
    said
}

/// Writes a file so that whoever reads it sees all of it or what was there before.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, file)
}

async fn list(gateway: &Arc<Gateway>) -> u8 {
    let snapshot = gateway.list_once(LIST_DEADLINE).await;
    let catalog = snapshot.catalog();
    let printed = match serde_json::to_string_pretty(&BTreeMap::from([("tools", catalog.definitions(Kind::Tools))])) {
        Ok(text) => print(&(text + "\n")),
        Err(problem) => fail(FAILURE, problem),
    };
    let mut code = printed;
    let problems = futures_util::future::join_all(snapshot.backends.iter().map(|backend| problem(backend))).await;
    for (part, problem) in catalog.parts.iter().zip(problems) {
        if let Some(problem) = problem {
            code = fail(FAILURE, problem);
        }
        for Omission { kind, own, why } in &part.left_out {
            let _ = fail(OK, format!("backend `{}`: {} `{own}` left out: {why}", part.backend, kind.noun()));
        }
    }
    code
}

/// Why a backend could not be listed, if it could not.
async fn problem(backend: &Backend) -> Option<String> {
    let problem = backend.listing_problem()?;
    let named = format!("backend `{}`", backend.name());
    // What a process ended with is known when nothing is left of it, and says more than that it did not answer. Of what is
    // connected to, the problem says it by itself, and what failed last may be another replica than what the problem is about.
    let _ = timeout(END_DEADLINE, backend.close()).await;
    Some(match backend.last_error().filter(|_| backend.is_run()) {
        Some(failure) => format!("{named}: {}", failure.what),
        // Most problems begin with the backend that they are about.
        None if problem.starts_with(&named) => problem,
        None => format!("{named}: {problem}"),
    })
}
