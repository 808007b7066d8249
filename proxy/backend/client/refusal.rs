//! What a backend made of a client's call where its status says that it failed, or has too much to do.
//!
//! Its own error is the answer then, if there is one. What the gateway asks for itself takes the status for all there is.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::timeout;

use super::{MAX_SMALL_ANSWER, Verdict, error_code, verdict_on};
use crate::backend::{Backend, Incoming};
use crate::error::Error;
use crate::jsonrpc::{self, Id, Message};

/// How long the error may take that comes with such a status.
const ERROR_WITHIN: Duration = Duration::from_secs(5);

/// As [`verdict_on`], for a client's call.
///
/// An error that came with 429 or 5xx is given the status 200: on its own one, clients and what stands between would try again
/// by themselves, and the call may have run. For that reason its code must not lead to a second try here either.
pub(crate) async fn verdict_of_call(
    backend: &Backend,
    in_session: bool,
    id: Id<'_>,
    mut incoming: Incoming,
) -> Result<Verdict, Error> {
    let status = incoming.status;
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return verdict_on(backend, in_session, Some(id), incoming).await;
    }
    let refused = refused(backend, &incoming);
    if !incoming.is_json() {
        return Err(refused);
    }
    let body = timeout(ERROR_WITHIN, incoming.collect(MAX_SMALL_ANSWER, backend.name())).await;
    let Ok(Ok(body)) = body else { return Err(refused) };
    let (code, body) = own_error(&body, id).ok_or(refused)?;
    Ok(Verdict::Refusal { status: StatusCode::OK, body, code })
}

/// That a backend gave no other answer than its status.
pub(super) fn refused(backend: &Backend, incoming: &Incoming) -> Error {
    let status = incoming.status.as_u16();
    Error::BackendStatus { backend: backend.name().clone(), status, retry_after: incoming.retry_after() }
}

/// The body of a refusal as an answer on HTTP 200, where its client knows it by nothing but its id.
///
/// # Errors
/// When it is about another request.
pub(crate) fn in_band(backend: &Backend, status: StatusCode, body: &Bytes, id: Id<'_>) -> Result<Bytes, Error> {
    let refused =
        || Error::BackendStatus { backend: backend.name().clone(), status: status.as_u16(), retry_after: None };
    under_id(body, id).ok_or_else(refused)
}

/// The code of an error, and the error under this id, if it is well-formed and not about another request.
fn own_error(body: &Bytes, id: Id<'_>) -> Option<(i64, Bytes)> {
    let Ok(Message::Response(response)) = jsonrpc::parse(body) else { return None };
    let code = error_code(response.value).filter(|_| response.error)?;
    Some((code, under_id(body, id)?))
}

/// The same response, with this id where it has none; nothing where it has another.
fn under_id(body: &Bytes, id: Id<'_>) -> Option<Bytes> {
    let Ok(Message::Response(response)) = jsonrpc::parse(body) else { return None };
    if let Some(own) = response.id {
        return (own == id).then(|| body.clone());
    }
    let text = std::str::from_utf8(body).ok()?;
    Some(match jsonrpc::member(text, "id").and_then(|null| jsonrpc::span(body, null)) {
        Some(span) => jsonrpc::splice(body, &[(span, id.raw().as_bytes())]),
        None => {
            let first = text.find('{')? + 1;
            jsonrpc::splice(body, &[(first..first, format!("\"id\":{},", id.raw()).as_bytes())])
        }
    })
}
