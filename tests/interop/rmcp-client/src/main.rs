//! An rmcp client that obeys the line protocol of `clients/lines.py`. `interop-rmcp-client auto|legacy|2026-07-28`.
//!
//! One thread: rmcp gives each notification a task of its own, and only a single thread keeps those in order.

mod lines;
mod peer;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::lines::{Act, Order, failure, say};
use crate::peer::Peer;
use crate::session::{Mode, Session};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mode: Mode = std::env::args().nth(1).context("give a mode: auto, legacy or 2026-07-28")?.parse()?;
    let client = Arc::new(Client::new(mode)?);
    let mut orders = JoinSet::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        orders.spawn(client.clone().obey(serde_json::from_str(&line)?));
        while orders.try_join_next().is_some() {}
    }
    orders.shutdown().await;
    client.close_all().await;
    Ok(())
}

/// Many named sessions, and the calls under way.
struct Client {
    http: reqwest::Client,
    mode: Mode,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    calls: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Client {
    fn new(mode: Mode) -> Result<Self> {
        Ok(Self { http: session::http()?, mode, sessions: Mutex::default(), calls: Mutex::default() })
    }

    async fn obey(self: Arc<Self>, order: Order) {
        let id = order.id;
        match self.act(id, order.act).await {
            Ok(value) => say(&json!({ "id": id, "ok": value })),
            Err(error) => say(&json!({ "id": id, "error": failure(&error) })),
        }
    }

    async fn act(&self, id: u64, act: Act) -> Result<Value> {
        match act {
            Act::Ask { session, question } => self.session(&session)?.ask(question).await,
            Act::Connect { session, url, offers, answers } => {
                let peer = Peer::new(session.clone(), &offers, answers)?;
                let opened = Session::open(peer, &url, self.http.clone(), self.mode).await?;
                let protocol = opened.protocol();
                self.sessions.lock().unwrap().insert(session, Arc::new(opened));
                Ok(json!({ "protocol": protocol }))
            }
            Act::Call { session, name, arguments, progress } => {
                let (cancel, cancelled) = oneshot::channel();
                self.calls.lock().unwrap().insert(id, cancel);
                let session = self.session(&session)?;
                let result = if progress {
                    session.call_with_progress(id, name, arguments, cancelled).await
                } else {
                    session.call(name, arguments, cancelled).await
                };
                self.calls.lock().unwrap().remove(&id);
                result
            }
            Act::Cancel { call } => {
                let cancel = self.calls.lock().unwrap().remove(&call).context("no such call")?;
                cancel.send(()).ok().context("the call is over")?;
                Ok(Value::Null)
            }
            Act::Close { session } => {
                let closing = self.sessions.lock().unwrap().remove(&session).context("no such session")?;
                closing.close().await;
                Ok(Value::Null)
            }
        }
    }

    fn session(&self, name: &str) -> Result<Arc<Session>> {
        self.sessions.lock().unwrap().get(name).cloned().context("no such session")
    }

    async fn close_all(&self) {
        let sessions = std::mem::take(&mut *self.sessions.lock().unwrap());
        for session in sessions.into_values() {
            session.close().await;
        }
    }
}
