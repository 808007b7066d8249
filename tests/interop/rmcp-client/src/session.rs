//! One MCP session over streamable HTTP.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, JsonObject, ProgressNotificationParam, ProgressToken,
    ProtocolVersion, Tool,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions, RoleClient, RunningService,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ServiceExt};
use serde_json::{Value, json};
use tokio::sync::{Mutex, oneshot};

use crate::lines::{Cancelled, say};

/// More than the harness ever has under way in one session; rmcp's default is 16.
const CALLS_AT_ONCE: usize = 1024;

#[derive(Clone, Copy)]
pub enum Mode {
    /// Discover, and fall back to `initialize`.
    Auto,
    /// `initialize`.
    Legacy,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "legacy" => Ok(Self::Legacy),
            _ => bail!("unknown mode {s:?}"),
        }
    }
}

/// An HTTP client that trusts what `SSL_CERT_FILE` holds, and nothing else.
pub fn http() -> Result<reqwest::Client> {
    rustls::crypto::ring::default_provider().install_default().ok().context("a crypto provider is there already")?;
    let roots = match std::env::var_os("SSL_CERT_FILE") {
        Some(file) => reqwest::Certificate::from_pem_bundle(&std::fs::read(file)?)?,
        None => Vec::new(),
    };
    Ok(reqwest::Client::builder().tls_certs_only(roots).build()?)
}

pub struct Session {
    service: RunningService<RoleClient, Notices>,
}

impl Session {
    pub async fn open(name: String, url: &str, http: reqwest::Client, mode: Mode) -> Result<Self> {
        let config = StreamableHttpClientTransportConfig::with_uri(url).max_concurrent_requests(CALLS_AT_ONCE);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let notices = Notices { session: name, calls: Arc::default() };
        let service = match mode {
            Mode::Legacy => notices.serve(transport).await?,
            Mode::Auto => notices.serve_with_lifecycle(transport, auto()).await?,
        };
        Ok(Self { service })
    }

    pub fn protocol(&self) -> Option<String> {
        self.service.peer_info().map(|server| server.protocol_version.to_string())
    }

    pub async fn list_tools(&self) -> Result<Vec<Tool>> {
        Ok(self.service.list_all_tools().await?)
    }

    pub async fn call(
        &self,
        id: u64,
        name: String,
        arguments: JsonObject,
        progress: bool,
        cancelled: oneshot::Receiver<()>,
    ) -> Result<Value> {
        let params = CallToolRequestParams::new(name).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        // Held while sending, so that no progress can come before its token is known.
        let mut calls = self.service.service().calls.lock().await;
        let mut handle = self.service.send_request_with_option(request, PeerRequestOptions::no_options()).await?;
        let token = handle.progress_token.clone();
        if progress {
            calls.insert(token.clone(), id);
        }
        drop(calls);
        let answer = tokio::select! {
            answer = &mut handle.rx => answer,
            Ok(()) = cancelled => {
                handle.cancel(Some(Cancelled.to_string())).await?;
                return Err(Cancelled.into());
            }
        };
        self.service.service().calls.lock().await.remove(&token);
        Ok(serde_json::to_value(answer??)?)
    }

    /// Ends the session once nothing else uses it.
    pub async fn close(self: Arc<Self>) {
        if let Some(session) = Arc::into_inner(self) {
            session.service.cancel().await.ok();
        }
    }
}

fn auto() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    }
}

/// Passes on what the server tells without being asked.
struct Notices {
    session: String,
    calls: Arc<Mutex<HashMap<ProgressToken, u64>>>,
}

impl ClientHandler for Notices {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let Some(id) = self.calls.lock().await.get(&params.progress_token).copied() else { return };
        let progress = json!({ "progress": params.progress, "total": params.total, "message": params.message });
        say(&json!({ "id": id, "progress": progress }));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        say(&json!({ "session": self.session, "event": "tools_changed" }));
    }
}
