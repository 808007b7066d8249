//! Requests that one backend answers, and what belongs to them: logging, progress, cancelling.

use serde_json::{Value, json};

use super::{everything, resource, world};
use crate::support::backend::spoken;
use crate::support::modern_client::MODERN;
use crate::support::{FakeBackend, FakeModern, ModernClient, Setup, TestProxy, within};

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_reaches_the_owner_under_its_own_name_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for backend in ["old", "new"] {
            let params = json!({ "name": format!("{backend}__echo"), "arguments": { "a": 1 } });
            let result = client.result("tools/call", params).await;
            assert_eq!(result["content"], spoken("echo")["content"]);
        }
    }

    let old: Vec<_> = world.old.all("tools/call").iter().map(|seen| seen.json()["params"]["name"].clone()).collect();
    let new: Vec<_> = world.new.calls().iter().map(|seen| seen.json()["params"]["name"].clone()).collect();
    assert_eq!((old, new), (vec![json!("echo"); 2], vec![json!("echo"); 2]));
    for seen in world.old.all("tools/call") {
        assert!(!String::from_utf8_lossy(&seen.body).contains("io.modelcontextprotocol"), "{seen:?}");
        assert!(!seen.headers.keys().any(|name| matches!(name.as_str(), "mcp-method" | "mcp-name")), "{seen:?}");
    }
}

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_of_an_unknown_tool_is_the_same_error_in_both_eras() {
    let world = world().await;

    for client in world.clients().await {
        let answer = client.ask("tools/call", json!({ "name": "old__nope" })).await;
        assert_eq!((answer.status, answer.code()), (200, -32602));
        assert_eq!(answer.message(), "Unknown tool: old__nope");
    }
    assert!(world.old.all("tools/call").is_empty());
}

/// Method table: `tools/call`.
#[tokio::test]
async fn tools_call_beyond_a_limit_is_refused_in_the_words_of_each_era() {
    let backend = FakeBackend::with_tool("a", "echo").await;
    let limits = "[{ name: told, tools: [\"*\"], rate: 1/h }]";
    let proxy = Setup::fronting(&[&backend]).section("limits", limits).start().await;
    let (legacy, modern) = (proxy.client().await, proxy.modern());
    proxy.until_tools(&backend, 1).await;
    legacy.call("a__echo").await.result();
    modern.call("a__echo").await;

    let (to_legacy, to_modern) = (legacy.call("a__echo").await, modern.call("a__echo").await);

    assert_eq!((&to_legacy.result()["isError"], &to_legacy.result()["resultType"]), (&json!(true), &Value::Null));
    assert_eq!((&to_modern.result()["isError"], &to_modern.result()["resultType"]), (&json!(true), &json!("complete")));
}

/// Method table: `prompts/get`.
#[tokio::test]
async fn prompts_get_reaches_the_owner_under_its_own_name_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for backend in ["old", "new"] {
            let result = client.result("prompts/get", json!({ "name": format!("{backend}__greet") })).await;
            assert_eq!(result["messages"][0]["content"]["text"], "prompt greet");
        }
        let unknown = client.ask("prompts/get", json!({ "name": "old__nope" })).await;
        assert_eq!((unknown.status, unknown.code()), (200, -32602));
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_goes_by_list_and_by_template_in_all_four_cells() {
    let world = world().await;

    for client in world.clients().await {
        for uri in ["old:1", "new:1", "old:7/part", "new:7/part"] {
            let result = client.result("resources/read", json!({ "uri": uri })).await;
            assert_eq!(result["contents"], json!([{ "uri": uri, "text": format!("read {uri}") }]));
            if client.is_modern() {
                assert!(result["ttlMs"].is_u64() && result["cacheScope"].is_string(), "{result}");
            }
        }
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_of_what_nobody_has_is_an_error_of_the_clients_own_era() {
    let world = world().await;
    for client in world.clients().await {
        // Of neither; of the legacy backend's template, which does not have it; of the modern one's.
        for uri in ["nobody:1", "old:9/part", "new:9/part"] {
            let answer = client.ask("resources/read", json!({ "uri": uri })).await;
            if uri != "nobody:1" {
                assert_eq!(answer.response()["error"], Value::Null, "{answer:?}");
                continue;
            }
            assert_eq!(answer.status, 200);
            assert_eq!(answer.code(), if client.is_modern() { -32602 } else { -32002 });
            assert_eq!(answer.error()["data"]["uri"], uri);
        }
    }
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_translates_the_owners_own_not_found() {
    let old = FakeBackend::named("old").tool("x").resource(&resource("old:1")).declares(everything());
    let old = old.holding("resources/read").start().await;
    let new = FakeModern::named("new").tool("x").resource(&resource("new:1")).holding("resources/read").start().await;
    let proxy = Setup::fronting(&[&old]).backend(&new, "").start().await;
    proxy.until_tools(&old, 1).await;
    proxy.until_tools(&new, 1).await;
    let (legacy, modern) = (proxy.client().await, proxy.modern());
    let gone = |uri: &str, code: i64| json!({ "code": code, "message": "gone", "data": { "uri": uri } });

    let body = legacy.message("resources/read", &json!({ "uri": "new:1" }));
    let (answer, ()) = tokio::join!(legacy.post(body), async { new.next_call().await.error(&gone("new:1", -32602)) });
    assert_eq!((answer.code(), &answer.error()["data"]["uri"]), (-32002, &json!("new:1")));

    let asked = modern.ask("resources/read", json!({ "uri": "old:1" }));
    let no_data = json!({ "code": -32002, "message": "gone" });
    let (answer, ()) = tokio::join!(asked, async { old.next_call().await.error(&no_data) });
    assert_eq!((answer.code(), &answer.error()["data"]["uri"]), (-32602, &json!("old:1")));
    assert_eq!(answer.message(), "gone");
}

/// Method table: `resources/read`.
#[tokio::test]
async fn resources_read_looks_further_though_the_first_backend_says_something_before_it_does_not_have_it() {
    let declared = json!({ "tools": {}, "resources": {} });
    let first =
        FakeBackend::named("first").tool("x").declares(declared.clone()).holding("resources/read").start().await;
    let second = FakeBackend::named("second").tool("x").declares(declared).holding("resources/read").start().await;
    let proxy = TestProxy::fronting(&[&first, &second]).await;
    proxy.until_tools(&first, 1).await;
    proxy.until_tools(&second, 1).await;
    let client = proxy.modern().at_level("debug");

    let (answer, (), ()) = tokio::join!(
        client.ask("resources/read", json!({ "uri": "linked:1" })),
        async {
            let call = first.next_call().await;
            let id: Value = serde_json::from_str(&call.id()).unwrap();
            let stream = call.stream();
            stream.event(&log("info")).await;
            let error = json!({ "code": -32002, "message": "no" });
            stream.event(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
        },
        async {
            let contents = json!([{ "uri": "linked:1", "text": "here" }]);
            second.next_call().await.result(&json!({ "contents": contents }));
        },
    );

    assert_eq!(answer.result()["contents"][0]["text"], "here");
}

/// Method table: `completion/complete`.
#[tokio::test]
async fn completion_complete_reaches_the_owner_of_prompt_or_template_in_all_four_cells() {
    let world = world().await;
    let argument = json!({ "name": "a", "value": "x" });

    for client in world.clients().await {
        for (reference, values) in [
            (json!({ "type": "ref/prompt", "name": "old__greet" }), "completed"),
            (json!({ "type": "ref/prompt", "name": "new__greet" }), "done"),
            (json!({ "type": "ref/resource", "uri": "old:{x}/part" }), "completed"),
            (json!({ "type": "ref/resource", "uri": "new:{x}/part" }), "done"),
        ] {
            let params = json!({ "ref": reference, "argument": argument });
            let result = client.result("completion/complete", params).await;
            assert_eq!(result["completion"]["values"], json!([values]), "{reference}");
        }
        for bad in [
            json!({ "type": "ref/prompt", "name": "old__nope" }),
            json!({ "type": "ref/resource", "uri": "nobody:{y}" }),
            json!({ "type": "ref/tool", "name": "old__echo" }),
            json!(7),
        ] {
            let answer = client.ask("completion/complete", json!({ "ref": bad, "argument": argument })).await;
            assert_eq!(answer.code(), -32602, "{bad}");
        }
    }
    let references: Vec<_> =
        world.old.all("completion/complete").iter().map(|seen| seen.json()["params"]["ref"].clone()).collect();
    assert_eq!(references[0], json!({ "type": "ref/prompt", "name": "greet" }));
}

/// Method table: `logging/setLevel`.
#[tokio::test]
async fn logging_set_level_reaches_sessions_opened_later_and_every_request_to_a_modern_backend() {
    let world = world().await;
    let client = world.proxy.client().await;

    assert_eq!(client.ask("logging/setLevel", json!({ "level": "notice" })).await.result(), json!({}));
    assert!(world.old.by_clients("logging/setLevel").is_empty());
    client.call("old__echo").await.result();
    client.call("new__echo").await.result();
    client.ask("logging/setLevel", json!({ "level": "error" })).await.result();
    world.old.until(|old| old.by_clients("logging/setLevel").len() == 2).await;
    client.call("new__echo").await.result();

    let levels: Vec<_> =
        world.old.by_clients("logging/setLevel").iter().map(|s| s.json()["params"]["level"].clone()).collect();
    assert_eq!(levels, ["notice", "error"]);
    let key = "io.modelcontextprotocol/logLevel";
    let levels: Vec<_> = world.new.calls().iter().map(|s| s.json()["params"]["_meta"][key].clone()).collect();
    assert_eq!(levels, ["notice", "error"]);
    assert_eq!(client.ask("logging/setLevel", json!({ "level": "loud" })).await.code(), -32602);
}

/// Method table: `logging/setLevel`.
#[tokio::test]
async fn logging_set_level_is_unknown_to_modern_clients() {
    let world = world().await;

    let answer = world.proxy.modern().ask("logging/setLevel", json!({ "level": "info" })).await;

    assert_eq!((answer.status, answer.code()), (404, -32601));
}

fn log(level: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } })
}

/// Method table: `notifications/message`.
#[tokio::test]
async fn notifications_message_comes_on_the_calls_own_stream_to_those_who_asked_for_it() {
    let world = world().await;
    for (level, expected) in [
        (None, vec![]),
        (Some("warning"), vec!["warning", "error"]),
        (Some("debug"), vec!["debug", "warning", "error"]),
    ] {
        let client = ModernClient { log_level: level, ..world.proxy.modern() };
        let (answer, ()) = tokio::join!(client.call("old__ask"), async {
            let stream = world.old.next_call().await.stream();
            for level in ["debug", "warning", "error"] {
                stream.event(&log(level)).await;
            }
            stream.finish().await;
        });

        let messages = answer.messages();
        let levels: Vec<_> = messages[..messages.len() - 1].iter().map(|m| m["params"]["level"].clone()).collect();
        assert_eq!(levels, expected, "{level:?}");
        assert_eq!(answer.result()["resultType"], "complete");
    }
    // The backend was told, in a session of this level only.
    let told: Vec<_> = world.old.all("logging/setLevel").iter().map(|s| s.json()["params"]["level"].clone()).collect();
    assert_eq!(told, ["warning", "debug"]);

    let client = world.proxy.client().await;
    let (mut opened, stream) = client.open_stream("old__ask", &world.old).await;
    stream.event(&log("debug")).await;
    assert_eq!(opened.message().await.unwrap(), log("debug"));
    stream.finish().await;
    let (mut opened, stream) = tokio::join!(client.open_call("new__ask"), async {
        let stream = world.new.next_call().await.stream();
        stream.event(&log("debug")).await;
        stream
    });
    assert_eq!(opened.message().await.unwrap(), log("debug"));
    stream.finish().await;
}

/// Method table: `notifications/progress`.
/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn notifications_progress_comes_back_under_the_clients_own_token_in_all_four_cells() {
    let world = world().await;
    for token in [json!("t"), json!(1), json!(12_345_678_901_234_567_890_u64)] {
        for client in world.clients().await {
            for backend in ["old", "new"] {
                let params = json!({ "name": format!("{backend}__ask"), "_meta": { "progressToken": token } });
                let (answer, ()) = tokio::join!(client.ask("tools/call", params), async {
                    let call = match backend {
                        "old" => world.old.next_call().await,
                        _ => world.new.next_call().await,
                    };
                    let own = call.seen.json()["params"]["_meta"]["progressToken"].clone();
                    let stream = call.stream();
                    let params = json!({ "progressToken": own, "progress": 1, "total": 2 });
                    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
                    stream.event(&progress).await;
                    stream.finish().await;
                });

                let messages = answer.messages();
                assert_eq!(messages.len(), 2, "{backend} {token} {answer:?}");
                assert_eq!(messages[0]["params"], json!({ "progressToken": token, "progress": 1, "total": 2 }));
            }
        }
    }
}

/// Method table: `notifications/cancelled`.
/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn notifications_cancelled_closes_the_stream_of_a_modern_backend() {
    let world = world().await;
    let client = world.proxy.client().await;
    let running = client.start_call("new__ask");
    let call = world.new.next_call().await;

    let id: Value = serde_json::from_str(&call.id()).unwrap();
    client.notify("notifications/cancelled", json!({ "requestId": id })).await;

    within(call.disconnected()).await;
    assert_eq!(within(running).await.unwrap().code(), 499);
}

/// Method table: `notifications/cancelled`.
#[tokio::test]
async fn notifications_cancelled_of_a_modern_client_is_taken_and_means_nothing() {
    let world = world().await;
    let client = world.proxy.modern();
    let running = client.start_call("old__ask");
    let call = world.old.next_call().await;

    let http = client.http.with_header("mcp-protocol-version", MODERN);
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let taken = http.post(body.to_string()).await;
    call.finish();

    assert_eq!((taken.status, &*taken.body), (202, &b""[..]));
    assert_eq!(within(running).await.unwrap().result()["resultType"], "complete");
    assert!(world.old.all("notifications/cancelled").is_empty());
}

/// Method table: `request ids upstream`.
#[tokio::test]
async fn request_ids_come_back_as_they_were_sent_whatever_their_type() {
    let world = world().await;
    let (legacy, modern) = (world.proxy.client().await, world.proxy.modern());

    for id in ["7", "\"7\"", "-1", "9007199254740993", "\"\\u00e9 x\""] {
        for tool in ["old__echo", "new__echo"] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
            let answer = world.proxy.client().await.post(body).await;
            assert!(String::from_utf8_lossy(&answer.body).contains(&format!("\"id\":{id}")), "{tool} {id} {answer:?}");
            let meta = modern.meta();
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","_meta":{meta}}}}}"#
            );
            let answer = modern.post(&body).await;
            assert!(String::from_utf8_lossy(&answer.body).contains(&format!("\"id\":{id}")), "{tool} {id} {answer:?}");
        }
    }
    drop(legacy);
}
