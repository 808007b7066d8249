//! Which eras a backend speaks: what the configuration says, or what asking it showed.
//!
//! A modern verdict is looked at again with every listing, which begins with `server/discover`. A legacy one would go on
//! working for ever after the backend learnt better, so it expires; and it takes the place of no modern one that was made
//! after what it rests on was asked.
//!
//! A process that says nothing may be deaf to the question or slow to start. So it is not told from its silence: the question
//! stays, a handshake is tried beside it, and the answer counts whenever it comes.
//!
//! Nothing is known of a backend before it has answered either: that it refuses the question only makes the handshake worth a
//! try.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use toolgate_config::Protocol;

use super::Backend;
use super::client::{self, Discovered, Hello, Judged, Own, Probed, Refused, discover};
use crate::era::{Era, MODERN_VERSION, Version};
use crate::error::Error;

/// How long it is taken for granted that a backend speaks legacy, or does not.
const EXPIRY: Duration = Duration::from_secs(600);
/// How long whoever finds it out is waited for by others who want to know.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a process may take to say what it is before a handshake is tried beside the question.
const SILENCE: Duration = Duration::from_secs(5);

/// The eras a backend speaks.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    /// Of a modern backend: that it has not refused to yet. Many that speak legacy too list modern versions only, and only a
    /// client that needs it is a reason to ask.
    pub(crate) legacy: bool,
    pub(crate) modern: bool,
    /// The legacy version that was agreed on last.
    version: Option<Version>,
    /// When it was found out; `None` for what the configuration says.
    found: Option<Instant>,
    /// Whether it has to be looked at again.
    is_doubted: bool,
}

impl Spoken {
    /// What is known before anything was asked.
    pub(super) fn configured(protocol: Protocol) -> Option<Self> {
        let spoken = |legacy, modern| Some(Self { legacy, modern, version: None, found: None, is_doubted: false });
        match protocol {
            Protocol::Auto => None,
            Protocol::Legacy => spoken(true, false),
            Protocol::Modern => spoken(false, true),
        }
    }

    /// What has just been found to be legacy.
    fn legacy(version: Version) -> Self {
        let found = Some(Instant::now());
        Self { legacy: true, modern: false, version: Some(version), found, is_doubted: false }
    }

    /// The same, to be looked at again.
    pub(super) fn doubted(&self) -> Self {
        Self { is_doubted: true, ..self.clone() }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.is_doubted || self.found.is_none_or(|found| now.saturating_duration_since(found) >= EXPIRY)
    }

    /// Whether it was found out no earlier than that.
    fn is_found_since(&self, asked: Instant) -> bool {
        self.found.is_some_and(|found| found >= asked)
    }

    fn speaks(&self, era: Era) -> bool {
        match era {
            Era::Legacy => self.legacy,
            Era::Modern => self.modern,
        }
    }

    /// The era for a client of `era`: its own if the backend speaks that, else the other.
    pub(super) fn era_for(&self, era: Era) -> Era {
        match era {
            _ if self.speaks(era) => era,
            Era::Legacy => Era::Modern,
            Era::Modern => Era::Legacy,
        }
    }

    /// Each era, with the version, that is spoken.
    pub(crate) fn versions(&self) -> Vec<(&'static str, &'static str)> {
        let legacy = self.version.filter(|_| self.legacy).map(|version| ("legacy", version.as_str()));
        legacy.into_iter().chain(self.modern.then_some(("modern", MODERN_VERSION))).collect()
    }

    /// As the operator reads it.
    pub(crate) fn eras(&self) -> Vec<&'static str> {
        let legacy = self.legacy && (!self.modern || self.version.is_some());
        legacy.then_some("legacy").into_iter().chain(self.modern.then_some("modern")).collect()
    }

    /// The same, with the version that a legacy handshake has agreed on.
    pub(super) fn agreed(&self, version: Version) -> Self {
        Self { version: Some(version), ..self.clone() }
    }

    /// The same, of a backend that has refused a legacy handshake.
    pub(super) fn modern_only(&self) -> Self {
        Self { legacy: false, version: None, ..self.clone() }
    }
}

/// Opens the gateway's own connection: in the modern era if the backend speaks it, and found out where that is not known.
///
/// # Errors
/// When the backend cannot be asked, or refuses to be spoken to.
pub(crate) async fn open(backend: &Arc<Backend>, judged: Judged) -> Result<Own, Error> {
    match backend.config.protocol {
        Protocol::Legacy => return configured_legacy(backend, judged).await,
        Protocol::Modern => return modern(backend, judged).await,
        Protocol::Auto => {}
    }
    let is_known = |spoken: &Arc<Spoken>| !spoken.is_due(Instant::now());
    let mut known = backend.spoken().filter(is_known);
    let mut _finding = None;
    if known.is_none() {
        // One finds out, the others take over what it found, unless it is held up.
        _finding = timeout(PATIENCE, backend.finding.lock()).await.ok();
        known = backend.spoken().filter(is_known);
    }
    match &known {
        Some(known) if !known.modern => in_session(backend, judged).await,
        _ => found(backend, judged).await,
    }
}

/// Whether what a backend speaks is to be looked at again.
pub(crate) fn is_due(backend: &Backend) -> bool {
    backend.config.protocol == Protocol::Auto && backend.spoken().is_none_or(|spoken| spoken.is_due(Instant::now()))
}

/// A backend that is modern by configuration. It has to say so too: every modern server implements `server/discover`
/// (2026-07-28, Discovery), so that one which does not know it would refuse clients' calls as well.
async fn modern(backend: &Backend, judged: Judged) -> Result<Own, Error> {
    let discovered = match discover(backend, judged).await {
        Ok(Probed::Modern(discovered)) => discovered,
        Ok(Probed::Refused(Refused { what })) | Err(Error::BackendProtocol { what, .. }) => {
            let backend = backend.name().clone();
            return Err(Error::BackendEra { backend, configured: "modern", other: "legacy", what });
        }
        Err(error) => return Err(error),
    };
    backend.learn(|_| Spoken::configured(Protocol::Modern));
    Ok(Own::Modern(Arc::new(discovered)))
}

/// A backend that is legacy by configuration.
async fn configured_legacy(backend: &Backend, judged: Judged) -> Result<Own, Error> {
    match in_session(backend, judged).await {
        Ok(own) => Ok(own),
        Err(Error::BackendProtocol { backend, what }) => {
            Err(Error::BackendEra { backend, configured: "legacy", other: "modern", what })
        }
        Err(error) => Err(error),
    }
}

/// Finds out what a backend speaks.
async fn found(backend: &Arc<Backend>, judged: Judged) -> Result<Own, Error> {
    let asked = Instant::now();
    // What was found to be modern has to say otherwise.
    if backend.is_run() && !backend.spoken().is_some_and(|spoken| spoken.modern && !spoken.is_due(asked)) {
        return found_of_process(backend, asked, judged).await;
    }
    match discover(backend, judged).await? {
        Probed::Modern(discovered) => Ok(is_modern(backend, asked, discovered)),
        Probed::Refused(refused) => {
            is_not_modern(backend, &refused.what);
            by_handshake(backend, asked, judged).await
        }
    }
}

/// The same of a process, of which silence may be all that is heard. Its era is that of whatever it answers first; when that
/// was a handshake, it is found to be modern all the same as soon as it says so.
async fn found_of_process(backend: &Arc<Backend>, asked: Instant, judged: Judged) -> Result<Own, Error> {
    let mut question = tokio::spawn(asked_process(Arc::clone(backend), asked));
    if let Ok(said) = timeout(SILENCE, &mut question).await {
        return match said.unwrap_or(Ok(None))? {
            Some(own) => Ok(own),
            None => by_handshake(backend, asked, judged).await,
        };
    }
    let handshake = by_handshake(backend, asked, judged);
    tokio::pin!(handshake);
    tokio::select! {
        biased;
        said = &mut question => match said {
            Ok(Ok(Some(own))) => Ok(own),
            _ => handshake.await,
        },
        opened = &mut handshake => match opened {
            Ok(own) => {
                let backend = Arc::clone(backend);
                tokio::spawn(async move {
                    if let Ok(Ok(Some(_))) = question.await {
                        backend.relist.notify_one();
                    }
                });
                Ok(own)
            }
            Err(error) => question.await.ok().and_then(Result::ok).flatten().ok_or(error),
        },
    }
}

/// Asks a process what it is, and takes it in when it is modern; `None` when it is not. A legacy one may answer anything, die of
/// the question or ignore it (2026-07-28, stdio, backward compatibility); over HTTP the same would say nothing.
async fn asked_process(backend: Arc<Backend>, asked: Instant) -> Result<Option<Own>, Error> {
    let what = match discover(&backend, Judged::No).await {
        Ok(Probed::Modern(discovered)) => return Ok(Some(is_modern(&backend, asked, discovered))),
        Ok(Probed::Refused(refused)) => refused.what,
        Err(Error::BackendProtocol { what, .. }) => what,
        Err(Error::BackendClosed { .. } | Error::BackendUnread { .. }) => "it ended when it was asked".into(),
        Err(Error::BackendTimeout { .. }) => "it did not say what it is".into(),
        Err(error) => return Err(error),
    };
    is_not_modern(&backend, &what);
    Ok(None)
}

fn is_not_modern(backend: &Backend, what: &str) {
    tracing::debug!(backend = backend.name().as_str(), what, "backend is not modern");
}

/// A backend that showed that it is modern. What is not due stays: it may be known to refuse the legacy era. What it agreed on
/// before it was asked tells of what it was: whether it speaks legacy too shows when a legacy client comes.
fn is_modern(backend: &Backend, asked: Instant, discovered: Discovered) -> Own {
    let now = Instant::now();
    backend.learn(|known| {
        let is_news = known.is_none_or(|known| !known.modern || known.is_due(now));
        let agreed = known.filter(|known| known.modern || known.is_found_since(asked)).and_then(|known| known.version);
        let version = discovered.legacy.or(agreed);
        is_news.then_some(Spoken { legacy: true, modern: true, version, found: Some(now), is_doubted: false })
    });
    Own::Modern(Arc::new(discovered))
}

/// A backend that is legacy if it agrees to a handshake, unless it was found to be modern since it was asked.
async fn by_handshake(backend: &Backend, asked: Instant, judged: Judged) -> Result<Own, Error> {
    let own = in_session(backend, judged).await?;
    if let Own::Legacy(opened) = &own {
        let is_news = |known: Option<&Spoken>| known.is_none_or(|known| !known.modern || !known.is_found_since(asked));
        if !backend.learn(|known| is_news(known).then(|| Spoken::legacy(opened.version))) {
            backend.relist.notify_one();
        }
    }
    Ok(own)
}

async fn in_session(backend: &Backend, judged: Judged) -> Result<Own, Error> {
    match client::open(backend, &Hello::gateway(), judged).await {
        Ok(opened) => {
            backend.learn(|known| known.filter(|known| !known.modern).map(|known| known.agreed(opened.version)));
            Ok(Own::Legacy(Arc::new(opened)))
        }
        Err(error) => {
            // What is not modern need not be legacy either.
            backend.doubt_era();
            Err(error)
        }
    }
}
