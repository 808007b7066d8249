//! Listens to what a backend says about changes of its lists: on its own session's stream, or on one it was asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::backend::client::{self, Opened, Own, ServerCapabilities};
use crate::backend::sse::{Events, MAX_OWN_EVENT};
use crate::backend::{Backend, Incoming};
use crate::error::Error;
use crate::jsonrpc::{self, Message};

/// Between two tries to open a backend's stream; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is listened to.
#[derive(Clone, Debug)]
enum Source {
    Session(Arc<Opened>),
    /// The changes that are asked for, as JSON.
    Subscription(String),
}

impl Source {
    /// What a connection has to listen to, if anything.
    fn of(own: &Own) -> Option<Self> {
        match own {
            // Without a session a stream is nobody's in particular, and some servers would send clients' progress to it.
            Own::Legacy(opened) => opened.session_id.is_some().then(|| Self::Session(Arc::clone(opened))),
            Own::Modern(discovered) => wanted(discovered.capabilities).map(Self::Subscription),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Session(one), Self::Session(other)) => Arc::ptr_eq(one, other),
            (Self::Subscription(one), Self::Subscription(other)) => one == other,
            (Self::Session(_), Self::Subscription(_)) | (Self::Subscription(_), Self::Session(_)) => false,
        }
    }

    async fn open(&self, backend: &Backend) -> Result<Option<Incoming>, Error> {
        match self {
            Self::Session(opened) => client::listen(backend, opened).await,
            Self::Subscription(notifications) => client::subscribe(backend, notifications).await,
        }
    }
}

/// The `notifications` of a `subscriptions/listen`: what the backend says that it tells.
fn wanted(capabilities: ServerCapabilities) -> Option<String> {
    let told = [
        (capabilities.tools_changed, "\"toolsListChanged\":true"),
        (capabilities.prompts_changed, "\"promptsListChanged\":true"),
        (capabilities.resources_changed, "\"resourcesListChanged\":true"),
    ];
    let wanted: Vec<_> = told.into_iter().filter(|(is_told, _)| *is_told).map(|(_, wanted)| wanted).collect();
    (!wanted.is_empty()).then(|| format!("{{{}}}", wanted.join(",")))
}

/// A task that listens; ends when dropped.
#[derive(Debug)]
pub(super) struct Following {
    source: Source,
    task: AbortHandle,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Following {
    /// Listens to what `own` has to listen to. What is listened to already goes on.
    pub(super) fn start(backend: &Arc<Backend>, own: &Own, before: Option<Self>) -> Option<Self> {
        let source = Source::of(own)?;
        let goes_on = |before: &Self| before.source.is(&source) && !before.task.is_finished();
        if let Some(before) = before.filter(goes_on) {
            return Some(before);
        }
        let task = tokio::spawn(follow(Arc::clone(backend), source.clone())).abort_handle();
        Some(Self { source, task })
    }
}

/// Listens as long as the session lasts, or until it is told to stop.
async fn follow(backend: Arc<Backend>, source: Source) {
    let (mut pause, longest) = RETRY;
    let mut is_again = false;
    loop {
        match source.open(&backend).await {
            Ok(Some(incoming)) => {
                let started = Instant::now();
                if is_again {
                    // What changed while nobody listened is not told again.
                    backend.relist.notify_one();
                }
                is_again = true;
                hear(&backend, &source, incoming).await;
                backend.relist.notify_one();
                if started.elapsed() >= longest {
                    pause = RETRY.0;
                }
            }
            // No stream here (405 and the like): the timer has to do.
            Ok(None) => return,
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Reads one stream to its end.
async fn hear(backend: &Backend, source: &Source, mut incoming: Incoming) {
    let mut events = Events::new(MAX_OWN_EVENT.bytes);
    let mut is_acknowledged = matches!(source, Source::Session(_));
    while let Ok(Some(chunk)) = incoming.body.next().await {
        let pushed = events.push(&chunk);
        while let Some(event) = events.next() {
            let message = jsonrpc::parse(event.data.as_bytes());
            match (&message, source) {
                (Ok(Message::Notification(n)), _) if !is_acknowledged => {
                    if n.method != "notifications/subscriptions/acknowledged" {
                        return;
                    }
                    is_acknowledged = true;
                }
                (Ok(Message::Notification(n)), _) if is_change(&n.method) => backend.relist.notify_one(),
                (Ok(Message::Request(_)), Source::Session(opened)) => {
                    client::reply_to_question(backend, opened, event.data.as_bytes()).await;
                }
                // The end of a subscription.
                (Ok(Message::Response(_)), Source::Subscription(_)) => return,
                _ => {}
            }
        }
        if pushed.is_err() {
            backend.said_too_much();
            return;
        }
    }
}

fn is_change(method: &str) -> bool {
    matches!(
        method,
        "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
    )
}
