//! The fake's side of HTTP: judges what comes in, and answers.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::call::{Gone, raw_id, spoken_of, value_of};
use super::state::{Session, Shared};
use super::{Call, Forgets, Mood, Seen, response, spoken};

pub(super) type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

pub(super) fn reply(status: u16, media_type: &str, body: UnsyncBoxBody<Bytes, io::Error>) -> Reply {
    let reply = Response::builder().status(status).header("content-type", media_type).body(body);
    reply.expect("a valid response")
}

pub(super) fn bare(status: StatusCode) -> Reply {
    let body = Full::default().map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).expect("a valid response")
}

pub(super) fn whole(status: u16, media_type: &str, body: impl Into<Bytes>) -> Reply {
    reply(status, media_type, Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync())
}

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut accepting = shared.accepting.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            () = async { drop(accepting.wait_for(|accepting| !accepting).await) } => return std::future::pending().await,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { return };
        stream.set_nodelay(true).expect("a socket that takes options");
        let open = OpenConnection::new(&shared);
        let mut closing_idle = shared.closing_idle.subscribe();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _open = open;
            let service = service_fn(|request| handle(Arc::clone(&shared), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = closing_idle.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

/// A connection, counted while it is open.
struct OpenConnection(Arc<Shared>);

impl OpenConnection {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.state().connections += 1;
        shared.changed();
        Self(Arc::clone(shared))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.state().connections -= 1;
        self.0.changed();
    }
}

/// An error of a service makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closing the connection")]
struct Close;

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Close> {
    let (head, body) = request.into_parts();
    let length = body.size_hint().exact().unwrap_or(0);
    if shared.state().max_body.is_some_and(|most| length > most as u64) {
        return Ok(bare(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let Ok(body) = body.collect().await else { return Err(Close) };
    if head.uri != "/mcp" {
        shared.fault(format!("a path that is not its own: {}", head.uri));
    }
    let seen = shared.note(head.method, head.headers, body.to_bytes());
    let session = seen.session.clone();
    shared.changed();
    let (mood, extra) = {
        let state = shared.state();
        (state.mood, state.extra_headers.clone())
    };
    let mut reply = match mood {
        Mood::Closing => Err(Close),
        Mood::LoginPage(status) => Ok(whole(status, "text/html", "<html><form>Please log in</form></html>")),
        Mood::Stalled => std::future::pending().await,
        Mood::Status(status) => Ok(bare(StatusCode::from_u16(status).expect("a status"))),
        Mood::Forgetful | Mood::NeverEnding { .. } | Mood::Well => shared.answer(seen).await,
    }?;
    for (name, value) in extra {
        reply.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    if let Some(session) = session {
        // Servers put it on every answer.
        reply.headers_mut().insert("mcp-session-id", session.parse().expect("a header value"));
    }
    shared.changed();
    Ok(reply)
}

impl Shared {
    fn fault(&self, what: String) {
        self.state().faults.push(what);
    }

    /// Writes a request down and judges its head.
    fn note(&self, verb: Method, headers: HeaderMap, body: Bytes) -> Seen {
        let message = value_of(&body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let session = headers.get("mcp-session-id").map(|id| id.to_str().expect("an ASCII session id").to_owned());
        let mut state = self.state();
        let client = match state.sessions.get(session.as_deref().unwrap_or("")) {
            Some(session) => session.client.clone(),
            None => {
                let modern = text(&message["params"]["_meta"]["io.modelcontextprotocol/clientInfo"]["name"]);
                if modern.is_empty() { text(&message["params"]["clientInfo"]["name"]) } else { modern }
            }
        };
        let seen = Seen { verb, headers, body, method: text(&message["method"]), client, session };
        state.seen.push(seen.clone());
        for name in ["authorization", "cookie", "origin", "x-forwarded-for", "forwarded", "te", "upgrade", "expect"] {
            if seen.headers.contains_key(name) && !state.allowed_headers.iter().any(|allowed| allowed == name) {
                state.faults.push(format!("header `{name}`: {seen:?}"));
            }
        }
        let authority = self.authority.lock().expect("an authority").clone();
        if seen.headers.get("host").is_none_or(|host| *host != authority) {
            state.faults.push(format!("a Host that is not its own: {seen:?}"));
        }
        seen
    }

    async fn answer(self: &Arc<Self>, seen: Seen) -> Result<Reply, Close> {
        match seen.verb {
            Method::POST => self.post(seen).await,
            Method::GET if seen.headers.contains_key("last-event-id") && self.state().resumable => {
                self.hold(seen).await
            }
            Method::GET => Ok(self.get(&seen)),
            Method::DELETE => Ok(self.delete(&seen)),
            _ => {
                self.fault(format!("an unknown verb: {seen:?}"));
                Ok(bare(StatusCode::METHOD_NOT_ALLOWED))
            }
        }
    }

    fn get(&self, seen: &Seen) -> Reply {
        let mut state = self.state();
        if !state.streams {
            return bare(StatusCode::METHOD_NOT_ALLOWED);
        }
        let Some(session) = state.sessions.get_mut(seen.session.as_deref().unwrap_or("")) else {
            return bare(StatusCode::NOT_FOUND);
        };
        let (messages, sent) = mpsc::channel(16);
        session.stream = Some(messages);
        reply(200, "text/event-stream", News(sent).boxed_unsync())
    }

    fn delete(&self, seen: &Seen) -> Reply {
        match self.state().sessions.remove(seen.session.as_deref().unwrap_or("")) {
            Some(_) => bare(StatusCode::NO_CONTENT),
            None => bare(StatusCode::NOT_FOUND),
        }
    }

    async fn post(self: &Arc<Self>, seen: Seen) -> Result<Reply, Close> {
        self.judge_post(&seen);
        if seen.method == "initialize" {
            if seen.is_clients() {
                drop(self.shaking_hands.subscribe().wait_for(|shaking| *shaking).await);
            }
            return Ok(self.initialize(&seen));
        }
        if seen.method == "server/discover" && seen.session.is_none() {
            return Ok(self.discover(&seen));
        }
        if let Some(refusal) = self.refuse_session(&seen) {
            return Ok(refusal);
        }
        let Some(id) = raw_id(&seen.body) else { return Ok(bare(StatusCode::ACCEPTED)) };
        if self.state().held_methods.contains(&seen.method) {
            return self.hold(seen).await;
        }
        let result = match &*seen.method {
            "" => return Ok(bare(StatusCode::ACCEPTED)),
            "tools/call" => return self.call(seen, &id).await,
            "tools/list" => {
                let pause = self.state().slow_lists;
                sleep(pause).await;
                self.page(&seen)
            }
            "prompts/list" | "resources/list" | "resources/templates/list" => {
                let kind = &*seen.method;
                match self.other_page(kind, &seen) {
                    Some(page) => page,
                    None => return Ok(self.json_or_events(&refusal(&id, -32603))),
                }
            }
            "prompts/get" | "resources/read" => match self.known(&seen) {
                Ok(result) => result.to_string(),
                Err(error) => {
                    let error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#);
                    return Ok(self.json_or_events(&error));
                }
            },
            "completion/complete" => json!({ "completion": { "values": ["completed"] } }).to_string(),
            "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => "{}".to_owned(),
            _ => {
                self.fault(format!("an unknown method: {seen:?}"));
                "{}".to_owned()
            }
        };
        Ok(self.json_or_events(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)))
    }

    fn judge_post(&self, seen: &Seen) {
        let value = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        if value("content-type") != "application/json" {
            self.fault(format!("a wrong Content-Type: {seen:?}"));
        }
        if value("accept") != "application/json, text/event-stream" {
            self.fault(format!("a wrong Accept: {seen:?}"));
        }
        if value_of(&seen.body).is_none() {
            self.fault(format!("a body that is not JSON: {seen:?}"));
        }
    }

    /// What a server that knows no modern requests says to one.
    fn discover(&self, seen: &Seen) -> Reply {
        if seen.headers.get("mcp-protocol-version").is_none_or(|version| version != "2026-07-28") {
            self.fault(format!("a modern request without its header: {seen:?}"));
        }
        let (status, media_type, body) = self.state().discovered.clone();
        let id = raw_id(&seen.body).unwrap_or_default();
        let mut reply = whole(status, media_type, body.replace("$ID", &id));
        // Some servers send one that is of no use.
        reply.headers_mut().insert("mcp-session-id", "dead".parse().expect("a header value"));
        reply
    }

    fn initialize(&self, seen: &Seen) -> Reply {
        let message = seen.json();
        let asked = message["params"]["protocolVersion"].as_str().unwrap_or("");
        let mut state = self.state();
        let version = state.speaks.unwrap_or(asked).to_owned();
        if seen.session.is_some() {
            state.faults.push(format!("`initialize` with a session: {seen:?}"));
        }
        let mut capabilities = json!({ "tools": { "listChanged": true } });
        if let Some(declared) = &state.declares {
            capabilities = declared.clone();
        }
        if state.logging {
            capabilities["logging"] = json!({});
        }
        let mut result = json!({
            "protocolVersion": version,
            "capabilities": capabilities,
            "serverInfo": { "name": self.name, "version": "1" },
        });
        if let Some(instructions) = &state.instructions {
            result["instructions"] = json!(instructions);
        }
        state.opened += 1;
        let id = format!("{}-{}", self.name, state.opened);
        let ids = HashSet::from([raw_id(&seen.body).unwrap_or_default()]);
        let forgotten = state.mood == Mood::Forgetful && seen.is_clients();
        if !state.sessionless && !forgotten {
            let session = Session { client: seen.client.clone(), version, ids, stream: None };
            state.sessions.insert(id.clone(), session);
        }
        let sessionless = state.sessionless;
        drop(state);
        let mut reply = self.json_or_events(&response(&raw_id(&seen.body).unwrap_or_default(), &result));
        if !sessionless {
            reply.headers_mut().insert("mcp-session-id", id.parse().expect("a header value"));
        }
        reply
    }

    /// What a server that keeps sessions says to a request outside of them.
    fn refuse_session(&self, seen: &Seen) -> Option<Reply> {
        let mut state = self.state();
        if state.sessionless {
            return None;
        }
        let Some(id) = &seen.session else {
            state.faults.push(format!("a request without a session: {seen:?}"));
            return Some(bare(StatusCode::BAD_REQUEST));
        };
        let Some(session) = state.sessions.get_mut(id) else {
            return Some(match state.forgets {
                Forgets::NotFound => bare(StatusCode::NOT_FOUND),
                Forgets::BadRequest => whole(
                    400,
                    "application/json",
                    r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#,
                ),
            });
        };
        let version = seen.headers.get("mcp-protocol-version").and_then(|value| value.to_str().ok());
        let mut faults = Vec::new();
        if version != Some(&*session.version) {
            faults.push(format!("a protocol version that was not agreed on: {seen:?}"));
        }
        if !seen.method.is_empty()
            && let Some(id) = raw_id(&seen.body)
            && !session.ids.insert(id)
        {
            faults.push(format!("a request id that was used before in its session: {seen:?}"));
        }
        state.faults.extend(faults);
        None
    }

    fn page(&self, seen: &Seen) -> String {
        let mut state = self.state();
        let start =
            seen.json()["params"]["cursor"].as_str().and_then(|cursor| cursor.parse::<usize>().ok()).unwrap_or(0);
        if let Mood::NeverEnding { new_cursors } = state.mood {
            state.cursors += usize::from(new_cursors);
            return format!(r#"{{"tools":[],"nextCursor":"more-{}"}}"#, state.cursors);
        }
        let end = start.saturating_add(state.page).min(state.tools.len());
        let tools: Vec<_> = state.tools[start..end].iter().map(|tool| &*tool.definition).collect();
        let next = if end < state.tools.len() { format!(r#","nextCursor":"{end}""#) } else { String::new() };
        format!(r#"{{"tools":[{}]{next}}}"#, tools.join(","))
    }

    /// A page of prompts, resources or templates; `None` where it is to fail.
    fn other_page(&self, method: &str, seen: &Seen) -> Option<String> {
        let state = self.state();
        if state.broken_lists.iter().any(|broken| broken == method) {
            return None;
        }
        let (field, entries) = match method {
            "prompts/list" => ("prompts", &state.prompts),
            "resources/list" => ("resources", &state.resources),
            _ => ("resourceTemplates", &state.templates),
        };
        Some(page(field, entries, state.page, &seen.json()))
    }

    /// The result, or the error, of `prompts/get` and `resources/read`.
    fn known(&self, seen: &Seen) -> Result<Value, Value> {
        let (state, params) = (self.state(), seen.json()["params"].clone());
        if seen.method == "prompts/get" {
            let name = params["name"].as_str().unwrap_or("");
            let content = json!({ "type": "text", "text": format!("prompt {name}") });
            return match has(&state.prompts, "name", name) {
                true => Ok(json!({ "messages": [{ "role": "user", "content": content }] })),
                false => Err(json!({ "code": -32602, "message": "no" })),
            };
        }
        let uri = params["uri"].as_str().unwrap_or("");
        match has(&state.resources, "uri", uri) || fits(&state.templates, uri) {
            true => Ok(json!({ "contents": [{ "uri": uri, "text": format!("read {uri}") }] })),
            false => Err(json!({ "code": -32002, "message": "Resource not found", "data": { "uri": uri } })),
        }
    }

    async fn call(self: &Arc<Self>, seen: Seen, id: &str) -> Result<Reply, Close> {
        let name = seen.json()["params"]["name"].as_str().unwrap_or("").to_owned();
        let held = self.state().tools.iter().find(|tool| tool.name == name).map(|tool| tool.held);
        match held {
            Some(true) => self.hold(seen).await,
            Some(false) => Ok(self.json_or_events(&response(id, &spoken(&name)))),
            None => {
                self.fault(format!("a call of a tool it does not have: {seen:?}"));
                Ok(bare(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }

    async fn hold(self: &Arc<Self>, seen: Seen) -> Result<Reply, Close> {
        let (answer, answered) = oneshot::channel();
        let gone = Arc::new(watch::Sender::new(false));
        // hyper drops this future when the gateway leaves before the answer.
        let mut pending = Gone::new(&gone);
        if self.calls.send(Call { result: spoken_of(&seen), seen, answer, gone }).await.is_err() {
            return Err(Close);
        }
        let answered = answered.await.map_err(|_| Close);
        pending.armed = false;
        answered
    }

    fn json_or_events(&self, message: &str) -> Reply {
        if self.state().in_events {
            // A priming event without data comes first, as servers of 2025-11-25 send it.
            return whole(200, "text/event-stream", format!("id: 1\ndata: \n\nevent: message\ndata: {message}\n\n"));
        }
        whole(200, "application/json", message.to_owned())
    }
}

/// Whether one of these definitions is of this name.
pub(super) fn has(definitions: &[String], key: &str, wanted: &str) -> bool {
    let is_it = |definition: &String| {
        serde_json::from_str::<Value>(definition).is_ok_and(|definition| definition[key] == wanted)
    };
    definitions.iter().any(is_it)
}

/// Whether a URI begins as one of these templates does.
pub(super) fn fits(templates: &[String], uri: &str) -> bool {
    templates.iter().any(|definition| {
        let definition: Value = serde_json::from_str(definition).unwrap_or_default();
        let template = definition["uriTemplate"].as_str().unwrap_or("");
        !template.is_empty() && uri.starts_with(template.split('{').next().unwrap_or(""))
    })
}

/// One page of a list of definitions.
pub(super) fn page(field: &str, entries: &[String], length: usize, request: &Value) -> String {
    let start = request["params"]["cursor"].as_str().and_then(|cursor| cursor.parse::<usize>().ok()).unwrap_or(0);
    let end = start.saturating_add(length).min(entries.len());
    let next = if end < entries.len() { format!(r#","nextCursor":"{end}""#) } else { String::new() };
    format!(r#"{{"{field}":[{}]{next}}}"#, entries.get(start..end).unwrap_or_default().join(","))
}

/// An error response. `id` is JSON.
pub(super) fn refusal(id: &str, code: i64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"no"}}}}"#)
}

pub(super) struct News(pub(super) mpsc::Receiver<Bytes>);

impl Body for News {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
