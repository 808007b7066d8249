//! Spans on their way out: gathered in a queue with a cap, and sent together. No request waits for that, and what cannot be sent is
//! dropped and counted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use prometheus::IntCounter;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Timer, timeout, timeout_at};
use toolgate_config::{BackendName, Timeout, Traces};

use super::otlp;
use super::span::Finished;
use crate::backend::http::{Connector, Http, Target};
use crate::backend::{BuildError, Outgoing, Transport as _};
use crate::error::MaxBytes;
use crate::metrics::Metrics;

/// Requests whose spans wait to be sent; of further ones they are dropped.
const MAX_QUEUED: usize = 2048;
/// Those that are sent together.
const MAX_BATCH: usize = 256;
/// How long they are gathered.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// What the receiver has for one batch.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the last ones get to be sent at an end.
const LAST_SEND: Duration = Duration::from_secs(3);
/// How often it is logged that they cannot be sent.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// What is read of an answer.
const MAX_ANSWER: MaxBytes = MaxBytes::fixed(64 * 1024);

enum Item {
    Ended(Box<Finished>),
    /// Answered when what came before has been sent.
    Flush(oneshot::Sender<()>),
}

/// Where spans go that have ended. Clones are cheap.
#[derive(Clone)]
pub(super) struct Queue {
    items: mpsc::Sender<Item>,
    counts: Counts,
}

/// How many spans were sent, and how many were not.
#[derive(Clone)]
struct Counts {
    sent: IntCounter,
    dropped: IntCounter,
}

impl Queue {
    pub(super) fn push(&self, finished: Finished) {
        let spans = finished.spans();
        if self.items.try_send(Item::Ended(Box::new(finished))).is_err() {
            self.counts.dropped.inc_by(spans);
        }
    }
}

/// What sends them.
pub(super) struct Exporter {
    queue: Queue,
    /// Until it is started.
    sender: Mutex<Option<Sender>>,
}

impl Exporter {
    pub(super) fn new(traces: &Traces, connector: &Connector, metrics: &Metrics) -> Result<Self, BuildError> {
        let name = Traces::label();
        let Some(url) = traces.receiver.urls.first() else { return Err(BuildError::Head { backend: name }) };
        let http = Http::new(Target { backend: &name, remote: &traces.receiver, url }, connector)?;
        let (items, queue) = mpsc::channel(MAX_QUEUED);
        let spans = metrics.spans();
        let counts =
            Counts { sent: spans.with_label_values(&["sent"]), dropped: spans.with_label_values(&["dropped"]) };
        let sender = Sender { name, http, queue, counts: counts.clone(), told: None };
        Ok(Self { queue: Queue { items, counts }, sender: Mutex::new(Some(sender)) })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    pub(super) fn start(&self) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            tokio::spawn(sender.run());
        }
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flushing = async {
            if self.queue.items.send(Item::Flush(done)).await.is_ok() {
                // Whoever sends has ended otherwise, and so has everything to send.
                let _ = flushed.await;
            }
        };
        let _ = timeout(LAST_SEND, flushing).await;
    }
}

/// What takes spans from the queue.
struct Sender {
    name: BackendName,
    http: Http,
    queue: mpsc::Receiver<Item>,
    counts: Counts,
    /// When it was last logged that spans cannot be sent, if they could not be since.
    told: Option<Instant>,
}

impl Sender {
    /// Until there is nobody left who could have any.
    async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            let (mut batch, mut flushed) = (Vec::new(), Vec::new());
            let deadline = Timer::now() + GATHERED_FOR;
            let mut next = Some(first);
            while let Some(item) = next.take() {
                match item {
                    Item::Ended(finished) => batch.push(*finished),
                    Item::Flush(done) => flushed.push(done),
                }
                if flushed.is_empty() && batch.len() < MAX_BATCH {
                    next = timeout_at(deadline, self.queue.recv()).await.ok().flatten();
                }
            }
            if !batch.is_empty() {
                self.send(&batch).await;
            }
            // Who waited may have given up.
            for done in flushed {
                let _ = done.send(());
            }
        }
    }

    async fn send(&mut self, batch: &[Finished]) {
        let body = Bytes::from(otlp::encoded(batch));
        let outcome = timeout(PATIENCE, self.post(body)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("it took longer than {}s", PATIENCE.as_secs())));
        let all = batch.iter().map(Finished::spans).sum::<u64>();
        let (rejected, problem) = match outcome {
            Ok(0) => (0, None),
            Ok(rejected) => (rejected.min(all), Some("the receiver did not take all of them".to_owned())),
            Err(problem) => (all, Some(problem)),
        };
        self.counts.sent.inc_by(all - rejected);
        self.counts.dropped.inc_by(rejected);
        match problem {
            Some(problem) => self.tell(&problem),
            None if self.told.take().is_some() => tracing::info!("spans are sent again"),
            None => {}
        }
    }

    /// How many of them the receiver did not take.
    async fn post(&self, body: Bytes) -> Result<u64, String> {
        let mut limits = Timeout::default();
        (limits.first_byte, limits.idle) = (PATIENCE, PATIENCE);
        let request = Outgoing {
            verb: Method::POST,
            headers: Vec::new(),
            body,
            timeout: limits,
            // A receiver knows a span by its id.
            repeatable: true,
            replica: None,
        };
        let mut answer = self.http.send(request).await.map_err(|problem| problem.to_string())?;
        let text = answer.collect(MAX_ANSWER, &self.name).await.map_err(|problem| problem.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("it answered with HTTP {}", answer.status.as_u16()));
        }
        Ok(rejected(&text).unwrap_or(0))
    }

    /// Logs that spans cannot be sent: not each time, for that may be all the time.
    fn tell(&mut self, problem: &str) {
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(problem, dropped = self.counts.dropped.get(), "spans cannot be sent; they are dropped");
        }
    }
}

/// How many spans the receiver did not take though it took the rest (OTLP, partial success).
fn rejected(answer: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let count = answer.get("partialSuccess")?.get("rejectedSpans")?;
    // 64 bits are a string in the JSON of protobuf, but not everybody's.
    count.as_u64().or_else(|| count.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_taken_is_told_in_either_form() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}"#), Some(3));
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedSpans":2}}"#), Some(2));
        for answer in ["{}", "", "ok", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"rejectedSpans":-1}}"#] {
            assert_eq!(rejected(answer.as_bytes()), None);
        }
    }
}
