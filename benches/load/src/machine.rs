//! What it was measured on, and with what.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::subjects::{Kind, Programs};

/// The machine and every program's version.
pub(crate) fn describe(programs: &Programs) -> Value {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu": cpu,
        "memory": memory,
        "kernel": kernel.trim(),
        "load_before": busy.split_whitespace().next(),
        "versions": versions(programs),
    })
}

/// What all processors have done since the machine started, in ticks.
pub(crate) struct ProcessorTime {
    done: u64,
    stolen: u64,
}

impl ProcessorTime {
    pub(crate) fn now() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// What share of the time that was wanted since then another machine on the same hardware had, in percent. Nothing that is
    /// measured can tell that time from its own.
    pub(crate) fn stolen_since(&self) -> Option<f64> {
        let Self { done, stolen } = Self::now()?;
        let (done, stolen) = (done.checked_sub(self.done)?, stolen.checked_sub(self.stolen)?);
        let wanted = done + stolen;
        #[expect(clippy::cast_precision_loss, reason = "ticks of an hour")]
        (wanted > 0).then(|| stolen as f64 * 100.0 / wanted as f64)
    }

    /// proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    fn of(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let [user, nice, system, _, _, irq, softirq, stolen, ..] = ticks[..] else { return None };
        Some(Self { done: user + nice + system + irq + softirq, stolen })
    }
}

fn versions(programs: &Programs) -> Value {
    let mut versions = serde_json::Map::new();
    for (kind, argument) in [(Kind::Nginx, "-v"), (Kind::Envoy, "--version")] {
        if let Ok(program) = programs.path(kind) {
            versions.insert(kind.name().to_owned(), json!(said(&program, argument)));
        }
    }
    if let Ok(program) = programs.path(Kind::McpProxy) {
        versions.insert(Kind::McpProxy.name().to_owned(), json!(installed(&program)));
    }
    let own = format!("{}, commit {}", said(&programs.toolgate, "--version"), programs.commit);
    versions.insert(Kind::Toolgate.name().to_owned(), json!(own));
    versions.insert("rustc".to_owned(), json!(said(Path::new("rustc"), "--version")));
    versions.insert(Kind::Bare.name().to_owned(), json!(pingora()));
    let how = if is_static(&programs.toolgate) { "static" } else { "dynamic, not static" };
    versions.insert("Toolgate's binary".to_owned(), json!(how));
    Value::Object(versions)
}

/// The version that this harness was built with: its lock file says so, and the run script looks that it is Toolgate's.
fn pingora() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let version = lock.split("name = \"pingora-core\"\nversion = \"").nth(1).and_then(|rest| rest.split('"').next());
    version.unwrap_or("unknown")
}

/// What a program says of its version; nginx says it where errors go.
fn said(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else { return "unknown".to_owned() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("unknown").trim().to_owned();
    // Envoy begins with the path that it was called by.
    line.rsplit_once("version: ").map_or_else(|| line.clone(), |(_, version)| version.trim().to_owned())
}

/// The version of a program that cargo installed and that does not tell it: cargo keeps a list beside.
fn installed(program: &Path) -> String {
    let (Some(name), Some(root)) = (program.file_name(), program.parent().and_then(Path::parent)) else {
        return "unknown".to_owned();
    };
    let list = fs::read_to_string(root.join(".crates.toml")).unwrap_or_default();
    let entry = format!("\"{} ", name.to_string_lossy());
    let version = list.split(&*entry).nth(1).and_then(|rest| rest.split(' ').next());
    version.unwrap_or("unknown").to_owned()
}

/// Whether a program names no loader.
fn is_static(program: &Path) -> bool {
    let bytes = fs::read(program).unwrap_or_default();
    memchr::memmem::find(&bytes[..bytes.len().min(4096)], b"/ld-").is_none()
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_stolen() {
        let ProcessorTime { done, stolen } = ProcessorTime::of("cpu  10 20 30 1000 500 4 5 7 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!((done, stolen), (69, 7));
    }

    #[test]
    fn knows_which_pingora_it_was_built_with() {
        assert!(pingora().starts_with(|first: char| first.is_ascii_digit()), "{}", pingora());
    }
}
