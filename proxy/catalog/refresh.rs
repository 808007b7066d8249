//! Keeps the last good list of one backend: a session of the gateway's own, listed on start, on a timer, when the backend
//! says that it changed, when it recovers, and when a client asks for a tool nobody knows.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use toolgate_config::Catalog as Settings;

use super::LeftOut;
use super::merge::Tool;
use crate::backend::client::{self, Ask, Hello, Judged, Opened, Outcome};
use crate::backend::sse::Events;
use crate::backend::{Backend, Incoming};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::jsonrpc::{self, Message};

/// Pages of one listing. With `catalog.max_tools` and the check for repeated cursors this ends any listing.
const MAX_PAGES: u32 = 1_000;
/// The shortest time between two listings of a backend, whoever asks.
pub(crate) const FLOOR: Duration = Duration::from_millis(500);
/// The first pause after a failed listing; it doubles up to `catalog.refresh`.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Between two tries to open a backend's stream; it doubles up to the second.
const STREAM_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest event on a backend's stream that is read.
const MAX_STREAM_EVENT: usize = 1024 * 1024;

/// What a backend lists.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) tools: Vec<Tool>,
    pub(crate) left_out: Vec<(Box<str>, LeftOut)>,
    pub(crate) logging: bool,
    pub(crate) instructions: Option<Box<str>>,
    pub(crate) version: &'static str,
    pub(crate) fetched: Instant,
}

/// Ends a task when dropped.
struct Aborts(AbortHandle);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The gateway's own session with a backend, and the task that listens to its stream.
struct Discovery {
    opened: Arc<Opened>,
    next_id: u64,
    _stream: Option<Aborts>,
}

/// Runs until the backend is retired.
pub(crate) async fn run(gateway: Arc<Gateway>, backend: Arc<Backend>) {
    let mut discovery: Option<Discovery> = None;
    let mut retry = FIRST_RETRY;
    while !backend.is_retired() {
        let settings = gateway.snapshot().config.catalog;
        let listed = tokio::select! {
            listed = timeout(settings.timeout, list(&backend, &mut discovery, &settings)) => listed,
            () = backend.until_retired() => break,
        };
        let listed = listed.unwrap_or_else(|_| {
            discovery = None;
            Err(format!("listing took longer than {}s", settings.timeout.as_secs_f64()))
        });
        let pause = match &listed {
            Ok(_) => {
                retry = FIRST_RETRY;
                settings.refresh
            }
            Err(_) => {
                let pause = retry.min(settings.refresh);
                retry = (retry * 2).min(settings.refresh);
                pause
            }
        };
        settle(&gateway, &backend, listed, &settings);
        sleep(FLOOR).await;
        tokio::select! {
            () = sleep(pause.saturating_sub(FLOOR)) => {}
            () = backend.relist.notified() => {}
            () = backend.until_retired() => break,
        }
    }
    if let Some(discovery) = discovery {
        client::close(&backend, &discovery.opened).await;
    }
}

/// Lists a backend once, and ends the session that it took.
pub(crate) async fn list_once(backend: &Arc<Backend>, settings: &Settings) {
    let mut discovery = None;
    match list(backend, &mut discovery, settings).await {
        Ok(listing) => {
            backend.listing.store(Some(Arc::new(listing)));
            backend.listing_ended(None);
        }
        Err(reason) => backend.listing_ended(Some(reason)),
    }
    if let Some(discovery) = discovery {
        client::close(backend, &discovery.opened).await;
    }
}

/// Takes in how a listing went.
fn settle(gateway: &Gateway, backend: &Backend, listed: Result<Listing, String>, settings: &Settings) {
    let name = backend.name().as_str();
    let refreshes = &gateway.metrics.catalog_refreshes;
    match listed {
        Ok(listing) => {
            refreshes.with_label_values(&[name, "ok"]).inc();
            let (info, version) = (&gateway.metrics.backend_info, listing.version);
            let before = backend.listing.swap(Some(Arc::new(listing)));
            if let Some(old) = before.map(|listing| listing.version).filter(|old| *old != version) {
                let _ = info.remove_label_values(&[name, "legacy", old]);
            }
            info.with_label_values(&[name, "legacy", version]).set(1);
            backend.listing_ended(None);
        }
        Err(reason) => {
            refreshes.with_label_values(&[name, "failed"]).inc();
            let is_new = backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).is_none();
            if is_new {
                tracing::warn!(backend = name, reason, "backend not listed");
            }
            backend.listing_ended(Some(reason));
            let failing_since =
                backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|f| f.since);
            if failing_since.is_some_and(|since| since.elapsed() >= settings.stale_for)
                && backend.listing.swap(None).is_some()
            {
                tracing::warn!(backend = name, "backend has been away for `catalog.stale_for`; its tools go");
            }
        }
    }
    gateway.remerge();
}

/// Lists a backend, opening its session anew, once, if it was forgotten.
async fn list(
    backend: &Arc<Backend>,
    discovery: &mut Option<Discovery>,
    settings: &Settings,
) -> Result<Listing, String> {
    let had_session = discovery.is_some();
    match list_in_session(backend, discovery, settings).await {
        Ok(listing) => Ok(listing),
        Err(Lapse::SessionLost) if had_session => {
            *discovery = None;
            match list_in_session(backend, discovery, settings).await {
                Ok(listing) => Ok(listing),
                Err(lapse) => Err(lapse.reason()),
            }
        }
        Err(lapse) => {
            *discovery = None;
            Err(lapse.reason())
        }
    }
}

/// Why a listing did not work.
enum Lapse {
    Error(Error),
    Listing(String),
    SessionLost,
}

impl Lapse {
    fn reason(self) -> String {
        match self {
            Self::Error(error) => error.to_string(),
            Self::Listing(reason) => reason,
            Self::SessionLost => "it forgets sessions as soon as they are opened".to_owned(),
        }
    }
}

impl From<Error> for Lapse {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

async fn list_in_session(
    backend: &Arc<Backend>,
    discovery: &mut Option<Discovery>,
    settings: &Settings,
) -> Result<Listing, Lapse> {
    let session = match discovery {
        Some(session) => session,
        None => {
            let opened = Arc::new(client::open(backend, &Hello::gateway(), Judged::Yes).await?);
            // Without a session a stream is nobody's in particular, and some servers would send clients' progress to it.
            let stream = opened
                .session_id
                .is_some()
                .then(|| Aborts(tokio::spawn(follow(Arc::clone(backend), Arc::clone(&opened))).abort_handle()));
            discovery.insert(Discovery { opened, next_id: 1, _stream: stream })
        }
    };
    let mut pages = Pages { settings, tools: Vec::new(), left_out: Vec::new(), bytes: 0, cursors: HashSet::new() };
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let raw = page(backend, session, cursor.as_deref(), settings).await?;
        cursor = pages.take(&raw).map_err(Lapse::Listing)?;
        if cursor.is_none() {
            return Ok(Listing {
                tools: pages.tools,
                left_out: pages.left_out,
                logging: session.opened.logging,
                instructions: session.opened.instructions.clone(),
                version: session.opened.version.as_str(),
                fetched: Instant::now(),
            });
        }
    }
    Err(Lapse::Listing(format!("its list has more than {MAX_PAGES} pages")))
}

/// Asks for one page.
async fn page(
    backend: &Backend,
    session: &mut Discovery,
    cursor: Option<&str>,
    settings: &Settings,
) -> Result<Box<RawValue>, Lapse> {
    let params = cursor.map(|cursor| format!("{{\"cursor\":{}}}", jsonrpc::json_string(cursor)));
    session.next_id += 1;
    let ask = Ask {
        id: session.next_id,
        method: "tools/list",
        params: params.as_deref(),
        cap: usize::try_from(settings.max_bytes).unwrap_or(usize::MAX),
    };
    match client::request(backend, &session.opened, ask, Judged::Yes).await? {
        Outcome::Result(raw) => Ok(raw),
        Outcome::Error { code } => Err(Lapse::Listing(format!("it answered `tools/list` with error {code}"))),
        Outcome::SessionLost => Err(Lapse::SessionLost),
    }
}

/// The pages of one listing, as they come.
struct Pages<'a> {
    settings: &'a Settings,
    tools: Vec<Tool>,
    left_out: Vec<(Box<str>, LeftOut)>,
    bytes: u64,
    cursors: HashSet<String>,
}

impl Pages<'_> {
    /// Takes a page in; returns the cursor of the next one. An empty string is a cursor like any other.
    fn take(&mut self, raw: &RawValue) -> Result<Option<String>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListToolsResult<'a> {
            #[serde(borrow)]
            tools: Vec<&'a RawValue>,
            next_cursor: Option<String>,
        }
        let page: ListToolsResult<'_> = serde_json::from_str(raw.get())
            .map_err(|_| "its answer to `tools/list` is not a list of tools".to_owned())?;
        self.bytes += raw.get().len() as u64;
        let count = self.tools.len() + self.left_out.len() + page.tools.len();
        if count > self.settings.max_tools as usize || self.bytes > self.settings.max_bytes {
            return Err("its list is longer than `catalog.max_tools` or `catalog.max_bytes` allows".to_owned());
        }
        for raw in page.tools {
            match Tool::read(raw) {
                Ok(tool) => self.tools.push(tool),
                Err(left_out) => self.left_out.push(left_out),
            }
        }
        if let Some(cursor) = &page.next_cursor
            && !self.cursors.insert(cursor.clone())
        {
            return Err("its list never ends: a cursor came twice".to_owned());
        }
        Ok(page.next_cursor)
    }
}

/// Listens to a backend's stream, as long as its session lasts, for news of its tools.
async fn follow(backend: Arc<Backend>, opened: Arc<Opened>) {
    let (mut pause, longest) = STREAM_RETRY;
    loop {
        match client::listen(&backend, &opened).await {
            Ok(Some(incoming)) => {
                let started = Instant::now();
                hear(&backend, &opened, incoming).await;
                // What changed while nobody listened is not told again.
                backend.relist.notify_one();
                if started.elapsed() >= longest {
                    pause = STREAM_RETRY.0;
                }
            }
            // No stream here (405 and the like): the timer has to do.
            Ok(None) => return,
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Reads one stream to its end.
async fn hear(backend: &Backend, opened: &Opened, mut incoming: Incoming) {
    let mut events = Events::new(MAX_STREAM_EVENT);
    while let Ok(Some(chunk)) = incoming.body.next().await {
        let pushed = events.push(&chunk);
        while let Some(event) = events.next() {
            match jsonrpc::parse(event.data.as_bytes()) {
                Ok(Message::Notification(n)) if n.method == "notifications/tools/list_changed" => {
                    backend.relist.notify_one();
                }
                Ok(Message::Request(_)) => client::reply_to_question(backend, opened, event.data.as_bytes()).await,
                _ => {}
            }
        }
        if pushed.is_err() {
            return;
        }
    }
}
