//! Tells a server of the operator's what has changed in what backends offer: one signed message for each listing that found
//! something, posted again until it is taken.
//!
//! Messages and signatures are those of Standard Webhooks 1.0, so that its libraries verify them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use toolgate_config::{BackendName, Webhook as Config};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime as Timer};

use super::drift::Drift;
use crate::backend::http::{Connector, Http, Target};
use crate::backend::{Backend, BuildError, Outgoing, Transport as _};
use crate::gateway::Gateway;

/// Messages that wait; further ones are dropped and counted.
const WAITING: usize = 256;
/// Changes that are told one by one in a message; of further ones it tells the number.
const TOLD: usize = 64;
/// Changes that are known to have been told; a further one may be told again.
const REMEMBERED: usize = 4096;
/// How often a message is posted before it is given up, which is after a little over two minutes.
const TRIES: u32 = 8;
/// Between the first try and the second; it doubles from one to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of messages, as the metric has it.
pub(crate) const OUTCOMES: [&str; 4] = [DELIVERED, DROPPED, FAILED, REPEATED];
const DELIVERED: &str = "delivered";
/// There were too many.
const DROPPED: &str = "dropped";
/// Nobody took it.
const FAILED: &str = "failed";
/// All that it would have told was told a short while ago.
const REPEATED: &str = "repeated";

/// Where messages go.
pub(crate) struct Webhook {
    config: Config,
    http: Http,
}

impl Webhook {
    /// The webhook of a configuration; the one before, where it is the same.
    ///
    /// # Errors
    /// When its TLS files do not fit together.
    pub(crate) fn build(
        config: Option<&Config>,
        previous: Option<&Arc<Self>>,
        connector: &Connector,
    ) -> Result<Option<Arc<Self>>, BuildError> {
        let Some(config) = config else { return Ok(None) };
        if let Some(previous) = previous.filter(|previous| previous.config == *config) {
            return Ok(Some(Arc::clone(previous)));
        }
        let Some(url) = config.remote.urls.first() else { return Ok(None) };
        let label = Config::label();
        let http = Http::new(Target { backend: &label, remote: &config.remote, url }, connector)?;
        Ok(Some(Arc::new(Self { config: config.clone(), http })))
    }

    /// Posts a message once.
    async fn post(&self, message: &Message) -> Result<(), String> {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
        let signature = signature(self.config.secret.expose(), &message.id, &timestamp, &message.body);
        let header = |name, value: &str| {
            // What is written here is visible ASCII.
            let value = HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static(""));
            (HeaderName::from_static(name), value)
        };
        let request = Outgoing {
            verb: Method::POST,
            headers: vec![
                header("webhook-id", &message.id),
                header("webhook-timestamp", &timestamp),
                header("webhook-signature", &signature),
            ],
            body: message.body.clone(),
            timeout: self.config.timeout,
            // Whoever takes it twice knows it by its id.
            repeatable: true,
            replica: None,
        };
        let limit = self.config.timeout.first_byte;
        match timeout(limit, self.http.send(request)).await {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answered with HTTP {}", answer.status.as_u16())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it did not answer within {}s", limit.as_secs_f64())),
        }
    }
}

/// Standard Webhooks 1.0, "Signature scheme": HMAC-SHA256 over id, timestamp and body.
fn signature(key: &[u8; 32], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        signing.update(part);
    }
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

/// What is told, the same at each try.
struct Message {
    id: String,
    body: Bytes,
}

impl Message {
    fn of(backend: &Backend, drifts: &[&Drift]) -> Self {
        let changes = drifts.iter().take(TOLD).map(|drift| {
            json!({
                "change": drift.change.as_str(),
                "tool": drift.tool.as_deref().map(|own| backend.config.public_name(own)),
                "ownName": drift.tool,
                "detail": drift.detail,
            })
        });
        let body = json!({
            "type": "catalog.drift",
            "timestamp": now(),
            "data": {
                "backend": backend.name().as_str(),
                "changes": changes.collect::<Vec<_>>(),
                "more": drifts.len().saturating_sub(TOLD),
            },
        });
        Self { id: format!("msg_{}", URL_SAFE_NO_PAD.encode(random())), body: body.to_string().into() }
    }
}

/// The time in UTC (RFC 3339).
fn now() -> String {
    let mut text = String::new();
    // Writing to memory cannot fail.
    let _ = Timer.format_time(&mut Writer::new(&mut text));
    text
}

fn random() -> [u8; 18] {
    let mut bytes = [0; 18];
    // Without it two messages may have one id, and a receiver may take the second for a repetition.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

/// Messages on their way.
#[derive(Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    told: Told,
}

/// When changes were told last.
#[derive(Default)]
struct Told {
    when: HashMap<u64, Instant>,
    hasher: RandomState,
}

impl Told {
    /// Those of the changes that were not told within `repeat`; they are from now on.
    fn news<'a>(
        &mut self,
        backend: &BackendName,
        drifts: &'a [Drift],
        repeat: Duration,
        now: Instant,
    ) -> Vec<&'a Drift> {
        self.when.retain(|_, when| now.saturating_duration_since(*when) < repeat);
        let is_new = |drift: &&Drift| {
            let key = self.hasher.hash_one((backend, drift.change.as_str(), &drift.tool, &drift.detail));
            if self.when.contains_key(&key) {
                return false;
            }
            if self.when.len() < REMEMBERED {
                self.when.insert(key, now);
            }
            true
        };
        drifts.iter().filter(is_new).collect()
    }
}

/// Hands a message over that tells of changes, where somebody wants to be told and was not lately.
pub(super) fn tell(gateway: &Gateway, backend: &Backend, drifts: &[Drift]) {
    let snapshot = gateway.snapshot();
    let Some(webhook) = snapshot.webhook.as_ref().filter(|_| !drifts.is_empty()) else { return };
    let count = |outcome| gateway.metrics.webhook_messages.with_label_values(&[outcome]).inc();
    let mut waiting = gateway.outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.messages.len() >= WAITING {
        tracing::warn!(
            backend = backend.name().as_str(),
            "too many messages wait for the webhook; this one is dropped"
        );
        return count(DROPPED);
    }
    let news = waiting.told.news(backend.name(), drifts, webhook.config.repeat, Instant::now());
    if news.is_empty() {
        return count(REPEATED);
    }
    waiting.messages.push_back(Message::of(backend, &news));
    drop(waiting);
    gateway.outbox.arrived.notify_one();
}

/// Posts what waits, one after the other.
pub(crate) async fn run(gateway: Arc<Gateway>) {
    loop {
        let next = gateway.outbox.waiting.lock().unwrap_or_else(PoisonError::into_inner).messages.pop_front();
        match next {
            Some(message) => deliver(&gateway, &message).await,
            None => gateway.outbox.arrived.notified().await,
        }
    }
}

async fn deliver(gateway: &Gateway, message: &Message) {
    let count = |outcome| gateway.metrics.webhook_messages.with_label_values(&[outcome]).inc();
    let mut pause = PAUSE;
    for attempt in 1..=TRIES {
        // A reload may have mended what was wrong with it.
        let Some(webhook) = gateway.snapshot().webhook.clone() else { return count(DROPPED) };
        let Err(reason) = webhook.post(message).await else { return count(DELIVERED) };
        if attempt == TRIES {
            tracing::warn!(id = message.id, reason, "the webhook does not take a message; it is given up");
            return count(FAILED);
        }
        if attempt == 1 {
            tracing::info!(id = message.id, reason, "the webhook does not take a message; it is posted again");
        }
        sleep(pause).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::catalog::drift::Change;

    /// Against another implementation of HMAC.
    #[test]
    fn messages_are_signed_as_standard_webhooks_have_it() {
        let mut key = [0; 32];
        key.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);

        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);

        assert_eq!(signed, "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI=");
    }

    #[test]
    fn a_change_is_told_once_in_a_while() {
        let yaml = "listeners: [{ address: '127.0.0.1:0' }]\nbackends: [{ name: files, url: 'http://127.0.0.1:1/' }]";
        let config = toolgate_config::parse(Path::new("t.yaml"), yaml, &|_| None).unwrap();
        let backend = &config.backends[0].name;
        let drift = |tool: &str| Drift { change: Change::ToolRemoved, tool: Some(tool.into()), detail: None };
        let (mut told, began) = (Told::default(), Instant::now());
        let mut news = |tools: &[&str], after: u64| {
            let drifts: Vec<_> = tools.iter().map(|tool| drift(tool)).collect();
            let now = began + Duration::from_secs(after);
            told.news(backend, &drifts, Duration::from_secs(60), now).iter().map(|d| d.tool.clone().unwrap()).collect()
        };

        let first: Vec<Box<str>> = news(&["a"], 0);
        assert_eq!(first, ["a".into()]);
        assert_eq!(news(&["a", "b"], 59), ["b".into()]);
        assert_eq!(news(&["a", "b"], 60), ["a".into()]);
        let many: Vec<_> = (0..REMEMBERED + 10).map(|n| n.to_string()).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(news(&many, 200).len(), many.len());
        assert!(told.when.len() <= REMEMBERED);
    }
}
