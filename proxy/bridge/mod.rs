//! Crossing eras: a client of one on a backend of the other.
//!
//! A client is spoken to in its own era, and so is a backend; one that speaks both is spoken to in the client's, and nothing
//! here is needed. Where they differ, a request is dressed or undressed ([`envelope`]), sent by [`to_legacy`] or [`to_modern`],
//! and every message of the answer is read whole ([`answer`]), under `bridge.max_answer`, and given the other shape ([`shape`]).
//! What a backend asks becomes what the client's era knows: a parked call and `input_required` ([`parked`]), or a request on
//! the call's own stream. Words of one era never reach the other.

pub(crate) mod answer;
pub(crate) mod crossing;
pub(crate) mod envelope;
pub(crate) mod parked;
pub(crate) mod question;
pub(crate) mod params;
pub(crate) mod shape;
pub(crate) mod to_legacy;
pub(crate) mod to_modern;

use bytes::Bytes;
use http::StatusCode;

use crate::backend::{Backend, Incoming, client};
use crate::error::Error;
use crate::jsonrpc::Id;

/// What a backend made of a modern request.
pub(crate) enum Verdict {
    /// It answers: the body is still to be read.
    Answer(Incoming),
    /// It refused with a JSON-RPC error of its own.
    Refusal { status: StatusCode, body: Bytes, code: i64 },
}

/// Looks at the head of an answer to a modern request, and into the body where it is a refusal.
pub(crate) async fn verdict(backend: &Backend, id: Id<'_>, incoming: Incoming) -> Result<Verdict, Error> {
    let status = incoming.status;
    match client::verdict_of_call(backend, false, id, incoming).await? {
        client::Verdict::Answer(incoming) => Ok(Verdict::Answer(incoming)),
        client::Verdict::Refusal { status, body, code } => Ok(Verdict::Refusal { status, body, code }),
        // There is no session to lose.
        client::Verdict::SessionLost => {
            Err(Error::BackendStatus { backend: backend.name().clone(), status: status.as_u16(), retry_after: None })
        }
    }
}
