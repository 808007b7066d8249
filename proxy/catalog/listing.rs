//! One listing of one backend: all kinds that it declares, all pages of each.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout_at;
use toolgate_config::Catalog as Settings;

use super::entry::Entry;
use super::{Freshness, Kind, Omission, PerKind};
use crate::backend::client::{Caching, Judged, Outcome, Own, ServerCapabilities};
use crate::backend::{Backend, LastError};
use crate::era::{Era, MODERN_VERSION};
use crate::error::{Error, METHOD_NOT_FOUND, MaxBytes};
use crate::jsonrpc;

/// Pages of one list. With `catalog.max_tools` and the check for repeated cursors this ends any listing.
const MAX_PAGES: u32 = 1_000;

/// What a backend has.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) lists: PerKind<Arc<Listed>>,
    /// Why the list of a kind is the one before, where it is.
    pub(crate) failures: PerKind<Option<Box<str>>>,
    pub(crate) capabilities: ServerCapabilities,
    pub(crate) instructions: Option<Box<str>>,
    /// How long these two may be kept.
    pub(crate) caching: Caching,
    /// The era that it was listed in.
    pub(crate) era: Era,
    pub(crate) version: &'static str,
    pub(crate) fetched: Instant,
}

/// One list, all pages of it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) entries: Vec<Entry>,
    pub(crate) left_out: Vec<Omission>,
    pub(crate) caching: Caching,
    /// Whether it was asked for and given, ever.
    is_known: bool,
}

impl Listed {
    /// Of what a backend does not have.
    fn none(caching: Caching) -> Self {
        Self { entries: Vec::new(), left_out: Vec::new(), caching, is_known: true }
    }
}

impl Listing {
    /// What a backend that has just these would list.
    #[cfg(any(test, feature = "benching"))]
    #[allow(clippy::unwrap_used, reason = "tests and benches know what they list")]
    pub(crate) fn of(era: Era, caching: Caching, lists: &[(Kind, &[&str])]) -> Self {
        let listed = |kind: Kind| {
            let definitions = lists.iter().filter(|(of, _)| *of == kind).flat_map(|(_, definitions)| *definitions);
            let entries = definitions.map(|definition| {
                let raw = RawValue::from_string((*definition).to_owned()).unwrap();
                Entry::read(kind, era, &raw).unwrap()
            });
            Arc::new(Listed { entries: entries.collect(), ..Listed::none(caching) })
        };
        Self::made(era, caching, Kind::ALL.map(listed))
    }

    /// What a backend would list that has tools of these names, and of which nothing else is known.
    pub(crate) fn named<'a>(tools: impl Iterator<Item = &'a str>) -> Self {
        let entry = |name| {
            let definition = format!(r#"{{"name":{},"inputSchema":{{"type":"object"}}}}"#, jsonrpc::json_string(name));
            Entry::read(Kind::Tools, Era::Legacy, &RawValue::from_string(definition).ok()?).ok()
        };
        let none = || Listed::none(Caching::NONE);
        let tools = Listed { entries: tools.filter_map(entry).collect(), ..none() };
        Self::made(Era::Legacy, Caching::NONE, [tools, none(), none(), none()].map(Arc::new))
    }

    fn made(era: Era, caching: Caching, lists: [Arc<Listed>; 4]) -> Self {
        Self {
            lists: PerKind(lists),
            failures: PerKind::default(),
            capabilities: ServerCapabilities::NONE,
            instructions: None,
            caching,
            era,
            version: MODERN_VERSION,
            fetched: Instant::now(),
        }
    }

    /// How the list of a kind got here, and how long it may be kept.
    pub(super) fn state(&self, kind: Kind) -> (Freshness, Caching) {
        let listed = self.lists.get(kind);
        match self.failures.get(kind) {
            None => (Freshness::Fresh, listed.caching),
            Some(_) if listed.is_known => (Freshness::Stale, Caching::NONE),
            Some(_) => (Freshness::Missing, Caching::NONE),
        }
    }
}

/// Why a listing did not work.
pub(super) enum Lapse {
    Error(Error),
    Listing(String),
    SessionLost,
}

impl Lapse {
    /// For the operator, who may know more than a client.
    pub(super) fn reason(self, backend: &Backend) -> String {
        match self {
            Self::Error(error) => match backend.last_error() {
                Some(LastError { what, .. }) if matches!(error, Error::BackendConnect { .. }) => {
                    format!("backend `{}`: {what}", backend.name())
                }
                _ => error.to_string(),
            },
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

/// One listing under way.
pub(super) struct Lister<'a> {
    pub(super) backend: &'a Backend,
    pub(super) own: &'a Own,
    pub(super) settings: &'a Settings,
    pub(super) deadline: tokio::time::Instant,
    /// Bytes taken so far, of all kinds.
    bytes: AtomicU64,
}

impl<'a> Lister<'a> {
    pub(super) fn new(
        backend: &'a Backend,
        own: &'a Own,
        settings: &'a Settings,
        deadline: tokio::time::Instant,
    ) -> Self {
        Self { backend, own, settings, deadline, bytes: AtomicU64::new(0) }
    }

    /// Lists every kind. Tools are what it is about: without them it fails. The others are listed after them, and where that
    /// fails stay what they were in `previous`.
    pub(super) async fn list(&self, previous: Option<&Listing>) -> Result<Listing, Lapse> {
        let tools = self.kind(Kind::Tools).await?;
        let (prompts, resources, templates) =
            tokio::join!(self.kind(Kind::Prompts), self.kind(Kind::Resources), self.kind(Kind::Templates));
        let mut failures = PerKind::default();
        let mut kept = |kind, listed: Result<Listed, Lapse>| match listed {
            Ok(listed) => Ok(Arc::new(listed)),
            Err(Lapse::SessionLost) => Err(Lapse::SessionLost),
            Err(lapse) => {
                *failures.get_mut(kind) = Some(lapse.reason(self.backend).into());
                let before = previous.map(|previous| Arc::clone(previous.lists.get(kind)));
                Ok(before.unwrap_or_else(|| Arc::new(Listed { is_known: false, ..Listed::none(Caching::NONE) })))
            }
        };
        let lists = [
            Arc::new(tools),
            kept(Kind::Prompts, prompts)?,
            kept(Kind::Resources, resources)?,
            kept(Kind::Templates, templates)?,
        ];
        Ok(Listing {
            lists: PerKind(lists),
            failures,
            capabilities: self.own.capabilities(),
            instructions: self.own.instructions().map(Into::into),
            caching: self.own.caching(),
            era: self.own.era(),
            version: match self.own {
                Own::Legacy(opened) => opened.version.as_str(),
                Own::Modern(_) => MODERN_VERSION,
            },
            fetched: Instant::now(),
        })
    }

    fn is_declared(&self, kind: Kind) -> bool {
        let capabilities = self.own.capabilities();
        match kind {
            Kind::Tools => capabilities.tools || capabilities.lists_nothing(),
            Kind::Prompts => capabilities.prompts,
            Kind::Resources | Kind::Templates => capabilities.resources,
        }
    }

    async fn kind(&self, kind: Kind) -> Result<Listed, Lapse> {
        if !self.is_declared(kind) {
            return Ok(Listed::none(self.own.caching()));
        }
        let pages = timeout_at(self.deadline, self.pages(kind)).await;
        pages.unwrap_or_else(|_| {
            Err(Lapse::Listing(format!("listing took longer than {}s", self.settings.timeout.as_secs_f64())))
        })
    }

    async fn pages(&self, kind: Kind) -> Result<Listed, Lapse> {
        let mut pages = Pages {
            lister: self,
            kind,
            listed: Listed::none(self.own.caching()),
            is_first: true,
            cursors: HashSet::new(),
        };
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let Some(raw) = self.page(kind, cursor.as_deref()).await? else { return Ok(pages.listed) };
            cursor = pages.take(&raw).map_err(Lapse::Listing)?;
            if cursor.is_none() {
                return Ok(pages.listed);
            }
        }
        Err(Lapse::Listing(format!("its list has more than {MAX_PAGES} pages")))
    }

    /// Asks for one page; `None` if the backend knows no such list.
    async fn page(&self, kind: Kind, cursor: Option<&str>) -> Result<Option<Box<RawValue>>, Lapse> {
        let method = kind.method();
        let params = cursor.map(|cursor| format!("{{\"cursor\":{}}}", jsonrpc::json_string(cursor)));
        let max = MaxBytes::configured("catalog.max_bytes", self.settings.max_bytes);
        match self.own.request(self.backend, method, params.as_deref(), max, Judged::Yes).await? {
            Outcome::Result(raw) => Ok(Some(raw)),
            Outcome::Error { code: METHOD_NOT_FOUND } => Ok(None),
            Outcome::Error { code } => Err(Lapse::Listing(format!("it answered `{method}` with error {code}"))),
            Outcome::SessionLost => Err(Lapse::SessionLost),
        }
    }
}

/// The pages of one list, as they come.
struct Pages<'a> {
    lister: &'a Lister<'a>,
    kind: Kind,
    listed: Listed,
    is_first: bool,
    cursors: HashSet<String>,
}

/// A page of any kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    prompts: Option<&'a RawValue>,
    #[serde(borrow)]
    resources: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_templates: Option<&'a RawValue>,
    next_cursor: Option<String>,
}

impl Pages<'_> {
    /// Takes a page in; returns the cursor of the next one. An empty string is a cursor like any other.
    fn take(&mut self, raw: &RawValue) -> Result<Option<String>, String> {
        let (kind, settings) = (self.kind, self.lister.settings);
        let wrong = || format!("its answer to `{}` is not a list of {}", kind.method(), kind.field());
        let page: Page<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
        let entries = match kind {
            Kind::Tools => page.tools,
            Kind::Prompts => page.prompts,
            Kind::Resources => page.resources,
            Kind::Templates => page.resource_templates,
        };
        let entries = entries.and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok());
        let entries = entries.ok_or_else(wrong)?;
        let length = raw.get().len() as u64;
        let bytes = self.lister.bytes.fetch_add(length, Ordering::Relaxed) + length;
        let count = self.listed.entries.len() + self.listed.left_out.len() + entries.len();
        if count > settings.max_tools as usize || bytes > settings.max_bytes {
            return Err("its list is longer than `catalog.max_tools` or `catalog.max_bytes` allows".to_owned());
        }
        for raw in entries {
            match Entry::read(kind, self.lister.own.era(), raw) {
                Ok(entry) => self.listed.entries.push(entry),
                Err(omission) => self.listed.left_out.push(omission),
            }
        }
        self.keep(Caching::read(raw));
        if let Some(cursor) = &page.next_cursor
            && !self.cursors.insert(cursor.clone())
        {
            return Err("its list never ends: a cursor came twice".to_owned());
        }
        Ok(page.next_cursor)
    }

    /// Takes in how long a page may be kept.
    fn keep(&mut self, page: Caching) {
        let page = if self.lister.own.era() == Era::Modern { page } else { Caching::NONE };
        self.listed.caching = if self.is_first { page } else { self.listed.caching.and(page) };
        self.is_first = false;
    }
}
