//! The gateway's own connection to a backend, in whichever era: for listings, probes and calls of the gateway's own.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{Ask, Caching, Discovered, Judged, Opened, Outcome, ServerCapabilities, modern, next_id};
use crate::backend::Backend;
use crate::bridge::envelope;
use crate::era::Era;
use crate::error::{Error, MaxBytes};
use crate::jsonrpc::json_string;

/// An open session, or what a server without sessions said of itself.
#[derive(Clone, Debug)]
pub(crate) enum Own {
    Legacy(Arc<Opened>),
    Modern(Arc<Discovered>),
}

impl Own {
    pub(crate) fn era(&self) -> Era {
        match self {
            Self::Legacy(_) => Era::Legacy,
            Self::Modern(_) => Era::Modern,
        }
    }

    pub(crate) fn capabilities(&self) -> ServerCapabilities {
        match self {
            Self::Legacy(opened) => opened.capabilities,
            Self::Modern(discovered) => discovered.capabilities,
        }
    }

    pub(crate) fn instructions(&self) -> Option<&str> {
        match self {
            Self::Legacy(opened) => opened.instructions.as_deref(),
            Self::Modern(discovered) => discovered.instructions.as_deref(),
        }
    }

    /// How long what it said of itself may be kept.
    pub(crate) fn caching(&self) -> Caching {
        match self {
            Self::Legacy(_) => Caching::NONE,
            Self::Modern(discovered) => discovered.caching,
        }
    }

    /// Sends a request of ours, under an id that was not used before, and reads its answer whole.
    pub(crate) async fn request(
        &self,
        backend: &Backend,
        method: &str,
        params: Option<&str>,
        max: MaxBytes,
        judged: Judged,
    ) -> Result<Outcome, Error> {
        let ask = Ask { id: next_id(), method, params, max };
        match self {
            Self::Legacy(opened) => super::request(backend, opened, ask, judged).await,
            Self::Modern(_) => modern::request(backend, ask, envelope::headers(method, None), judged).await,
        }
    }

    /// Calls a tool, by the backend's own name, with arguments as JSON; `headers` repeat some of them for a modern backend. It
    /// says nothing about the backend's health.
    pub(crate) async fn call(
        &self,
        backend: &Backend,
        tool: &str,
        arguments: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        max: MaxBytes,
    ) -> Result<Outcome, Error> {
        let method = "tools/call";
        let params = format!("{{\"name\":{},\"arguments\":{arguments}}}", json_string(tool));
        let ask = Ask { id: next_id(), method, params: Some(&params), max };
        match self {
            Self::Legacy(opened) => super::request(backend, opened, ask, Judged::No).await,
            Self::Modern(_) => {
                let headers = [envelope::headers(method, Some(tool)), headers].concat();
                modern::request(backend, ask, headers, Judged::No).await
            }
        }
    }

    /// Ends the session, if there is one.
    pub(crate) async fn close(&self, backend: &Backend) {
        match self {
            Self::Legacy(opened) => super::close(backend, opened).await,
            Self::Modern(_) => {}
        }
    }
}
