//! Puts a fake together.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::server::accept;
use super::state::{Shared, State, Tool};
use super::{FakeBackend, Forgets, Mood, definition};

/// What a server of TypeScript's first SDK says to a request outside of a session.
const NOT_INITIALIZED: &str =
    r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;

/// A fake that is being put together.
pub(crate) struct Builder {
    name: &'static str,
    backlog: u32,
    state: State,
}

impl Builder {
    pub(super) fn new(name: &'static str) -> Self {
        let state = State {
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            declares: None,
            broken_lists: Vec::new(),
            discovered: (400, "application/json", NOT_INITIALIZED.to_owned()),
            page: usize::MAX,
            mood: Mood::Well,
            forgets: Forgets::NotFound,
            logging: false,
            streams: false,
            resumable: false,
            held_methods: Vec::new(),
            sessionless: false,
            in_events: false,
            slow_lists: Duration::ZERO,
            speaks: None,
            max_body: None,
            instructions: None,
            allowed_headers: Vec::new(),
            extra_headers: Vec::new(),
            sessions: HashMap::new(),
            opened: 0,
            cursors: 0,
            connections: 0,
            seen: Vec::new(),
            faults: Vec::new(),
        };
        Self { name, backlog: 1024, state }
    }

    /// A tool that answers at once.
    pub(crate) fn tool(self, name: &str) -> Self {
        let definition = definition(name);
        self.add(name, definition, false)
    }

    /// A tool whose calls the test answers: see [`FakeBackend::next_call`].
    pub(crate) fn held(self, name: &str) -> Self {
        let definition = definition(name);
        self.add(name, definition, true)
    }

    /// A tool, or what passes for one, listed in exactly these bytes. It answers at once.
    pub(crate) fn defined(self, name: &str, definition: &str) -> Self {
        self.add(name, definition.to_owned(), false)
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

    /// Its capabilities. Without this it has tools that may change.
    pub(crate) fn declares(mut self, capabilities: serde_json::Value) -> Self {
        self.state.declares = Some(capabilities);
        self
    }

    /// What it answers to `server/discover`; `$ID` stands for the id.
    pub(crate) fn discovered(mut self, status: u16, media_type: &'static str, body: &str) -> Self {
        self.state.discovered = (status, media_type, body.to_owned());
        self
    }

    /// So many tools a page.
    pub(crate) fn pages_of(mut self, tools: usize) -> Self {
        self.state.page = tools;
        self
    }

    pub(crate) fn mood(mut self, mood: Mood) -> Self {
        self.state.mood = mood;
        self
    }

    pub(crate) fn forgets(mut self, forgets: Forgets) -> Self {
        self.state.forgets = forgets;
        self
    }

    /// It takes `logging/setLevel`.
    pub(crate) fn logging(mut self) -> Self {
        self.state.logging = true;
        self
    }

    /// It has a GET stream.
    pub(crate) fn streams(mut self) -> Self {
        self.state.streams = true;
        self
    }

    /// A client that comes back for the rest of a stream is answered by the test, as calls of held tools are.
    pub(crate) fn resumable(mut self) -> Self {
        self.state.resumable = true;
        self
    }

    /// Requests of this method are answered by the test, as calls of held tools are.
    pub(crate) fn holding(mut self, method: &str) -> Self {
        self.state.held_methods.push(method.to_owned());
        self
    }

    /// It keeps no sessions.
    pub(crate) fn sessionless(mut self) -> Self {
        self.state.sessionless = true;
        self
    }

    /// It answers in events where it could in JSON.
    pub(crate) fn in_events(mut self) -> Self {
        self.state.in_events = true;
        self
    }

    /// It speaks this version, whatever it is asked for.
    pub(crate) fn speaks(mut self, version: &'static str) -> Self {
        self.state.speaks = Some(version);
        self
    }

    /// It answers 413 to longer bodies at once, and closes the connection without reading them.
    pub(crate) fn max_body(mut self, bytes: usize) -> Self {
        self.state.max_body = Some(bytes);
        self
    }

    /// Its lists take this long.
    pub(crate) fn slow_lists(mut self, pause: Duration) -> Self {
        self.state.slow_lists = pause;
        self
    }

    pub(crate) fn instructions(mut self, text: &str) -> Self {
        self.state.instructions = Some(text.to_owned());
        self
    }

    /// A header that it may be sent although no backend should see it unless configured.
    pub(crate) fn takes_header(mut self, name: &str) -> Self {
        self.state.allowed_headers.push(name.to_owned());
        self
    }

    /// A header on each of its answers.
    pub(crate) fn sends_header(mut self, name: &'static str, value: &'static str) -> Self {
        self.state.extra_headers.push((name, value));
        self
    }

    /// The kernel queues few connections for it: see [`FakeBackend::stop_accepting`].
    pub(crate) fn short_queue(mut self) -> Self {
        self.backlog = 1;
        self
    }

    pub(crate) async fn start(self) -> FakeBackend {
        let socket = super::door_at(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = socket.listen(self.backlog).expect("a socket that listens");
        let address = listener.local_addr().expect("an address");
        let (calls, held) = mpsc::channel(64);
        let shared = Arc::new(Shared {
            name: self.name,
            address,
            authority: Mutex::new(address.to_string()),
            state: Mutex::new(self.state),
            changes: watch::Sender::new(0),
            calls,
            closing_idle: watch::Sender::new(0),
            accepting: watch::Sender::new(true),
            shaking_hands: watch::Sender::new(true),
        });
        let door = tokio::spawn(accept(listener, Arc::clone(&shared)));
        FakeBackend { shared, held: tokio::sync::Mutex::new(held), door: Mutex::new(door) }
    }
}
