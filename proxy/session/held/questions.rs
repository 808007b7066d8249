//! What backends have asked a session's client and it has yet to answer: under which ids, and who waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Session;
use crate::backend::Backend;
use crate::backend::client::Opened;
use crate::jsonrpc::OwnedId;
use crate::session::Leg;

/// Questions of backends that one session's client has yet to answer; a further one puts an end to the oldest.
const MAX_QUESTIONS: usize = 64;

impl Session {
    /// An id for a question to the client, who will answer under it. When there are too many, the one whose turn it was to be
    /// answered first is returned: it will not be any more.
    pub(crate) fn ask(&self, asker: Asker) -> (OwnedId, Option<Asker>) {
        let mut held = self.held();
        held.next_ticket += 1;
        // Random in its first part: another process may serve the same session, and an id must not come twice in it.
        let id = OwnedId::string(&format!("tg-{:08x}-{}", process_salt(), held.next_ticket));
        let put_off = if held.questions.len() >= MAX_QUESTIONS { held.questions.pop_front() } else { None };
        held.questions.push_back((id.clone(), asker));
        self.counts.questions.fetch_add(usize::from(put_off.is_none()), Ordering::Relaxed);
        (id, put_off.map(|(_, asker)| asker))
    }

    /// Who asked the question that the client answers now, once.
    pub(crate) fn answered(&self, id: &OwnedId) -> Option<Asker> {
        let mut held = self.held();
        let index = held.questions.iter().position(|(question, _)| question == id)?;
        self.counts.questions.fetch_sub(1, Ordering::Relaxed);
        held.questions.remove(index).map(|(_, asker)| asker)
    }

    /// The id under which the client was asked what a backend asked under `own`.
    pub(crate) fn question(&self, backend: &Backend, own: &OwnedId) -> Option<OwnedId> {
        let is_it = |asker: &Asker| match asker {
            Asker::Backend { leg, id, .. } => leg.backend.uid == backend.uid && id == own,
            Asker::Bridge(_) => false,
        };
        self.held().questions.iter().find(|(_, asker)| is_it(asker)).map(|(id, _)| id.clone())
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
