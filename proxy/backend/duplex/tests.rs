//! The transport with its other end in the test's hand.

mod levels;

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::error::MaxBytes;

/// Hands each opened pipe to the test.
struct Opens {
    ends: mpsc::Sender<End>,
    modern: bool,
}

/// The backend's end of a pipe.
struct End {
    pipe: Arc<Pipe>,
    written: mpsc::Receiver<Bytes>,
    takes: Arc<AtomicBool>,
}

struct Writes {
    written: mpsc::Sender<Bytes>,
    takes: Arc<AtomicBool>,
}

#[async_trait]
impl Opener for Opens {
    async fn open(&self, sharing: Sharing, _: &Timeout) -> Result<Held, Error> {
        let (sender, written) = mpsc::channel(100);
        let takes = Arc::new(AtomicBool::new(true));
        let pipe = Pipe::new(&name(), sharing, Writes { written: sender, takes: Arc::clone(&takes) });
        assert!(self.ends.try_send(End { pipe: Arc::clone(&pipe), written, takes }).is_ok());
        Ok(Held(pipe))
    }

    fn carries_modern(&self) -> bool {
        self.modern
    }

    async fn until_closed(&self) {}
}

#[async_trait]
impl Outlet for Writes {
    async fn write(&self, message: Pieces, _: &Timeout) -> Result<StatusCode, Error> {
        if !self.takes.load(Ordering::SeqCst) {
            return Ok(StatusCode::NOT_FOUND);
        }
        self.written.send(message.whole()).await.unwrap();
        Ok(StatusCode::ACCEPTED)
    }

    fn write_soon(&self, message: Bytes) {
        self.written.try_send(message).unwrap();
    }
}

impl End {
    async fn read(&mut self) -> Value {
        let line = self.written.recv().await.unwrap();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "{line:?}");
        serde_json::from_slice(&line).unwrap()
    }

    async fn says(&self, message: &Value) {
        self.says_text(&message.to_string()).await;
    }

    async fn says_text(&self, text: &str) {
        self.pipe.receive(text.to_owned().into()).await;
    }

    async fn answers(&self, to: &Value) {
        self.says(&json!({ "jsonrpc": "2.0", "id": to["id"], "result": {} })).await;
    }
}

fn name() -> BackendName {
    let yaml = "listeners: [{ address: '127.0.0.1:0' }]\nbackends: [{ name: a, command: [a] }]\n";
    let config = toolgate_config::parse(std::path::Path::new("t.yaml"), yaml, &|_| None).unwrap();
    config.backends[0].name.clone()
}

/// The transport, and the pipes that it opens.
struct World {
    duplex: Arc<Duplex>,
    ends: mpsc::Receiver<End>,
}

impl World {
    fn new(instances: Instances) -> Self {
        let (ends, opened) = mpsc::channel(10);
        let duplex = Arc::new(Duplex::new(&name(), instances, Opens { ends, modern: true }));
        Self { duplex, ends: opened }
    }

    fn outgoing(verb: Method, headers: &[(&'static str, &str)], body: &str) -> Outgoing {
        let header = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        Outgoing {
            verb,
            headers: headers.iter().map(header).collect(),
            body: body.to_owned().into(),
            timeout: Timeout::default(),
            repeatable: false,
            replica: None,
        }
    }

    async fn post(&self, session: &str, body: &str) -> Result<Incoming, Error> {
        self.duplex.send(Self::outgoing(Method::POST, &[("mcp-session-id", session)], body)).await
    }

    /// Posts beside what the test does.
    fn start(&self, session: &str, body: &str) -> tokio::task::JoinHandle<Result<Incoming, Error>> {
        let (duplex, request) =
            (Arc::clone(&self.duplex), Self::outgoing(Method::POST, &[("mcp-session-id", session)], body));
        tokio::spawn(async move { duplex.send(request).await })
    }

    fn start_modern(&self, body: &str) -> tokio::task::JoinHandle<Result<Incoming, Error>> {
        let headers = [("mcp-protocol-version", "2026-07-28")];
        let (duplex, request) = (Arc::clone(&self.duplex), Self::outgoing(Method::POST, &headers, body));
        tokio::spawn(async move { duplex.send(request).await })
    }

    fn start_initialize(&self) -> tokio::task::JoinHandle<Result<Incoming, Error>> {
        self.start_initialize_with(r#"{"elicitation":{}}"#)
    }

    fn start_initialize_with(&self, capabilities: &str) -> tokio::task::JoinHandle<Result<Incoming, Error>> {
        let params = format!(r#"{{"capabilities":{capabilities}}}"#);
        let body = &format!(r#"{{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{params}}}"#);
        let (duplex, request) = (Arc::clone(&self.duplex), Self::outgoing(Method::POST, &[], body));
        tokio::spawn(async move { duplex.send(request).await })
    }

    /// A session on a pipe of its own.
    async fn session(&mut self) -> (String, End) {
        let opening = self.start_initialize();
        let mut end = self.ends.recv().await.unwrap();
        let asked = end.read().await;
        end.answers(&asked).await;
        (id_of(&opening.await.unwrap().unwrap()), end)
    }

    async fn stream(&self, session: &str) -> Incoming {
        self.duplex.send(Self::outgoing(Method::GET, &[("mcp-session-id", session)], "")).await.unwrap()
    }

    async fn status(&self, verb: Method, session: &str) -> u16 {
        let headers = [("mcp-session-id", session)];
        self.duplex.send(Self::outgoing(verb, &headers, "")).await.unwrap().status.as_u16()
    }
}

fn id_of(incoming: &Incoming) -> String {
    incoming.headers.get(SESSION_ID).unwrap().to_str().unwrap().to_owned()
}

fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x"}}}}"#)
}

fn call_with_token(id: &str, token: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x","_meta":{{"progressToken":{token}}}}}}}"#
    )
}

fn log(text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": text } })
}

fn question(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": {} })
}

fn progress(token: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } })
}

/// The next message of a stream, or the whole of a JSON body.
async fn next(incoming: &mut Incoming) -> Option<Value> {
    let mut text = Vec::new();
    while let Some(chunk) = incoming.body.next().await.unwrap() {
        text.extend_from_slice(&chunk);
        if incoming.is_event_stream() && text.ends_with(b"\n\n") {
            break;
        }
    }
    let text = std::str::from_utf8(&text).unwrap();
    let data = text.strip_prefix("data: ").unwrap_or(text);
    (!data.is_empty()).then(|| serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn an_answer_that_comes_first_is_json_byte_for_byte() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;

    let calling = world.start(
        &session,
        "{\"params\":{\"name\":\r\n\"x\"},\"id\" : \"\\u0041\",\"method\":\"tools/call\",\"jsonrpc\":\"2.0\"}\n",
    );
    let asked = end.read().await;
    end.says_text(&format!(
        "{{\"result\":{{\"n\":1.0,\"e\":\"\\u00e9\"}},\t\"id\" : {},\"jsonrpc\":\"2.0\"}}",
        asked["id"]
    ))
    .await;
    let mut incoming = calling.await.unwrap().unwrap();

    let body = incoming.collect(MaxBytes::fixed(1000), &name()).await.unwrap();
    assert_eq!(body, "{\"result\":{\"n\":1.0,\"e\":\"\\u00e9\"},\t\"id\" : \"\\u0041\",\"jsonrpc\":\"2.0\"}");
    assert!(incoming.is_json());
    assert_eq!(incoming.headers.get(CONTENT_LENGTH).unwrap(), &body.len().to_string());
}

#[tokio::test]
async fn a_long_answer_is_whole() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let text = "x".repeat(100_000);

    let calling = world.start(&session, &call("7"));
    let asked = end.read().await;
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "text": text } })).await;

    let answer = next(&mut calling.await.unwrap().unwrap()).await.unwrap();
    assert_eq!((&answer["id"], &answer["result"]["text"]), (&json!(7), &json!(text)));
}

#[tokio::test]
async fn an_answer_that_comes_later_is_the_last_of_a_stream() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;

    let calling = world.start(&session, &call_with_token("1", "\"mine\""));
    let asked = end.read().await;
    end.says(&progress(&asked["params"]["_meta"]["progressToken"])).await;
    let mut incoming = calling.await.unwrap().unwrap();
    end.says(&log("almost")).await;
    end.answers(&asked).await;

    assert!(incoming.is_event_stream());
    assert_eq!(next(&mut incoming).await.unwrap(), progress(&json!("mine")));
    assert_eq!(next(&mut incoming).await.unwrap(), log("almost"));
    assert_eq!(next(&mut incoming).await.unwrap()["id"], 1);
    assert_eq!(next(&mut incoming).await, None);
}

#[tokio::test]
async fn what_names_no_call_goes_to_the_only_one_or_to_the_sessions_stream_or_to_the_oldest() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;

    let first = world.start(&session, &call("1"));
    let asked = end.read().await;
    end.says(&log("to the only call")).await;
    let mut first = first.await.unwrap().unwrap();
    assert_eq!(next(&mut first).await.unwrap(), log("to the only call"));

    let second = world.start(&session, &call("2"));
    let also_asked = end.read().await;
    end.says(&log("to the oldest")).await;
    assert_eq!(next(&mut first).await.unwrap(), log("to the oldest"));

    let mut stream = world.stream(&session).await;
    end.says(&log("to the stream")).await;
    assert_eq!(next(&mut stream).await.unwrap(), log("to the stream"));

    end.answers(&asked).await;
    end.answers(&also_asked).await;
    assert!(second.await.unwrap().unwrap().is_json());
    end.says(&log("to the stream again")).await;
    assert_eq!(next(&mut stream).await.unwrap(), log("to the stream again"));
}

#[tokio::test]
async fn a_question_is_answered_by_whom_it_was_asked_of() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let calling = world.start(&session, &call("1"));
    let asked = end.read().await;

    end.says(&question(0)).await;
    let mut incoming = calling.await.unwrap().unwrap();
    assert_eq!(next(&mut incoming).await.unwrap(), question(0));
    let accepted = world.post(&session, r#"{"jsonrpc":"2.0","id":0,"result":{"action":"accept"}}"#).await.unwrap();
    assert_eq!(accepted.status, 202);
    assert_eq!(end.read().await["result"]["action"], "accept");

    // Twice is once too often.
    assert_eq!(world.post(&session, r#"{"jsonrpc":"2.0","id":0,"result":{}}"#).await.unwrap().status, 202);
    end.answers(&asked).await;
    assert_eq!(next(&mut incoming).await.unwrap()["id"], 1);
    assert!(end.written.try_recv().is_err());
}

/// Whether a refusal says so.
#[track_caller]
fn says(refusal: &Value, what: &str) {
    let message = refusal["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(what), "{message}");
}

#[tokio::test]
async fn a_question_that_nobody_can_be_asked_is_refused_and_a_ping_is_answered() {
    let mut world = World::new(Instances::Session);
    let (_session, mut end) = world.session().await;

    end.says(&question(5)).await;
    end.says(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" })).await;

    let refusal = end.read().await;
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(5), &json!(-32601)));
    says(&refusal, "its client has neither a call under way nor a stream open");
    assert_eq!(end.read().await, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
}

#[tokio::test]
async fn a_batch_of_the_backend_is_taken_apart() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let (first, second) = (world.start(&session, &call("1")), end.read().await);
    let (third, fourth) = (world.start(&session, &call("2")), end.read().await);

    let answer = |asked: &Value| json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} });
    end.says(&json!([answer(&fourth), answer(&second)])).await;

    assert_eq!(next(&mut first.await.unwrap().unwrap()).await.unwrap()["id"], 1);
    assert_eq!(next(&mut third.await.unwrap().unwrap()).await.unwrap()["id"], 2);
}

#[tokio::test]
async fn an_unknown_session_is_not_found() {
    let mut world = World::new(Instances::Session);
    let (session, _end) = world.session().await;

    assert_eq!(world.post("other", &call("1")).await.unwrap().status, 404);
    assert_eq!(world.status(Method::GET, "other").await, 404);
    assert_eq!(world.status(Method::DELETE, "other").await, 404);
    assert_eq!(world.status(Method::DELETE, &session).await, 204);
    assert_eq!(world.post(&session, &call("1")).await.unwrap().status, 404);
    let nobodys = World::outgoing(Method::POST, &[], &call("1"));
    assert_eq!(world.duplex.send(nobodys).await.unwrap().status, 400);
}

#[tokio::test]
async fn an_ended_session_ends_its_pipe_and_its_calls() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let calling = world.start(&session, &call("1"));
    end.read().await;
    let mut stream = world.stream(&session).await;

    assert_eq!(world.status(Method::DELETE, &session).await, 204);

    assert!(matches!(calling.await.unwrap(), Err(Error::BackendClosed { .. })));
    assert_eq!(next(&mut stream).await, None);
    end.pipe.until_over().await;
}

#[tokio::test]
async fn a_backend_that_leaves_fails_its_calls_and_loses_its_session() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let waiting = world.start(&session, &call("1"));
    end.read().await;
    let streaming = world.start(&session, &call_with_token("2", "0"));
    let asked = end.read().await;
    end.says(&progress(&asked["params"]["_meta"]["progressToken"])).await;
    let mut streaming = streaming.await.unwrap().unwrap();

    end.pipe.end(end.pipe.closed());

    assert!(matches!(waiting.await.unwrap(), Err(Error::BackendClosed { .. })));
    assert_eq!(next(&mut streaming).await.unwrap(), progress(&json!(0)));
    assert!(matches!(streaming.body.next().await, Err(Error::BackendClosed { .. })));
    assert_eq!(world.post(&session, &call("3")).await.unwrap().status, 404);
}

#[tokio::test]
async fn a_backend_that_forgot_the_session_loses_it() {
    let mut world = World::new(Instances::Session);
    let (session, end) = world.session().await;
    end.takes.store(false, Ordering::SeqCst);

    assert_eq!(world.post(&session, &call("1")).await.unwrap().status, 404);
    assert!(end.pipe.is_over());
}

#[tokio::test]
async fn an_error_in_answer_to_initialize_starts_no_session() {
    let mut world = World::new(Instances::Session);
    let opening = world.start_initialize();
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;

    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32602, "message": "no" } })).await;
    let mut incoming = opening.await.unwrap().unwrap();

    assert!(!incoming.headers.has(SESSION_ID));
    assert_eq!(next(&mut incoming).await.unwrap()["id"], "hello");
    end.pipe.until_over().await;
}

#[tokio::test]
async fn a_cancellation_names_the_call_as_the_backend_knows_it_even_when_its_client_has_left() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let calling = world.start(&session, &call("\"mine\""));
    let asked = end.read().await;
    calling.abort();
    let _ = calling.await;

    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine","reason":"r"}}"#;
    assert_eq!(world.post(&session, cancel).await.unwrap().status, 202);
    assert_eq!(world.post(&session, &cancel.replace("mine", "other")).await.unwrap().status, 202);
    let _next = world.start(&session, &call("2"));

    let cancelled = end.read().await;
    assert_eq!(cancelled["params"], json!({ "requestId": asked["id"], "reason": "r" }));
    assert_eq!(end.read().await["method"], "tools/call", "nothing for a call that is not known");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_runs_out_of_time() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;

    let calling = world.start(&session, &call("1"));
    end.read().await;

    assert!(matches!(calling.await.unwrap(), Err(Error::BackendTimeout { phase: Phase::FirstByte, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_others_up_for_a_moment_only() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let unread = world.start(&session, &call_with_token("1", "1"));
    let asked = end.read().await;
    let token = &asked["params"]["_meta"]["progressToken"];
    end.says(&progress(token)).await;
    let mut unread = unread.await.unwrap().unwrap();
    let other = world.start(&session, &call("2"));
    let also_asked = end.read().await;

    for _ in 0..200 {
        end.says(&progress(token)).await;
    }
    end.answers(&also_asked).await;
    end.answers(&asked).await;

    assert!(other.await.unwrap().unwrap().is_json());
    let mut events = 0;
    while let Some(message) = next(&mut unread).await {
        events += 1;
        assert!(message["id"] == 1 || message["method"] == "notifications/progress");
    }
    assert!((2..100).contains(&events), "{events}");
}

// === shared ===

#[tokio::test]
async fn sessions_that_share_a_pipe_shake_hands_once() {
    let mut world = World::new(Instances::Shared);
    let opening = world.start_initialize();
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "serverInfo": 1.0 } })).await;
    let mut first = opening.await.unwrap().unwrap();

    let mut second = world.start_initialize().await.unwrap().unwrap();

    let expected = json!({ "jsonrpc": "2.0", "id": "hello", "result": { "serverInfo": 1.0 } });
    assert_eq!(next(&mut first).await.unwrap(), expected);
    assert_eq!(next(&mut second).await.unwrap(), expected);
    assert_ne!(id_of(&first), id_of(&second));
    assert!(world.ends.try_recv().is_err());
    for session in [id_of(&first), id_of(&second)] {
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(world.post(&session, initialized).await.unwrap().status, 202);
    }
    assert_eq!(end.read().await["method"], "notifications/initialized");
    assert!(end.written.try_recv().is_err());
}

/// Two sessions that share a pipe.
async fn two(world: &mut World) -> (String, String, End) {
    let (first, end) = world.session().await;
    let second = id_of(&world.start_initialize().await.unwrap().unwrap());
    (first, second, end)
}

#[tokio::test]
async fn clients_that_count_alike_get_what_is_theirs() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let (a, for_alice) = (world.start(&alice, &call_with_token("1", "1")), end.read().await);
    let (b, for_bob) = (world.start(&bob, &call_with_token("1", "1")), end.read().await);
    assert_ne!(for_alice["id"], for_bob["id"]);

    end.says(&progress(&for_bob["params"]["_meta"]["progressToken"])).await;
    end.answers(&for_alice).await;
    end.says(&json!({ "jsonrpc": "2.0", "id": for_bob["id"], "result": { "for": "bob" } })).await;

    let mut a = a.await.unwrap().unwrap();
    assert_eq!(next(&mut a).await.unwrap(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    let mut b = b.await.unwrap().unwrap();
    assert_eq!(next(&mut b).await.unwrap(), progress(&json!(1)));
    assert_eq!(next(&mut b).await.unwrap()["result"]["for"], "bob");
}

#[tokio::test]
async fn news_reach_every_stream_and_questions_the_one_session_that_calls() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let (mut a, mut b) = (world.stream(&alice).await, world.stream(&bob).await);

    let news = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
    end.says(&news).await;
    assert_eq!((next(&mut a).await, next(&mut b).await), (Some(news.clone()), Some(news)));

    end.says(&question(1)).await;
    let refusal = end.read().await;
    assert_eq!(refusal["error"]["code"], -32601, "nobody calls");
    says(&refusal, "no session with a call under way in this process");

    let (calling, _) = (world.start(&bob, &call("1")), end.read().await);
    end.says(&question(2)).await;
    assert_eq!(next(&mut calling.await.unwrap().unwrap()).await.unwrap(), question(2));
    // Somebody else's answer is no answer.
    let answer = r#"{"jsonrpc":"2.0","id":2,"result":{"by":"alice"}}"#;
    assert_eq!(world.post(&alice, answer).await.unwrap().status, 202);
    assert!(end.written.try_recv().is_err());

    // With calls of two sessions under way nothing tells whose question it is.
    let (_bob, _) = (world.start(&bob, &call("2")), end.read().await);
    let (_alice, _) = (world.start(&alice, &call("1")), end.read().await);
    end.says(&question(3)).await;
    let refusal = end.read().await;
    assert_eq!(refusal["error"]["code"], -32601);
    says(&refusal, "calls of several sessions are under way in this process");
    says(&refusal, "`instances: session`");
}

#[tokio::test]
async fn a_question_is_nobodys_who_cannot_be_asked() {
    let mut world = World::new(Instances::Shared);
    let (alice, mut end) = world.session().await;
    let gateways = id_of(&world.start_initialize_with("{}").await.unwrap().unwrap());

    let (_listing, _) = (world.start(&gateways, &call("1")), end.read().await);
    end.says(&question(1)).await;
    let refusal = end.read().await;
    assert_eq!(refusal["error"]["code"], -32601);
    says(&refusal, "no session with a call under way in this process");
    says(&refusal, "`instances: session`");

    let (calling, _) = (world.start(&alice, &call("1")), end.read().await);
    end.says(&question(2)).await;
    assert_eq!(next(&mut calling.await.unwrap().unwrap()).await.unwrap(), question(2));
}

fn about(method: &str, uri: &str) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "uri": uri } }).to_string()
}

fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } })
}

/// Asks for something about a resource, which the backend answers.
async fn ask_about(world: &World, end: &mut End, session: &str, method: &str, uri: &str) -> Value {
    let asking = world.start(session, &about(method, uri));
    let asked = end.read().await;
    assert_eq!((&asked["method"], &asked["params"]["uri"]), (&json!(method), &json!(uri)));
    end.answers(&asked).await;
    next(&mut asking.await.unwrap().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_shared_backend_is_unsubscribed_from_what_nobody_wants_to_hear_of_any_more() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    for session in [&alice, &bob] {
        ask_about(&world, &mut end, session, "resources/subscribe", "a:1").await;
    }

    let mut answer = world.post(&alice, &about("resources/unsubscribe", "a:1")).await.unwrap();
    assert_eq!(next(&mut answer).await.unwrap(), json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert!(end.written.try_recv().is_err(), "bob still wants to");

    ask_about(&world, &mut end, &bob, "resources/unsubscribe", "a:1").await;
}

#[tokio::test]
async fn a_session_of_a_shared_backend_that_ends_gives_up_what_it_was_subscribed_to() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    for (session, uri) in [(&alice, "a:1"), (&alice, "a:2"), (&bob, "a:2")] {
        ask_about(&world, &mut end, session, "resources/subscribe", uri).await;
    }

    assert_eq!(world.status(Method::DELETE, &alice).await, 204);

    let told = end.read().await;
    assert_eq!((&told["method"], &told["params"]["uri"]), (&json!("resources/unsubscribe"), &json!("a:1")));
    end.answers(&told).await;
    ask_about(&world, &mut end, &bob, "resources/unsubscribe", "a:2").await;
}

#[tokio::test]
async fn a_session_that_was_refused_a_subscription_has_none() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    ask_about(&world, &mut end, &alice, "resources/subscribe", "a:1").await;
    let refused = world.start(&bob, &about("resources/subscribe", "a:1"));
    let asked = end.read().await;
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32002, "message": "" } })).await;
    assert_eq!(next(&mut refused.await.unwrap().unwrap()).await.unwrap()["error"]["code"], -32002);

    ask_about(&world, &mut end, &alice, "resources/unsubscribe", "a:1").await;
}

#[tokio::test]
async fn news_of_a_resource_reach_who_is_subscribed_to_it() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let (mut a, mut b) = (world.stream(&alice).await, world.stream(&bob).await);
    ask_about(&world, &mut end, &alice, "resources/subscribe", "a:1").await;
    ask_about(&world, &mut end, &bob, "resources/subscribe", "a:2").await;

    end.says(&updated("a:3")).await;
    end.says(&updated("a:2")).await;
    end.says(&updated("a:1")).await;

    assert_eq!((next(&mut a).await, next(&mut b).await), (Some(updated("a:1")), Some(updated("a:2"))));
}

#[tokio::test]
async fn one_session_of_a_shared_pipe_ends_alone() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let mut stream = world.stream(&alice).await;

    assert_eq!(world.status(Method::DELETE, &alice).await, 204);

    assert_eq!(next(&mut stream).await, None);
    assert_eq!(world.post(&alice, &call("1")).await.unwrap().status, 404);
    let calling = world.start(&bob, &call("1"));
    let asked = end.read().await;
    end.answers(&asked).await;
    assert!(calling.await.unwrap().unwrap().is_json());
}

// === modern ===

#[tokio::test]
async fn requests_of_the_modern_era_share_a_pipe() {
    let mut world = World::new(Instances::Session);
    let first = world.start_modern(&call("1"));
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;
    let second = world.start_modern(&call("1"));
    let also_asked = end.read().await;

    end.says(&log("whose is it?")).await;
    end.answers(&also_asked).await;
    end.answers(&asked).await;

    assert!(first.await.unwrap().unwrap().is_json());
    assert!(second.await.unwrap().unwrap().is_json());
    assert!(world.ends.try_recv().is_err());
}

/// Refuses the modern era, as a legacy backend does.
async fn refuse_modern(world: &mut World) -> End {
    let asking = world.start_modern(&call("1"));
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32601, "message": "" } })).await;
    asking.await.unwrap().unwrap();
    end
}

#[tokio::test]
async fn a_pipe_on_which_the_modern_era_was_refused_is_that_of_the_next_handshake() {
    for instances in [Instances::Session, Instances::Shared] {
        let mut world = World::new(instances);
        let mut end = refuse_modern(&mut world).await;

        let opening = world.start_initialize();
        let asked = end.read().await;
        assert_eq!(asked["method"], "initialize");
        end.answers(&asked).await;
        let session = id_of(&opening.await.unwrap().unwrap());

        assert!(world.ends.try_recv().is_err());
        // It is the session's now, which a pipe of the modern era is not.
        let mut stream = world.stream(&session).await;
        let news = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        end.says(&news).await;
        assert_eq!(next(&mut stream).await, Some(news));
    }
}

#[tokio::test]
async fn a_backend_that_is_asked_again_what_it_speaks_has_one_pipe_in_the_end() {
    let mut world = World::new(Instances::Shared);
    let (_, _end) = world.session().await;
    let asked = refuse_modern(&mut world).await;

    world.start_initialize().await.unwrap().unwrap();

    asked.pipe.until_over().await;
}

#[tokio::test]
async fn a_backend_that_does_not_say_what_it_speaks_gets_a_new_pipe_and_the_old_one_ends() {
    let mut world = World::new(Instances::Session);
    let asking = world.start_modern(&call("1"));
    let mut silent = world.ends.recv().await.unwrap();
    silent.read().await;
    asking.abort();
    assert_eq!(silent.read().await["method"], "notifications/cancelled");

    world.session().await;

    silent.pipe.until_over().await;
}

#[tokio::test]
async fn a_backend_of_both_eras_has_a_pipe_for_each_until_nobody_needs_it() {
    let mut world = World::new(Instances::Shared);
    let asking = world.start_modern(&call("1"));
    let mut modern = world.ends.recv().await.unwrap();
    let asked = modern.read().await;
    modern.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32022, "message": "" } })).await;
    asking.await.unwrap().unwrap();
    let (session, legacy) = world.session().await;

    world.duplex.drop_idle(Instant::now());
    assert!(!modern.pipe.is_over() && !legacy.pipe.is_over());
    world.duplex.drop_idle(Instant::now() + IDLE);
    assert!(modern.pipe.is_over() && !legacy.pipe.is_over(), "it has a session");
    assert_eq!(world.status(Method::DELETE, &session).await, 204);
    world.duplex.drop_idle(Instant::now());
    assert!(!legacy.pipe.is_over());
    world.duplex.drop_idle(Instant::now() + IDLE);
    assert!(legacy.pipe.is_over());
}

#[tokio::test]
async fn a_client_of_the_modern_era_that_leaves_cancels_its_call() {
    let mut world = World::new(Instances::Session);
    let calling = world.start_modern(&call("\"mine\""));
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;

    calling.abort();

    let cancelled = end.read().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);
}

#[tokio::test]
async fn a_client_of_a_legacy_session_that_leaves_cancels_nothing() {
    let mut world = World::new(Instances::Session);
    let (session, mut end) = world.session().await;
    let calling = world.start(&session, &call("1"));
    let asked = end.read().await;

    calling.abort();
    let _ = calling.await;
    end.answers(&asked).await;

    assert!(end.written.try_recv().is_err());
}

#[tokio::test]
async fn a_subscription_is_known_by_its_requests_id() {
    let mut world = World::new(Instances::Session);
    let listen = r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"notifications":{}}}"#;
    let listening = world.start_modern(listen);
    let mut end = world.ends.recv().await.unwrap();
    let asked = end.read().await;
    let meta = |id: &Value| json!({ "io.modelcontextprotocol/subscriptionId": id });
    let news = |id: &Value| json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "_meta": meta(id) } });

    end.says(&news(&asked["id"])).await;
    let mut stream = listening.await.unwrap().unwrap();
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "_meta": meta(&asked["id"]) } })).await;

    assert_eq!(next(&mut stream).await.unwrap(), news(&json!("l")));
    let end = json!({ "jsonrpc": "2.0", "id": "l", "result": { "_meta": meta(&json!("l")) } });
    assert_eq!(next(&mut stream).await.unwrap(), end);
}

#[tokio::test]
async fn what_cannot_carry_the_modern_era_knows_no_such_method() {
    let (ends, _opened) = mpsc::channel(1);
    let duplex = Duplex::new(&name(), Instances::Session, Opens { ends, modern: false });
    let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#;

    let request = World::outgoing(Method::POST, &[("mcp-protocol-version", "2026-07-28")], discover);
    let mut incoming = duplex.send(request).await.unwrap();

    assert_eq!(incoming.status, 404);
    assert_eq!(next(&mut incoming).await.unwrap()["error"]["code"], -32601);
}

#[tokio::test]
async fn closing_ends_every_pipe() {
    let mut world = World::new(Instances::Session);
    let (_session, end) = world.session().await;
    let _calling = world.start_modern(&call("1"));
    let modern = world.ends.recv().await.unwrap();

    world.duplex.close().await;

    assert!(end.pipe.is_over() && modern.pipe.is_over());
}
