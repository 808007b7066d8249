//! Clients of one era on backends of the other: what is asked, what is answered, what is cancelled, and what never crosses.

mod parked;
mod required;
mod to_legacy;
mod to_modern;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Call, FakeBackend, FakeModern, Setup, TestProxy};

/// Time for what should not come.
const LONG_ENOUGH: Duration = Duration::from_millis(300);

fn question(id: &Value, method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "message": "Really?" } })
}

fn elicitation(id: &Value) -> Value {
    question(id, "elicitation/create")
}

fn cancellations(backend: &FakeBackend) -> Vec<Value> {
    backend.all("notifications/cancelled").iter().map(|seen| seen.json()["params"]["requestId"].clone()).collect()
}

/// Whether there is nothing in it that only legacy clients know.
#[track_caller]
fn in_modern_words(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body);
    for word in ["-32002", "-32042", "\"method\":\"sampling/createMessage\",\"id\"", "mcp-session-id"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(answer.header("mcp-session-id"), "");
    for message in answer.messages() {
        assert!(message["method"].is_null() || message["id"].is_null(), "a request: {message}");
    }
}

/// Whether there is nothing in it that only modern clients know.
#[track_caller]
fn in_legacy_words(text: &str) {
    for word in
        ["resultType", "ttlMs", "cacheScope", "-32020", "-32021", "-32022", "io.modelcontextprotocol/", "requestState"]
    {
        assert!(!text.contains(word), "{word}: {text}");
    }
}

/// A legacy backend with a held tool, and the gateway before it.
async fn legacy() -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 1).await;
    (backend, proxy)
}

fn params() -> Value {
    json!({ "name": "a__ask", "arguments": { "x": 1.5, "y": ["é"] } })
}

fn yes() -> Value {
    json!({ "action": "accept", "content": { "sure": true } })
}

/// A modern backend with a held tool, and the gateway before it.
async fn modern() -> (FakeModern, TestProxy) {
    let backend = FakeModern::with_held_tool("a", "ask").await;
    let proxy = Setup::new().backend(&backend, "").start().await;
    proxy.until_tools(&backend, 1).await;
    (backend, proxy)
}

fn params_of(call: &Call) -> Value {
    call.seen.json()["params"].clone()
}
