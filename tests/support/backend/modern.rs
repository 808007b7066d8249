//! A modern MCP server in this process: stateless, POST only, as strict as its legacy neighbour. Whatever the gateway must not
//! send to it is noted, and fails the test when the fake is dropped.

#![allow(dead_code, reason = "the client's side is tested with the rest of it")]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::call::{Gone, raw_id, value_of};
use super::server::{News, Reply, bare, fits, has, page, refusal, reply, whole};
use super::state::Tool;
use super::{Call, GATEWAY, Mood, Seen, Server, definition, event, response, spoken};
use crate::support::within;

/// The one version it speaks.
pub(crate) const VERSION: &str = "2026-07-28";
/// What begins every key of the envelope.
const PREFIX: &str = "io.modelcontextprotocol/";

/// A result with all that modern results carry.
pub(crate) fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["_meta"] = json!({ "io.modelcontextprotocol/serverInfo": { "name": "fake", "version": "1" } });
    result
}

struct Stream {
    /// JSON.
    id: String,
    filter: Value,
    events: mpsc::Sender<Bytes>,
}

struct State {
    tools: Vec<Tool>,
    prompts: Vec<String>,
    resources: Vec<String>,
    templates: Vec<String>,
    page: usize,
    ttl_ms: u64,
    scope: &'static str,
    supported: Vec<String>,
    declares: Value,
    instructions: Option<String>,
    mood: Mood,
    in_events: bool,
    also_legacy: bool,
    legacy_declares: Option<Value>,
    acknowledges: bool,
    held: Vec<String>,
    broken: Vec<String>,
    allowed_headers: Vec<String>,
    streams: Vec<Stream>,
    sessions: usize,
    seen: Vec<Seen>,
    faults: Vec<String>,
}

/// A fake that is being put together.
pub(crate) struct Builder {
    name: &'static str,
    state: State,
}

struct Shared {
    name: &'static str,
    address: SocketAddr,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    calls: mpsc::Sender<Call>,
}

/// A fake that runs.
pub(crate) struct FakeModern {
    shared: Arc<Shared>,
    held: tokio::sync::Mutex<mpsc::Receiver<Call>>,
    door: AbortHandle,
}

impl Drop for FakeModern {
    fn drop(&mut self) {
        self.door.abort();
        let faults = std::mem::take(&mut self.shared.state().faults);
        if !faults.is_empty() && !std::thread::panicking() {
            panic!("backend `{}` got what it should not have: {faults:#?}", self.shared.name);
        }
    }
}

impl Server for FakeModern {
    fn name(&self) -> &'static str {
        self.shared.name
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.shared.address)
    }
}

impl Builder {
    /// A tool that answers at once.
    pub(crate) fn tool(self, name: &str) -> Self {
        let definition = definition(name);
        self.add(name, definition, false)
    }

    /// A tool whose calls the test answers: see [`FakeModern::next_call`].
    pub(crate) fn held(self, name: &str) -> Self {
        let definition = definition(name);
        self.add(name, definition, true)
    }

    /// A tool, or what passes for one, listed in exactly these bytes. It answers at once.
    pub(crate) fn defined(self, name: &str, definition: &str) -> Self {
        self.add(name, definition.to_owned(), false)
    }

    /// A tool listed in exactly these bytes whose calls the test answers.
    pub(crate) fn held_as(self, name: &str, definition: &str) -> Self {
        self.add(name, definition.to_owned(), true)
    }

    fn add(mut self, name: &str, definition: String, held: bool) -> Self {
        self.state.tools.push(Tool { name: name.to_owned(), definition, held });
        self
    }

    /// A prompt, listed in exactly these bytes.
    pub(crate) fn prompt(mut self, definition: &str) -> Self {
        self.state.prompts.push(definition.to_owned());
        self
    }

    /// A resource, listed in exactly these bytes.
    pub(crate) fn resource(mut self, definition: &str) -> Self {
        self.state.resources.push(definition.to_owned());
        self
    }

    /// A template, listed in exactly these bytes.
    pub(crate) fn template(mut self, definition: &str) -> Self {
        self.state.templates.push(definition.to_owned());
        self
    }

    /// Requests of this method are answered by the test, as calls of held tools are.
    pub(crate) fn holding(mut self, method: &str) -> Self {
        self.state.held.push(method.to_owned());
        self
    }

    /// So many entries a page.
    pub(crate) fn pages_of(mut self, entries: usize) -> Self {
        self.state.page = entries;
        self
    }

    /// How long its lists may be kept, and whether by anybody.
    pub(crate) fn cached(mut self, ttl_ms: u64, scope: &'static str) -> Self {
        (self.state.ttl_ms, self.state.scope) = (ttl_ms, scope);
        self
    }

    /// The versions that it says it supports.
    pub(crate) fn supports(mut self, versions: &[&str]) -> Self {
        self.state.supported = versions.iter().map(|&version| version.to_owned()).collect();
        self
    }

    /// Its capabilities. Without this it has all that there is, and tells of changes.
    pub(crate) fn declares(mut self, capabilities: Value) -> Self {
        self.state.declares = capabilities;
        self
    }

    pub(crate) fn instructions(mut self, text: &str) -> Self {
        self.state.instructions = Some(text.to_owned());
        self
    }

    pub(crate) fn mood(mut self, mood: Mood) -> Self {
        self.state.mood = mood;
        self
    }

    /// It answers in events where it could in JSON.
    pub(crate) fn in_events(mut self) -> Self {
        self.state.in_events = true;
        self
    }

    /// It shakes hands with legacy clients too. It does no more for them.
    pub(crate) fn also_legacy(mut self) -> Self {
        self.state.also_legacy = true;
        self
    }

    /// As [`also_legacy`](Self::also_legacy), with capabilities of its own there.
    pub(crate) fn also_legacy_declaring(mut self, capabilities: Value) -> Self {
        self.state.legacy_declares = Some(capabilities);
        self.also_legacy()
    }

    /// Its streams begin without being acknowledged.
    pub(crate) fn unacknowledging(mut self) -> Self {
        self.state.acknowledges = false;
        self
    }

    /// A header that it may be sent although no backend should see it unless configured.
    pub(crate) fn takes_header(mut self, name: &str) -> Self {
        self.state.allowed_headers.push(name.to_owned());
        self
    }

    pub(crate) async fn start(self) -> FakeModern {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (calls, held) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            name: self.name,
            address: listener.local_addr().expect("an address"),
            state: Mutex::new(self.state),
            changes: watch::Sender::new(0),
            calls,
        });
        let door = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        FakeModern { shared, held: tokio::sync::Mutex::new(held), door }
    }
}

impl FakeModern {
    /// A fake of this name, which is its name in the configuration too.
    pub(crate) fn named(name: &'static str) -> Builder {
        let changing = json!({ "listChanged": true });
        let state = State {
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            page: usize::MAX,
            ttl_ms: 60_000,
            scope: "public",
            supported: vec![VERSION.to_owned()],
            declares: json!({
                "tools": changing,
                "prompts": changing,
                "resources": { "listChanged": true, "subscribe": true },
                "completions": {},
                "logging": {},
            }),
            instructions: None,
            mood: Mood::Well,
            in_events: false,
            also_legacy: false,
            legacy_declares: None,
            acknowledges: true,
            held: Vec::new(),
            broken: Vec::new(),
            allowed_headers: Vec::new(),
            streams: Vec::new(),
            sessions: 0,
            seen: Vec::new(),
            faults: Vec::new(),
        };
        Builder { name, state }
    }

    /// One tool that answers at once.
    pub(crate) async fn with_tool(name: &'static str, tool: &str) -> Self {
        Self::named(name).tool(tool).start().await
    }

    /// One tool whose calls the test answers.
    pub(crate) async fn with_held_tool(name: &'static str, tool: &str) -> Self {
        Self::named(name).held(tool).start().await
    }

    /// What the gateway did wrong so far, where that is what the test brought about.
    pub(crate) fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().faults)
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.shared.state().mood = mood;
        self.shared.changed();
    }

    pub(crate) fn set_supported(&self, versions: &[&str]) {
        self.shared.state().supported = versions.iter().map(|&version| version.to_owned()).collect();
    }

    /// Speaks legacy no more, in a session it has or in a new one.
    pub(crate) fn stop_legacy(&self) {
        self.shared.state().also_legacy = false;
    }

    pub(crate) fn set_declares(&self, capabilities: Value) {
        self.shared.state().declares = capabilities;
    }

    /// The methods that fail from now on.
    pub(crate) fn break_methods(&self, methods: &[&str]) {
        self.shared.state().broken = methods.iter().map(|&method| method.to_owned()).collect();
    }

    pub(crate) fn add_tool(&self, name: &str) {
        let tool = Tool { name: name.to_owned(), definition: definition(name), held: false };
        self.shared.state().tools.push(tool);
    }

    /// Lists a tool in other bytes from now on.
    pub(crate) fn redefine(&self, name: &str, definition: &str) {
        let mut state = self.shared.state();
        let tool = state.tools.iter_mut().find(|tool| tool.name == name).expect("a tool of this name");
        definition.clone_into(&mut tool.definition);
    }

    pub(crate) fn remove_tool(&self, name: &str) {
        self.shared.state().tools.retain(|tool| tool.name != name);
    }

    pub(crate) fn add_prompt(&self, definition: &str) {
        self.shared.state().prompts.push(definition.to_owned());
    }

    pub(crate) fn add_resource(&self, definition: &str) {
        self.shared.state().resources.push(definition.to_owned());
    }

    /// Says that its `tools`, `prompts` or `resources` changed, on the streams that want to know.
    pub(crate) async fn announce_change(&self, what: &str) {
        let wanted = |filter: &Value| filter[format!("{what}ListChanged")] == true;
        self.tell(&format!("notifications/{what}/list_changed"), json!({}), wanted).await;
    }

    /// Says that a resource changed, on the streams that want to know.
    pub(crate) async fn announce_update(&self, uri: &str) {
        let wanted =
            |filter: &Value| filter["resourceSubscriptions"].as_array().is_some_and(|all| all.contains(&json!(uri)));
        self.tell("notifications/resources/updated", json!({ "uri": uri }), wanted).await;
    }

    /// The same on all its streams, wanted or not.
    pub(crate) async fn announce_update_to_all(&self, uri: &str) {
        self.tell("notifications/resources/updated", json!({ "uri": uri }), |_| true).await;
    }

    async fn tell(&self, method: &str, mut params: Value, wanted: impl Fn(&Value) -> bool) {
        let streams = self.streams();
        for (id, _, events) in streams.into_iter().filter(|(_, filter, _)| wanted(filter)) {
            params["_meta"] = subscription(&id);
            // One that has been closed meanwhile hears nothing.
            let _ = events.send(event(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))).await;
        }
    }

    fn streams(&self) -> Vec<(String, Value, mpsc::Sender<Bytes>)> {
        let mut state = self.shared.state();
        state.streams.retain(|stream| !stream.events.is_closed());
        state.streams.iter().map(|s| (s.id.clone(), s.filter.clone(), s.events.clone())).collect()
    }

    /// Ends its streams as it should: with a result.
    pub(crate) async fn end_streams(&self) {
        for (id, _, events) in self.streams() {
            let result = json!({ "resultType": "complete", "_meta": subscription(&id) });
            let _ = events.send(format!("data: {}\n\n", response(&id, &result)).into()).await;
        }
        self.cut_streams();
    }

    /// Ends its streams without a word.
    pub(crate) fn cut_streams(&self) {
        self.shared.state().streams.clear();
        self.shared.changed();
    }

    /// What the streams that are open want to hear: the `notifications` of each.
    pub(crate) fn heard(&self) -> Vec<Value> {
        self.streams().into_iter().map(|(_, filter, _)| filter).collect()
    }

    /// The next request that the test answers.
    #[track_caller]
    pub(crate) fn next_call(&self) -> impl Future<Output = Call> {
        within(async { self.held.lock().await.recv().await.expect("a fake that runs") })
    }

    /// Waits until this is so.
    #[track_caller]
    pub(crate) fn until(&self, fact: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        within(async move {
            let mut changes = self.shared.changes.subscribe();
            while !fact(self) {
                changes.changed().await.expect("a fake that runs");
            }
        })
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// Requests of this method that were sent on behalf of clients.
    pub(crate) fn by_clients(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.is_clients() && seen.method == method).collect()
    }

    /// Requests of this method that the gateway sent for itself.
    pub(crate) fn by_gateway(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| !seen.is_clients() && seen.method == method).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Seen> {
        self.by_clients("tools/call")
    }

    /// Legacy sessions that are open.
    pub(crate) fn legacy_sessions(&self) -> usize {
        self.shared.state().sessions
    }
}

/// The `_meta` of what is said within a subscription. `id` is JSON.
fn subscription(id: &str) -> Value {
    let id: Value = serde_json::from_str(id).expect("an id");
    json!({ "io.modelcontextprotocol/subscriptionId": id })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket that takes options");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| handle(Arc::clone(&shared), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Reply> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let seen = shared.note(head.method, head.headers, body);
    shared.changed();
    let mood = shared.state().mood;
    match mood {
        Mood::Closing => Err(io::ErrorKind::ConnectionReset.into()),
        Mood::LoginPage(status) => Ok(whole(status, "text/html", "<html>Please log in.</html>")),
        Mood::Stalled => std::future::pending().await,
        Mood::Status(status) => Ok(bare(StatusCode::from_u16(status).expect("a status"))),
        Mood::Forgetful | Mood::NeverEnding { .. } | Mood::Well => shared.answer(seen).await,
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere has been told already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn fault(&self, what: &str, seen: &Seen) {
        self.state().faults.push(format!("{what}: {seen:?}"));
    }

    /// Writes a request down and judges its head.
    fn note(&self, verb: Method, headers: HeaderMap, body: Bytes) -> Seen {
        let message = value_of(&body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let info = match envelope(&message, "clientInfo") {
            info if info.is_object() => info,
            _ => message["params"]["clientInfo"].clone(),
        };
        let client = text(&info["name"]);
        let session = headers.get("mcp-session-id").map(|id| id.to_str().expect("an ASCII session id").to_owned());
        let seen = Seen { verb, headers, body, method: text(&message["method"]), client, session };
        let mut state = self.state();
        state.seen.push(seen.clone());
        for name in ["authorization", "cookie", "origin", "x-forwarded-for", "forwarded", "te", "upgrade", "expect"] {
            if seen.headers.contains_key(name) && !state.allowed_headers.iter().any(|allowed| allowed == name) {
                state.faults.push(format!("header `{name}`: {seen:?}"));
            }
        }
        if header(&seen, "host") != self.address.to_string() {
            state.faults.push(format!("a Host that is not its own: {seen:?}"));
        }
        seen
    }

    async fn answer(self: &Arc<Self>, seen: Seen) -> io::Result<Reply> {
        let message = value_of(&seen.body).unwrap_or_default();
        let id = raw_id(&seen.body).unwrap_or_else(|| "null".to_owned());
        if seen.session.is_some() || (seen.verb == Method::POST && envelope(&message, "protocolVersion").is_null()) {
            return Ok(self.legacy(&seen, &id));
        }
        if seen.verb != Method::POST {
            self.fault("a verb that is not POST", &seen);
            return Ok(bare(StatusCode::METHOD_NOT_ALLOWED));
        }
        let mut faults = faults(&seen, &message);
        if let Some(tool) = self.state().tools.iter().find(|tool| tool.name == message["params"]["name"]) {
            let definition: Value = serde_json::from_str(&tool.definition).unwrap_or_default();
            param_faults(&seen, &definition["inputSchema"], &message["params"]["arguments"], &mut faults);
        }
        for fault in faults {
            self.fault(&fault, &seen);
        }
        if self.state().broken.contains(&seen.method) {
            return Ok(whole(200, "application/json", refusal(&id, -32603)));
        }
        let tool = message["params"]["name"].as_str().unwrap_or("");
        let is_held_tool = seen.method == "tools/call"
            && self.state().tools.iter().any(|candidate| candidate.name == tool && candidate.held);
        if is_held_tool || self.state().held.contains(&seen.method) {
            return self.hold(seen).await;
        }
        if seen.method == "subscriptions/listen" {
            return Ok(self.listen(&id, &message["params"]["notifications"]).await);
        }
        Ok(match self.result(&seen, &message) {
            Ok(result) => self.json_or_events(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
            Err((status, code)) => whole(status, "application/json", refusal(&id, code)),
        })
    }

    /// What it says to requests that are not modern. A gateway asks once whether it speaks legacy.
    fn legacy(&self, seen: &Seen, id: &str) -> Reply {
        let mut state = self.state();
        match (&*seen.method, &seen.verb) {
            ("initialize" | "tools/call", _) if !state.also_legacy => {
                let error = json!({
                    "code": -32022,
                    "message": "Unsupported protocol version",
                    "data": { "supported": state.supported, "requested": "" },
                });
                whole(400, "application/json", format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
            }
            ("initialize", _) => {
                state.sessions += 1;
                let result = json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": state.legacy_declares.as_ref().unwrap_or(&state.declares),
                    "serverInfo": { "name": self.name, "version": "1" },
                });
                let mut reply = whole(200, "application/json", response(id, &result));
                reply.headers_mut().insert("mcp-session-id", "legacy".parse().expect("a header value"));
                reply
            }
            ("notifications/initialized", _) if seen.session.is_some() => bare(StatusCode::ACCEPTED),
            (_, &Method::DELETE) if seen.session.is_some() => {
                state.sessions = state.sessions.saturating_sub(1);
                drop(state);
                self.changed();
                bare(StatusCode::NO_CONTENT)
            }
            _ => {
                state.faults.push(format!("a legacy request: {seen:?}"));
                bare(StatusCode::BAD_REQUEST)
            }
        }
    }

    /// The result of a request, as JSON, or the status and the code of an error.
    fn result(&self, seen: &Seen, message: &Value) -> Result<String, (u16, i64)> {
        let state = self.state();
        let (params, unknown) = (&message["params"], Err((200, -32602)));
        let named = |field: &str| params[field].as_str().unwrap_or("").to_owned();
        match &*seen.method {
            "server/discover" => Ok(discovered(&state)),
            "tools/list" => {
                let tools: Vec<_> = state.tools.iter().map(|tool| tool.definition.clone()).collect();
                Ok(list("tools", &tools, &state, message))
            }
            "prompts/list" => Ok(list("prompts", &state.prompts, &state, message)),
            "resources/list" => Ok(list("resources", &state.resources, &state, message)),
            "resources/templates/list" => Ok(list("resourceTemplates", &state.templates, &state, message)),
            "tools/call" if state.tools.iter().any(|tool| tool.name == named("name")) => {
                Ok(complete(spoken(&named("name"))).to_string())
            }
            "prompts/get" if has(&state.prompts, "name", &named("name")) => {
                let text = format!("prompt {}", named("name"));
                let messages = json!([{ "role": "user", "content": { "type": "text", "text": text } }]);
                Ok(complete(json!({ "messages": messages })).to_string())
            }
            "resources/read" if state.has_resource(&named("uri")) => {
                let contents = json!([{ "uri": named("uri"), "text": format!("read {}", named("uri")) }]);
                let result = json!({ "contents": contents, "ttlMs": state.ttl_ms, "cacheScope": state.scope });
                Ok(complete(result).to_string())
            }
            "completion/complete" => Ok(complete(json!({ "completion": { "values": ["done"] } })).to_string()),
            "prompts/get" | "resources/read" => unknown,
            "tools/call" => {
                drop(state);
                self.fault("a call of a tool it does not have", seen);
                unknown
            }
            _ => {
                drop(state);
                self.fault("an unknown method", seen);
                Err((404, -32601))
            }
        }
    }

    async fn listen(&self, id: &str, filter: &Value) -> Reply {
        let (events, sent) = mpsc::channel(16);
        if self.state().acknowledges {
            let params = json!({ "_meta": subscription(id), "notifications": filter });
            let method = "notifications/subscriptions/acknowledged";
            let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
            events.send(event(&message)).await.expect("room for one");
        }
        self.state().streams.push(Stream { id: id.to_owned(), filter: filter.clone(), events });
        self.changed();
        reply(200, "text/event-stream", News(sent).boxed_unsync())
    }

    async fn hold(&self, seen: Seen) -> io::Result<Reply> {
        let (answer, answered) = oneshot::channel();
        let gone = Arc::new(watch::Sender::new(false));
        // hyper drops this future when the gateway leaves before the answer.
        let mut pending = Gone::new(&gone);
        let result = complete(spoken(seen.json()["params"]["name"].as_str().unwrap_or("")));
        let lost = |()| io::Error::from(io::ErrorKind::ConnectionReset);
        self.calls.send(Call { seen, result, answer, gone }).await.map_err(|_| lost(()))?;
        let answered = answered.await.map_err(|_| lost(()));
        pending.armed = false;
        answered
    }

    fn json_or_events(&self, message: &str) -> Reply {
        if self.state().in_events {
            return whole(200, "text/event-stream", format!(": hello\n\nevent: message\ndata: {message}\n\n"));
        }
        whole(200, "application/json", message.to_owned())
    }
}

impl State {
    fn has_resource(&self, uri: &str) -> bool {
        has(&self.resources, "uri", uri) || fits(&self.templates, uri)
    }
}

fn discovered(state: &State) -> String {
    let mut result = json!({
        "supportedVersions": state.supported,
        "capabilities": state.declares,
        "ttlMs": state.ttl_ms,
        "cacheScope": state.scope,
    });
    if let Some(instructions) = &state.instructions {
        result["instructions"] = json!(instructions);
    }
    complete(result).to_string()
}

fn list(field: &str, entries: &[String], state: &State, request: &Value) -> String {
    let page = page(field, entries, state.page, request);
    let (ttl, scope) = (state.ttl_ms, state.scope);
    format!(r#"{{"resultType":"complete","ttlMs":{ttl},"cacheScope":"{scope}",{}"#, &page[1..])
}

fn envelope(message: &Value, key: &str) -> Value {
    message["params"]["_meta"].get(format!("{PREFIX}{key}")).cloned().unwrap_or_default()
}

fn header<'a>(seen: &'a Seen, name: &str) -> &'a str {
    seen.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// A header value as the text it stands for.
fn decoded(value: &str) -> String {
    let wrapped = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let Some(wrapped) = wrapped else { return value.to_owned() };
    let bytes = base64::engine::general_purpose::STANDARD.decode(wrapped).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// What is wrong with a modern request.
fn faults(seen: &Seen, message: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |is_right: bool, what: &str| {
        if !is_right {
            faults.push(what.to_owned());
        }
    };
    check(header(seen, "content-type") == "application/json", "a wrong Content-Type");
    check(header(seen, "accept") == "application/json, text/event-stream", "a wrong Accept");
    check(header(seen, "mcp-protocol-version") == VERSION, "a wrong MCP-Protocol-Version");
    check(header(seen, "mcp-method") == seen.method, "an Mcp-Method that is not the body's");
    check(!seen.headers.contains_key("last-event-id"), "a Last-Event-ID");
    for name in ["mcp-protocol-version", "mcp-method", "mcp-name"] {
        check(seen.headers.get_all(name).iter().count() <= 1, "a header that came twice");
    }
    check(envelope(message, "protocolVersion") == VERSION, "a wrong version in `_meta`");
    check(envelope(message, "clientCapabilities").is_object(), "no client capabilities");
    check(envelope(message, "clientInfo")["name"].is_string(), "no client info");
    check(matches!(message["id"], Value::String(_) | Value::Number(_)), "no id: nothing but requests may be posted");
    let named = match &*seen.method {
        "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
        "resources/read" => message["params"]["uri"].as_str(),
        _ => None,
    };
    check(decoded(header(seen, "mcp-name")) == named.unwrap_or(""), "an Mcp-Name that is not the body's");
    let session = ["initialize", "notifications/initialized", "ping", "logging/setLevel"];
    check(!session.contains(&&*seen.method) && !seen.method.starts_with("notifications/"), "a method of legacy");
    faults
}

/// What is wrong with the arguments that are to be repeated in headers.
fn param_faults(seen: &Seen, schema: &Value, arguments: &Value, faults: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let value = &arguments[name];
        if let Some(annotation) = property["x-mcp-header"].as_str() {
            let expected = match value.as_str() {
                Some(text) => text.to_owned(),
                None if value.is_null() => String::new(),
                None => value.to_string(),
            };
            let header = format!("mcp-param-{}", annotation.to_lowercase());
            if seen.headers.contains_key(&header) == value.is_null() || seen.header_text(&header) != expected {
                faults.push(format!("a header `{header}` that is not the body's"));
            }
        }
        param_faults(seen, property, value, faults);
    }
}

impl Seen {
    /// The text that a header stands for; empty without one.
    pub(crate) fn header_text(&self, name: &str) -> String {
        decoded(header(self, name))
    }

    /// Whether the gateway sent it for itself, or for which client.
    pub(crate) fn is_gateways(&self) -> bool {
        self.client == GATEWAY
    }
}
