//! `tools/list`: whose tools are in it, under which names, and what it says while backends are away.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::support::backend::{definition, spoken};
use crate::support::{Client, FakeBackend, Mood, Process, Setup, TestProxy, eventually, within};

/// Listed again this often, and forgotten this long after the last good list.
const QUICK: &str = "{ refresh: 600ms, stale_for: 1h, timeout: 2s }";

/// What the list says about backends whose tools are missing or stale.
async fn incomplete(client: &Client) -> Value {
    client.list().await["_meta"]["toolgate/incompleteBackends"].clone()
}

/// Complaint 6: Pagination dropped.
#[tokio::test]
async fn all_pages_of_all_backends_are_listed_in_order() {
    let b = FakeBackend::named("b").tool("z").tool("y").tool("x").tool("w").tool("v").pages_of(2).start().await;
    let a = FakeBackend::named("a").tool("2").tool("1").pages_of(1).start().await;
    let proxy = TestProxy::fronting(&[&b, &a]).await;
    let client = proxy.client().await;

    let list = client.list().await;

    let names: Vec<_> = list["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b__z", "b__y", "b__x", "b__w", "b__v", "a__2", "a__1"]);
    assert_eq!(list.get("nextCursor"), None);
    assert_eq!(list.get("_meta"), None);
}

#[tokio::test]
async fn the_list_is_the_same_bytes_until_something_changed() {
    let a = FakeBackend::named("a").tool("x").tool("y").start().await;
    let b = FakeBackend::named("b").tool("x").start().await;
    let proxy = Setup::fronting(&[&a, &b]).section("catalog", QUICK).start().await;
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

    let first = proxy.client().await.post(list).await;
    let seen = a.by_gateway("tools/list").len();
    a.until(|a| a.by_gateway("tools/list").len() > seen + 1).await;
    let second = proxy.client().await.post(list).await;

    assert_eq!(first.body, second.body);
}

/// Complaint 7: Fields lost by decode/re-encode.
#[tokio::test]
async fn a_definition_is_the_backends_own_but_for_the_name() {
    let odd = "{ \"inputSchema\" : {\"type\":\"object\",\"properties\":{\"n\":{\"maximum\":1.0e2,\"name\":\"x\"}}},\t\
               \"x-\\u0061\":\"\\/é\", \"name\":\"o\\u0064d\",\"description\":\"\\u00e9\" , \"title\":\"T\"}";
    let backend = FakeBackend::named("a").defined("odd", odd).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;

    let list = client.ask("tools/list", json!({})).await;

    let expected = odd.replace("\"o\\u0064d\"", "\"a__odd\"");
    assert!(String::from_utf8_lossy(&list.body).contains(&expected), "{list:?}");
    assert_eq!(client.call("a__odd").await.result(), spoken("odd"));
}

#[tokio::test]
async fn tools_are_shown_as_the_configuration_says() {
    let backend = FakeBackend::named("a").tool("q").tool("read").tool("admin_x").tool("write").start().await;
    let keys = "prefix: \"my.\", tools: { allow: [q, \"r*\", \"admin_*\"], deny: [\"admin_*\"], \
                rename: { q: search }, describe: { read: \"Reads \\\"it\\\".\" } }";
    let proxy = Setup::new().backend(&backend, keys).start().await;
    let client = proxy.client().await;

    let list = client.list().await;

    assert_eq!(client.tools().await, ["my.search", "my.read"]);
    assert_eq!(list["tools"][0]["description"], "Does q.");
    assert_eq!(list["tools"][1]["description"], "Reads \"it\".");
    assert_eq!(client.call("my.search").await.result(), spoken("q"));
    for hidden in ["my.q", "q", "my.admin_x", "my.write", "admin_x"] {
        assert_eq!(client.call(hidden).await.code(), -32602, "{hidden}");
    }
}

#[tokio::test]
async fn a_tool_without_a_description_can_be_given_one() {
    let backend = FakeBackend::named("a").defined("x", r#"{"name":"x","inputSchema":{"type":"object"}}"#).start().await;
    let proxy = Setup::new().backend(&backend, "tools: { describe: { x: new } }").start().await;

    let list = proxy.client().await.list().await;

    assert_eq!(list["tools"], json!([{ "name": "a__x", "description": "new", "inputSchema": { "type": "object" } }]));
}

/// Complaint 9: Name collisions, length and charset limits.
#[tokio::test]
async fn names_are_neither_cut_nor_respelled_and_those_that_no_client_takes_are_left_out() {
    let longest = "x".repeat(128 - "a__".len());
    let (like_it, too_long) = (format!("{}y", &longest[1..]), format!("{longest}x"));
    let own = [&*longest, &*like_it, &*too_long, "w\u{f6}rk", "a/b"];
    let backend = own.iter().fold(FakeBackend::named("a"), |backend, name| backend.tool(name)).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    proxy.until_tools(&backend, 2).await;

    let (legacy, modern) = (proxy.client().await, proxy.modern());
    assert_eq!(legacy.tools().await, [format!("a__{longest}"), format!("a__{like_it}")]);
    for name in [&longest, &like_it] {
        assert_eq!(legacy.call(&format!("a__{name}")).await.result(), spoken(name));
        assert_eq!(modern.call(&format!("a__{name}")).await.result()["content"], spoken(name)["content"]);
    }
    assert_eq!(legacy.call(&format!("a__{too_long}")).await.code(), -32602);
    assert_eq!(proxy.metric("toolgate_catalog_refused_tools{backend=\"a\"}").await, Some(3.0));
}

/// Complaint 9: Name collisions, length and charset limits.
#[tokio::test]
async fn of_two_backends_with_one_name_the_first_has_it() {
    let first = FakeBackend::named("first").held("x").tool("y").start().await;
    let second = FakeBackend::named("second").tool("x").tool("z").start().await;
    let setup = Setup::new().backend(&first, "prefix: \"\"").backend(&second, "prefix: \"\"");
    let proxy = setup.start().await;
    let client = proxy.client().await;

    let tools = client.tools().await;
    let (running, call) = client.pending_call("x", &first).await;
    call.finish();

    assert_eq!(tools, ["x", "y", "z"]);
    assert_eq!(within(running).await.unwrap().result(), spoken("x"));
    assert_eq!(client.call("z").await.result(), spoken("z"));
    assert_eq!(proxy.metric("toolgate_catalog_collisions").await, Some(1.0));
    let left_out = proxy.page("/catalog").await.json()["backends"][1]["leftOut"].clone();
    assert_eq!(left_out, json!([{ "tool": "x", "why": "backend `first` already has a tool `x`", "owner": "first" }]));
}

#[tokio::test]
async fn a_name_listed_twice_is_shown_once() {
    let backend = FakeBackend::named("a").tool("x").tool("y").tool("x").pages_of(1).start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    assert_eq!(proxy.client().await.tools().await, ["a__x", "a__y"]);
}

#[tokio::test]
async fn bad_definitions_harm_no_others() {
    let mut builder = FakeBackend::named("a").tool("good");
    for bad in [
        "7",
        "null",
        "[]",
        "{}",
        r#"{"name":"x1"}"#,
        r#"{"name":2,"inputSchema":{"type":"object"}}"#,
        r#"{"name":"x3","inputSchema":null}"#,
        r#"{"name":"x4","inputSchema":{"type":"string"}}"#,
        r#"{"name":"x5","inputSchema":{}}"#,
        r#"{"name":"x6","name":"x7","inputSchema":{"type":"object"}}"#,
        r#"{"name":"x8","description":5,"inputSchema":{"type":"object"}}"#,
        r#"{"name":"x9","inputSchema":{"type":"object"},"outputSchema":[]}"#,
        r#"{"name":"x10","inputSchema":{"type":"object"},"annotations":1}"#,
        &definition(""),
        &definition("has space"),
        &definition("sl/ash"),
        &definition("colon:x"),
        &definition("é"),
        &definition(&"n".repeat(126)),
    ] {
        builder = builder.defined("bad", bad);
    }
    let backend = builder.tool("also_good").start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    let tools = proxy.client().await.tools().await;

    assert_eq!(tools, ["a__good", "a__also_good"]);
    assert_eq!(proxy.metric("toolgate_catalog_refused_tools{backend=\"a\"}").await, Some(19.0));
}

#[tokio::test]
async fn there_is_one_page_and_no_cursor_for_another() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;

    let answer = proxy.client().await.ask("tools/list", json!({ "cursor": "1" })).await;

    assert_eq!((answer.status, answer.code()), (200, -32602));
}

/// Complaint 4: Silent partial catalogs.
#[tokio::test]
async fn the_last_good_list_is_served_while_a_backend_is_away() {
    let a = FakeBackend::with_tool("a", "x").await;
    let b = FakeBackend::with_tool("b", "y").await;
    let proxy = Setup::fronting(&[&a, &b]).section("catalog", QUICK).start().await;
    let client = proxy.client().await;

    a.set_mood(Mood::Status(503));
    eventually(async || incomplete(&client).await == json!([{ "name": "a", "state": "stale" }])).await;
    let away = client.tools().await;
    a.set_mood(Mood::Well);
    a.add_tool("new");
    eventually(async || incomplete(&client).await == Value::Null).await;

    assert_eq!(away, ["a__x", "b__y"]);
    assert_eq!(client.tools().await, ["a__x", "a__new", "b__y"]);
}

/// Complaint 4: Silent partial catalogs.
#[tokio::test]
async fn the_tools_of_a_backend_go_once_it_was_away_too_long() {
    let a = FakeBackend::with_tool("a", "x").await;
    let b = FakeBackend::with_tool("b", "y").await;
    let catalog = "{ refresh: 600ms, stale_for: 1s }";
    let proxy = Setup::fronting(&[&a, &b]).section("catalog", catalog).start().await;
    let client = proxy.client().await;
    assert_eq!(client.tools().await, ["a__x", "b__y"]);

    a.set_mood(Mood::LoginPage(200));

    eventually(async || client.tools().await == ["b__y"]).await;
    assert_eq!(incomplete(&client).await, json!([{ "name": "a", "state": "missing" }]));
    // Its prefix still tells whose tool that was: away is not the same as unknown.
    let answer = client.call("a__x").await;
    assert_eq!(answer.code(), 503);
    assert!(answer.message().contains("backend `a` has been unavailable"), "{answer:?}");
}

#[tokio::test]
async fn a_backend_that_comes_late_is_listed_then() {
    let a = FakeBackend::named("a").tool("x").mood(Mood::Closing).start().await;
    let b = FakeBackend::with_tool("b", "y").await;
    let proxy = Setup::fronting(&[&a, &b]).section("catalog", QUICK).start().await;
    let client = proxy.client().await;
    assert_eq!(client.tools().await, ["b__y"]);

    a.set_mood(Mood::Well);

    eventually(async || client.tools().await == ["a__x", "b__y"]).await;
}

/// Complaint 3: One bad backend breaks or empties everything.
#[tokio::test]
async fn sick_backends_neither_delay_nor_empty_the_list_of_others() {
    let (url, _port) = FakeBackend::dead();
    let sick = [
        ("stalled", Mood::Stalled),
        ("html", Mood::LoginPage(200)),
        ("login", Mood::LoginPage(401)),
        ("failing", Mood::Status(500)),
        ("closing", Mood::Closing),
        ("same", Mood::NeverEnding { new_cursors: false }),
        ("new", Mood::NeverEnding { new_cursors: true }),
    ];
    let mut setup = Setup::new().backend_at("dead", &url, "");
    let mut fakes = Vec::new();
    for (name, mood) in sick {
        let fake = FakeBackend::named(name).tool("x").mood(mood).start().await;
        setup = setup.backend(&fake, "");
        fakes.push(fake);
    }
    let well = FakeBackend::with_tool("well", "y").await;
    let proxy = setup.backend(&well, "").start().await;
    // The first of all clients waits for the lists, for a second at most.
    let client = proxy.client().await;

    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(client.tools().await, ["well__y"]);
    }
    let took = started.elapsed() / 5;

    assert!(took < Duration::from_millis(300), "{took:?} each");
    assert_eq!(client.call("well__y").await.result(), spoken("y"));
    let named: Vec<_> = incomplete(&client).await.as_array().unwrap().iter().map(|b| b["name"].clone()).collect();
    assert_eq!(named, ["dead", "stalled", "html", "login", "failing", "closing", "same", "new"]);
}

#[tokio::test]
async fn the_first_client_waits_a_second_at_most() {
    let stalled = FakeBackend::named("stalled").tool("x").mood(Mood::Stalled).start().await;
    let well = FakeBackend::with_tool("well", "y").await;
    let proxy = TestProxy::fronting(&[&stalled, &well]).await;

    let started = Instant::now();
    let client = proxy.client().await;
    let took = started.elapsed();

    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(client.tools().await, ["well__y"]);
}

#[tokio::test]
async fn the_first_client_is_given_a_whole_list() {
    for _ in 0..10 {
        let backend = FakeBackend::named("a").tool("x").tool("y").tool("z").pages_of(1).start().await;
        let proxy = TestProxy::fronting(&[&backend]).await;
        assert_eq!(proxy.client().await.tools().await.len(), 3);
    }
}

#[tokio::test]
async fn a_list_that_is_too_long_counts_as_failed() {
    let many = FakeBackend::named("many").tool("1").tool("2").tool("3").pages_of(1).start().await;
    let large =
        FakeBackend::named("large").defined("x", &definition("x").replace("Does", &"D".repeat(5000))).start().await;
    let well = FakeBackend::with_tool("well", "y").await;
    let catalog = "{ refresh: 1h, max_tools: 2, max_bytes: 4KiB }";
    let proxy = Setup::fronting(&[&many, &large, &well]).section("catalog", catalog).start().await;
    let client = proxy.client().await;

    assert_eq!(client.tools().await, ["well__y"]);
    let pages = proxy.page("/backends").await.json();
    assert!(pages["backends"][0]["listing"]["failure"].as_str().unwrap().contains("max_tools"), "{pages}");
    let most = "longer than 4096 bytes, the most that `catalog.max_bytes` allows";
    assert!(pages["backends"][1]["listing"]["failure"].as_str().unwrap().contains(most), "{pages}");
}

#[tokio::test]
async fn a_forgotten_session_of_the_gateways_own_costs_no_list() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::fronting(&[&backend]).section("catalog", QUICK).start().await;
    let client = proxy.client().await;

    backend.forget_everything();
    backend.add_tool("new");
    eventually(async || client.tools().await == ["a__x", "a__new"]).await;

    assert_eq!(proxy.metric("toolgate_catalog_refreshes_total{backend=\"a\",result=\"failed\"}").await, Some(0.0));
}

#[tokio::test]
async fn several_who_ask_for_what_nobody_knows_cause_one_look() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.client().await;
    eventually(async || proxy.metric("toolgate_catalog_age_seconds{backend=\"a\"}").await >= Some(0.6)).await;
    let before = backend.by_gateway("tools/list").len();

    let calls: Vec<_> = (0..20).map(|_| client.start_call("a__nope")).collect();
    for call in calls {
        assert_eq!(within(call).await.unwrap().code(), -32602);
    }

    let looks = backend.by_gateway("tools/list").len() - before;
    assert!(looks <= 2, "{looks} looks");
}

#[tokio::test]
async fn long_descriptions_are_shortened_where_that_is_asked_for() {
    let long = "Searches the handbook for words, and for words like them. ".repeat(20);
    let definition =
        |text: &str| json!({ "name": "x", "description": text, "inputSchema": { "type": "object" } }).to_string();
    let backend = FakeBackend::named("a").defined("x", &definition(&long)).tool("y").start().await;
    let other = FakeBackend::named("b").defined("x", &definition(&"\u{e9}\u{1f600}".repeat(50))).start().await;
    let setup = Setup::new()
        .backend(&backend, "tools: { max_description: 40 }")
        .backend(&other, "tools: { max_description: 40, describe: { z: z } }");
    let proxy = setup.start().await;
    let client = proxy.client().await;

    let list = client.list().await;

    let shown = |name: &str| {
        let tool = list["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == name).unwrap();
        tool["description"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(shown("a__x"), "Searches the handbook for words, and…");
    assert_eq!(shown("b__x"), "\u{e9}\u{1f600}".repeat(20)[..].chars().take(39).collect::<String>() + "…");
    assert!(shown("a__y").chars().count() <= 40);
}

#[tokio::test]
async fn what_the_list_costs_is_told_and_so_is_that_it_is_too_much() {
    let (a, b) = (FakeBackend::with_tool("a", "x").await, FakeBackend::with_tool("b", "y").await);
    let gateway = Process::start(&Setup::fronting(&[&a, &b]).section("catalog", "{ refresh: 1h, budget: 64B }")).await;
    eventually(async || gateway.client().await.tools().await.len() == 2).await;

    let page = gateway.page(Method::GET, "/catalog").await.json();

    let bytes = |of: &Value| of["toolBytes"].as_u64().unwrap();
    let parts = page["backends"].as_array().unwrap();
    assert_eq!(bytes(&page), parts.iter().map(bytes).sum::<u64>());
    assert_eq!(page["toolTokensEstimated"], bytes(&page).div_ceil(4));
    assert_eq!(page["toolBudgetBytes"], 64);
    assert_eq!(gateway.metric("toolgate_catalog_budget_bytes").await, Some(64.0));
    assert_eq!(gateway.metric("toolgate_catalog_backend_bytes{backend=\"a\"}").await, Some(bytes(&parts[0]) as f64));
    gateway.logged("the list of tools has outgrown its budget").await;
}
