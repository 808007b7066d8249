//! What the commands do. Each returns its exit code.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use toolgate_config::{Config, Log};

use crate::app::{App, Running};
use crate::backend::Backend;
use crate::catalog::{Kind, Omission};
use crate::gateway::Gateway;
use crate::reload::Reloader;
use crate::{demo, log};

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

/// `run`: serves until a signal ends it.
pub fn run(path: PathBuf) -> u8 {
    let config = match load(&path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _log = log::start(config.log, log::Out::Stdout);
    let threads = config.threads;
    let app = match App::bind(config) {
        Ok(app) => app,
        Err(problem) => return fail(start_code(&problem), format!("{}: {problem}", path.display())),
    };
    serve(app, threads, Some(path))
}

/// `demo`: the same, without a file.
pub fn demo() -> u8 {
    let _log = log::start(Log::default(), log::Out::Stdout);
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
        crate::StartError::Tls { .. } => CONFIG,
    }
}

fn runtime(threads: Option<u32>) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads as usize);
    }
    builder.enable_all().build()
}

fn serve(app: App, threads: Option<u32>, path: Option<PathBuf>) -> u8 {
    let runtime = match runtime(threads) {
        Ok(runtime) => runtime,
        Err(problem) => return fail(FAILURE, problem),
    };
    let served = runtime.block_on(async {
        let running = app.start()?;
        for address in running.addresses() {
            tracing::info!(%address, "serving MCP");
        }
        tracing::info!(address = %running.admin_address(), "serving the operator");
        let reloader = path.map(|path| running.follow(path));
        until_stopped(running, reloader).await
    });
    // What still runs belongs to nobody any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Ok(()) => OK,
        Err(problem) => fail(FAILURE, problem),
    }
}

/// Handles signals: SIGHUP reloads, SIGTERM and SIGINT drain, and a second one of those ends at once.
async fn until_stopped(running: Running, reloader: Option<Arc<Reloader>>) -> std::io::Result<()> {
    let (mut hup, mut term) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let mut int = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hup.recv() => if let Some(reloader) = &reloader {
                reloader.reload().await;
            },
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
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

/// `check`: everything that can be found wrong without a network.
pub fn check(path: &Path) -> u8 {
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match crate::app::check(config) {
        Ok(()) => print(&format!("{}: ok\n", path.display())),
        Err(problem) => fail(CONFIG, format!("{}: {problem}", path.display())),
    }
}

/// `schema`.
pub fn schema() -> u8 {
    match serde_json::to_string_pretty(&toolgate_config::schema()) {
        Ok(schema) => print(&(schema + "\n")),
        Err(problem) => fail(FAILURE, problem),
    }
}

/// `tools`: asks every backend once and prints the tools of all, as they wrote them. Each backend that could not be listed is
/// named with the reason, and makes it [`FAILURE`].
pub fn tools(path: &Path) -> u8 {
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let _log = log::start(Log::default(), log::Out::Stderr);
    let gateway = match Gateway::build(Arc::new(config)) {
        Ok(gateway) => gateway,
        Err(problem) => return fail(CONFIG, format!("{}: backends: {problem}", path.display())),
    };
    let runtime = match runtime(Some(1)) {
        Ok(runtime) => runtime,
        Err(problem) => return fail(FAILURE, problem),
    };
    let outcome = runtime.block_on(list(&gateway));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
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
    // What a process ended with is known when nothing is left of it, and says more than that it did not answer.
    let _ = timeout(END_DEADLINE, backend.close()).await;
    Some(match backend.last_error() {
        Some(failure) => format!("{named}: {}", failure.what),
        // Most problems begin with the backend that they are about.
        None if problem.starts_with(&named) => problem,
        None => format!("{named}: {problem}"),
    })
}
