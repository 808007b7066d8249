//! A server that the gateway runs: see `server.py`.

use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Answer, Client, Setup, eventually_for};

/// How long the end of a process may take that has to be killed: both its graces, and more.
const END: Duration = Duration::from_secs(15);

/// The interpreter itself: what `python3` names may be a script that looks for it.
static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let found = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let found = String::from_utf8(found.expect("Python 3").stdout).expect("UTF-8");
    found.trim().to_owned()
});

/// `command:` with these words behind it.
pub(crate) fn command(words: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/server.py");
    let words: Vec<_> = ["-S", "-E", script].iter().chain(words).map(|word| format!("\"{word}\"")).collect();
    format!("command: [\"{}\", {}]", *PYTHON, words.join(", "))
}

/// In front of one such server, which is called `a`.
pub(crate) fn running(words: &[&str], keys: &str) -> Setup {
    let separator = if keys.is_empty() { "" } else { ", " };
    Setup::new().backend_reached("a", &format!("{}{separator}{keys}", command(words)))
}

/// The text of a result.
pub(crate) fn text(answer: &Answer) -> String {
    let result = answer.result();
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}")).to_owned()
}

impl Client {
    /// The process that serves this client.
    pub(crate) async fn pid(&self) -> u32 {
        text(&self.call("a__pid").await).parse().expect("a number")
    }

    /// What that process has read, message by message.
    pub(crate) async fn read_by_process(&self) -> Vec<Value> {
        let lines = text(&self.call("a__lines").await);
        let lines: Vec<String> = serde_json::from_str(&lines).expect("lines");
        lines.iter().map(|line| serde_json::from_str(line).expect("a message")).collect()
    }

    /// Calls a tool with this id and this progress token, beside what the test does.
    pub(crate) fn start_call_as(&self, tool: &str, id: &Value, token: &Value) -> JoinHandle<Answer> {
        let params = json!({ "name": tool, "arguments": {}, "_meta": { "progressToken": token } });
        self.start_post(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string())
    }
}

/// Whether a process runs. One that nobody has asked about its end does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn until_dead(pid: u32) -> impl Future<Output = ()> {
    eventually_for(END, async move || !is_alive(pid))
}
