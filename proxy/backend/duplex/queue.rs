//! Messages on their way, and queues for them that are bounded in messages and in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Messages that one queue holds.
const MAX_MESSAGES: usize = 64;
/// Bytes that one queue holds; a longer message takes all the room.
const MAX_BYTES: u32 = 1024 * 1024;

/// A message in pieces, so that a long one is not copied where a few bytes of it change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pieces(pub(crate) Vec<Bytes>);

impl Pieces {
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// All of it in one piece.
    pub(crate) fn whole(mut self) -> Bytes {
        match self.0.len() {
            1 => self.0.pop().unwrap_or_default(),
            _ => self.0.concat().into(),
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(whole: Bytes) -> Self {
        Self(vec![whole])
    }
}

/// Nobody takes messages out any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Gone;

/// Why a message was not put in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// There was no room in time.
    Full,
    /// Nobody takes messages out any more.
    Gone,
}

struct Queued {
    message: Pieces,
    room: OwnedSemaphorePermit,
}

/// The end of a queue where messages go in.
#[derive(Clone)]
pub(crate) struct Sender {
    messages: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    /// Whether it was waited for in vain, and there has been no room since.
    stalled: Arc<AtomicBool>,
}

/// The end of a queue where messages come out.
pub(crate) struct Receiver(mpsc::Receiver<Queued>);

/// An empty queue.
pub(crate) fn queue() -> (Sender, Receiver) {
    let (messages, queued) = mpsc::channel(MAX_MESSAGES);
    let room = Arc::new(Semaphore::new(MAX_BYTES as usize));
    (Sender { messages, room, stalled: Arc::default() }, Receiver(queued))
}

impl Sender {
    fn need(message: &Pieces) -> u32 {
        u32::try_from(message.len()).map_or(MAX_BYTES, |bytes| bytes.min(MAX_BYTES))
    }

    /// Waits for room.
    pub(crate) async fn push(&self, message: Pieces) -> Result<(), Gone> {
        let room = Arc::clone(&self.room).acquire_many_owned(Self::need(&message)).await.map_err(|_| Gone)?;
        self.messages.send(Queued { message, room }).await.map_err(|_| Gone)
    }

    /// Waits for room this long, and then not again until there has been some.
    pub(crate) async fn push_within(&self, limit: Duration, message: Pieces) -> Result<(), Lost> {
        if self.messages.is_closed() {
            return Err(Lost::Gone);
        }
        if self.try_push(message.clone()) {
            self.stalled.store(false, Ordering::Relaxed);
            return Ok(());
        }
        if self.stalled.load(Ordering::Relaxed) {
            return Err(Lost::Full);
        }
        match timeout(limit, self.push(message)).await {
            Ok(pushed) => pushed.map_err(|Gone| Lost::Gone),
            Err(_) => {
                self.stalled.store(true, Ordering::Relaxed);
                Err(Lost::Full)
            }
        }
    }

    /// Whether there was room.
    pub(crate) fn try_push(&self, message: Pieces) -> bool {
        let room = Arc::clone(&self.room).try_acquire_many_owned(Self::need(&message));
        room.is_ok_and(|room| self.messages.try_send(Queued { message, room }).is_ok())
    }
}

impl Receiver {
    /// The next message; `None` when there will be none. Dropping the future loses nothing.
    pub(crate) async fn pop(&mut self) -> Option<Pieces> {
        let Queued { message, room } = self.0.recv().await?;
        drop(room);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Pieces {
        Bytes::from(vec![b'x'; bytes]).into()
    }

    #[tokio::test]
    async fn a_queue_is_full_of_bytes_or_of_messages() {
        let (sender, mut receiver) = queue();

        assert!(sender.try_push(message(MAX_BYTES as usize * 2)), "one of any length");
        assert!(!sender.try_push(message(1)));
        receiver.pop().await.unwrap();
        assert!((0..MAX_MESSAGES).all(|_| sender.try_push(message(1))));
        assert!(!sender.try_push(message(1)));
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_who_left() {
        let (sender, receiver) = queue();
        sender.push(message(MAX_BYTES as usize)).await.unwrap();

        let (pushed, ()) = tokio::join!(sender.push(message(1)), async { drop(receiver) });

        assert_eq!(pushed, Err(Gone));
    }
}
