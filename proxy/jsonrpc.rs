//! JSON-RPC messages, borrowed from the body they arrived in.
//!
//! One pass over the text finds what a gateway must know: the id, the method and a few keys of `params`. Everything
//! stays where it lies, so a changed name is spliced into the original bytes and nothing is ever printed again.
//! This module knows nothing of methods, eras or HTTP.

mod batch;
mod cut;
mod id;
mod json;
mod members;
mod object;
mod params;
mod splice;
#[cfg(test)]
mod tests;
mod write;

use std::borrow::Cow;

use serde::de::MapAccess;
use serde_json::value::RawValue;

pub(crate) use self::batch::{is_batch, parse_batch, split_batch};
pub(crate) use self::cut::cut;
pub(crate) use self::id::{Id, OwnedId};
pub(crate) use self::json::{json_string, text};
pub(crate) use self::members::{member, members, object};
use self::object::{Fault, Fields, Object, nested, once, skip};
pub(crate) use self::params::Params;
pub(crate) use self::splice::{layout, span, splice};
pub(crate) use self::write::{
    ErrorObject, error_body, error_body_without_id, notification_body, request_body, result_body,
};

/// A JSON-RPC message as it lies in a body.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    Notification(Notification<'a>),
    Request(Request<'a>),
    Response(Response<'a>),
}

/// Wants an answer.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) id: Id<'a>,
    pub(crate) method: Cow<'a, str>,
    pub(crate) params: Box<Params<'a>>,
}

/// Wants none.
#[derive(Debug)]
pub(crate) struct Notification<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) params: Box<Params<'a>>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    /// Absent only from an error about a message whose id could not be read.
    pub(crate) id: Option<Id<'a>>,
    /// Whether `value` is the `error`.
    pub(crate) error: bool,
    /// The `result` or the `error`.
    pub(crate) value: &'a RawValue,
}

/// Why a body is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Malformed {
    /// [`Malformed::NOT_JSON`] or [`Malformed::INVALID_REQUEST`].
    pub(crate) code: i64,
    /// What is wrong, naming the key.
    pub(crate) reason: Cow<'static, str>,
    /// Of the message, where it can be told.
    pub(crate) id: Option<OwnedId>,
}

/// Reads a body that holds one message.
pub(crate) fn parse(body: &[u8]) -> Result<Message<'_>, Malformed> {
    let Object { fields, fault } = json::read::<Object<Envelope<'_>>>(body)?;
    let id = fields.answerable();
    let malformed = |reason| Malformed { code: Malformed::INVALID_REQUEST, reason, id: id.map(Id::owned) };
    match fault {
        Some(fault) => Err(malformed(fault)),
        None => fields.message().map_err(malformed),
    }
}

// === impl Malformed ===

impl Malformed {
    /// The text is not JSON.
    pub(crate) const NOT_JSON: i64 = -32700;
    /// The JSON is not a message.
    pub(crate) const INVALID_REQUEST: i64 = -32600;

    fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Self::INVALID_REQUEST, reason: reason.into(), id: None }
    }

    fn not_json(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Self::NOT_JSON, reason: reason.into(), id: None }
    }
}

// === reading ===

/// The keys of a message. Values are raw so that none is of a wrong type yet.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    id_repeats: bool,
    method: Option<&'a RawValue>,
    params: Option<Box<Params<'a>>>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'a> Fields<'a> for Envelope<'a> {
    const NAME: &'static str = "the message";

    fn read<A: MapAccess<'a>>(&mut self, key: &str, map: &mut A) -> Result<Option<Fault>, A::Error> {
        match key {
            "error" => once(&mut self.error, key, map),
            "id" => {
                let fault = once(&mut self.id, key, map)?;
                self.id_repeats |= fault.is_some();
                Ok(fault)
            }
            "jsonrpc" => once(&mut self.jsonrpc, key, map),
            "method" => once(&mut self.method, key, map),
            "params" => nested(&mut self.params, key, map),
            "result" => once(&mut self.result, key, map),
            _ => skip(map),
        }
    }
}

impl<'a> Envelope<'a> {
    /// The id to put on an error.
    fn answerable(&self) -> Option<Id<'a>> {
        self.id.filter(|_| !self.id_repeats).and_then(|raw| Id::read(raw.get()))
    }

    fn message(self) -> Result<Message<'a>, Fault> {
        if self.jsonrpc.and_then(text).as_deref() != Some("2.0") {
            return Err("`jsonrpc` must be \"2.0\"".into());
        }
        match self.method {
            Some(_) if self.result.is_some() => Err("both `method` and `result`".into()),
            Some(_) if self.error.is_some() => Err("both `method` and `error`".into()),
            Some(method) => self.call(text(method).ok_or("`method` must be a string")?),
            None => self.response(),
        }
    }

    fn call(self, method: Cow<'a, str>) -> Result<Message<'a>, Fault> {
        let params = self.params.unwrap_or_default();
        let Some(id) = self.id else { return Ok(Message::Notification(Notification { method, params })) };
        let id = Id::read(id.get()).ok_or("`id` must be a string, whole characters in it, or an integer")?;
        Ok(Message::Request(Request { id, method, params }))
    }

    /// A `null` beside the other key counts as absent: some peers print every field they have.
    fn response(self) -> Result<Message<'a>, Fault> {
        let (error, value) = match (self.result, self.error) {
            (None, None) => return Err("none of `method`, `result` and `error`".into()),
            (Some(result), None) => (false, result),
            (None, Some(error)) => (true, error),
            (Some(result), Some(error)) if error.get() == "null" => (false, result),
            (Some(result), Some(error)) if result.get() == "null" => (true, error),
            (Some(_), Some(_)) => return Err("both `result` and `error`".into()),
        };
        let id = match self.id.map(RawValue::get) {
            None | Some("null") if error => None,
            None => return Err("`id` is missing".into()),
            Some(raw) => Some(Id::read(raw).ok_or("`id` must be a string, whole characters in it, or an integer")?),
        };
        Ok(Message::Response(Response { id, error, value }))
    }
}
