//! A modern client's stream of news (`subscriptions/listen`): what it asked for and nothing else, each message under the id of
//! its request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Lists;
use super::upstream::Upstream;
use crate::backend::{Backend, sse};
use crate::catalog::{self, Merged, Revisions};
use crate::dispatch::Exchange;
use crate::era::Era;
use crate::error::{Error, INVALID_PARAMS};
use crate::gateway::{self, Gateway};
use crate::jsonrpc::{self, Message, OwnedId};
use crate::reply::Next;
use crate::session::{ClientCapabilities, MAX_SUBSCRIPTIONS, Session};

/// How long a client waits for backends that do not take its subscriptions at once, before it is told that it listens.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(2);

/// What a client wants to hear of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Filter {
    tools_list_changed: bool,
    prompts_list_changed: bool,
    resources_list_changed: bool,
    resource_subscriptions: Vec<String>,
}

impl Filter {
    /// Reads `params.notifications`.
    ///
    /// # Errors
    /// When it is none, or wants too much. That no stream begins is told by the status too: nothing else would be read of it.
    pub(crate) fn read(exchange: &Exchange<'_>) -> Result<Self, Error> {
        let bad = |what: &'static str| Error::Malformed { code: INVALID_PARAMS, reason: what.into(), id: None };
        let raw = exchange.params.notifications.filter(|raw| raw.get().starts_with('{'));
        let raw = raw.ok_or_else(|| bad("`params.notifications` must be an object"))?;
        let filter: Self = serde_json::from_str(raw.get())
            .map_err(|_| bad("`params.notifications` is not a filter of notifications"))?;
        if filter.resource_subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(Error::TooManySubscriptions { max: MAX_SUBSCRIPTIONS });
        }
        Ok(filter)
    }

    /// What of it can be honoured: resources that somebody has. The acknowledgement says so by leaving out the others
    /// (2026-07-28, Subscriptions).
    fn honoured(mut self, catalog: &Merged) -> Self {
        self.resource_subscriptions.retain(|uri| catalog.resource(uri).is_some());
        self
    }

    fn json(&self) -> String {
        let flags = [
            ("toolsListChanged", self.tools_list_changed),
            ("promptsListChanged", self.prompts_list_changed),
            ("resourcesListChanged", self.resources_list_changed),
        ];
        let uris: Vec<_> = self.resource_subscriptions.iter().map(|uri| jsonrpc::json_string(uri)).collect();
        let uris = format!("[{}]", uris.join(","));
        let flags = flags.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (name, "true"));
        let uris = (!self.resource_subscriptions.is_empty()).then_some(("resourceSubscriptions", &*uris));
        jsonrpc::object(flags.chain(uris))
    }

    fn wants(&self, method: &str) -> bool {
        match method {
            "notifications/tools/list_changed" => self.tools_list_changed,
            "notifications/prompts/list_changed" => self.prompts_list_changed,
            "notifications/resources/list_changed" => self.resources_list_changed,
            _ => false,
        }
    }
}

/// One open stream.
pub(crate) struct Listen {
    gateway: Arc<Gateway>,
    /// Of the request.
    id: OwnedId,
    filter: Filter,
    /// The acknowledgement, which goes first.
    acknowledgement: Option<Bytes>,
    /// When it goes at the latest.
    by: Instant,
    lists: Lists,
    upstream: Upstream,
    /// In which legacy backends are subscribed to for this stream alone.
    session: Arc<Session>,
    changes: watch::Receiver<u64>,
}

impl Listen {
    /// Begins to listen.
    pub(crate) fn new(exchange: &Exchange<'_>, filter: Filter) -> Result<Self, Error> {
        let id = exchange.id()?.owned();
        let catalog = exchange.snapshot.catalog();
        let filter = filter.honoured(&catalog);
        // From here on a change is told: what the client lists after the acknowledgement is newer.
        let lists = Lists::new(exchange.gateway, Revisions::default());
        let session = exchange.gateway.sessions.private(ClientCapabilities::default(), None);
        for uri in &filter.resource_subscriptions {
            if let Some(owner) = catalog.resource(uri) {
                session.subscribe(uri, owner);
            }
        }
        Ok(Self {
            changes: session.changes(),
            gateway: Arc::clone(exchange.gateway),
            acknowledgement: Some(message(
                "notifications/subscriptions/acknowledged",
                &id,
                &format!(",\"notifications\":{}", filter.json()),
            )),
            by: Instant::now() + ACKNOWLEDGED_WITHIN,
            id,
            filter,
            lists,
            upstream: Upstream::new(),
            session,
        })
    }

    pub(crate) async fn next(&mut self) -> Next {
        if self.acknowledgement.is_some() {
            self.listen();
            self.subscribed().await;
        }
        if let Some(acknowledgement) = self.acknowledgement.take() {
            return Next::Chunk(acknowledgement);
        }
        loop {
            tokio::select! {
                methods = self.lists.next() => {
                    self.listen();
                    let wanted = methods.into_iter().filter(|method| self.filter.wants(method));
                    let events: Vec<_> = wanted.map(|method| message(method, &self.id, "")).collect();
                    if !events.is_empty() {
                        return Next::Chunk(events.concat().into());
                    }
                }
                _ = self.changes.changed() => self.listen(),
                heard = self.upstream.next() => {
                    if let Some(event) = heard.message().and_then(|message| self.updated(&message)) {
                        return Next::Chunk(event);
                    }
                }
            }
        }
    }

    /// Waits until legacy backends are subscribed at and listened to, those that can be before long: what changes once the
    /// client knows that it listens is not to be missed.
    async fn subscribed(&mut self) {
        let snapshot = self.gateway.snapshot();
        let is_asked = |backend: &&Arc<Backend>| {
            backend.era_for(Era::Modern) == Some(Era::Legacy) && !self.session.subscriptions(backend).is_empty()
        };
        let by = self.by;
        let opening = snapshot.backends.iter().filter(is_asked).map(|backend| {
            let (leg, session) = (self.session.leg(backend), &self.session);
            async move {
                let opened = timeout_at(by, leg.open(session, None)).await.ok()?.ok()?;
                Some((leg, opened))
            }
        });
        let opened: Vec<_> = join_all(opening).await.into_iter().flatten().collect();
        self.listen();
        let streams = opened.iter().filter(|(_, opened)| opened.session_id.is_some());
        let _ = timeout_at(by, join_all(streams.map(|(leg, opened)| leg.heard(opened)))).await;
    }

    fn listen(&mut self) {
        if !self.filter.resource_subscriptions.is_empty() {
            let snapshot = self.gateway.snapshot();
            self.upstream.sync(&self.session, &snapshot.backends, Era::Modern, None);
        }
    }

    /// News of a resource, under the id of this stream.
    fn updated(&self, data: &Bytes) -> Option<Bytes> {
        let Ok(Message::Notification(notification)) = jsonrpc::parse(data) else { return None };
        if notification.method != catalog::RESOURCE_UPDATED {
            return None;
        }
        let uri = notification.params.uri?;
        Some(message(&notification.method, &self.id, &format!(",\"uri\":{}", uri.get())))
    }

    /// Ends it: the result says that it was meant to end.
    pub(crate) fn cut(&self) -> Bytes {
        let result = format!("{{\"resultType\":\"complete\",\"_meta\":{{{}}}}}", subscription(&self.id));
        sse::event(&jsonrpc::result_body(self.id.raw(), &result))
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        let legs = self.session.take_legs(|_| true);
        if !legs.is_empty() && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(gateway::close(legs));
        }
    }
}

/// A notification of this stream, as an event; `more` are further members of its `params`.
fn message(method: &str, id: &OwnedId, more: &str) -> Bytes {
    let params = format!("{{\"_meta\":{{{}}}{more}}}", subscription(id));
    sse::event(&jsonrpc::notification_body(method, Some(&params)))
}

fn subscription(id: &OwnedId) -> String {
    format!("\"io.modelcontextprotocol/subscriptionId\":{}", id.raw())
}
