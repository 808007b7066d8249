//! Keeps a status page up to date: the parts of it that have changed, as events.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::status::Part;
use crate::gateway::Gateway;
use crate::reply::Next;

/// Between two looks at what has changed.
const PERIOD: Duration = Duration::from_secs(1);

/// What one page is told.
pub(crate) struct Live {
    gateway: Arc<Gateway>,
    /// What each part was when it was sent last.
    sent: [Option<u64>; Part::ALL.len()],
    due: Instant,
}

impl Live {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        Self { gateway: Arc::clone(gateway), sent: [None; Part::ALL.len()], due: Instant::now() }
    }

    /// What has changed since the last look. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Next {
        loop {
            sleep_until(self.due).await;
            self.due = Instant::now() + PERIOD;
            let events = self.changed();
            if !events.is_empty() {
                return Next::Chunk(Bytes::from(events));
            }
        }
    }

    fn changed(&mut self) -> String {
        let mut events = String::new();
        for (part, sent) in Part::ALL.into_iter().zip(&mut self.sent) {
            let html = part.render(&self.gateway, "").into_string();
            let mut hasher = DefaultHasher::new();
            html.hash(&mut hasher);
            let now = Some(hasher.finish());
            if std::mem::replace(sent, now) != now {
                // JSON has no line breaks in it, so it is one line of the event.
                let data = json!({ "id": part.id(), "html": html });
                events += &format!("event: part\ndata: {data}\n\n");
            }
        }
        events
    }
}
