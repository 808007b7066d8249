//! What must hold of any bytes from the wire: each function asserts the invariants of one reader.
//!
//! The fuzzers call these, and so do the tests, over the same corpus (`tests/corpus`) and over random mutations of it.

mod bridge;
mod ladder;
mod params;
#[cfg(test)]
pub(crate) mod sample;
mod tagger;
mod templates;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;
use serde_json::Value;
use serde_json::value::RawValue;

pub use self::bridge::bridge;
pub use self::ladder::ladder;
pub use self::params::params;
pub use self::tagger::tagger;
pub use self::templates::templates;
use crate::backend::sse::{self, Event, Events, Piece, Splitter, TooLong};
use crate::jsonrpc::{self, Malformed, Message, Params};
use crate::scan::{Fault, Kind, Outcome, Scan};

// === envelope ===

/// One body: read as a message and as a batch, renamed, added to and scanned.
pub fn envelope(body: &[u8]) {
    let oracle = oracle(body);
    match jsonrpc::parse(body) {
        Ok(message) => {
            agrees(&message, oracle.as_ref());
            splices(body, &message);
            scans(body, &message, oracle.as_ref());
        }
        Err(malformed) => refuses(&malformed, oracle.as_ref()),
    }
    batch(body, oracle.as_ref());
    assert_eq!(scanned(body, body.len()), scanned(body, 1), "chunks do not matter");
}

/// `serde_json` takes an object with its private key for something else.
fn oracle(body: &[u8]) -> Option<Value> {
    let private = body.windows(11).any(|window| window == b"$serde_json");
    serde_json::from_slice(body).ok().filter(|_| !private)
}

fn agrees(message: &Message<'_>, oracle: Option<&Value>) {
    let Some(oracle) = oracle else { return };
    assert_eq!(oracle["jsonrpc"], "2.0");
    match message {
        Message::Notification(notification) => {
            assert_eq!(oracle.get("id"), None);
            assert_eq!(oracle["method"], *notification.method);
            params_agree(&notification.params, &oracle["params"]);
        }
        Message::Request(request) => {
            assert_eq!(oracle["id"], value(request.id.raw()));
            assert_eq!(oracle["method"], *request.method);
            params_agree(&request.params, &oracle["params"]);
        }
        Message::Response(response) => {
            assert_eq!(oracle.get("method"), None);
            assert_eq!(oracle["id"], response.id.map_or(Value::Null, |id| value(id.raw())));
            assert_eq!(oracle[if response.error { "error" } else { "result" }], value(response.value.get()));
        }
    }
}

fn params_agree(params: &Params<'_>, oracle: &Value) {
    let meta = params.meta.as_ref();
    assert_eq!(params.name().as_deref(), oracle["name"].as_str());
    assert_eq!(params.uri().as_deref(), oracle["uri"].as_str());
    assert_eq!(params.name.is_some(), oracle.get("name").is_some());
    assert_eq!(params.arguments.map(|raw| value(raw.get())).as_ref(), oracle.get("arguments"));
    assert_eq!(meta.is_some(), oracle.get("_meta").is_some());
    assert_eq!(
        meta.and_then(|meta| meta.protocol_version()).as_deref(),
        oracle["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str()
    );
    if let Some(id) = params.request_id() {
        assert_eq!(oracle["requestId"], value(id.raw()));
    }
}

fn value(raw: &str) -> Value {
    serde_json::from_str(raw).unwrap_or_default()
}

fn refuses(malformed: &Malformed, oracle: Option<&Value>) {
    assert!(!malformed.reason.is_empty());
    match malformed.code {
        Malformed::NOT_JSON => assert_eq!((oracle, &malformed.id), (None, &None)),
        Malformed::INVALID_REQUEST => {
            if let (Some(oracle), Some(id)) = (oracle, &malformed.id) {
                assert_eq!(oracle["id"], value(id.raw()));
            }
        }
        code => assert_eq!(code, 0, "a code that nobody expects"),
    }
}

fn splices(body: &[u8], message: &Message<'_>) {
    let Message::Request(request) = message else { return };
    let edit = |part: &str, with: &str| {
        let Some(span) = jsonrpc::span(body, part) else { return assert_eq!(part, "", "a part lies in its body") };
        assert_eq!(&body[span.clone()], part.as_bytes());
        let spliced = jsonrpc::splice(body, &[(span.clone(), with.as_bytes())]);
        assert_eq!(
            (&spliced[..span.start], &spliced[span.start + with.len()..]),
            (&body[..span.start], &body[span.end..])
        );
    };
    edit(request.id.raw(), "0");
    for raw in [request.params.name, request.params.uri, request.params.request_id].into_iter().flatten() {
        edit(raw.get(), "\"\"");
    }
    renames(body, request.params.name);
    grows(body);
}

/// The new name is read back, and nothing else has changed.
fn renames(body: &[u8], name: Option<&RawValue>) {
    const RENAMED: &str = "back\\end\"\u{1}\u{e9}__\u{1f9f0}";
    let Some(span) = name.and_then(|name| jsonrpc::span(body, name.get())) else { return };
    let renamed = jsonrpc::splice(body, &[(span, jsonrpc::json_string(RENAMED).as_bytes())]);
    let message = jsonrpc::parse(&renamed);
    assert!(matches!(&message, Ok(Message::Request(request)) if request.params.name().as_deref() == Some(RENAMED)));
    if let (Some(mut before), Some(after)) = (oracle(body), oracle(&renamed)) {
        before["params"]["name"] = RENAMED.into();
        assert_eq!(before, after);
    }
}

/// Wherever the layout says, there is room for more.
fn grows(body: &[u8]) {
    let Some(layout) = jsonrpc::layout(body) else { return };
    let inside = |span: Range<usize>| span.end - 1..span.end - 1;
    let ends = [layout.meta.map(inside), layout.params.map(inside), Some(layout.end..layout.end)];
    for end in ends.into_iter().flatten() {
        let empty = body[..end.start].trim_ascii_end().ends_with(b"{");
        let more: &[u8] = if empty { b"\"toolgate\":1" } else { b",\"toolgate\":1" };
        assert!(jsonrpc::parse(&jsonrpc::splice(body, &[(end, more)])).is_ok());
    }
}

fn scans(body: &[u8], message: &Message<'_>, oracle: Option<&Value>) {
    let (kind, outcome) = scanned(body, body.len());
    let Message::Response(response) = message else { return assert_eq!((kind, outcome), (Kind::Call, None)) };
    assert_eq!(kind, Kind::Response);
    let Some(oracle) = oracle else { return assert!(outcome.is_some()) };
    let expected = match response.error {
        true => Outcome::RpcError { code: oracle["error"]["code"].as_i64().unwrap_or(0) },
        false if !oracle["result"].is_object() => Outcome::Broken(Fault::Result),
        false if oracle["result"]["isError"] == true => Outcome::ToolError,
        false => Outcome::Ok,
    };
    assert_eq!(outcome, Some(expected));
}

fn scanned(body: &[u8], chunk: usize) -> (Kind, Option<Outcome>) {
    let mut scan = Scan::new();
    body.chunks(chunk.max(1)).for_each(|chunk| scan.push(chunk));
    (scan.kind(), scan.outcome())
}

fn batch(body: &[u8], oracle: Option<&Value>) {
    let Ok(texts) = jsonrpc::split_batch(body) else { return assert!(jsonrpc::parse_batch(body).is_err()) };
    assert!(jsonrpc::is_batch(body));
    if let Some(oracle) = oracle {
        assert_eq!(texts.iter().map(|text| value(text)).collect::<Value>(), *oracle);
    }
    let whole = texts.iter().all(|text| jsonrpc::parse(text.as_bytes()).is_ok());
    assert_eq!(jsonrpc::parse_batch(body).map(|messages| messages.len()).ok(), whole.then_some(texts.len()));
}

// === sse ===

/// One stream; its first two bytes choose a chunk size and how much is held.
pub fn sse(bytes: &[u8]) {
    let [chunk, held, stream @ ..] = bytes else { return };
    let chunk = usize::from(*chunk);
    let limits = [usize::from(*held), usize::MAX];
    for limit in limits {
        let whole = Split::new(stream, stream.len(), limit);
        whole.keeps(stream);
        assert_eq!(whole, Split::new(stream, 1, limit), "single bytes");
        assert_eq!(whole, Split::new(stream, chunk, limit), "chunks of {chunk}");
    }
    let events = events(stream, stream.len());
    assert_eq!(events, self::events(stream, 1));
    assert_eq!(events, self::events(stream, chunk));
    assert_eq!(
        Split::new(stream, chunk, usize::MAX).decisions(),
        events.iter().filter_map(decision).collect::<Vec<_>>()
    );
    round_trip(stream);
}

/// What a splitter makes of a stream, without what depends on the chunks.
#[derive(Debug, Default, PartialEq)]
struct Split {
    /// All bytes that came out.
    out: Vec<u8>,
    /// What else came out, and after how many bytes.
    pieces: Vec<(usize, Piece)>,
    failed: Option<TooLong>,
    left: Option<Bytes>,
}

impl Split {
    fn new(stream: &[u8], chunk: usize, limit: usize) -> Self {
        let (mut split, mut splitter) = (Self::default(), Splitter::new(limit));
        for chunk in stream.chunks(chunk.max(1)) {
            splitter.push(Bytes::copy_from_slice(chunk));
            while let Some(piece) = splitter.next() {
                split.take(piece);
            }
        }
        split.left = splitter.finish();
        split
    }

    fn take(&mut self, piece: Result<Piece, TooLong>) {
        assert_eq!(self.failed, None, "an error is the last");
        match piece {
            Err(too_long) => self.failed = Some(too_long),
            Ok(Piece::Pass(bytes)) => {
                assert!(!bytes.is_empty());
                self.out.extend_from_slice(&bytes);
            }
            Ok(Piece::Message { raw, data }) => {
                self.out.extend_from_slice(&raw);
                let raw = raw.slice(..end(&raw));
                self.pieces.push((end(&self.out), Piece::Message { raw, data }));
            }
            Ok(Piece::Response(outcome)) => self.pieces.push((end(&self.out), Piece::Response(outcome))),
        }
    }

    /// Every byte comes out once and in its place.
    fn keeps(&self, stream: &[u8]) {
        match (&self.failed, &self.left) {
            (Some(_), left) => assert_eq!((stream.starts_with(&self.out), left), (true, &None)),
            (None, left) => assert_eq!([&self.out, left.as_deref().unwrap_or_default()].concat(), stream),
        }
    }

    fn decisions(&self) -> Vec<Decision> {
        self.pieces.iter().filter_map(|(_, piece)| Decision::of(piece)).collect()
    }
}

/// Where an event ends at the earliest: chunks decide whether the second byte of `\r\n` comes with it.
fn end(event: &[u8]) -> usize {
    event.len() - usize::from(event.ends_with(b"\r\n"))
}

/// What a whole event amounts to.
#[derive(Debug, PartialEq)]
enum Decision {
    Message(String),
    Response(Outcome),
}

impl Decision {
    fn of(piece: &Piece) -> Option<Self> {
        match piece {
            Piece::Message { data, .. } => Some(Self::Message(String::from_utf8_lossy(data).into_owned())),
            Piece::Pass(_) => None,
            Piece::Response(outcome) => Some(Self::Response(*outcome)),
        }
    }
}

fn decision(event: &Event) -> Option<Decision> {
    match scanned(event.data.as_bytes(), usize::MAX) {
        (Kind::Batch | Kind::Call, _) => Some(Decision::Message(event.data.clone())),
        (Kind::Response, outcome) => outcome.map(Decision::Response),
        (Kind::Other, _) => None,
    }
}

fn events(stream: &[u8], chunk: usize) -> Vec<Event> {
    let mut events = Events::new(usize::MAX);
    stream.chunks(chunk.max(1)).for_each(|chunk| assert_eq!(events.push(chunk), Ok(())));
    std::iter::from_fn(|| events.next()).collect()
}

/// Whatever is written as an event is read as one, line ends apart.
fn round_trip(data: &[u8]) {
    let expected = String::from_utf8_lossy(data).replace("\r\n", "\n").replace('\r', "\n");
    let [event] = &events(&sse::event(data), usize::MAX)[..] else { return assert_eq!(data, b"", "one event") };
    assert_eq!(event, &Event { event: "message".to_owned(), data: expected, ..Event::default() });
}

// === config ===

/// One configuration. It may not name devices, which some would read for ever.
pub fn config(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if ["/dev", "/proc", "/sys"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let Err(report) = toolgate_config::parse(Path::new("toolgate.yaml"), text, &|_| None) else { return };
    let places: Vec<_> = report.diagnostics().iter().map(|found| (&found.file, found.line, found.column)).collect();
    assert!(!places.is_empty());
    assert!(places.iter().all(|(_, line, column)| *line > 0 && *column > 0));
    assert!(!report.to_string().is_empty());
}

// === duplex ===

/// A client's request, a blank line, and what the backend says then.
pub fn duplex(bytes: &[u8]) {
    let (asked, said) = parted(bytes);
    crate::backend::duplex::fuzzing::duplex(asked, said);
}

// === what is made of several parts ===

/// What lies before the first blank line, and what lies after it.
fn parted(bytes: &[u8]) -> (&[u8], &[u8]) {
    memmem::find(bytes, b"\n\n").map_or((bytes, b""), |at| (&bytes[..at], &bytes[at + 2..]))
}

/// Lines of headers; those that no HTTP library would let through are left out.
fn headers(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n').take(64) {
        let Some((name, value)) = memchr::memchr(b':', line).map(|colon| (&line[..colon], &line[colon + 1..])) else {
            continue;
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}
