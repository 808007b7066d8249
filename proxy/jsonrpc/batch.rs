//! Batches, which version 2025-03-26 alone knows.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Malformed, Message, json, parse};

/// The most messages one batch may hold.
pub(crate) const MAX_BATCH: usize = 64;

/// Whether a body wants [`parse_batch`].
pub(crate) fn is_batch(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// Reads a body that holds an array of messages. One bad message spoils the batch.
pub(crate) fn parse_batch(body: &[u8]) -> Result<Vec<Message<'_>>, Malformed> {
    let messages = split_batch(body)?.into_iter().enumerate();
    messages.map(|(index, text)| parse(text.as_bytes()).map_err(|fault| fault.within_batch(index))).collect()
}

/// The texts of the messages in a batch, each valid JSON and not yet looked at.
pub(crate) fn split_batch(body: &[u8]) -> Result<Vec<&str>, Malformed> {
    let batch: &RawValue = json::read(body)?;
    if !is_batch(batch.get().as_bytes()) {
        return Err(Malformed::invalid("a batch must be an array"));
    }
    let Texts(texts) = json::read(batch.get().as_bytes())?;
    match texts.len() {
        0 => Err(Malformed::invalid("the batch is empty")),
        1..=MAX_BATCH => Ok(texts),
        _ => Err(Malformed::invalid(format!("the batch holds more than {MAX_BATCH} messages"))),
    }
}

impl Malformed {
    /// An answer to the whole batch must not look like the answer to one message of it.
    fn within_batch(self, index: usize) -> Self {
        Self { reason: format!("message {index}: {}", self.reason).into(), id: None, ..self }
    }
}

/// The elements of an array, the surplus but for one left out.
struct Texts<'a>(Vec<&'a str>);

impl<'a> Deserialize<'a> for Texts<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'a> Visitor<'a> for TextsVisitor {
    type Value = Texts<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while texts.len() <= MAX_BATCH {
            let Some(text) = seq.next_element::<&RawValue>()? else { return Ok(Texts(texts)) };
            texts.push(text.get());
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Texts(texts))
    }
}
