//! What a client says of where its requests belong goes on to backends as it came, in headers and in `_meta`.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::support::stdio::running;
use crate::support::{FakeBackend, FakeModern, Setup};

const IN_HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const IN_BODY: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const STATE: &str = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
const BAGGAGE: &str = "userId=alice,serverNode=DF%2028";

/// A call, and where it belongs.
fn call(tool: &str) -> Value {
    let meta = json!({ "traceparent": IN_BODY, "tracestate": STATE, "baggage": BAGGAGE });
    json!({ "name": tool, "arguments": {}, "_meta": meta })
}

/// What a backend was told of where a request belongs.
fn told(headers: &HeaderMap, message: &Value) {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let meta = &message["params"]["_meta"];
    assert_eq!([header("traceparent"), header("tracestate"), header("baggage")], [IN_HEADER, STATE, BAGGAGE]);
    told_in_body(meta);
}

fn told_in_body(meta: &Value) {
    assert_eq!([&meta["traceparent"], &meta["tracestate"], &meta["baggage"]], [IN_BODY, STATE, BAGGAGE], "{meta}");
}

#[tokio::test]
async fn where_a_request_belongs_is_told_to_backends_of_both_eras_as_it_came() {
    let legacy = FakeBackend::with_tool("legacy", "ask").await;
    let modern = FakeModern::with_tool("modern", "ask").await;
    let proxy = Setup::fronting(&[&legacy]).backend(&modern, "").start().await;
    proxy.until_tools(&legacy, 1).await;
    proxy.until_tools(&modern, 1).await;
    let headers = [("traceparent", IN_HEADER), ("tracestate", STATE), ("baggage", BAGGAGE)];
    let client = headers.iter().fold(proxy.client().await, |client, (name, value)| client.with_header(name, value));
    let mut modern_client = proxy.modern();
    modern_client.http =
        headers.iter().fold(modern_client.http, |client, (name, value)| client.with_header(name, value));

    for tool in ["legacy__ask", "modern__ask"] {
        client.ask("tools/call", call(tool)).await.result();
        modern_client.ask("tools/call", call(tool)).await.result();
    }

    let calls: Vec<_> = legacy.all("tools/call").into_iter().chain(modern.calls()).collect();
    assert_eq!(calls.len(), 4);
    calls.iter().for_each(|seen| told(&seen.headers, &seen.json()));
}

#[tokio::test]
async fn a_program_is_told_in_the_message() {
    let proxy = running(&[], "").start().await;
    let client = proxy.client().await;

    client.ask("tools/call", call("a__pid")).await.result();

    let read = client.read_by_process().await;
    let call = read.iter().find(|message| message["params"]["name"] == "pid").unwrap();
    told_in_body(&call["params"]["_meta"]);
}

#[cfg(not(feature = "otel"))]
#[tokio::test]
async fn a_build_that_cannot_trace_says_so() {
    use crate::support::process::run;

    let setup = Setup::new().backend_at("a", "http://127.0.0.1:1/mcp", "");
    let setup = setup.section("traces", "{ endpoint: 'http://127.0.0.1:1/v1/traces' }");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toolgate.yaml");
    std::fs::write(&file, setup.yaml()).unwrap();
    let file = file.to_str().unwrap();

    for arguments in [&["check", file][..], &["run", "--config", file]] {
        let output = run(arguments).await;

        let problem = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{problem}");
        assert!(problem.contains("traces: ") && problem.contains("build it with `--features otel`"), "{problem}");
    }
}
