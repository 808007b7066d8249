//! The modern half of the gateway's own client: requests that say by themselves who asks, and no session.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::capabilities::{ServerCapabilities, instructions};
use super::refusal::refused as refused_by;
use super::{
    Ask, CLIENT_INFO, Judged, MAX_SMALL_ANSWER, Outcome, Verdict, answer, bounded, next_id, response, send, verdict_on,
};
use crate::backend::{Backend, Incoming, Outgoing};
use crate::bridge::envelope::{self, Envelope};
use crate::era::{MODERN_VERSION, Version};
use crate::error::{Error, HEADER_MISMATCH, UNSUPPORTED_VERSION};
use crate::jsonrpc::{self, Message, OwnedId};

/// Who the gateway is when it asks for itself. Nothing may be asked of it.
const GATEWAY: Envelope<'static> = Envelope { client_info: CLIENT_INFO, capabilities: "{}", log_level: None };
/// What servers answer to a session that they do not know; some use it without one.
const SESSION_NOT_FOUND: i64 = -32001;
const MISSING_CAPABILITY: i64 = -32021;

/// How long, and for whom, a result may be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Caching {
    pub(crate) ttl_ms: u64,
    /// Whether `cacheScope` is `public`.
    pub(crate) is_public: bool,
}

impl Caching {
    /// What holds where nothing is said.
    pub(crate) const NONE: Self = Self { ttl_ms: 0, is_public: false };

    /// Reads what a result says. What is of a wrong type is not said.
    pub(crate) fn read(result: &RawValue) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said<'a> {
            #[serde(borrow)]
            ttl_ms: Option<&'a RawValue>,
            #[serde(borrow)]
            cache_scope: Option<&'a RawValue>,
        }
        let Ok(said) = serde_json::from_str::<Said<'_>>(result.get()) else { return Self::NONE };
        Self {
            ttl_ms: said.ttl_ms.map_or(0, milliseconds),
            is_public: said.cache_scope.and_then(jsonrpc::text).as_deref() == Some("public"),
        }
    }

    /// What holds for both together: the least time and the strictest scope.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { ttl_ms: self.ttl_ms.min(other.ttl_ms), is_public: self.is_public && other.is_public }
    }

    /// `cacheScope`.
    pub(crate) fn scope(self) -> &'static str {
        if self.is_public { "public" } else { "private" }
    }
}

/// A number that is not negative, rounded down, however it is written; 0 for anything else.
fn milliseconds(raw: &RawValue) -> u64 {
    match serde_json::from_str(raw.get()) {
        Ok(whole) => whole,
        // What does not fit stops at either end.
        Err(_) => serde_json::from_str::<f64>(raw.get()).map_or(0, |number| number as u64),
    }
}

/// What a modern server said of itself.
#[derive(Debug)]
pub(crate) struct Discovered {
    pub(crate) capabilities: ServerCapabilities,
    pub(crate) instructions: Option<Box<str>>,
    pub(crate) caching: Caching,
    /// The newest legacy version among those it says that it supports.
    pub(crate) legacy: Option<Version>,
}

impl Discovered {
    /// Of a server that refused `server/discover` in the words of a modern one, naming the version that it was asked in.
    pub(crate) const SILENT: Self =
        Self { capabilities: ServerCapabilities::NONE, instructions: None, caching: Caching::NONE, legacy: None };
}

/// What `server/discover` came to.
pub(crate) enum Probed {
    Modern(Discovered),
    /// It was answered, by something that does not speak the modern version.
    Refused(Refused),
}

/// How a server showed that it does not speak the modern version.
pub(crate) struct Refused {
    pub(crate) what: Cow<'static, str>,
}

/// Asks a server what it is.
///
/// # Errors
/// When what came of it says nothing about the server's era: no answer, a failure, or refused credentials.
pub(crate) async fn discover(backend: &Backend, judged: Judged) -> Result<Probed, Error> {
    bounded(backend, discover_unbounded(backend, judged)).await
}

async fn discover_unbounded(backend: &Backend, judged: Judged) -> Result<Probed, Error> {
    let id = OwnedId::integer(next_id());
    let mut incoming = send(backend, post(backend, &id, "server/discover", None), judged).await?;
    let status = incoming.status;
    let failed = refused_by(backend, &incoming);
    let message = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Error::BackendCredentials { backend: backend.name().clone(), status: status.as_u16() });
        }
        _ if status.is_success() => response(backend, None, incoming, None, MAX_SMALL_ANSWER).await,
        _ if status.is_client_error() => incoming.collect(MAX_SMALL_ANSWER, backend.name()).await,
        _ => return Err(failed),
    };
    let message = match message {
        Ok(message) => message,
        Err(Error::BackendProtocol { what, .. }) => return Ok(refused(what)),
        Err(error) => return Err(error),
    };
    match jsonrpc::parse(&message) {
        Ok(Message::Response(response)) if response.error => of_error(backend, response.value),
        Ok(Message::Response(response)) if status.is_success() => Ok(of_result(response.value)),
        _ => Ok(refused(format!("it answered `server/discover` with HTTP {}", status.as_u16()))),
    }
}

fn refused(what: impl Into<Cow<'static, str>>) -> Probed {
    Probed::Refused(Refused { what: what.into() })
}

/// What an error says about the era of who sent it.
fn of_error(backend: &Backend, error: &RawValue) -> Result<Probed, Error> {
    #[derive(Deserialize)]
    struct Refusal {
        code: serde_json::Value,
        #[serde(default)]
        data: serde_json::Value,
    }
    let refusal: Option<Refusal> = serde_json::from_str(error.get()).ok();
    let code = refusal.as_ref().and_then(|refusal| refusal.code.as_i64());
    let said = match code {
        Some(code) => format!("it answered `server/discover` with error {code}"),
        None => "it answered `server/discover` with an error".to_owned(),
    };
    match code {
        Some(SESSION_NOT_FOUND | HEADER_MISMATCH | MISSING_CAPABILITY) => {
            Err(Error::BackendProtocol { backend: backend.name().clone(), what: said.into() })
        }
        Some(UNSUPPORTED_VERSION)
            if refusal.is_some_and(|refusal| {
                refusal.data["supported"].as_array().is_some_and(|all| all.iter().any(|one| one == MODERN_VERSION))
            }) =>
        {
            Ok(Probed::Modern(Discovered::SILENT))
        }
        _ => Ok(refused(said)),
    }
}

/// Reads what should be a `DiscoverResult`.
fn of_result(raw: &RawValue) -> Probed {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct DiscoverResult<'a> {
        supported_versions: Vec<String>,
        #[serde(borrow)]
        capabilities: Option<&'a RawValue>,
        instructions: Option<String>,
    }
    let Ok(result) = serde_json::from_str::<DiscoverResult<'_>>(raw.get()) else {
        return refused("its answer to `server/discover` is not a DiscoverResult");
    };
    if !result.supported_versions.iter().any(|version| version == MODERN_VERSION) {
        return refused(format!("it does not list {MODERN_VERSION} among the versions it supports"));
    }
    Probed::Modern(Discovered {
        capabilities: ServerCapabilities::read(result.capabilities),
        instructions: instructions(result.instructions),
        caching: Caching::read(raw),
        legacy: result.supported_versions.iter().filter_map(|version| Version::read(version)).max(),
    })
}

fn post(backend: &Backend, id: &OwnedId, method: &str, params: Option<&str>) -> Outgoing {
    post_with(backend, id, (method, params), envelope::headers(method, None))
}

fn post_with(
    backend: &Backend,
    id: &OwnedId,
    (method, params): (&str, Option<&str>),
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Outgoing {
    let body = jsonrpc::request_body(id.raw(), method, params);
    Outgoing {
        verb: Method::POST,
        headers,
        body: envelope::dress(&body, &GATEWAY),
        timeout: backend.config.timeout,
        repeatable: true,
        replica: None,
    }
}

/// Sends a request of ours and reads its answer whole. `headers` are all that it takes in the modern era.
pub(super) async fn request(
    backend: &Backend,
    ask: Ask<'_>,
    headers: Vec<(HeaderName, HeaderValue)>,
    judged: Judged,
) -> Result<Outcome, Error> {
    let exchange = async {
        let id = OwnedId::integer(ask.id);
        let outgoing = post_with(backend, &id, (ask.method, ask.params), headers);
        let incoming = send(backend, outgoing, judged).await?;
        match verdict_on(backend, false, None, incoming).await? {
            Verdict::Answer(incoming) => answer(backend, None, incoming, id.borrow(), ask.max).await,
            Verdict::Refusal { code, .. } => Ok(Outcome::Error { code }),
            Verdict::SessionLost => Ok(Outcome::SessionLost),
        }
    };
    bounded(backend, exchange).await
}

/// Opens a stream of changes, if there is one here. `notifications` is JSON.
pub(crate) async fn listen(backend: &Backend, notifications: &str) -> Result<Option<Incoming>, Error> {
    let id = OwnedId::integer(next_id());
    let params = format!("{{\"notifications\":{notifications}}}");
    let request = post(backend, &id, "subscriptions/listen", Some(&params));
    let incoming = backend.send_unjudged(request).await?;
    let status = incoming.status;
    if status.is_server_error() {
        return Err(refused_by(backend, &incoming));
    }
    Ok((status == StatusCode::OK && incoming.is_event_stream()).then_some(incoming))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caching_is_what_is_said_or_none() {
        for (json, ttl_ms, is_public) in [
            (r#"{"ttlMs":5,"cacheScope":"public","x":[]}"#, 5, true),
            (r#"{"ttlMs":5.9e3,"cacheScope":"private"}"#, 5_900, false),
            (r#"{"ttlMs":-1,"cacheScope":"PUBLIC"}"#, 0, false),
            (r#"{"ttlMs":"5","cacheScope":5}"#, 0, false),
            (r#"{"ttlMs":1e300}"#, u64::MAX, false),
            (r#"{"ttlMs":5,"ttlMs":5}"#, 0, false),
            ("{}", 0, false),
            ("7", 0, false),
        ] {
            let raw = RawValue::from_string(json.to_owned()).unwrap();
            assert_eq!(Caching::read(&raw), Caching { ttl_ms, is_public }, "{json}");
        }
    }

    #[test]
    fn together_is_the_least_and_the_strictest() {
        let public = Caching { ttl_ms: 9, is_public: true };

        assert_eq!(public.and(Caching { ttl_ms: 5, is_public: true }), Caching { ttl_ms: 5, is_public: true });
        assert_eq!(public.and(Caching::NONE), Caching::NONE);
    }
}
