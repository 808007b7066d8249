//! A modern MCP client (2026-07-28): no session, every request says in `_meta` and in headers what it is.

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::client::{Answer, NAME, Opened};
use super::{Client, TestProxy};

/// The version it speaks.
pub(crate) const MODERN: &str = "2026-07-28";

/// A client, and what it says of itself.
#[derive(Clone)]
pub(crate) struct ModernClient {
    pub(crate) http: Client,
    pub(crate) capabilities: Value,
    pub(crate) log_level: Option<&'static str>,
}

impl TestProxy {
    /// A modern client that can be asked nothing.
    pub(crate) fn modern(&self) -> ModernClient {
        ModernClient { http: self.stranger(), capabilities: json!({}), log_level: None }
    }

    /// A modern client that can be asked everything.
    pub(crate) fn askable(&self) -> ModernClient {
        ModernClient {
            capabilities: json!({ "roots": {}, "sampling": {}, "elicitation": { "form": {}, "url": {} } }),
            ..self.modern()
        }
    }
}

/// A value as a header says it.
pub(crate) fn header_text(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| (0x21..0x7f).contains(&byte)) && !text.starts_with("=?base64?");
    if is_plain {
        return text.to_owned();
    }
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}

impl ModernClient {
    /// The same client with this in its requests' `logLevel`.
    pub(crate) fn at_level(&self, level: &'static str) -> Self {
        Self { log_level: Some(level), ..self.clone() }
    }

    /// The same client with these capabilities.
    pub(crate) fn declaring(&self, capabilities: Value) -> Self {
        Self { capabilities, ..self.clone() }
    }

    /// The envelope.
    pub(crate) fn meta(&self) -> Value {
        let mut meta = json!({
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": { "name": NAME, "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
        });
        if let Some(level) = self.log_level {
            meta["io.modelcontextprotocol/logLevel"] = json!(level);
        }
        meta
    }

    /// These parameters with the envelope; what is in `_meta` already stays.
    pub(crate) fn params(&self, mut params: Value) -> Value {
        let mut meta = self.meta();
        if let Some(own) = params.get("_meta").and_then(Value::as_object) {
            meta.as_object_mut().expect("an object").extend(own.clone());
        }
        params["_meta"] = meta;
        params
    }

    /// A request's body.
    pub(crate) fn message(&self, method: &str, params: Value) -> String {
        self.http.message(method, &self.params(params))
    }

    /// A request with the headers that repeat its body.
    pub(crate) fn request(&self, body: &str) -> Request<Full<Bytes>> {
        let message: Value = serde_json::from_str(body).expect("a body of JSON");
        let method = message["method"].as_str().expect("a method");
        let named = match method {
            "tools/call" | "prompts/get" => message["params"]["name"].as_str(),
            "resources/read" => message["params"]["uri"].as_str(),
            _ => None,
        };
        let mut http = self.http.with_header("mcp-protocol-version", MODERN).with_header("mcp-method", method);
        if let Some(named) = named {
            http = http.with_header("mcp-name", &header_text(named));
        }
        http.request(Method::POST, body.to_owned())
    }

    /// Posts a body, and the headers that repeat it.
    pub(crate) async fn post(&self, body: &str) -> Answer {
        self.http.send(self.request(body)).await
    }

    /// Sends a request.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Answer {
        self.post(&self.message(method, params)).await
    }

    /// Sends a request and reads the head of the answer.
    pub(crate) async fn open(&self, method: &str, params: Value) -> Opened {
        self.http.open(self.request(&self.message(method, params))).await
    }

    pub(crate) async fn call(&self, tool: &str) -> Answer {
        self.ask("tools/call", json!({ "name": tool, "arguments": {} })).await
    }

    /// Sends a request beside what the test does. Aborted, the client leaves.
    pub(crate) fn start(&self, method: &str, params: Value) -> JoinHandle<Answer> {
        let (client, body) = (self.clone(), self.message(method, params));
        tokio::spawn(async move { client.post(&body).await })
    }

    /// Calls a tool beside what the test does.
    pub(crate) fn start_call(&self, tool: &str) -> JoinHandle<Answer> {
        self.start("tools/call", json!({ "name": tool, "arguments": {} }))
    }

    /// Opens a stream of news and reads the acknowledgement: what is honoured.
    pub(crate) async fn listen(&self, filter: Value) -> (Opened, Value) {
        let mut opened = self.open("subscriptions/listen", json!({ "notifications": filter })).await;
        let first = opened.message().await.expect("an acknowledgement");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
        (opened, first["params"]["notifications"].clone())
    }
}
