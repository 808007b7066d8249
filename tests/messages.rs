//! What is and is not a message: JSON-RPC, batches, and the versions of MCP.

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::spoken;
use crate::support::{Answer, FakeBackend, TestProxy, within};

async fn echo() -> (FakeBackend, TestProxy) {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    (backend, proxy)
}

#[tokio::test]
async fn what_is_not_json_is_a_parse_error() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"x":{}"#, "[".repeat(200_000));

    for body in
        ["", "{", "nonsense", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}}"#, "\u{feff}{}", r#"{"a":01}"#, &deep]
    {
        let answer = client.post(body.to_owned()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!((answer.code(), &answer.json()["id"]), (-32700, &Value::Null), "{answer:?}");
    }
    let not_utf8 = client.post(&b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}"[..]).await;
    assert_eq!((not_utf8.status, not_utf8.code()), (400, -32700));
}

#[tokio::test]
async fn a_modern_client_never_gets_an_id_that_is_null() {
    let (_backend, proxy) = echo().await;
    let stranger = proxy.stranger().with_header("mcp-protocol-version", "2026-07-28");
    let has_id = |answer: &Answer| answer.json().as_object().unwrap().contains_key("id");

    for body in ["{", "nonsense", "[]", r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#] {
        let answer = stranger.post(body.to_owned()).await;
        assert_eq!((answer.status, has_id(&answer)), (400, false), "{answer:?}");
    }
    let get = stranger.send(stranger.request(Method::GET, "")).await;
    assert_eq!((get.status, has_id(&get)), (405, false), "{get:?}");
    let legacy = proxy.client().await.post("{").await;
    assert_eq!((legacy.status, has_id(&legacy)), (400, true), "{legacy:?}");
}

#[tokio::test]
async fn json_nested_too_deep_is_refused() {
    let (backend, proxy) = echo().await;
    let client = proxy.client().await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));

    let params = format!(r#"{{"name":"a__echo","arguments":{{"x":{deep}}}}}"#);
    let answer = client.post(format!(r#"{{"jsonrpc":"2.0","id":50,"method":"tools/call","params":{params}}}"#)).await;

    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn what_is_no_message_is_told_so_under_its_id() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for (body, id) in [
        (r#"{"id":5,"method":"ping"}"#, json!(5)),
        (r#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#, json!("x")),
        (r#"{"jsonrpc":"2.0","id":6,"method":7}"#, json!(6)),
        (r#"{"jsonrpc":"2.0","id":8,"method":"ping","params":[]}"#, json!(8)),
        (r#"{"jsonrpc":"2.0","id":9}"#, json!(9)),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, Value::Null),
        ("1", Value::Null),
        ("null", Value::Null),
        ("\"x\"", Value::Null),
    ] {
        let answer = client.post(body).await;
        assert_eq!((answer.status, answer.code()), (400, -32600), "{body}: {answer:?}");
        assert_eq!(answer.json()["id"], id, "{body}");
    }
}

#[tokio::test]
async fn keys_that_stand_twice_are_refused_however_they_are_written() {
    let backend = FakeBackend::named("a").tool("echo").tool("other").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"ping","m\u0065thod":"tools/list"}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"a__echo","name":"a__other"}}"#,
        r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"a__echo","n\u0061me":"a__other"}}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"a__echo"},"params":{"name":"a__other"}}"#,
    ] {
        let answer = client.post(body).await;
        assert_eq!((answer.status, answer.code()), (400, -32600), "{body}: {answer:?}");
        assert!(answer.json()["id"].is_i64(), "{answer:?}");
    }

    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn ids_come_back_as_they_were_written() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for id in ["0", "-1", "9223372036854775807", "18446744073709551615", "\"\"", "\"\\u0041\"", "\"é\""] {
        let answer = client.post(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        assert_eq!(String::from_utf8_lossy(&answer.body), expected);
    }
}

#[tokio::test]
async fn unknown_methods_and_notifications_are_told_apart() {
    let (backend, proxy) = echo().await;
    let client = proxy.client().await;

    for method in
        ["server/discover", "subscriptions/listen", "tasks/get", "tools/Call", "", "notifications/initialized"]
    {
        let answer = client.ask(method, json!({})).await;
        assert_eq!((answer.status, answer.code()), (200, -32601), "{method}: {answer:?}");
    }

    for body in [
        r#"{"jsonrpc":"2.0","method":"notifications/unheard_of"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":77}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a__echo"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
    ] {
        let answer = client.post(body).await;
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{body}: {answer:?}");
    }
    assert!(backend.calls().is_empty());
}

#[tokio::test]
async fn a_batch_is_answered_message_by_message_in_the_one_version_that_has_them() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client_of("2025-03-26").await;

    let answer = client
        .post(
            r#" [{"jsonrpc":"2.0","id":"a","method":"ping"}, {"jsonrpc":"2.0","method":"notifications/initialized"},
                {"jsonrpc":"2.0","id":60,"method":"tools/call","params":{"name":"a__echo"}},
                {"jsonrpc":"2.0","id":61,"method":"tools/call","params":{"name":"nope"}},
                {"jsonrpc":"2.0","id":62,"method":"tools/list"}, {"jsonrpc":"2.0","id":9,"result":{}}]"#,
        )
        .await;

    let messages = answer.messages();
    let answer_to = |id: Value| messages.iter().find(|message| message["id"] == id).unwrap();
    assert_eq!((answer.status, messages.len()), (200, 4), "{messages:?}");
    assert_eq!(answer_to(json!("a"))["result"], json!({}));
    assert_eq!(answer_to(json!(60))["result"], spoken("echo"));
    assert_eq!(answer_to(json!(61))["error"]["code"], -32602);
    assert_eq!(answer_to(json!(62))["result"]["tools"][0]["name"], "a__echo");
    for (method, outcome) in
        [("ping", "ok"), ("tools/call", "ok"), ("tools/call", "rpc_error"), ("tools/list", "ok"), ("_OTHER", "ok")]
    {
        let series = format!("toolgate_requests_total{{era=\"legacy\",method=\"{method}\",outcome=\"{outcome}\"}}");
        assert_eq!(proxy.metric(&series).await, Some(1.0), "{series}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_batch_that_its_client_leaves_counts_as_left() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client_of("2025-03-26").await;

    let running = client.start_post(
        r#"[{"jsonrpc":"2.0","id":75,"method":"ping"},
            {"jsonrpc":"2.0","id":76,"method":"tools/call","params":{"name":"a__slow"}}]"#,
    );
    let call = backend.next_call().await;
    running.abort();
    within(call.disconnected()).await;

    let count = |method, outcome| {
        format!("toolgate_requests_total{{era=\"legacy\",method=\"{method}\",outcome=\"{outcome}\"}}")
    };
    proxy.until_metric(&count("tools/call", "client_closed"), 1.0).await;
    assert_eq!(proxy.metric(&count("ping", "ok")).await, Some(1.0));
}

#[tokio::test]
async fn a_batch_carries_answers_that_stream() {
    let backend = FakeBackend::named("a").held("slow").tool("echo").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client_of("2025-03-26").await;
    let batch = r#"[{"jsonrpc":"2.0","id":70,"method":"tools/call","params":{"name":"a__slow"}},
                    {"jsonrpc":"2.0","id":71,"method":"tools/call","params":{"name":"a__echo"}}]"#;

    let running = client.start_post(batch);
    let stream = backend.next_call().await.stream();
    stream.event(&json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} })).await;
    stream.finish().await;
    let messages = running.await.unwrap().messages();

    assert_eq!(messages.len(), 3, "{messages:?}");
    assert_eq!(messages.iter().filter(|message| message["result"] == spoken("slow")).count(), 1);
    assert_eq!(messages.iter().filter(|message| message["result"] == spoken("echo")).count(), 1);
}

#[tokio::test]
async fn a_batch_carries_json_of_many_lines() {
    let backend = FakeBackend::with_held_tool("a", "slow").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client_of("2025-03-26").await;

    let running = client.start_post(r#"[{"jsonrpc":"2.0","id":72,"method":"tools/call","params":{"name":"a__slow"}}]"#);
    let pieces = backend.next_call().await.pieces();
    for piece in ["{\r\n \"jsonrpc\": \"2.0\",\n", " \"id\": 72,\r", "\n \"result\":\n\n {\"content\": []}\n}", "\n"] {
        pieces.send(piece).await;
    }
    drop(pieces);
    let answer = running.await.unwrap();

    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let data: Vec<_> =
        text.strip_suffix("\n\n").unwrap().lines().map(|line| line.strip_prefix("data: ").unwrap()).collect();
    let message: Value = serde_json::from_str(&data.join("\n")).unwrap();
    assert_eq!(message, json!({ "jsonrpc": "2.0", "id": 72, "result": { "content": [] } }));
}

#[tokio::test]
async fn a_client_that_leaves_within_a_batch_is_seen_to_by_the_backend() {
    let backend = FakeBackend::named("a").held("slow").tool("echo").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client_of("2025-03-26").await;
    let batch = r#"[{"jsonrpc":"2.0","id":73,"method":"tools/call","params":{"name":"a__slow"}},
                    {"jsonrpc":"2.0","id":74,"method":"tools/call","params":{"name":"a__echo"}}]"#;

    let running = client.start_post(batch);
    let call = backend.next_call().await;
    running.abort();

    within(call.disconnected()).await;
    proxy.until_metric("toolgate_upstream_inflight{backend=\"a\"}", 0.0).await;
    assert_eq!(backend.calls().len(), 1);
}

#[tokio::test]
async fn a_batch_of_notifications_is_accepted() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client_of("2025-03-26").await;

    let answer = client
        .post(r#"[{"jsonrpc":"2.0","method":"notifications/initialized"},{"jsonrpc":"2.0","id":1,"result":{}}]"#)
        .await;

    assert_eq!((answer.status, answer.body.len()), (202, 0));
}

#[tokio::test]
async fn a_batch_is_refused_where_there_are_none() {
    let (_backend, proxy) = echo().await;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;

    for version in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        let answer = proxy.client_of(version).await.post(batch).await;
        assert_eq!((answer.status, answer.code()), (400, -32600), "{version}: {answer:?}");
    }

    assert_eq!(proxy.stranger().post(batch).await.status, 400);
    let client = proxy.client_of("2025-03-26").await;
    for empty_or_wrong in ["[]", "[1]", "[{}]", r#"[{"jsonrpc":"2.0","id":1,"method":"initialize"}]"#] {
        assert_eq!(client.post(empty_or_wrong).await.status, 400, "{empty_or_wrong}");
    }
}

#[tokio::test]
async fn a_batch_of_a_modern_client_is_refused_as_one() {
    let (_backend, proxy) = echo().await;
    let client = proxy.stranger();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } }]).to_string();

    let announced = client.with_header("mcp-protocol-version", "2026-07-28").post(batch.clone()).await;
    let routed = client.with_header("mcp-method", "tools/list").post(batch.clone()).await;

    for answer in [announced, routed] {
        assert_eq!((answer.status, answer.code()), (400, -32600), "{answer:?}");
        assert!(answer.message().contains("batches are not part of 2026-07-28"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_version_that_is_no_string_is_refused() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for version in ["20260728", "null", "[\"2026-07-28\"]", "\"\\ud800\""] {
        let meta = format!(r#"{{"io.modelcontextprotocol/protocolVersion":{version}}}"#);
        let body = format!(r#"{{"jsonrpc":"2.0","id":"m","method":"tools/list","params":{{"_meta":{meta}}}}}"#);
        let answer = client.post(body).await;
        assert_eq!((answer.status, answer.code()), (400, -32602), "{version}: {answer:?}");
        assert!(answer.message().contains("`io.modelcontextprotocol/protocolVersion` must be a string"), "{answer:?}");
    }
}

#[tokio::test]
async fn messages_of_an_unknown_version_are_told_which_versions_are_served() {
    let (_backend, proxy) = echo().await;
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2027-01-01",
        "io.modelcontextprotocol/clientCapabilities": {},
    });

    for method in ["tools/list", "server/discover", "initialize", "nonsense"] {
        let client =
            proxy.stranger().with_header("mcp-protocol-version", "2027-01-01").with_header("mcp-method", method);
        let body = json!({ "jsonrpc": "2.0", "id": "m-1", "method": method, "params": { "_meta": meta } });
        let answer = client.post(body.to_string()).await;
        assert_eq!((answer.status, answer.code()), (400, -32022), "{method}: {answer:?}");
        assert_eq!(answer.json()["id"], "m-1");
        let supported = &answer.error()["data"]["supported"];
        assert_eq!(*supported, json!(["2026-07-28"]));
        assert_eq!(answer.error()["data"]["requested"], "2027-01-01");
    }
}

#[tokio::test]
async fn modern_clients_have_no_get_and_no_delete() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await.with_header("mcp-protocol-version", "2026-07-28");

    for verb in [Method::GET, Method::DELETE] {
        let answer = client.send(client.request(verb, "")).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    }
}

#[tokio::test]
async fn headers_that_come_twice_are_refused() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for name in ["Mcp-Session-Id", "MCP-Protocol-Version"] {
        let mut request = client.request(Method::POST, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        let value = client.session.clone().unwrap().parse().unwrap();
        request.headers_mut().append(name, value);
        request.headers_mut().append(name, "2025-11-25".parse().unwrap());
        let answer = client.send(request).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.message().contains(&format!("`{name}`")), "{answer:?}");
    }
}

#[tokio::test]
async fn an_unknown_version_header_is_refused() {
    let (_backend, proxy) = echo().await;
    let client = proxy.client().await;

    for version in ["1999-01-01", "latest", ""] {
        let client = client.with_header("mcp-protocol-version", version);
        let answer = client.ask("ping", json!({})).await;
        assert_eq!((answer.status, answer.code()), (400, -32600), "{version}: {answer:?}");
        assert!(answer.message().contains("2025-06-18, 2025-11-25"), "{answer:?}");
        assert!(answer.json()["id"].is_number(), "{answer:?}");
    }
    for verb in [Method::GET, Method::DELETE] {
        let client = client.with_header("mcp-protocol-version", "1999-01-01");
        let answer = client.send(client.request(verb, "")).await;
        assert_eq!((answer.status, answer.code()), (400, -32600), "{answer:?}");
    }
    for version in ["2025-03-26", "2025-11-25"] {
        let answer = client.with_header("mcp-protocol-version", version).ask("ping", json!({})).await;
        assert_eq!(answer.status, 200, "{version}: {answer:?}");
    }
}

#[tokio::test]
async fn without_a_session_an_unknown_version_may_be_of_the_modern_era() {
    let (_backend, proxy) = echo().await;

    let answer = proxy.stranger().with_header("mcp-protocol-version", "1999-01-01").ask("ping", json!({})).await;

    assert_eq!((answer.status, answer.code()), (400, -32022), "{answer:?}");
}
