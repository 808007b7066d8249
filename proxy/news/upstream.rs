//! What backends say unasked, for one client stream: their own streams, listened to as long as the client listens.

mod leg;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::backend::client::{self, Opened};
use crate::backend::sse::{self, Events, MAX_OWN_EVENT};
use crate::bridge::shape;
use crate::catalog::{self, is_part};
use crate::era::Era;
use crate::error::Error;
use crate::jsonrpc::{self, Message};
use crate::session::{Leg, Session};

/// Messages that wait for a slow client; then the backends wait.
const MAX_WAITING: usize = 64;
/// Between two tries to open a backend's stream; it doubles up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Listens to backends.
pub(crate) struct Upstream {
    sender: mpsc::Sender<Heard>,
    receiver: mpsc::Receiver<Heard>,
    /// Whether there is a client to hear it.
    is_heard: bool,
    listeners: HashMap<Place, Listener>,
}

/// A backend's uid, and whether resources are what is listened for.
type Place = (u64, bool);

/// What a backend says.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// A message; empty in an event that only says its id, and none where only `retry` is said.
    data: Option<Bytes>,
    /// As the client is to know it.
    id: Option<String>,
    /// Milliseconds.
    retry: Option<u64>,
}

impl Heard {
    /// As an event of a client's stream.
    pub(crate) fn event(&self) -> Bytes {
        sse::event_with(self.id.as_deref(), self.retry, self.data.as_deref())
    }

    /// The message, if there is one.
    pub(crate) fn message(self) -> Option<Bytes> {
        self.data.filter(|data| !data.is_empty())
    }
}

/// A task that listens, until dropped.
struct Listener {
    what: What,
    task: AbortHandle,
}

/// What is listened to.
#[derive(Clone)]
enum What {
    /// The stream of a session with a legacy backend.
    Leg(Arc<Leg>, Arc<Opened>),
    /// Nothing yet: the session with a legacy backend that the client is subscribed at is to be opened.
    Opening(Arc<Leg>),
    /// News of these resources from a modern backend.
    Resources(Arc<Backend>, Vec<Box<str>>),
    /// Nothing yet: it is not known what the backend speaks.
    Unknown(Arc<Backend>),
}

impl What {
    fn place(&self, backend: &Backend) -> Place {
        (backend.uid, matches!(self, Self::Resources(..)))
    }

    /// News of the resources that a session is subscribed to.
    fn resources(session: &Session, backend: &Arc<Backend>) -> Option<Self> {
        let uris = session.subscriptions(backend);
        (!uris.is_empty()).then(|| Self::Resources(Arc::clone(backend), uris))
    }
}

impl PartialEq for What {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leg(_, left), Self::Leg(_, right)) => Arc::ptr_eq(left, right),
            (Self::Resources(_, left), Self::Resources(_, right)) => left == right,
            (Self::Opening(left), Self::Opening(right)) => Arc::ptr_eq(left, right),
            (Self::Unknown(_), Self::Unknown(_)) => true,
            (Self::Leg(..) | Self::Opening(_) | Self::Resources(..) | Self::Unknown(_), _) => false,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { sender, receiver, is_heard: true, listeners: HashMap::new() }
    }

    /// Listens where no client does: what is asked is refused, and lists that changed are listed anew.
    pub(super) fn unheard() -> Self {
        Self { is_heard: false, ..Self::new() }
    }

    /// Listens to the stream of a session with a legacy backend.
    pub(super) fn hear(&mut self, session: &Arc<Session>, leg: &Arc<Leg>, opened: &Arc<Opened>) {
        let what = What::Leg(Arc::clone(leg), Arc::clone(opened));
        let place = what.place(&leg.backend);
        if self.listeners.get(&place).is_none_or(|listener| listener.what != what) {
            let to = self.is_heard.then(|| self.sender.clone());
            let hearing = leg::hear(Arc::clone(session), Arc::clone(leg), Arc::clone(opened), to, None);
            self.listeners.insert(place, Listener { what, task: tokio::spawn(hearing).abort_handle() });
        }
    }

    /// Stops listening to a backend.
    pub(super) fn leave(&mut self, backend: u64) {
        self.listeners.retain(|(uid, _), _| *uid != backend);
    }

    /// What was heard and waits to be taken.
    pub(super) fn waiting(&mut self) -> impl Iterator<Item = Bytes> {
        std::iter::from_fn(|| self.receiver.try_recv().ok()).filter_map(Heard::message)
    }

    /// The next message. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.receiver.recv().await {
            Some(heard) => heard,
            // Cannot be: a sender is held here.
            None => std::future::pending().await,
        }
    }

    /// Stops listening.
    pub(crate) fn stop(&mut self) {
        self.listeners.clear();
    }

    /// Listens to what there is to be heard for a session by now; `last` is the last event the client had, and of which backend.
    pub(crate) fn sync(
        &mut self,
        session: &Arc<Session>,
        backends: &[Arc<Backend>],
        era: Era,
        mut last: Option<(&str, HeaderValue)>,
    ) {
        let mut wanted = HashMap::new();
        for backend in backends.iter().filter(|backend| !backend.is_retired()) {
            let what = match backend.era_for(era) {
                Some(Era::Legacy) => match session.leg_of(backend).and_then(|leg| Some((leg.current()?, leg))) {
                    Some((opened, leg)) => {
                        if backend.offers_in_modern_only("resources/subscribe", &opened) {
                            let what = What::resources(session, backend);
                            wanted.extend(what.map(|what| (what.place(backend), what)));
                        }
                        // Without a session a stream is nobody's in particular.
                        opened.session_id.is_some().then_some(What::Leg(leg, opened))
                    }
                    None => is_subscribed(session, backend).then(|| What::Opening(session.leg(backend))),
                },
                Some(Era::Modern) => What::resources(session, backend),
                None => is_subscribed(session, backend).then(|| What::Unknown(Arc::clone(backend))),
            };
            wanted.extend(what.map(|what| (what.place(backend), what)));
        }
        self.listeners.retain(|place, listener| wanted.get(place) == Some(&listener.what));
        for (place, what) in wanted {
            let (session, sender) = (session, &self.sender);
            self.listeners.entry(place).or_insert_with(|| {
                let task = match what.clone() {
                    What::Leg(leg, opened) => {
                        let last = last.take_if(|(name, _)| *name == leg.backend.name().as_str()).map(|(_, id)| id);
                        tokio::spawn(leg::hear(Arc::clone(session), leg, opened, Some(sender.clone()), last))
                    }
                    What::Opening(leg) => tokio::spawn(open(Arc::clone(session), leg)),
                    What::Resources(backend, uris) => tokio::spawn(hear_resources(backend, uris, sender.clone())),
                    What::Unknown(backend) => tokio::spawn(ask(Arc::clone(session), backend)),
                };
                Listener { what, task: task.abort_handle() }
            });
        }
    }
}

fn is_subscribed(session: &Session, backend: &Backend) -> bool {
    !session.subscriptions(backend).is_empty()
}

/// Opens a session with a backend; whoever listens then is told by the session.
async fn open(session: Arc<Session>, leg: Arc<Leg>) {
    let mut pause = Pause(RETRY.0);
    loop {
        let started = Instant::now();
        match leg.open(&session, None).await {
            Ok(_) | Err(Error::SessionUnknown) => return,
            // One that refuses a handshake and is modern besides is listened to in that era.
            Err(Error::BackendProtocol { .. } | Error::BackendStatus { status: 400..500, .. })
                if leg.backend.refused_legacy() =>
            {
                return session.changed();
            }
            Err(_) => pause.after(started).await,
        }
    }
}

/// Waits until it is known what a backend speaks.
async fn ask(session: Arc<Session>, backend: Arc<Backend>) {
    let mut listings = backend.listings.subscribe();
    while backend.spoken().is_none() {
        if listings.changed().await.is_err() {
            return;
        }
    }
    session.changed();
}

/// Pauses between tries.
struct Pause(Duration);

impl Pause {
    /// After a try that failed, or a stream that ended.
    async fn after(&mut self, started: Instant) {
        if started.elapsed() >= RETRY.1 {
            self.0 = RETRY.0;
        }
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY.1);
    }

    /// After a stream whose backend has said when it wants to be asked again.
    async fn as_said(&mut self, retry: Duration) {
        self.0 = RETRY.0;
        sleep(retry.max(RETRY.0)).await;
    }
}

/// Listens to news of resources of a modern backend.
async fn hear_resources(backend: Arc<Backend>, uris: Vec<Box<str>>, to: mpsc::Sender<Heard>) {
    let mut pause = Pause(RETRY.0);
    loop {
        let started = Instant::now();
        let _ = hear_resources_once(&backend, &uris, &to).await;
        if to.is_closed() {
            return;
        }
        pause.after(started).await;
    }
}

async fn hear_resources_once(backend: &Backend, uris: &[Box<str>], to: &mpsc::Sender<Heard>) -> Result<(), Error> {
    let wanted: Vec<_> = uris.iter().map(|uri| jsonrpc::json_string(uri)).collect();
    let wanted = format!("{{\"resourceSubscriptions\":[{}]}}", wanted.join(","));
    let Some(mut incoming) = client::subscribe(backend, &wanted).await? else { return Ok(()) };
    let mut events = Events::new(MAX_OWN_EVENT.bytes);
    while let Some(chunk) = incoming.body.next().await? {
        let pushed = events.push(&chunk);
        while let Some(event) = events.next() {
            if let Ok(Message::Notification(notification)) = jsonrpc::parse(event.data.as_bytes())
                && notification.method == catalog::RESOURCE_UPDATED
                && notification.params.uri().is_some_and(|uri| uris.iter().any(|wanted| is_part(&uri, wanted)))
            {
                let data = shape::without_subscription(event.data.as_bytes());
                if to.send(Heard { data: Some(data), ..Heard::default() }).await.is_err() {
                    return Ok(());
                }
            }
        }
        if pushed.is_err() {
            backend.said_too_much();
            return Ok(());
        }
    }
    Ok(())
}
