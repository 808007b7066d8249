//! The synthetic call of one backend: a tool with fixed arguments, called by the gateway itself, and what is expected of it. It
//! shows what a handshake cannot: that the tools work. It is counted apart, no limit covers it, and health does not hear of it.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{sleep, timeout};
use toolgate_config::Synthetic;

use crate::backend::client::{Judged, Outcome};
use crate::backend::{Backend, era};
use crate::bridge::params;
use crate::catalog::Kind;
use crate::error::{Error, MaxBytes};
use crate::gateway::Gateway;
use crate::metrics::SyntheticMetrics;

/// The largest result that is looked at.
const MAX_RESULT: MaxBytes = MaxBytes::fixed(4 * 1024 * 1024);

/// How a synthetic call ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// No answer, or none that is one.
    Failed,
    /// The backend does not list the tool.
    NotListed,
    /// The tool says of itself that it changes something: it was not called.
    NotReadOnly,
    Ok,
    /// The backend's JSON-RPC error.
    RpcError,
    Timeout,
    /// A result with `isError`.
    ToolError,
    /// A result without what is expected in it.
    Unexpected,
}

impl Verdict {
    /// Every verdict, in declaration order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Failed,
        Self::NotListed,
        Self::NotReadOnly,
        Self::Ok,
        Self::RpcError,
        Self::Timeout,
        Self::ToolError,
        Self::Unexpected,
    ];

    /// As metrics, logs and pages have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NotListed => "not_listed",
            Self::NotReadOnly => "not_read_only",
            Self::Ok => "ok",
            Self::RpcError => "rpc_error",
            Self::Timeout => "timeout",
            Self::ToolError => "tool_error",
            Self::Unexpected => "unexpected",
        }
    }
}

/// How one ended, in full.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Ended {
    pub(crate) verdict: Verdict,
    /// What was wrong.
    pub(crate) why: Option<String>,
}

impl Ended {
    fn wrong(verdict: Verdict, why: impl Into<String>) -> Self {
        Self { verdict, why: Some(why.into()) }
    }

    const OK: Self = Self { verdict: Verdict::Ok, why: None };
}

/// How the last one ended, and when.
pub(crate) struct Last {
    pub(crate) ended: Ended,
    pub(crate) when: Instant,
}

/// Runs until the backend is retired.
pub(crate) async fn run(gateway: Arc<Gateway>, backend: Arc<Backend>, wanted: Synthetic) {
    let Some(_series) = backend.metrics.series() else { return };
    let metrics = gateway.metrics.synthetic(backend.name().as_str());
    let repeated = repeat(&backend, &wanted, &metrics);
    tokio::select! {
        () = repeated => {}
        () = backend.until_retired() => {}
    }
}

async fn repeat(backend: &Arc<Backend>, wanted: &Synthetic, metrics: &SyntheticMetrics) {
    // What it lists is known then, or that it does not answer.
    let mut listings = backend.listings.subscribe();
    let _ = listings.wait_for(|count| *count > 0).await.map(drop);
    loop {
        let (started, calling) = (Instant::now(), (Arc::clone(backend), wanted.clone()));
        // In a task of its own: one that runs out of time must still end the session that it may have opened.
        let mut call = tokio::spawn(async move { call(&calling.0, &calling.1).await });
        let ended = match timeout(wanted.timeout, &mut call).await {
            Ok(ended) => ended.unwrap_or_else(|_| Ended::wrong(Verdict::Failed, "it ended before it was complete")),
            Err(_) => Ended::wrong(Verdict::Timeout, format!("no answer within {}s", wanted.timeout.as_secs_f64())),
        };
        metrics.ended(ended.verdict, started.elapsed());
        note(backend, wanted, ended);
        if !call.is_finished() {
            // Its own deadlines end it; the next must not run beside it.
            let _ = call.await;
        }
        sleep(wanted.interval).await;
    }
}

/// Remembers how a call ended, and logs it where that is new.
fn note(backend: &Backend, wanted: &Synthetic, ended: Ended) {
    let last = backend.synthetic.load();
    let (before, now) = (last.as_ref().map(|last| last.ended.verdict), ended.verdict);
    let (name, tool, result) = (backend.name().as_str(), &wanted.tool, now.as_str());
    match (before, &ended.why) {
        (before, _) if before == Some(now) => {}
        (None, None) => {}
        (Some(_), None) => tracing::info!(backend = name, tool, result, "the synthetic call is as it should be again"),
        (_, Some(reason)) => {
            tracing::warn!(backend = name, tool, result, reason, "the synthetic call is not as it should be")
        }
    }
    backend.synthetic.store(Some(Arc::new(Last { ended, when: Instant::now() })));
}

/// One call.
async fn call(backend: &Arc<Backend>, wanted: &Synthetic) -> Ended {
    let Ok(arguments) = to_raw_value(&wanted.arguments) else {
        return Ended::wrong(Verdict::Failed, "its arguments cannot be written");
    };
    let headers = match headers(backend, &wanted.tool, &arguments) {
        Ok(headers) => headers,
        Err(ended) => return ended,
    };
    // That of a command goes over the connection that there is: a new one would be a new process each time.
    let running = backend.own.load_full().filter(|_| backend.is_run());
    let is_new = running.is_none();
    let own = match running {
        Some(own) => own,
        None if backend.is_run() => return Ended::wrong(Verdict::Failed, "no process of it runs"),
        None => match era::open(backend, Judged::No).await {
            Ok(own) => Arc::new(own),
            Err(error) => return failed(&error),
        },
    };
    let outcome = own.call(backend, &wanted.tool, arguments.get(), headers, MAX_RESULT).await;
    if is_new {
        let backend = Arc::clone(backend);
        tokio::spawn(async move { own.close(&backend).await });
    }
    match outcome {
        Ok(Outcome::Result(result)) => judge(&result, wanted.expect.as_deref()),
        Ok(Outcome::Error { code }) => Ended::wrong(Verdict::RpcError, format!("it answered with error {code}")),
        Ok(Outcome::SessionLost) => Ended::wrong(Verdict::Failed, "it forgot the session of the call"),
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> Ended {
    let verdict = if matches!(error, Error::BackendTimeout { .. }) { Verdict::Timeout } else { Verdict::Failed };
    Ended::wrong(verdict, error.to_string())
}

/// The headers that repeat arguments, of a tool that may be called.
fn headers(backend: &Backend, tool: &str, arguments: &RawValue) -> Result<Vec<Header>, Ended> {
    let listing = backend.listing.load();
    let entries = listing.as_ref().map(|listing| &listing.lists.get(Kind::Tools).entries);
    let entry = entries.into_iter().flatten().find(|entry| &*entry.own == tool);
    let Some(entry) = entry else {
        return Err(Ended::wrong(Verdict::NotListed, "the backend does not list it"));
    };
    if entry.says_it_writes() {
        return Err(Ended::wrong(Verdict::NotReadOnly, "it says of itself that it is not read-only"));
    }
    let params = entry.header_params.as_deref().unwrap_or_default();
    params::headers(params, Some(arguments)).map_err(|error| failed(&error))
}

type Header = (http::HeaderName, http::HeaderValue);

/// Looks into a result.
fn judge(result: &RawValue, expect: Option<&str>) -> Ended {
    #[derive(Deserialize)]
    struct Block {
        text: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CallToolResult {
        #[serde(default)]
        is_error: bool,
        result_type: Option<String>,
        content: Vec<Block>,
    }
    let Ok(result) = serde_json::from_str::<CallToolResult>(result.get()) else {
        return Ended::wrong(Verdict::Failed, "its result is not a CallToolResult");
    };
    let has =
        |expected: &str| result.content.iter().filter_map(|block| block.text.as_deref()).any(|t| t.contains(expected));
    match expect {
        _ if result.result_type.is_some_and(|kind| kind != "complete") => {
            Ended::wrong(Verdict::Unexpected, "it asks for something first")
        }
        _ if result.is_error => Ended::wrong(Verdict::ToolError, "the tool failed"),
        Some(expected) if !has(expected) => Ended::wrong(Verdict::Unexpected, "its text is not what is expected"),
        _ => Ended::OK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_what_is_expected_or_not() {
        for (result, expect, verdict) in [
            (r#"{"content":[]}"#, None, Verdict::Ok),
            (r#"{"content":[{"type":"text","text":"so sunny"}]}"#, Some("sunny"), Verdict::Ok),
            (
                r#"{"content":[{"type":"image","data":"sunny"}],"resultType":"complete"}"#,
                Some("sunny"),
                Verdict::Unexpected,
            ),
            (r#"{"content":[{"type":"text","text":"sunny"}],"isError":true}"#, Some("sunny"), Verdict::ToolError),
            (r#"{"content":[],"resultType":"input_required"}"#, None, Verdict::Unexpected),
            ("{}", None, Verdict::Failed),
            (r#"{"content":7}"#, None, Verdict::Failed),
        ] {
            let raw = RawValue::from_string(result.to_owned()).unwrap();
            assert_eq!(judge(&raw, expect).verdict, verdict, "{result}");
        }
    }
}
