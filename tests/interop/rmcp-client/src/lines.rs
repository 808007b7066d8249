//! The harness's orders, and what is said back: one JSON object a line.
#![expect(deprecated, reason = "what the modern era has deprecated is what this suite is about")]

use rmcp::ServiceError;
use rmcp::model::{ArgumentInfo, JsonObject, LoggingLevel, Reference};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub struct Order {
    pub id: u64,
    #[serde(flatten)]
    pub act: Act,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Act {
    Connect {
        session: String,
        url: String,
        #[serde(default)]
        offers: Vec<String>,
        #[serde(default)]
        answers: JsonObject,
    },
    Call {
        session: String,
        name: String,
        arguments: JsonObject,
        #[serde(default)]
        progress: bool,
    },
    Cancel {
        call: u64,
    },
    Close {
        session: String,
    },
    #[serde(untagged)]
    Ask {
        session: String,
        #[serde(flatten)]
        question: Question,
    },
}

/// What a session is asked to do in one go.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Question {
    Complete { r#ref: Reference, argument: ArgumentInfo },
    GetPrompt { name: String, arguments: JsonObject },
    List,
    Prompts,
    Read { uri: String },
    Resources,
    Script { answers: JsonObject },
    SetLevel { level: LoggingLevel },
    Subscribe { uri: String },
    Templates,
    Watch,
}

/// A call that the harness had cancelled.
#[derive(Debug)]
pub struct Cancelled;

impl std::fmt::Display for Cancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cancelled by the harness")
    }
}

impl std::error::Error for Cancelled {}

/// Write one line to the harness.
pub fn say(message: &Value) {
    println!("{message}");
}

/// Code and message of a JSON-RPC error, else the error's own words.
pub fn failure(error: &anyhow::Error) -> Value {
    if error.is::<Cancelled>() {
        return json!({ "code": "cancelled", "message": error.to_string() });
    }
    match error.downcast_ref::<ServiceError>() {
        Some(ServiceError::McpError(error)) => json!({ "code": error.code, "message": error.message }),
        _ => json!({ "code": null, "message": format!("{error:#}") }),
    }
}
