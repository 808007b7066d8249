//! Between a client and a backend of one era every byte stays, whatever it is: but for the tool's name on the way there, and
//! the ids of events on a legacy client's way back.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use crate::support::modern_client::MODERN;
use crate::support::{Client, FakeBackend, FakeModern, ModernClient, Setup, TestProxy, within};

/// Numbers that change when somebody takes them for floating-point ones, and others.
const NUMBERS: [&str; 10] = [
    "1e400",
    "-1E-400",
    "12345678901234567890",
    "-0",
    "1.0",
    "1E+2",
    "0.1000000000000000055511151231257827",
    "9007199254740993",
    "7",
    "-9223372036854775809",
];
/// Strings that are written in one of several ways.
const STRINGS: [&str; 10] = [
    "\"\"",
    "\"\\u00e9\"",
    "\"é\"",
    "\"e\\u0301\"",
    "\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"",
    "\"\\ud83d\\ude00 😀\"",
    "\"data: x\"",
    "\"\\u0000\\u2028\"",
    "\"\u{2028}\u{feff}\"",
    "\"id\"",
];
/// Keys that mean nothing where they stand.
const KEYS: [&str; 8] =
    ["\"z\"", "\"a\"", "\"x y\"", "\"é\"", "\"\\u0061\\u0062\"", "\"\"", "\"structuredContent\"", "\"content\""];
/// What may stand between tokens; in an event no line may end there.
const SPACES: [&str; 4] = ["", " ", "\t", "  "];
const LINES: [&str; 6] = ["", " ", "\t", "\n", "\r\n", "\r"];
/// Ids that a client may choose.
const IDS: [&str; 6] = ["0", "-7", "9007199254740993", "\"7\"", "\"\\u0041é\"", "\"\""];
/// A tool's public name, as clients may write it.
const NAMES: [&str; 4] = ["\"a__ask\"", "\"a\\u005f_ask\"", "\"\\u0061__\\u0061sk\"", "\"a__as\\u006b\""];

type Spaces = &'static [&'static str];

/// An object with these members in any order, and anything between its tokens.
fn object(members: Vec<(String, String)>, spaces: Spaces) -> impl Strategy<Value = String> {
    let gaps = vec(select(spaces), members.len() * 4 + 2);
    (Just(members).prop_shuffle(), gaps).prop_map(|(members, gaps)| {
        let mut gaps = gaps.into_iter();
        let mut gap = || gaps.next().unwrap_or("");
        let written: Vec<_> =
            members.iter().map(|(key, value)| [gap(), key, gap(), ":", gap(), value, gap()].concat()).collect();
        [gap(), "{", &written.join(","), "}", gap()].concat()
    })
}

/// Any JSON.
fn json(spaces: Spaces) -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&NUMBERS[..]).prop_map(str::to_owned),
        select(&STRINGS[..]).prop_map(str::to_owned),
        select(&["true", "false", "null", "{}", "[]", "[ ]", "{ }"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let member = (select(&KEYS[..]), inner.clone()).prop_map(|(key, value)| (key.to_owned(), value));
        prop_oneof![
            (vec(inner, 0..4), select(spaces))
                .prop_map(|(all, gap)| format!("[{}]", all.join(&format!("{gap},{gap}")))),
            vec(member, 0..4).prop_flat_map(move |members| object(members, spaces)),
        ]
    })
}

/// An object of any members but these.
fn any_object(fixed: Vec<(String, String)>, spaces: Spaces) -> impl Strategy<Value = String> {
    vec((select(&KEYS[..]), json(spaces)), 0..4).prop_flat_map(move |more| {
        let mut members = fixed.clone();
        members.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        object(members, spaces)
    })
}

fn member(key: &str, value: &str) -> (String, String) {
    (format!("\"{key}\""), value.to_owned())
}

/// A response: a result or an error, whose id takes the place of `$ID`.
fn response(spaces: Spaces) -> impl Strategy<Value = String> {
    let result =
        any_object(vec![member("resultType", "\"complete\"")], spaces).prop_map(|result| member("result", &result));
    let error = json(spaces)
        .prop_map(|data| member("error", &format!("{{\"code\":-5,\"data\":{data},\"message\":\"\\u006eo\"}}")));
    prop_oneof![3 => result.boxed(), 1 => error.boxed()].prop_flat_map(move |outcome| {
        // A key of the message itself that nobody knows is nobody's business.
        let members = vec![member("jsonrpc", "\"2.0\""), member("id", "$ID"), outcome, member("z", "[1e400]")];
        object(members, spaces)
    })
}

/// A notification that is for the client.
fn notification() -> impl Strategy<Value = String> {
    let method = select(&["\"notifications/progress\"", "\"notifications/message\"", "\"x\\/y\""][..]);
    (method, any_object(Vec::new(), &SPACES)).prop_flat_map(|(method, params)| {
        object(vec![member("jsonrpc", "\"2.0\""), member("method", method), member("params", &params)], &SPACES)
    })
}

/// An event stream: what is sent, and what a legacy client gets of it.
fn events() -> impl Strategy<Value = (String, String)> {
    let line = select(&["\n", "\r\n", "\r"][..]);
    let id = prop_oneof![Just(None), select(&["1", "x/y z", "é", "c/a/1"][..]).prop_map(Some)];
    let extra = select(&["", ": comment", "event: message", "retry: 10", "unknown: field", "event"][..]);
    let colon = select(&[":", ": "][..]);
    let frame = (id, extra, colon);
    let event = move |data: BoxedStrategy<String>| (frame.clone(), data);
    let notifications = vec(event(notification().boxed()), 0..4);
    let last = event(response(&SPACES).boxed());
    (notifications, last, line, any::<bool>()).prop_map(|(mut all, last, line, begins_with_mark)| {
        all.push(last);
        let write = |tag: &str| {
            let mut text = String::from(if begins_with_mark { "\u{feff}" } else { "" });
            for ((id, extra, colon), data) in &all {
                let id = id.map(|id| format!("id{colon}{tag}{id}{line}")).unwrap_or_default();
                let extra = if extra.is_empty() { String::new() } else { format!("{extra}{line}") };
                text.push_str(&format!("{id}{extra}data{colon}{data}{line}{line}"));
            }
            text
        };
        (write(""), write("c/a/"))
    })
}

/// A request with this envelope: what the client sends, and what the backend is to get.
fn request(meta: Vec<(String, String)>) -> impl Strategy<Value = (String, String, &'static str)> {
    let meta = any_object(meta, &LINES);
    let parts = (any_object(Vec::new(), &LINES), meta, select(&NAMES[..]), select(&IDS[..]), json(&LINES));
    parts.prop_flat_map(|(arguments, meta, name, id, more)| {
        let params =
            vec![member("arguments", &arguments), member("_meta", &meta), member("name", "$NAME"), member("q", &more)];
        (object(params, &LINES), Just(name), Just(id)).prop_flat_map(|(params, name, id)| {
            let members = vec![
                member("jsonrpc", "\"2.0\""),
                member("id", id),
                member("method", "\"tools\\/call\""),
                member("params", &params),
            ];
            object(members, &LINES)
                .prop_map(move |body| (body.replace("$NAME", name), body.replace("$NAME", "\"ask\""), id))
        })
    })
}

/// Where bytes are cut on their way.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..5)
}

fn pieces(text: &str, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(text.len())).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]]))
        .filter(|p| !p.is_empty())
        .collect()
}

/// A backend and a client of each era, and the gateway between them.
struct World {
    old: FakeBackend,
    new: FakeModern,
    legacy: TestProxy,
    modern: TestProxy,
    client: ModernClient,
}

async fn world() -> World {
    let (old, new) = (FakeBackend::with_held_tool("a", "ask").await, FakeModern::with_held_tool("a", "ask").await);
    let legacy = TestProxy::fronting(&[&old]).await;
    let modern = Setup::new().backend(&new, "").start().await;
    legacy.until_tools(&old, 1).await;
    modern.until_tools(&new, 1).await;
    let client = modern.modern();
    World { old, new, legacy, modern, client }
}

/// How a backend answers.
#[derive(Clone, Debug)]
enum Answer {
    Json(String),
    /// And what a legacy client gets of it.
    Events(String, String),
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        response(&LINES).prop_map(Answer::Json),
        events().prop_map(|(sent, tagged)| Answer::Events(sent, tagged)),
    ]
}

/// Passes a request there and an answer back; what came of either.
async fn exchange(
    world: &World,
    is_modern: bool,
    body: &str,
    answer: &str,
    cuts: &[prop::sample::Index],
    is_events: bool,
) -> (Bytes, Bytes) {
    let running = if is_modern {
        let client = &world.client;
        let http = client.http.with_header("mcp-protocol-version", MODERN).with_header("mcp-method", "tools/call");
        start(http.with_header("mcp-name", "a__ask"), body)
    } else {
        // Ids come once in a session.
        start(world.legacy.client().await, body)
    };
    let call = if is_modern { world.new.next_call().await } else { world.old.next_call().await };
    let arrived = call.seen.body.clone();
    let stream = if is_events { call.stream() } else { call.pieces() };
    for piece in pieces(answer, cuts) {
        stream.send(piece).await;
    }
    drop(stream);
    let answer = within(running).await.expect("a client");
    assert_eq!(answer.status, 200);
    (arrived, answer.body)
}

fn start(client: Client, body: &str) -> tokio::task::JoinHandle<crate::support::Answer> {
    let body = body.to_owned();
    tokio::spawn(async move { client.post(body).await })
}

fn check(is_modern: bool) {
    let runtime = Runtime::new().expect("a runtime");
    let world = runtime.block_on(world());
    let meta = if is_modern {
        let meta = world.client.meta();
        meta.as_object().expect("an object").iter().map(|(key, value)| member(key, &value.to_string())).collect()
    } else {
        vec![member("progressToken", "12345678901234567890")]
    };
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let held = runner.run(&(request(meta), answer(), cuts()), |((sent, expected, id), answer, cuts)| {
        let (text, back, is_events) = match &answer {
            Answer::Json(text) => (text, text, false),
            Answer::Events(text, _) if is_modern => (text, text, true),
            Answer::Events(text, tagged) => (text, tagged, true),
        };
        let (text, back) = (text.replace("$ID", id), back.replace("$ID", id));
        let (arrived, came) = runtime.block_on(exchange(&world, is_modern, &sent, &text, &cuts, is_events));
        prop_assert_eq!(String::from_utf8_lossy(&arrived), expected);
        prop_assert_eq!(String::from_utf8_lossy(&came), back);
        Ok(())
    });
    let _guard = runtime.enter();
    drop(world.modern);
    drop(world.legacy);
    if let Err(problem) = held {
        panic!("{problem}");
    }
}

/// Complaint 7: Fields lost by decode/re-encode.
#[test]
fn between_a_legacy_client_and_a_legacy_backend_every_byte_stays() {
    check(false);
}

/// Complaint 7: Fields lost by decode/re-encode.
#[test]
fn between_a_modern_client_and_a_modern_backend_every_byte_stays() {
    check(true);
}
