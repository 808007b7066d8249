//! What backends have asked a session's client and it has yet to answer: under which ids, and who waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Held, Session};
use crate::backend::Backend;
use crate::backend::client::Opened;
use crate::jsonrpc::OwnedId;
use crate::session::Leg;

/// Questions of backends that one session's client has yet to answer; a further one puts an end to the oldest.
pub(crate) const MAX_QUESTIONS: usize = 64;

/// A question that the client has yet to answer.
pub(super) struct Question {
    /// What the client was asked under.
    id: OwnedId,
    asker: Asker,
    /// The call within which it was asked, or the stream; none where it is the session's own.
    within: Option<u64>,
}

impl Session {
    /// An id for a question to the client, who will answer under it. When there are too many, the one whose turn it was to be
    /// answered first is returned: it will not be any more. One that is asked within a call is taken back when that is over.
    pub(crate) fn ask(&self, asker: Asker, within: Option<u64>) -> (OwnedId, Option<Asker>) {
        let mut held = self.held();
        held.next_ticket += 1;
        // Random in its first part: another process may serve the same session, and an id must not come twice in it.
        let id = OwnedId::string(&format!("tg-{:08x}-{}", process_salt(), held.next_ticket));
        let put_off = if held.questions.len() >= MAX_QUESTIONS { held.questions.pop_front() } else { None };
        held.questions.push_back(Question { id: id.clone(), asker, within });
        self.counts.questions.fetch_add(usize::from(put_off.is_none()), Ordering::Relaxed);
        (id, put_off.map(|question| question.asker))
    }

    /// Who asked the question that the client answers now, once.
    pub(crate) fn answered(&self, id: &OwnedId) -> Option<Asker> {
        let mut held = self.held();
        let index = held.questions.iter().position(|question| question.id == *id)?;
        self.counts.questions.fetch_sub(1, Ordering::Relaxed);
        held.questions.remove(index).map(|question| question.asker)
    }

    /// The id under which the client was asked what a backend asked under `own`.
    pub(crate) fn question(&self, backend: &Backend, own: &OwnedId) -> Option<OwnedId> {
        let is_it = |asker: &Asker| match asker {
            Asker::Backend { leg, id, .. } => leg.backend.uid == backend.uid && id == own,
            Asker::Bridge(_) => false,
        };
        self.held().questions.iter().find(|question| is_it(&question.asker)).map(|question| question.id.clone())
    }

    /// Forgets what was asked within a call or a stream, and returns who still waits for an answer to it.
    pub(super) fn take_back(&self, held: &mut Held, within: u64) -> Vec<Asker> {
        self.take_back_if(held, |question| question.within == Some(within))
    }

    /// The same for sessions with backends that are being closed: what these asked can be answered no more.
    pub(super) fn forget_questions_of(&self, held: &mut Held, legs: &[Arc<Leg>]) {
        self.take_back_if(held, |question| match &question.asker {
            Asker::Backend { leg, .. } => legs.iter().any(|closed| Arc::ptr_eq(closed, leg)),
            Asker::Bridge(_) => false,
        });
    }

    fn take_back_if(&self, held: &mut Held, goes: impl Fn(&Question) -> bool) -> Vec<Asker> {
        if held.questions.is_empty() {
            return Vec::new();
        }
        let (gone, stay) = std::mem::take(&mut held.questions).into_iter().partition(&goes);
        held.questions = stay;
        let gone: VecDeque<Question> = gone;
        self.counts.questions.fetch_sub(gone.len(), Ordering::Relaxed);
        gone.into_iter().map(|question| question.asker).collect()
    }
}

/// Who waits for an answer of the client.
pub(crate) enum Asker {
    /// A backend that asked under `id`: the answer goes to it, in the session that it asked in.
    Backend { leg: Arc<Leg>, opened: Arc<Opened>, id: OwnedId },
    /// A call to a backend that does not ask by requests. Gets the client's response as it came.
    Bridge(oneshot::Sender<Bytes>),
}

/// Something in the ids of this process that is not in those of another.
fn process_salt() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    use std::sync::LazyLock;
    static SALT: LazyLock<u32> =
        LazyLock::new(|| u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(0));
    *SALT
}
