//! Which eras a backend speaks: what the configuration says, or what asking it showed.
//!
//! A modern verdict is looked at again with every listing, which begins with `server/discover`. A legacy one would go on
//! working for ever after the backend learnt better, so it expires.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use toolgate_config::{Protocol, Reach};

use super::Backend;
use super::client::{self, Hello, Judged, Own, Probed, Refused, discover};
use crate::era::{Era, MODERN_VERSION, Version};
use crate::error::Error;

/// How long it is taken for granted that a backend speaks legacy, or does not.
const EXPIRY: Duration = Duration::from_secs(600);
/// How long whoever finds it out is waited for by others who want to know.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long a process may take to say what it is.
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
    /// When it was found out; `None` for what has to be looked at again.
    found: Option<Instant>,
}

impl Spoken {
    /// What is known before anything was asked.
    pub(super) fn configured(protocol: Protocol) -> Option<Self> {
        let spoken = |legacy, modern| Some(Self { legacy, modern, version: None, found: None });
        match protocol {
            Protocol::Auto => None,
            Protocol::Legacy => spoken(true, false),
            Protocol::Modern => spoken(false, true),
        }
    }

    /// The same, to be looked at again.
    pub(super) fn doubted(&self) -> Self {
        Self { found: None, ..self.clone() }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.found.is_none_or(|found| now.saturating_duration_since(found) >= EXPIRY)
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
pub(crate) async fn open(backend: &Backend, judged: Judged) -> Result<Own, Error> {
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
        _ => found(backend, known.as_deref(), judged).await,
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
    if let Some(spoken) = Spoken::configured(Protocol::Modern) {
        backend.speaks(spoken);
    }
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

/// Asks a backend what it is. A process that dies of the question, or never answers it, is a legacy one (2026-07-28, stdio,
/// backward compatibility); over HTTP the same would say nothing.
async fn probed(backend: &Backend, judged: Judged) -> Result<Probed, Error> {
    if !matches!(backend.config.reach, Reach::Command(_)) {
        return discover(backend, judged).await;
    }
    let refused = |what: &'static str| Probed::Refused(Refused { what: what.into() });
    match timeout(SILENCE, discover(backend, Judged::No)).await {
        Ok(Err(Error::BackendClosed { .. } | Error::BackendUnread { .. })) => Ok(refused("it ended when it was asked")),
        Ok(probed) => probed,
        Err(_) => Ok(refused("it did not say what it is")),
    }
}

/// Finds out what a backend speaks. `known` is what need not be asked again.
async fn found(backend: &Backend, known: Option<&Spoken>, judged: Judged) -> Result<Own, Error> {
    let discovered = match probed(backend, judged).await? {
        Probed::Modern(discovered) => discovered,
        Probed::Refused(refused) => {
            tracing::debug!(backend = backend.name().as_str(), what = &*refused.what, "backend is not modern");
            return legacy(backend, judged).await;
        }
    };
    if known.is_none() {
        let before = backend.spoken().and_then(|before| before.version);
        let version = discovered.legacy.or(before);
        backend.speaks(Spoken { legacy: true, modern: true, version, found: Some(Instant::now()) });
    }
    Ok(Own::Modern(Arc::new(discovered)))
}

/// A backend that showed that it is not modern. One that was so far may only have been out of sorts, so that it takes a
/// handshake to be believed.
async fn legacy(backend: &Backend, judged: Judged) -> Result<Own, Error> {
    let spoken = |version| Spoken { legacy: true, modern: false, version, found: Some(Instant::now()) };
    if !backend.spoken().is_some_and(|before| before.modern) {
        backend.speaks(spoken(None));
    }
    let own = in_session(backend, judged).await?;
    if let Own::Legacy(opened) = &own {
        backend.speaks(spoken(Some(opened.version)));
    }
    Ok(own)
}

async fn in_session(backend: &Backend, judged: Judged) -> Result<Own, Error> {
    match client::open(backend, &Hello::gateway(), judged).await {
        Ok(opened) => {
            if let Some(spoken) = backend.spoken().filter(|spoken| !spoken.modern) {
                backend.speaks(Spoken { version: Some(opened.version), ..(*spoken).clone() });
            }
            Ok(Own::Legacy(Arc::new(opened)))
        }
        Err(error) => {
            // What is not modern need not be legacy either.
            backend.doubt_era();
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(legacy: bool, modern: bool, found: Instant) -> Spoken {
        Spoken { legacy, modern, version: None, found: Some(found) }
    }

    #[test]
    fn a_client_is_served_in_its_own_era_where_that_is_spoken() {
        let now = Instant::now();
        for (legacy, modern, for_legacy, for_modern) in [
            (true, false, Era::Legacy, Era::Legacy),
            (false, true, Era::Modern, Era::Modern),
            (true, true, Era::Legacy, Era::Modern),
        ] {
            let spoken = spoken(legacy, modern, now);
            assert_eq!((spoken.era_for(Era::Legacy), spoken.era_for(Era::Modern)), (for_legacy, for_modern));
        }
    }

    #[test]
    fn a_verdict_expires() {
        let now = Instant::now();
        let fresh = spoken(true, false, now);

        assert!(!fresh.is_due(now) && !fresh.is_due(now + EXPIRY - Duration::from_millis(1)));
        assert!(fresh.is_due(now + EXPIRY));
        assert!(fresh.doubted().is_due(now));
    }

    #[test]
    fn the_configuration_leaves_nothing_to_be_found() {
        assert!(Spoken::configured(Protocol::Auto).is_none());
        assert_eq!(Spoken::configured(Protocol::Legacy).unwrap().eras(), ["legacy"]);
        assert_eq!(Spoken::configured(Protocol::Modern).unwrap().versions(), [("modern", "2026-07-28")]);
    }
}
