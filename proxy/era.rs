//! Which era a message belongs to, and the ladder that finds out.
//!
//! *Legacy* is 2024-11-05 to 2025-11-25: `initialize`, sessions, GET streams. *Modern* is 2026-07-28 on: stateless, every
//! request says in `params._meta` what it is. The body decides, the header is checked against it, so that nobody between
//! client and gateway who reads only headers can be told something else than the gateway.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Method};

use serde_json::value::RawValue;

use crate::error::{Error, INVALID_PARAMS, INVALID_REQUEST};
use crate::fields::Fields;
use crate::jsonrpc::{self, Id, Message, Params};

/// A legacy protocol version, oldest first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Version {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
}

impl Version {
    /// What a client gets that asks for a version nobody knows.
    pub(crate) const LATEST: Self = Self::V2025_11_25;

    /// As it is written on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// From the wire.
    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25]
            .into_iter()
            .find(|version| version.as_str() == text)
    }

    /// Whether a body may hold several messages: in this one version only.
    pub(crate) fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

/// The modern version that is spoken.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

/// The versions of the legacy era, as a client of it is told them that names another.
const LEGACY: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The versions of the modern era, as a client of it is told them that names another; `server/discover` names the same.
const MODERN: &[&str] = &[MODERN_VERSION];

/// Whether a version is of the modern era, known to us or not: versions are dates, and the first modern one is known.
fn is_modern(version: &str) -> bool {
    Version::read(version).is_none() && version >= MODERN_VERSION
}

/// The era of one message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// The headers of a request that MCP gives a meaning to.
#[derive(Clone, Debug, Default)]
pub(crate) struct McpHeaders {
    pub(crate) session_id: Option<HeaderValue>,
    pub(crate) protocol_version: Option<HeaderValue>,
    pub(crate) method: Option<HeaderValue>,
    pub(crate) name: Option<HeaderValue>,
    pub(crate) last_event_id: Option<HeaderValue>,
    /// `Mcp-Param-*`, which repeat arguments of a tool.
    pub(crate) params: Vec<(HeaderName, HeaderValue)>,
    /// `traceparent`, `tracestate` and `baggage`, which MCP has in `_meta` too: where the request belongs, for whoever traces it.
    pub(crate) trace: Vec<(HeaderName, HeaderValue)>,
    /// The first header that came more than once. Readers of the first and of the last copy would disagree.
    pub(crate) repeated: Option<Cow<'static, str>>,
}

impl McpHeaders {
    /// Picks them out.
    pub(crate) fn read(headers: &Fields) -> Self {
        let mut read = Self::default();
        // In one pass: a look for each by its name costs more than all of them.
        for (name, value) in headers.iter() {
            let (slot, spelling) = match name.as_str() {
                "mcp-session-id" => (&mut read.session_id, "Mcp-Session-Id"),
                "mcp-protocol-version" => (&mut read.protocol_version, "MCP-Protocol-Version"),
                "mcp-method" => (&mut read.method, "Mcp-Method"),
                "mcp-name" => (&mut read.name, "Mcp-Name"),
                "last-event-id" => (&mut read.last_event_id, "Last-Event-ID"),
                param if param.starts_with("mcp-param-") => {
                    if read.params.iter().any(|(given, _)| given == name) {
                        let which = param.strip_prefix("mcp-param-").unwrap_or_default();
                        read.repeated = read.repeated.or_else(|| Some(format!("Mcp-Param-{which}").into()));
                    }
                    read.params.push((name.clone(), value.clone()));
                    continue;
                }
                "traceparent" | "tracestate" | "baggage" => {
                    read.trace.push((name.clone(), value.clone()));
                    continue;
                }
                _ => continue,
            };
            match slot {
                None => *slot = Some(value.clone()),
                Some(_) => read.repeated = read.repeated.or_else(|| Some(spelling.into())),
            }
        }
        read
    }

    /// Whether they are of a modern client, as far as they tell.
    pub(crate) fn are_modern(&self) -> bool {
        self.version().is_some_and(|version| is_modern(&version))
    }

    fn version(&self) -> Option<Cow<'_, str>> {
        self.protocol_version.as_ref().map(|value| String::from_utf8_lossy(value.as_bytes()))
    }
}

/// The first step of the ladder: what the verb and the headers alone say.
///
/// # Errors
/// A modern client has no business with GET and DELETE.
pub(crate) fn of_verb(verb: &Method, headers: &McpHeaders) -> Result<(), Error> {
    if let Some(header) = &headers.repeated {
        if !headers.are_modern() {
            let reason = format!("header `{header}` came more than once").into();
            return Err(Error::Malformed { code: INVALID_REQUEST, reason, id: None });
        }
        let problem = "came more than once".into();
        return Err(match header {
            Cow::Borrowed(header) => Error::HeaderMismatch { header, problem },
            Cow::Owned(header) => Error::ParamMismatch { header: header.as_str().into(), problem },
        });
    }
    match headers.version() {
        Some(version) if verb != Method::POST && is_modern(&version) => {
            Err(Error::MethodNotAllowed { verb: verb.to_string(), allow: "POST" })
        }
        Some(version) if verb != Method::POST => known_or_refused(&version, headers, None).map(drop),
        _ => Ok(()),
    }
}

/// The next step, for a body that holds several messages: only the legacy era has such.
///
/// # Errors
/// When the headers are of a modern client.
pub(crate) fn of_batch(headers: &McpHeaders) -> Result<(), Error> {
    if headers.method.is_none() && !headers.are_modern() {
        return Ok(());
    }
    let reason = format!("batches are not part of {MODERN_VERSION}; send one message per request").into();
    Err(Error::Malformed { code: INVALID_REQUEST, reason, id: None })
}

/// The rest of the ladder, for a body that holds one message.
///
/// # Errors
/// A message that belongs to neither era, or contradicts its headers, or is of a version that is not served.
pub(crate) fn of_message(message: &Message<'_>, headers: &McpHeaders) -> Result<Era, Error> {
    let header = headers.version();
    let (method, params, id) = match message {
        Message::Request(request) => (&request.method, &request.params, Some(request.id)),
        Message::Notification(notification) => (&notification.method, &notification.params, None),
        Message::Response(response) => {
            return match header {
                Some(version) if is_modern(&version) => Err(Error::Malformed {
                    code: INVALID_REQUEST,
                    reason: "a response cannot be posted in this protocol version".into(),
                    id: response.id.map(Id::owned),
                }),
                Some(version) => known_or_refused(&version, headers, response.id),
                None => Ok(Era::Legacy),
            };
        }
    };
    let Some(claimed) = params.meta.as_ref().and_then(|meta| meta.protocol_version) else {
        return match header {
            // A notification need not say anything: the header alone tells.
            Some(version) if id.is_none() && version == MODERN_VERSION => Ok(Era::Modern),
            // `initialize` negotiates: whatever version the header names, the answer names ours.
            Some(version) if method == "initialize" && !is_modern(&version) => Ok(Era::Legacy),
            Some(version) if headers.session_id.is_none() && is_modern(&version) => Err(Error::Malformed {
                code: INVALID_PARAMS,
                reason: "`params._meta` lacks `io.modelcontextprotocol/protocolVersion`, which the header \
                         `MCP-Protocol-Version` announces"
                    .into(),
                id: id.map(Id::owned),
            }),
            Some(version) => known_or_refused(&version, headers, id),
            None => Ok(Era::Legacy),
        };
    };
    // Whatever else it is, it is a claim: no legacy message has the key (2026-07-28, Overview, per-request protocol fields).
    let claimed = jsonrpc::text(claimed).ok_or_else(|| Error::Malformed {
        code: INVALID_PARAMS,
        reason: "`io.modelcontextprotocol/protocolVersion` must be a string".into(),
        id: id.map(Id::owned),
    })?;
    modern(&claimed, header.as_deref())?;
    // Headers of notifications are not defined, nor is any notification but the one of another transport.
    if let Some(id) = id {
        routing_headers(method, params, headers)?;
        envelope(params, id)?;
    }
    Ok(Era::Modern)
}

/// A legacy version, or the refusal of another: in words that both eras know where there is a session, which no modern client
/// has.
fn known_or_refused(version: &str, headers: &McpHeaders, id: Option<Id<'_>>) -> Result<Era, Error> {
    if Version::read(version).is_some() {
        return Ok(Era::Legacy);
    }
    if headers.session_id.is_none() {
        return Err(Error::UnsupportedVersion { requested: version.to_owned(), supported: LEGACY });
    }
    let reason = format!("header `MCP-Protocol-Version` must be the session's version, one of {}", LEGACY.join(", "));
    Err(Error::Malformed { code: INVALID_REQUEST, reason: reason.into(), id: id.map(Id::owned) })
}

/// A modern message says its version twice, and it has to be one that is served.
fn modern(claimed: &str, header: Option<&str>) -> Result<(), Error> {
    const HEADER: &str = "MCP-Protocol-Version";
    match header {
        None => Err(Error::HeaderMismatch { header: HEADER, problem: "is missing".into() }),
        Some(header) if header != claimed => {
            Err(Error::HeaderMismatch { header: HEADER, problem: "differs from `params._meta`".into() })
        }
        Some(_) if claimed != MODERN_VERSION => {
            Err(Error::UnsupportedVersion { requested: claimed.to_owned(), supported: MODERN })
        }
        Some(_) => Ok(()),
    }
}

/// What every modern request must say beside its version (2026-07-28, Overview, per-request protocol fields).
fn envelope(params: &Params<'_>, id: Id<'_>) -> Result<(), Error> {
    let meta = params.meta.as_ref();
    let malformed = |reason: &'static str| {
        Err(Error::Malformed { code: INVALID_PARAMS, reason: reason.into(), id: Some(id.owned()) })
    };
    let is_object = |raw: &RawValue| raw.get().starts_with('{');
    match meta.and_then(|meta| meta.client_capabilities) {
        Some(capabilities) if is_object(capabilities) => {}
        Some(_) => return malformed("`io.modelcontextprotocol/clientCapabilities` must be an object"),
        None => return malformed("`params._meta` lacks `io.modelcontextprotocol/clientCapabilities`"),
    }
    if meta.and_then(|meta| meta.client_info).is_some_and(|info| !is_object(info)) {
        return malformed("`io.modelcontextprotocol/clientInfo` must be an object");
    }
    if let Some(level) = meta.and_then(|meta| meta.log_level)
        && !jsonrpc::text(level).is_some_and(|level| LOG_LEVELS.contains(&&*level))
    {
        return malformed("`io.modelcontextprotocol/logLevel` must be one of the eight levels of RFC 5424");
    }
    Ok(())
}

/// The levels of log messages, least severe first (RFC 5424).
pub(crate) const LOG_LEVELS: [&str; 8] =
    ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// One of [`LOG_LEVELS`]; a more severe one is greater.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Severity(usize);

impl Severity {
    pub(crate) fn read(level: &str) -> Option<Self> {
        LOG_LEVELS.iter().position(|known| *known == level).map(Self)
    }

    pub(crate) fn as_str(self) -> &'static str {
        LOG_LEVELS.get(self.0).copied().unwrap_or_default()
    }
}

/// `Mcp-Method` and `Mcp-Name` repeat what the body says, for intermediaries that route by header.
fn routing_headers(method: &str, params: &Params<'_>, headers: &McpHeaders) -> Result<(), Error> {
    // No method needs to be wrapped, and an intermediary that routes by it would see another.
    check("Mcp-Method", headers.method.as_ref(), method, |value| value.to_str().ok().map(|text| text.trim().into()))?;
    let named = match method {
        "tools/call" | "prompts/get" => params.name(),
        "resources/read" => params.uri(),
        "tasks/get" | "tasks/update" | "tasks/cancel" => params.task_id(),
        _ => return Ok(()),
    };
    named.map_or(Ok(()), |named| check("Mcp-Name", headers.name.as_ref(), &named, header_text))
}

fn check(
    header: &'static str,
    value: Option<&HeaderValue>,
    body: &str,
    read: impl for<'v> Fn(&'v HeaderValue) -> Option<Cow<'v, str>>,
) -> Result<(), Error> {
    let Some(value) = value else {
        return Err(Error::HeaderMismatch { header, problem: "is missing".into() });
    };
    match read(value) {
        None => Err(Error::HeaderMismatch { header, problem: "is not readable".into() }),
        Some(text) if text != body => Err(Error::HeaderMismatch { header, problem: "differs from the body".into() }),
        Some(_) => Ok(()),
    }
}

/// A header value as the text it stands for: `=?base64?…?=` wraps what a header cannot carry, which is all but visible ASCII,
/// spaces and tabs (2026-07-28, SEP-2243).
pub(crate) fn header_text(value: &HeaderValue) -> Option<Cow<'_, str>> {
    use base64::Engine as _;
    let text = value.to_str().ok()?.trim_matches([' ', '\t']);
    let Some(wrapped) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(text.into());
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(wrapped).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc;

    fn headers(pairs: &[(&'static str, &'static str)]) -> McpHeaders {
        let field = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        McpHeaders::read(&pairs.iter().map(field).collect())
    }

    fn classify(body: &str, pairs: &[(&'static str, &'static str)]) -> Result<Era, Error> {
        of_message(&jsonrpc::parse(body.as_bytes()).unwrap(), &headers(pairs))
    }

    #[test]
    fn only_what_a_header_can_carry_is_read_from_one() {
        let read = |bytes: &[u8]| header_text(&HeaderValue::from_bytes(bytes).unwrap()).map(Cow::into_owned);

        assert_eq!(read(b" a b ").as_deref(), Some("a b"));
        assert_eq!(read(b"=?base64?w7w=?=").as_deref(), Some("\u{fc}"));
        assert_eq!(read("\u{fc}".as_bytes()), None);
    }

    #[test]
    fn a_method_is_not_wrapped() {
        let wrapped = [MODERN[0], ("mcp-method", "=?base64?dG9vbHMvbGlzdA==?=")];
        assert!(matches!(classify(MODERN_LIST, &wrapped), Err(Error::HeaderMismatch { header: "Mcp-Method", .. })));
    }

    const MODERN_LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    const MODERN: [(&str, &str); 2] = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];

    #[test]
    fn a_message_without_a_version_is_legacy() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        assert_eq!(classify(body, &[]).unwrap(), Era::Legacy);
        assert_eq!(classify(body, &[("mcp-protocol-version", "2025-06-18")]).unwrap(), Era::Legacy);
    }

    #[test]
    fn an_unknown_version_in_the_header_is_refused_with_the_versions_served() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let error = classify(body, &[("mcp-protocol-version", "1999-01-01")]).unwrap_err();
        assert_eq!(error.object().code, -32022);
        assert_eq!(error.status(), 400);
    }

    #[test]
    fn a_client_with_a_session_hears_no_code_of_the_modern_era() {
        for version in ["1999-01-01", "2026-07-28", "2027-01-01"] {
            let headers = [("mcp-protocol-version", version), ("mcp-session-id", "s")];
            for body in [r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]
            {
                let Error::Malformed { code, id, .. } = classify(body, &headers).unwrap_err() else { panic!("{body}") };
                assert_eq!((code, id.unwrap().raw()), (INVALID_REQUEST, "1"), "{version} {body}");
            }
        }
    }

    #[test]
    fn a_modern_header_without_the_envelope_names_the_missing_key() {
        let body = r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#;
        let error = classify(body, &[("mcp-protocol-version", "2026-07-28")]).unwrap_err();
        let Error::Malformed { code, reason, id } = error else { panic!("{error:?}") };
        assert_eq!((code, id.unwrap().raw()), (INVALID_PARAMS, "\"x\""));
        assert!(reason.contains("io.modelcontextprotocol/protocolVersion"), "{reason}");
    }

    #[test]
    fn a_modern_message_passes() {
        assert_eq!(classify(MODERN_LIST, &MODERN).unwrap(), Era::Modern);
        let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
        assert_eq!(classify(notification, &MODERN[..1]).unwrap(), Era::Modern);
    }

    #[test]
    fn a_modern_version_that_nobody_knows_is_answered_with_the_versions_served() {
        let body = MODERN_LIST.replace("2026-07-28", "2027-01-01");
        let error = classify(&body, &[("mcp-protocol-version", "2027-01-01")]).unwrap_err();
        let object = error.object();
        assert_eq!((error.status().as_u16(), object.code), (400, -32022));
        assert_eq!(object.data.unwrap()["supported"], serde_json::json!(super::MODERN));
    }

    #[test]
    fn the_envelope_must_be_whole() {
        for (from, to) in [
            (r#","io.modelcontextprotocol/clientCapabilities":{}"#, ""),
            (r#"clientCapabilities":{}"#, r#"clientCapabilities":[]"#),
            (r#"clientCapabilities":{}"#, r#"clientCapabilities":{},"io.modelcontextprotocol/clientInfo":"c""#),
            (r#"clientCapabilities":{}"#, r#"clientCapabilities":{},"io.modelcontextprotocol/logLevel":"loud""#),
        ] {
            let error = classify(&MODERN_LIST.replace(from, to), &MODERN).unwrap_err();
            let Error::Malformed { code, id, .. } = error else { panic!("{error:?}") };
            assert_eq!((code, id.unwrap().raw()), (INVALID_PARAMS, "1"), "{to}");
        }
    }

    #[test]
    fn a_modern_message_must_say_its_version_in_the_header_too() {
        let missing = classify(MODERN_LIST, &[]).unwrap_err();
        let different = classify(MODERN_LIST, &[("mcp-protocol-version", "2025-11-25")]).unwrap_err();
        assert_eq!((missing.object().code, different.object().code), (-32020, -32020));
    }

    #[test]
    fn a_modern_initialize_is_modern() {
        let body = MODERN_LIST.replace("tools/list", "initialize");
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "initialize")];
        assert_eq!(classify(&body, &headers).unwrap(), Era::Modern);
    }

    #[test]
    fn a_posted_response_is_legacy_only() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        assert_eq!(classify(body, &[]).unwrap(), Era::Legacy);
        assert!(classify(body, &[("mcp-protocol-version", "2026-07-28")]).is_err());
    }

    #[test]
    fn get_and_delete_are_not_for_modern_clients() {
        let modern = headers(&[("mcp-protocol-version", "2026-07-28")]);
        assert!(matches!(of_verb(&Method::GET, &modern), Err(Error::MethodNotAllowed { allow: "POST", .. })));
        assert!(of_verb(&Method::GET, &headers(&[])).is_ok());
        assert!(of_verb(&Method::DELETE, &headers(&[("mcp-protocol-version", "2025-06-18")])).is_ok());
    }

    #[test]
    fn a_repeated_header_is_refused() {
        let twice = headers(&[("mcp-session-id", "a"), ("mcp-session-id", "b")]);
        assert!(matches!(of_verb(&Method::POST, &twice), Err(Error::Malformed { code: INVALID_REQUEST, .. })));
        let modern = headers(&[("mcp-name", "a"), ("mcp-name", "b"), ("mcp-protocol-version", "2026-07-28")]);
        assert!(matches!(of_verb(&Method::POST, &modern), Err(Error::HeaderMismatch { header: "Mcp-Name", .. })));
        let twice = [("mcp-param-size", "1"), ("mcp-param-region", "eu"), ("mcp-param-region", "us")];
        for version in ["2025-11-25", "2026-07-28"] {
            let pairs: Vec<_> = twice.into_iter().chain([("mcp-protocol-version", version)]).collect();
            let error = of_verb(&Method::POST, &headers(&pairs)).unwrap_err();
            assert_eq!(error.to_string(), "header `Mcp-Param-region` came more than once");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn routing_headers_must_repeat_the_body() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"caf\u00e9"}}"#;
        let Message::Request(request) = jsonrpc::parse(body.as_bytes()).unwrap() else { panic!() };
        let judge =
            |pairs: &[(&'static str, &'static str)]| routing_headers(&request.method, &request.params, &headers(pairs));

        assert!(judge(&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?Y2Fmw6k=?=")]).is_ok());
        assert!(judge(&[("mcp-method", " tools/call "), ("mcp-name", "=?base64?Y2Fmw6k=?=")]).is_ok());
        assert!(judge(&[("mcp-method", "TOOLS/CALL"), ("mcp-name", "=?base64?Y2Fmw6k=?=")]).is_err());
        assert!(judge(&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?%%%?=")]).is_err());
        assert!(judge(&[("mcp-method", "tools/call"), ("mcp-name", "cafe")]).is_err());
        assert!(judge(&[("mcp-method", "tools/call")]).is_err());
        assert!(judge(&[]).is_err());
    }
}
