//! One MCP session over streamable HTTP.
#![expect(deprecated, reason = "what the modern era has deprecated is what this suite is about")]

use std::str::FromStr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Error, Result, bail};
use rmcp::ServiceExt;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, CompleteRequestParams, GetPromptRequestParams, JsonObject,
    LoggingLevel, ProtocolVersion, ReadResourceRequestParams, RequestMetaObject, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, PeerRequestOptions, RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::lines::{Cancelled, Question};
use crate::peer::Peer;

/// More than the harness ever has under way in one session; rmcp's default is 16.
const CALLS_AT_ONCE: usize = 1024;

#[derive(Clone, Copy)]
pub enum Mode {
    /// Discover, and fall back to `initialize`.
    Auto,
    /// `initialize`.
    Legacy,
    /// Discover.
    Modern,
}

impl FromStr for Mode {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "legacy" => Ok(Self::Legacy),
            "2026-07-28" => Ok(Self::Modern),
            _ => bail!("unknown mode {s:?}"),
        }
    }
}

impl From<Mode> for ClientLifecycleMode {
    fn from(mode: Mode) -> Self {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match mode {
            Mode::Auto => Self::Auto { preferred_versions, legacy_version: Some(ProtocolVersion::V_2025_11_25) },
            Mode::Legacy => Self::Initialize,
            Mode::Modern => Self::Discover { preferred_versions },
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
    service: Arc<RunningService<RoleClient, Peer>>,
    modern: bool,
    level: Mutex<Option<LoggingLevel>>,
    listening: Mutex<Vec<JoinHandle<()>>>,
}

impl Session {
    pub async fn open(peer: Peer, url: &str, http: reqwest::Client, mode: Mode) -> Result<Self> {
        let config = StreamableHttpClientTransportConfig::with_uri(url).max_concurrent_requests(CALLS_AT_ONCE);
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let service = match mode {
            Mode::Legacy => peer.serve(transport).await?,
            Mode::Auto | Mode::Modern => peer.serve_with_lifecycle(transport, mode.into()).await?,
        };
        let version = service.peer_info().map(|server| server.protocol_version.clone());
        Ok(Self {
            service: Arc::new(service),
            modern: version == Some(ProtocolVersion::V_2026_07_28),
            level: Mutex::default(),
            listening: Mutex::default(),
        })
    }

    pub fn protocol(&self) -> Option<String> {
        self.service.peer_info().map(|server| server.protocol_version.to_string())
    }

    pub async fn ask(&self, question: Question) -> Result<Value> {
        let service = &self.service;
        Ok(match question {
            Question::Complete { r#ref, argument } => {
                json!(service.complete(CompleteRequestParams::new(r#ref, argument)).await?)
            }
            Question::GetPrompt { name, arguments } => {
                json!(service.get_prompt(GetPromptRequestParams::new(name).with_arguments(arguments)).await?)
            }
            Question::List => json!({ "tools": service.list_all_tools().await? }),
            Question::Prompts => json!({ "prompts": service.list_all_prompts().await? }),
            Question::Read { uri } => json!(service.read_resource(ReadResourceRequestParams::new(uri)).await?),
            Question::Resources => json!({ "resources": service.list_all_resources().await? }),
            Question::Script { answers } => json!(service.service().script(answers)),
            Question::SetLevel { level } => json!(self.set_level(level).await?),
            Question::Subscribe { uri } => json!(self.subscribe(uri).await?),
            Question::Templates => json!({ "templates": service.list_all_resource_templates().await? }),
            Question::Watch => json!(self.watch().await?),
        })
    }

    async fn set_level(&self, level: LoggingLevel) -> Result<()> {
        if self.modern {
            *self.level.lock().unwrap() = Some(level);
        } else {
            self.service.set_level(SetLevelRequestParams::new(level)).await?;
        }
        Ok(())
    }

    async fn subscribe(&self, uri: String) -> Result<()> {
        if self.modern {
            self.listen(SubscriptionFilter::builder().resource_subscriptions([uri]).build()).await
        } else {
            Ok(self.service.subscribe(SubscribeRequestParams::new(uri)).await?)
        }
    }

    async fn watch(&self) -> Result<()> {
        if !self.modern {
            return Ok(());
        }
        let lists = SubscriptionFilter::builder().tools_list_changed().prompts_list_changed().resources_list_changed();
        self.listen(lists.build()).await
    }

    async fn listen(&self, filter: SubscriptionFilter) -> Result<()> {
        let mut subscription = self.service.listen(filter).await?;
        let service = self.service.clone();
        self.listening.lock().unwrap().push(tokio::spawn(async move {
            while let Ok(Some(notification)) = subscription.next().await {
                service.service().report(&notification);
            }
        }));
        Ok(())
    }

    fn params(&self, name: String, arguments: JsonObject) -> CallToolRequestParams {
        let mut params = CallToolRequestParams::new(name).with_arguments(arguments);
        if let Some(level) = *self.level.lock().unwrap() {
            let mut meta = RequestMetaObject::default();
            meta.set_log_level(level);
            params.meta = Some(meta);
        }
        params
    }

    pub async fn call(&self, name: String, arguments: JsonObject, cancelled: oneshot::Receiver<()>) -> Result<Value> {
        tokio::select! {
            result = self.service.call_tool(self.params(name, arguments)) => Ok(json!(result?)),
            Ok(()) = cancelled => Err(Cancelled.into()),
        }
    }

    /// Call by hand: what answers the server's questions by itself does not show the progress token.
    pub async fn call_with_progress(
        &self,
        id: u64,
        name: String,
        arguments: JsonObject,
        cancelled: oneshot::Receiver<()>,
    ) -> Result<Value> {
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(self.params(name, arguments)));
        // Held while sending, so that no progress can come before its token is known.
        let mut calls = self.service.service().calls.lock().await;
        let mut handle = self.service.send_request_with_option(request, PeerRequestOptions::no_options()).await?;
        let token = handle.progress_token.clone();
        calls.insert(token.clone(), id);
        drop(calls);
        let answer = tokio::select! {
            answer = &mut handle.rx => answer,
            Ok(()) = cancelled => {
                handle.cancel(Some(Cancelled.to_string())).await?;
                return Err(Cancelled.into());
            }
        };
        self.service.service().calls.lock().await.remove(&token);
        Ok(json!(answer??))
    }

    /// Ends the session once nothing else uses it.
    pub async fn close(self: Arc<Self>) {
        let Some(session) = Arc::into_inner(self) else { return };
        for task in session.listening.into_inner().unwrap() {
            task.abort();
            task.await.ok();
        }
        if let Some(service) = Arc::into_inner(session.service) {
            service.cancel().await.ok();
        }
    }
}
