//! What calls were given and what they gave, for their log lines, where the configuration asks for it: as JSON, without what
//! stands under keys of secrets, and no longer than it may be.

mod answer;
mod lexer;
mod mask;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::value::RawValue;
use toolgate_config::{Config, Payloads};

use self::answer::Answer;

/// What is logged in place of a result that was not read: it did not come, or not as JSON.
const UNREAD: &str = "\"[unread]\"";

/// What of a call is logged.
pub(crate) struct Payload {
    config: Arc<Config>,
    /// As it is logged.
    arguments: Option<String>,
    /// What is kept of the answer, where that is logged.
    answer: Option<Answer>,
}

impl Payload {
    /// Of a call with these arguments; nothing where the configuration asks for nothing.
    pub(crate) fn of(config: &Arc<Config>, arguments: Option<&RawValue>) -> Option<Box<Self>> {
        let wanted = &config.log.payloads;
        if !wanted.arguments && !wanted.results {
            return None;
        }
        let arguments = arguments.filter(|_| wanted.arguments);
        Some(Box::new(Self {
            config: Arc::clone(config),
            arguments: arguments.and_then(|arguments| mask::shown(arguments.get(), wanted)),
            answer: wanted.results.then(|| Answer::new(wanted)),
        }))
    }

    /// Takes in bytes that go to the client.
    pub(crate) fn take(&mut self, chunk: &[u8], is_of_events: bool) {
        if is_of_events { self.events(chunk) } else { self.json(chunk) }
    }

    /// The same of a body of JSON.
    pub(crate) fn json(&mut self, chunk: &[u8]) {
        self.answer.iter_mut().for_each(|answer| answer.json(chunk));
    }

    /// The same of an event stream.
    fn events(&mut self, chunk: &[u8]) {
        let wanted = &self.config.log.payloads;
        self.answer.iter_mut().for_each(|answer| answer.events(chunk, wanted));
    }

    /// The arguments as they are logged, if they are.
    pub(crate) fn arguments(&self) -> Option<&str> {
        self.arguments.as_deref()
    }

    /// The result, or the error in its place, as it is logged, if it is.
    pub(crate) fn result(&self) -> Option<String> {
        let answer = self.answer.as_ref()?;
        Some(answer.result(&self.config.log.payloads).unwrap_or_else(|| UNREAD.to_owned()))
    }
}

/// Bytes that are kept of an answer: what is shown of it, and what stands before.
fn kept(wanted: &Payloads) -> usize {
    const ENVELOPE: usize = 1024;
    usize::try_from(wanted.max).unwrap_or(usize::MAX).saturating_add(ENVELOPE)
}
