//! What a legacy client is asked for a modern backend, whose answer said that it needs input: several questions at once.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::backend::client;
use crate::error::{Error, INVALID_PARAMS};
use crate::jsonrpc::{self, ErrorObject, Message, OwnedId};

/// What the client is being asked.
pub(super) struct Round {
    pub(super) open: VecDeque<Open>,
    /// Key and answer, as JSON.
    pub(super) answers: Vec<(String, String)>,
    /// As JSON.
    pub(super) state: Option<String>,
    pub(super) deadline: Instant,
}

/// One question, not answered yet.
pub(super) struct Open {
    /// What the backend calls it.
    pub(super) key: String,
    pub(super) method: String,
    /// What the client was asked under.
    pub(super) id: OwnedId,
    pub(super) answer: oneshot::Receiver<Bytes>,
}

impl Round {
    /// Waits for all answers; one that puts an end to the call is returned. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self) -> Result<Option<ErrorObject>, Error> {
        while let Some(open) = self.open.front_mut() {
            let answer = timeout_at(self.deadline, &mut open.answer).await;
            let Some(open) = self.open.pop_front() else { break };
            let Ok(Ok(body)) = answer else { return Ok(Some(unanswered())) };
            let Ok(Message::Response(response)) = jsonrpc::parse(&body) else { return Ok(Some(unanswered())) };
            if !response.error {
                if !response.value.get().starts_with('{') {
                    return Ok(Some(no_object(&open.method)));
                }
                self.answers.push((open.key, response.value.get().to_owned()));
            } else if open.method == "elicitation/create" {
                // There is a way to say no to an elicitation, and an error is none that the backend would get to see.
                self.answers.push((open.key, "{\"action\":\"cancel\"}".to_owned()));
            } else {
                let message = jsonrpc::member(response.value.get(), "message");
                let message = message.and_then(|raw| serde_json::from_str::<String>(raw).ok()).unwrap_or_default();
                let code = client::error_code(response.value).unwrap_or(-1);
                return Ok(Some(ErrorObject { code, message: message.into(), data: None }));
            }
        }
        Ok(None)
    }
}

/// What a client gets whose answer is none that a backend could be given.
fn no_object(method: &str) -> ErrorObject {
    let message = format!("the client's answer to `{method}` is not an object; the call has ended, call again");
    ErrorObject { code: INVALID_PARAMS, message: message.into(), data: None }
}

/// What a client gets that was asked and did not answer.
fn unanswered() -> ErrorObject {
    ErrorObject { code: 408, message: "the backend asked for input, and no answer came in time".into(), data: None }
}
