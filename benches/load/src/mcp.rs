//! The messages that are sent: just as much of MCP, in either era's words, as the rows of the table need.

use serde_json::json;

/// The version that modern requests name.
pub(crate) const MODERN: &str = "2026-07-28";
/// The version that legacy clients ask for: the newest that every peer speaks.
pub(crate) const LEGACY: &str = "2025-06-18";

/// Ids count up from here: all of them are equally long.
const FIRST_ID: u64 = 1_000_000_000;
const ID_DIGITS: usize = 10;

/// The era that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// A request ready to be sent any number of times, each time with another id.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    id_at: usize,
}

impl Request {
    /// A request of a client that has this session.
    pub(crate) fn new(era: Era, session: Option<&str>, method: &str, params: &str) -> Self {
        let params = params.trim_start_matches('{').trim_end();
        let meta = format!(
            "\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"{MODERN}\",\
             \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"load\",\"version\":\"1\"}},\
             \"io.modelcontextprotocol/clientCapabilities\":{{}}}}"
        );
        let params = match era {
            Era::Legacy => format!("{{{params}"),
            Era::Modern if params == "}" => format!("{{{meta}}}"),
            Era::Modern => format!("{{{meta},{params}"),
        };
        let head = "{\"jsonrpc\":\"2.0\",\"id\":";
        let body = format!("{head}{FIRST_ID},\"method\":\"{method}\",\"params\":{params}}}");
        Self { headers: headers(era, session, method), body: body.into_bytes(), id_at: head.len() }
    }

    /// A call of a tool that answers with so many bytes, or so many events.
    pub(crate) fn call(era: Era, session: Option<&str>, tool: &str, work: Work) -> Self {
        let Work { bytes, events, delay_ms, fill } = work;
        let fill = "x".repeat(fill);
        let arguments = format!("\"bytes\":{bytes},\"events\":{events},\"delay_ms\":{delay_ms},\"fill\":\"{fill}\"");
        let params = format!("{{\"name\":\"{tool}\",\"arguments\":{{{arguments}}}}}");
        let mut request = Self::new(era, session, "tools/call", &params);
        if era == Era::Modern {
            request.headers.push(("mcp-name", tool.to_owned()));
        }
        request
    }

    /// What comes first in a legacy session.
    pub(crate) fn initialize() -> Self {
        let client = json!({ "name": "load", "version": "1" });
        let params = json!({ "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client });
        let mut request = Self::new(Era::Legacy, None, "initialize", &params.to_string());
        request.headers.retain(|(name, _)| *name != "mcp-protocol-version");
        request
    }

    /// What comes second.
    pub(crate) fn initialized(session: Option<&str>) -> Self {
        let body = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_vec();
        Self { headers: headers(Era::Legacy, session, "notifications/initialized"), body, id_at: usize::MAX }
    }

    /// The headers of a request for a session's stream.
    pub(crate) fn stream(session: Option<&str>) -> Vec<(&'static str, String)> {
        let mut headers = headers(Era::Legacy, session, "");
        headers.retain(|(name, _)| *name != "content-type");
        headers.retain(|(name, _)| *name != "accept");
        headers.push(("accept", "text/event-stream".to_owned()));
        headers
    }

    /// The whole request in HTTP/1.1, and where its id stands.
    pub(crate) fn http1(&self, authority: &str, path: &str) -> (Vec<u8>, usize) {
        let mut bytes = head("POST", authority, path, &self.headers);
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
        let id_at = self.id_at.saturating_add(bytes.len());
        bytes.extend_from_slice(&self.body);
        (bytes, id_at)
    }

    /// The body with this id.
    pub(crate) fn body(&self, id: u64) -> Vec<u8> {
        let mut body = self.body.clone();
        number(&mut body, self.id_at, id);
        body
    }
}

/// What a called tool is to do.
#[derive(Clone, Copy, Default)]
pub(crate) struct Work {
    /// The length of the answer, headers not counted.
    pub(crate) bytes: usize,
    /// Not 0: the answer is a stream of so many events, the response among them.
    pub(crate) events: usize,
    pub(crate) delay_ms: u64,
    /// How many bytes of argument are sent along.
    pub(crate) fill: usize,
}

/// A head without an end.
pub(crate) fn head(verb: &str, authority: &str, path: &str, headers: &[(&'static str, String)]) -> Vec<u8> {
    let mut head = format!("{verb} {path} HTTP/1.1\r\nhost: {authority}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.into_bytes()
}

fn headers(era: Era, session: Option<&str>, method: &str) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json, text/event-stream".to_owned()),
    ];
    let version = match era {
        Era::Legacy => LEGACY,
        Era::Modern => MODERN,
    };
    headers.push(("mcp-protocol-version", version.to_owned()));
    if era == Era::Modern {
        headers.push(("mcp-method", method.to_owned()));
    }
    headers.extend(session.map(|session| ("mcp-session-id", session.to_owned())));
    headers
}

/// The n-th id.
pub(crate) fn id(n: u64) -> u64 {
    FIRST_ID + n % FIRST_ID
}

/// Writes an id where one stands. What has none stays as it is.
pub(crate) fn number(bytes: &mut [u8], at: usize, id: u64) {
    let Some(place) = bytes.get_mut(at..at.saturating_add(ID_DIGITS)) else { return };
    place.copy_from_slice(format!("{id:0ID_DIGITS$}").as_bytes());
}

/// The JSON after the first member of this name, as far as it may reach.
pub(crate) fn member<'a>(body: &'a [u8], quoted: &str) -> Option<&'a [u8]> {
    let found = memchr::memmem::find(body, quoted.as_bytes())? + quoted.len();
    let rest = body.get(found..)?.trim_ascii_start().strip_prefix(b":")?;
    Some(rest.trim_ascii_start())
}

/// The number that is the first member of this name.
pub(crate) fn integer(body: &[u8], quoted: &str) -> Option<u64> {
    let rest = member(body, quoted)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_request_is_json_and_carries_its_id() {
        for era in [Era::Legacy, Era::Modern] {
            let work = Work { bytes: 300, fill: 7, ..Work::default() };
            for request in [Request::call(era, Some("s"), "echo", work), Request::new(era, None, "tools/list", "{}")] {
                let body: Value = serde_json::from_slice(&request.body(id(42))).expect("JSON");

                assert_eq!(body["id"], 1_000_000_042);
                assert_eq!(body["params"]["_meta"].is_object(), era == Era::Modern);
            }
        }
    }

    #[test]
    fn numbers_are_found_however_they_are_spaced() {
        assert_eq!(integer(br#"{"a":1,"bytes" : 300}"#, "\"bytes\""), Some(300));
        assert_eq!(integer(br#"{"bytes":"x"}"#, "\"bytes\""), None);
    }
}
