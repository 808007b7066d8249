//! The stream of a session with a legacy backend: opened again when it ends, where it was left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Heard, Pause, RETRY};
use crate::backend::Backend;
use crate::backend::client::Opened;
use crate::backend::sse::{Event, Events, MAX_OWN_EVENT};
use crate::bridge::answer::MAX_RETRY;
use crate::bridge::question::Asked;
use crate::catalog;
use crate::error::Error;
use crate::jsonrpc::{self, Message};
use crate::relay::EventId;
use crate::session::{Leg, Session};

/// Listens, as long as the session with the backend is the client's.
pub(super) async fn hear(
    session: Arc<Session>,
    leg: Arc<Leg>,
    opened: Arc<Opened>,
    to: Option<mpsc::Sender<Heard>>,
    mut last: Option<HeaderValue>,
) {
    let asked = Asked::new(&session, &leg, Arc::clone(&opened), None);
    let reader = Reader { tag: EventId::tag(EventId::NEWS, leg.backend.name().as_str()), leg: &leg, asked, to };
    let mut pause = Pause(RETRY.0);
    let mut was_heard = false;
    loop {
        let started = Instant::now();
        let incoming = leg.backend.send_unjudged(opened.get(last.clone(), leg.backend.config.timeout)).await;
        leg.hears(&opened);
        let Ok(mut incoming) = incoming else {
            pause.after(started).await;
            continue;
        };
        if !incoming.status.is_success() || !incoming.is_event_stream() {
            if last.take().is_some() {
                // It may only be the event that it does not know; without one it says what it has against the stream itself.
                continue;
            }
            // No stream here (405 and the like), or no session any more: then a new one takes the listener's place.
            if !was_heard || !matches!(incoming.status.as_u16(), 400 | 404) {
                return;
            }
            match leg.open(&session, Some(&opened)).await {
                // The listener's place is another's, or nobody listens any more.
                Ok(_) | Err(Error::SessionUnknown) => return,
                Err(_) => pause.after(started).await,
            }
            continue;
        }
        was_heard = true;
        let mut events = Events::new(MAX_OWN_EVENT.bytes);
        let mut retry = None;
        while let Ok(Some(chunk)) = incoming.body.next().await {
            let pushed = events.push(&chunk);
            while let Some(event) = events.next() {
                let id = event.id.as_deref().filter(|id| !id.is_empty());
                last = id.and_then(|id| HeaderValue::from_str(id).ok()).or(last);
                retry = event.retry.or(retry);
                let Ok(()) = reader.pass(reader.heard(event)).await else { return };
            }
            if let Some(said) = events.take_retry() {
                retry = Some(said);
                let Ok(()) = reader.pass(Heard { retry: within_bounds(said), ..Heard::default() }).await else {
                    return;
                };
            }
            if pushed.is_err() {
                leg.backend.said_too_much();
                // Taken up where it was left, it would begin with the same event.
                last = None;
                break;
            }
        }
        match retry.and_then(within_bounds) {
            Some(retry) => pause.as_said(Duration::from_millis(retry)).await,
            None => pause.after(started).await,
        }
    }
}

/// What becomes of what is heard.
struct Reader<'l> {
    /// What stands before the backend's event ids.
    tag: String,
    leg: &'l Leg,
    asked: Asked,
    to: Option<mpsc::Sender<Heard>>,
}

/// Whoever listened does not any more.
struct Unheard;

impl Reader<'_> {
    /// What of an event is for the client. An id without a message primes the stream: who comes back with it is sent here.
    fn heard(&self, event: Event) -> Heard {
        let id = event.id.filter(|id| !id.is_empty());
        let data = Bytes::from(event.data);
        let data = match data.trim_ascii().is_empty() {
            true => id.is_some().then(Bytes::new),
            false => legacy_message(&self.leg.backend, &self.asked, &data),
        };
        let id = id.filter(|_| data.is_some()).map(|id| [&*self.tag, &*id].concat());
        Heard { data, id, retry: event.retry.and_then(within_bounds) }
    }

    async fn pass(&self, heard: Heard) -> Result<(), Unheard> {
        let Some(to) = self.to.as_ref().filter(|_| heard.data.is_some() || heard.retry.is_some()) else {
            return Ok(());
        };
        to.send(heard).await.map_err(|_| Unheard)
    }
}

/// A backend may have its stream left alone for a while, and the news of all others with it, so not for long.
fn within_bounds(retry: u64) -> Option<u64> {
    u64::try_from(MAX_RETRY.as_millis()).ok().map(|most| retry.min(most))
}

/// What of a message on a legacy backend's own stream is for the client.
fn legacy_message(backend: &Backend, asked: &Asked, data: &Bytes) -> Option<Bytes> {
    match jsonrpc::parse(data).ok()? {
        Message::Notification(notification) if catalog::is_list_change(&notification.method) => {
            backend.relist.notify_one();
            None
        }
        // Responses have no place here (2025-11-25, Transports), yet the client may be waiting for one.
        message @ (Message::Notification(_) | Message::Request(_) | Message::Response(_)) => {
            asked.take(&message, data, data).ok().flatten()
        }
    }
}
