//! What a fake is and remembers.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{Call, Forgets, Mood, Seen};

pub(super) struct Tool {
    pub(super) name: String,
    pub(super) definition: String,
    pub(super) held: bool,
}

pub(super) struct Session {
    pub(super) client: String,
    pub(super) version: String,
    pub(super) ids: HashSet<String>,
    pub(super) stream: Option<mpsc::Sender<Bytes>>,
}

pub(super) struct State {
    pub(super) tools: Vec<Tool>,
    /// Definitions, as JSON.
    pub(super) prompts: Vec<String>,
    pub(super) resources: Vec<String>,
    pub(super) templates: Vec<String>,
    /// `capabilities`, where they are not what follows from the rest.
    pub(super) declares: Option<serde_json::Value>,
    /// Methods of lists that fail.
    pub(super) broken_lists: Vec<String>,
    /// What `server/discover` is answered with: status, media type, body with `$ID` for the id.
    pub(super) discovered: (u16, &'static str, String),
    pub(super) page: usize,
    pub(super) mood: Mood,
    pub(super) forgets: Forgets,
    pub(super) logging: bool,
    pub(super) streams: bool,
    /// Whether streams can be resumed: the test answers who comes back.
    pub(super) resumable: bool,
    /// Methods of requests that the test answers.
    pub(super) held_methods: Vec<String>,
    pub(super) sessionless: bool,
    pub(super) in_events: bool,
    pub(super) slow_lists: Duration,
    pub(super) speaks: Option<&'static str>,
    pub(super) max_body: Option<usize>,
    pub(super) instructions: Option<String>,
    pub(super) allowed_headers: Vec<String>,
    pub(super) extra_headers: Vec<(&'static str, &'static str)>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) opened: usize,
    pub(super) cursors: usize,
    pub(super) connections: usize,
    pub(super) seen: Vec<Seen>,
    pub(super) faults: Vec<String>,
}

pub(super) struct Shared {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) authority: Mutex<String>,
    pub(super) state: Mutex<State>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) calls: mpsc::Sender<Call>,
    pub(super) closing_idle: watch::Sender<u64>,
    /// Whether connections are accepted.
    pub(super) accepting: watch::Sender<bool>,
    /// Whether handshakes of clients are answered.
    pub(super) shaking_hands: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere has been told already.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
