//! What a session tells the harness without being asked, and answers to the server as the harness has scripted it.
#![expect(deprecated, reason = "what the modern era has deprecated is what this suite is about")]

use std::collections::HashMap;
use std::sync::Mutex;

use anyhow::Result;
use rmcp::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
    ElicitResult, ErrorData, Implementation, JsonObject, ListRootsResult, LoggingMessageNotificationParam,
    ProgressNotificationParam, ProgressToken, ResourceUpdatedNotificationParam, ServerNotification,
};
use rmcp::service::{NotificationContext, RequestContext, RoleClient};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex as AsyncMutex;

use crate::lines::say;

pub struct Peer {
    session: String,
    capabilities: ClientCapabilities,
    answers: Mutex<JsonObject>,
    /// The orders whose calls report progress.
    pub calls: AsyncMutex<HashMap<ProgressToken, u64>>,
}

impl Peer {
    /// `offers` are the names of capabilities.
    pub fn new(session: String, offers: &[String], answers: JsonObject) -> Result<Self> {
        let declared: JsonObject = offers.iter().map(|offer| (offer.clone(), json!({}))).collect();
        let capabilities = serde_json::from_value(Value::Object(declared))?;
        Ok(Self { session, capabilities, answers: Mutex::new(answers), calls: AsyncMutex::default() })
    }

    /// What to answer from now on.
    pub fn script(&self, answers: JsonObject) {
        *self.answers.lock().unwrap() = answers;
    }

    /// Tell of what a subscription brings.
    pub fn report(&self, notification: &ServerNotification) {
        match notification {
            ServerNotification::ToolListChangedNotification(_) => self.tell("tools_changed"),
            ServerNotification::PromptListChangedNotification(_) => self.tell("prompts_changed"),
            ServerNotification::ResourceListChangedNotification(_) => self.tell("resources_changed"),
            ServerNotification::ResourceUpdatedNotification(updated) => self.updated(&updated.params.uri),
            _ => {}
        }
    }

    fn tell(&self, event: &str) {
        say(&json!({ "session": self.session, "event": event }));
    }

    fn updated(&self, uri: &str) {
        say(&json!({ "session": self.session, "event": "updated", "uri": uri }));
    }

    /// Tell that the server has asked, and get the scripted answer.
    fn answer(&self, kind: &str, question: Option<&Value>) -> Value {
        say(&json!({ "session": self.session, "event": "asked", "kind": kind, "question": question }));
        self.answers.lock().unwrap().get(kind).cloned().unwrap_or_default()
    }
}

/// A scripted answer as the type that it is of.
fn parse<T: DeserializeOwned>(answer: Value) -> Result<T, ErrorData> {
    serde_json::from_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

impl ClientHandler for Peer {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(self.capabilities.clone(), Implementation::from_build_env())
    }

    async fn create_elicitation(
        &self,
        params: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        parse(self.answer("elicitation", json!(params).get("message")))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let answer = self.answer("sampling", json!(params.messages).pointer("/0/content/text"));
        let content = json!({ "type": "text", "text": answer["text"] });
        parse(json!({ "role": "assistant", "model": answer["model"], "content": content }))
    }

    async fn list_roots(&self, _: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        let uris: Vec<String> = parse(self.answer("roots", None))?;
        parse(json!({ "roots": uris.iter().map(|uri| json!({ "uri": uri })).collect::<Vec<_>>() }))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let Some(id) = self.calls.lock().await.get(&params.progress_token).copied() else { return };
        let progress = json!({ "progress": params.progress, "total": params.total, "message": params.message });
        say(&json!({ "id": id, "progress": progress }));
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        say(&json!({ "session": self.session, "event": "log", "level": params.level, "data": params.data }));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tell("tools_changed");
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tell("prompts_changed");
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.tell("resources_changed");
    }

    async fn on_resource_updated(&self, params: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        self.updated(&params.uri);
    }
}
