//! The answer to a call as it passes by: of JSON the beginning is kept, of an event stream the result in the last response.

use toolgate_config::Payloads;

use super::{kept, mask};
use crate::backend::sse::Beginnings;

pub(super) struct Answer {
    most: usize,
    /// What a body of JSON begins with.
    json: Vec<u8>,
    /// Of an event stream.
    events: Option<Beginnings>,
    /// As it is logged.
    last: Option<String>,
}

impl Answer {
    pub(super) fn new(wanted: &Payloads) -> Self {
        Self { most: kept(wanted), json: Vec::new(), events: None, last: None }
    }

    pub(super) fn json(&mut self, chunk: &[u8]) {
        let room = self.most.saturating_sub(self.json.len());
        self.json.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
    }

    pub(super) fn events(&mut self, chunk: &[u8], wanted: &Payloads) {
        let events = self.events.get_or_insert_with(|| Beginnings::new(self.most));
        let last = &mut self.last;
        events.push(chunk, |data| {
            if let Some(result) = mask::result(data, wanted) {
                *last = Some(result);
            }
        });
    }

    pub(super) fn result(&self, wanted: &Payloads) -> Option<String> {
        match &self.events {
            Some(_) => self.last.clone(),
            None => mask::result(&self.json, wanted),
        }
    }
}
