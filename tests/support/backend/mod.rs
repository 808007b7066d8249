//! A legacy MCP server in this process. It is strict: whatever the gateway must not send to a backend is noted, and fails the
//! test when the fake is dropped. Tools answer by themselves, or the test holds the other end of each call.

mod builder;
mod call;
pub(crate) mod modern;
mod server;
mod state;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use self::builder::Builder;
use self::call::value_of;
pub(crate) use self::call::{Call, CallStream, definition, event, response, spoken};
pub(crate) use self::modern::FakeModern;
use self::server::accept;
use self::state::{Shared, Tool};
use super::within;

/// Who the gateway says it is when it speaks for itself.
const GATEWAY: &str = "toolgate";

/// What can stand behind a gateway.
pub(crate) trait Server {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    fn url(&self) -> String;
}

/// How a fake behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mood {
    Well,
    /// Reads a request and closes the connection.
    Closing,
    /// Forgets clients' sessions as soon as they are opened; the gateway's own are kept.
    Forgetful,
    /// Answers everything with a page for people.
    LoginPage(u16),
    /// Its list goes on for ever; whether each cursor is new.
    NeverEnding {
        new_cursors: bool,
    },
    /// Reads requests and never answers.
    Stalled,
    /// Answers everything with this status and no body.
    Status(u16),
}

/// How a fake says that it does not know a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forgets {
    /// 404, by the book.
    NotFound,
    /// 400 and -32000, as TypeScript's boilerplate servers do.
    BadRequest,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verb: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The JSON-RPC method; empty for responses and for bodies without a message.
    pub(crate) method: String,
    /// The client's name, by its session.
    pub(crate) client: String,
    pub(crate) session: Option<String>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        value_of(&self.body).expect("a body of JSON")
    }

    /// Whether it was sent on behalf of a client, not for the gateway itself.
    pub(crate) fn is_clients(&self) -> bool {
        self.client != GATEWAY
    }
}

/// A socket at an address that others of the same process may have too: one that listens and the one that follows it.
fn door_at(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket that takes options");
    socket.set_reuseport(true).expect("a socket that takes options");
    socket.bind(address).expect("a port of its own");
    socket
}

/// A fake that runs.
pub(crate) struct FakeBackend {
    shared: Arc<Shared>,
    held: tokio::sync::Mutex<mpsc::Receiver<Call>>,
    door: Mutex<JoinHandle<()>>,
}

impl Drop for FakeBackend {
    fn drop(&mut self) {
        self.door.lock().expect("a door").abort();
        let faults = std::mem::take(&mut self.shared.state().faults);
        if !faults.is_empty() && !std::thread::panicking() {
            panic!("backend `{}` got what it should not have: {faults:#?}", self.name());
        }
    }
}

impl Server for FakeBackend {
    fn name(&self) -> &'static str {
        self.shared.name
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.shared.address)
    }
}

impl FakeBackend {
    /// A fake of this name, which is its name in the configuration too.
    pub(crate) fn named(name: &'static str) -> Builder {
        Builder::new(name)
    }

    /// One tool that answers at once.
    pub(crate) async fn with_tool(name: &'static str, tool: &str) -> Self {
        Self::named(name).tool(tool).start().await
    }

    /// One tool whose calls the test answers.
    pub(crate) async fn with_held_tool(name: &'static str, tool: &str) -> Self {
        Self::named(name).held(tool).start().await
    }

    /// A URL where nobody listens, and the socket that keeps its port from being given to somebody who does.
    pub(crate) fn dead() -> (String, TcpSocket) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        (format!("http://{}/mcp", socket.local_addr().expect("an address")), socket)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.shared.name
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.shared.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Takes another authority for its own: somebody stands in front of it.
    pub(crate) fn goes_by(&self, authority: &str) {
        authority.clone_into(&mut self.shared.authority.lock().expect("an authority"));
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.shared.state().mood = mood;
        self.shared.changed();
    }

    pub(crate) fn add_tool(&self, name: &str) {
        let tool = Tool { name: name.to_owned(), definition: definition(name), held: false };
        self.shared.state().tools.push(tool);
    }

    /// Lists a tool in these bytes from now on.
    pub(crate) fn define_again(&self, name: &str, definition: &str) {
        let mut state = self.shared.state();
        let tool = state.tools.iter_mut().find(|tool| tool.name == name).expect("a tool of that name");
        definition.clone_into(&mut tool.definition);
    }

    pub(crate) fn add_prompt(&self, definition: &str) {
        self.shared.state().prompts.push(definition.to_owned());
    }

    pub(crate) fn remove_tool(&self, name: &str) {
        self.shared.state().tools.retain(|tool| tool.name != name);
    }

    /// What the gateway did wrong so far, where that is what the test brought about.
    pub(crate) fn take_faults(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().faults)
    }

    /// The methods of lists that fail from now on.
    pub(crate) fn break_lists(&self, methods: &[&str]) {
        self.shared.state().broken_lists = methods.iter().map(|&method| method.to_owned()).collect();
    }

    /// Forgets every session of a client.
    pub(crate) fn forget_sessions(&self) {
        self.shared.state().sessions.retain(|_, session| session.client == GATEWAY);
        self.shared.changed();
    }

    /// Forgets the gateway's own sessions too, and ends their streams.
    pub(crate) fn forget_everything(&self) {
        self.shared.state().sessions.clear();
        self.shared.changed();
    }

    /// Ends its streams.
    pub(crate) fn end_streams(&self) {
        self.shared.state().sessions.values_mut().for_each(|session| session.stream = None);
        self.shared.changed();
    }

    /// Closes connections that are kept alive without a request, as servers do after a while.
    pub(crate) fn close_idle_connections(&self) {
        self.shared.closing_idle.send_modify(|count| *count += 1);
    }

    /// Accepts no more connections, and fills the kernel's queue for it with what is returned, so that further ones hang.
    pub(crate) async fn stop_accepting(&self) -> Vec<TcpStream> {
        self.shared.accepting.send_replace(false);
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(self.shared.address)).await {
            queued.push(stream.expect("a queue"));
        }
        queued
    }

    /// Closes every connection without a request and refuses new ones, until it comes back by what is returned.
    pub(crate) async fn go_away(&self) -> TcpSocket {
        // Bound beside the one that listens, so that its port is at no moment free for somebody else's connection.
        let socket = door_at(self.shared.address);
        let door = std::mem::replace(&mut *self.door.lock().expect("a door"), tokio::spawn(async {}));
        door.abort();
        // Nothing listens once the task is gone.
        let _ = door.await;
        self.close_idle_connections();
        self.until(|backend| backend.connections() == 0).await;
        socket
    }

    /// Accepts connections again.
    pub(crate) fn come_back(&self, socket: TcpSocket) {
        let listener = socket.listen(1024).expect("a socket that listens");
        *self.door.lock().expect("a door") = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
    }

    /// Answers no handshake of a client until [`shake_hands`](Self::shake_hands).
    pub(crate) fn hold_handshakes(&self) {
        self.shared.shaking_hands.send_replace(false);
    }

    pub(crate) fn shake_hands(&self) {
        self.shared.shaking_hands.send_replace(true);
    }

    /// Sends a message on every GET stream that is open.
    pub(crate) async fn announce(&self, message: &Value) {
        let streams: Vec<_> = self.shared.state().sessions.values().filter_map(|s| s.stream.clone()).collect();
        for stream in streams {
            // One that has been closed meanwhile hears nothing.
            let _ = stream.send(event(message)).await;
        }
    }

    /// Sends these bytes on the GET streams of clients.
    pub(crate) async fn say_to_clients(&self, bytes: &str) {
        let state = || self.shared.state();
        let is_clients = |session: &&state::Session| session.client != GATEWAY;
        let streams: Vec<_> = state().sessions.values().filter(is_clients).filter_map(|s| s.stream.clone()).collect();
        for stream in streams {
            let _ = stream.send(bytes.to_owned().into()).await;
        }
    }

    /// Sends a message on the GET streams of clients.
    pub(crate) async fn tell_clients(&self, message: &Value) {
        self.say_to_clients(&format!("data: {message}\n\n")).await;
    }

    /// Sends a message on the GET stream of the session that was opened last.
    pub(crate) async fn tell_last(&self, message: &Value) {
        let state = || self.shared.state();
        let last = format!("{}-{}", self.name(), state().opened);
        let stream = state().sessions.get(&last).and_then(|session| session.stream.clone());
        let sent = stream.expect("a stream of the last session").send(event(message)).await;
        sent.expect("a stream that is read");
    }

    /// How many GET streams of clients are open.
    pub(crate) fn client_streams(&self) -> usize {
        let open = |session: &&state::Session| session.client != GATEWAY && session.stream.is_some();
        self.shared.state().sessions.values().filter(open).count()
    }

    /// Says on its streams that its tools changed.
    pub(crate) async fn announce_change(&self) {
        self.announce(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).await;
    }

    /// The next call of a held tool.
    #[track_caller]
    pub(crate) fn next_call(&self) -> impl Future<Output = Call> {
        let next = async { self.held.lock().await.recv().await.expect("a fake that runs") };
        within(next)
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

    /// Requests of this method, whoever they were sent for: modern clients share sessions of the gateway's own.
    pub(crate) fn all(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    /// Requests of this method that the gateway sent for itself.
    pub(crate) fn by_gateway(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| !seen.is_clients() && seen.method == method).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Seen> {
        self.by_clients("tools/call")
    }

    /// The call that there is, and no other.
    #[track_caller]
    pub(crate) fn only_call(&self) -> Seen {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "calls of `{}`: {calls:#?}", self.name());
        calls.remove(0)
    }

    /// Responses that were posted to it, as answers to its questions.
    pub(crate) fn responses(&self) -> Vec<Value> {
        let is_response = |seen: &Seen| seen.method.is_empty() && !seen.body.is_empty();
        self.seen().iter().filter(|seen| is_response(seen)).map(Seen::json).collect()
    }

    /// Sessions opened and not ended by DELETE, of clients.
    pub(crate) fn client_sessions(&self) -> usize {
        self.shared.state().sessions.values().filter(|session| session.client != GATEWAY).count()
    }

    /// Sessions opened and not ended by DELETE, of the gateway itself.
    pub(crate) fn gateway_sessions(&self) -> usize {
        self.shared.state().sessions.values().filter(|session| session.client == GATEWAY).count()
    }

    /// Whether the gateway listens to its stream.
    pub(crate) fn is_heard(&self) -> bool {
        self.shared.state().sessions.values().any(|session| session.stream.is_some())
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state().connections
    }
}
