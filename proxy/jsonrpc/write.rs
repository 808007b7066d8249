//! Makes bodies from raw parts.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::json::json_string;

/// The `error` of a response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ErrorObject {
    pub(crate) code: i64,
    pub(crate) message: Cow<'static, str>,
    pub(crate) data: Option<Value>,
}

/// An error response; without an id it answers a message whose id could not be read.
pub(crate) fn error_body(id: Option<&str>, error: &ErrorObject) -> Bytes {
    let id = id.unwrap_or("null");
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}", error.json()).into()
}

/// The same to a message without an id that can be read, in the modern era: there it is left out, and is never `null`
/// (2026-07-28, schema, `JSONRPCErrorResponse`).
pub(crate) fn error_body_without_id(error: &ErrorObject) -> Bytes {
    format!("{{\"jsonrpc\":\"2.0\",\"error\":{}}}", error.json()).into()
}

impl ErrorObject {
    fn json(&self) -> String {
        let data = self.data.as_ref().map(|data| format!(",\"data\":{data}")).unwrap_or_default();
        format!("{{\"code\":{},\"message\":{}{data}}}", self.code, json_string(&self.message))
    }
}

/// A result response. `id` and `result` are JSON.
pub(crate) fn result_body(id: &str, result: &str) -> Bytes {
    ["{\"jsonrpc\":\"2.0\",\"id\":", id, ",\"result\":", result, "}"].concat().into()
}

/// A request. `id` and `params` are JSON, `method` is not.
pub(crate) fn request_body(id: &str, method: &str, params: Option<&str>) -> Bytes {
    call_body(&["{\"jsonrpc\":\"2.0\",\"id\":", id, ",\"method\":"], method, params)
}

/// A notification. `params` is JSON, `method` is not.
pub(crate) fn notification_body(method: &str, params: Option<&str>) -> Bytes {
    call_body(&["{\"jsonrpc\":\"2.0\",\"method\":"], method, params)
}

fn call_body(head: &[&str], method: &str, params: Option<&str>) -> Bytes {
    let mut body = head.concat();
    body.push_str(&json_string(method));
    if let Some(params) = params {
        body.push_str(",\"params\":");
        body.push_str(params);
    }
    body.push('}');
    body.into()
}
