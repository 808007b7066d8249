//! The gateway as its own process: for signals, exit codes, files that change, and memory.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::client::{Answer, Client};
use super::proxy::{VERSION, metric, page};
use super::{Setup, eventually, eventually_for, within};

/// The binary that is tested.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolgate"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("TOOLGATE_LOG");
    command
}

/// Runs the binary to its end.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = binary();
    command.args(arguments);
    within(spawn_blocking(move || command.output())).await.expect("no panic").expect("a binary that runs")
}

/// What a process wrote, line by line.
#[derive(Clone, Default)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    count: Arc<watch::Sender<usize>>,
    /// Held by whoever wants nothing read meanwhile.
    reading: Arc<Mutex<()>>,
}

impl Lines {
    /// Reads on in the background.
    fn add(&self, output: impl Read + Send + 'static) {
        let reading = self.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                drop(reading.reading.lock());
                reading.lines.lock().expect("lines").push(line);
                reading.count.send_modify(|count| *count += 1);
            }
        });
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    #[track_caller]
    fn first(&self, wanted: impl Fn(&str) -> bool) -> impl Future<Output = String> {
        let mut counts = self.count.subscribe();
        within(async move {
            loop {
                let _ = *counts.borrow_and_update();
                if let Some(line) = self.so_far().into_iter().find(|line| wanted(line)) {
                    return line;
                }
                counts.changed().await.expect("a process that still writes");
            }
        })
    }
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `toolgate run`, with its configuration in a folder of its own.
pub(crate) struct Process {
    child: Killed,
    folder: TempDir,
    log: Lines,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    pub(crate) async fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("toolgate.yaml");
        std::fs::write(&config, setup.yaml()).expect("a folder to write to");
        Self::start_in(folder, &config).await
    }

    /// Whose log is JSON, one object a line.
    pub(crate) async fn start_logging_json(setup: &Setup) -> Self {
        Self::start(&setup.clone().section("log", "{ format: json }")).await
    }

    /// With a configuration that lies there already.
    pub(crate) async fn start_in(folder: TempDir, config: &Path) -> Self {
        Self::started(folder, binary().arg("run").arg("--config").arg(config)).await
    }

    /// With a variable in its environment.
    pub(crate) async fn start_with(setup: &Setup, variable: &str, value: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("toolgate.yaml");
        std::fs::write(&config, setup.yaml()).expect("a folder to write to");
        Self::started(folder, binary().env(variable, value).arg("run").arg("--config").arg(config)).await
    }

    async fn started(folder: TempDir, command: &mut Command) -> Self {
        let mut child = Killed(command.spawn().expect("a binary that runs"));
        let log = Lines::default();
        log.add(child.0.stdout.take().expect("a pipe"));
        log.add(child.0.stderr.take().expect("a pipe"));
        let address_in = |line: String| {
            let words = line.split(['=', ' ', '"']);
            words.filter_map(|word| word.parse::<SocketAddr>().ok()).next_back().expect("an address")
        };
        let address = address_in(log.first(|line| line.contains("serving MCP")).await);
        let admin = address_in(log.first(|line| line.contains("serving the operator")).await);
        Self { child, folder, log, address, admin }
    }

    /// `toolgate demo`. Its ports are fixed: `None` when they are taken, which it has to say and to end with 1.
    pub(crate) async fn demo() -> Option<Self> {
        let mut child = Killed(binary().arg("demo").spawn().expect("a binary that runs"));
        let log = Lines::default();
        log.add(child.0.stdout.take().expect("a pipe"));
        log.add(child.0.stderr.take().expect("a pipe"));
        let line = log.first(|line| line.contains("serving the operator") || line.contains("in use")).await;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let folder = tempfile::tempdir().expect("a folder");
        let mut demo = Self { child, folder, log, address: at(8080), admin: at(9464) };
        if line.contains("in use") {
            assert_eq!(demo.ended().await.code(), Some(1));
            return None;
        }
        Some(demo)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("toolgate.yaml")
    }

    /// Replaces the configuration file at once, as careful editors do.
    pub(crate) fn rewrite(&self, yaml: &str) {
        let new = self.folder.path().join("toolgate.yaml.new");
        std::fs::write(&new, yaml).expect("a folder to write to");
        std::fs::rename(new, self.config_file()).expect("a folder to write to");
    }

    pub(crate) async fn client(&self) -> Client {
        Client::stranger(self.address).started(VERSION).await
    }

    pub(crate) async fn page(&self, verb: Method, path: &str) -> Answer {
        page(self.admin, verb, path).await
    }

    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        metric(self.admin, series).await
    }

    #[track_caller]
    pub(crate) fn until_metric(&self, series: &str, value: f64) -> impl Future<Output = ()> {
        eventually(async move || self.metric(series).await == Some(value))
    }

    /// Waits for a line of the log.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) -> impl Future<Output = String> {
        self.log.first(move |line| line.contains(text))
    }

    /// Reads nothing of what it writes until what this returns is dropped, but for some kilobytes.
    pub(crate) fn log_unread(&self) -> impl Drop {
        self.log.reading.lock().expect("a lock")
    }

    /// All that it has logged until now; lines are written a moment after what they tell.
    pub(crate) async fn log(&self) -> Vec<String> {
        const MARK: &str = "the-log-until-here";
        self.client().await.with_header("x-request-id", MARK).ask("ping", json!({})).await;
        self.logged(MARK).await;
        self.log.so_far()
    }

    /// What of it has been read by now.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.log.so_far()
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let mut kill = Command::new("sh");
        kill.arg("-c").arg(format!("kill -{name} {}", self.child.0.id()));
        let sent = within(spawn_blocking(move || kill.status())).await.expect("no panic");
        assert!(sent.expect("a shell").success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.ended_within(Duration::from_secs(10)).await
    }

    /// The same for so long.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually_for(limit, async || {
            status = self.child.0.try_wait().expect("a process");
            status.is_some()
        })
        .await;
        status.expect("a status")
    }

    /// The most memory it ever held, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.child.0.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a /proc");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}
