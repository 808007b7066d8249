//! What the steps are given, at the sizes that matter for each.

use bytes::Bytes;
use toolgate::benching::World;

/// Bytes of requests and answers.
pub(crate) const BODIES: [usize; 3] = [300, 4 << 10, 64 << 10];
/// Of one stream.
pub(crate) const EVENTS: usize = 100;
/// Backends, and tools of each.
pub(crate) const CATALOGS: [(usize, usize); 3] = [(1, 10), (10, 1_000), (10, 10_000)];
/// What a backend calls the tool of the requests, as JSON.
pub(crate) const OWN_JSON: &str = "\"tool_0\"";

pub(crate) fn request(bytes: usize) -> Vec<u8> {
    let head = r#"{"jsonrpc":"2.0","id":1000000001,"method":"tools/call","params":{"name":"b0__tool_0","arguments":{"query":""#;
    padded(head, "\"}}}", bytes)
}

pub(crate) fn answer(bytes: usize) -> Vec<u8> {
    padded(r#"{"jsonrpc":"2.0","id":1000000001,"result":{"content":[{"type":"text","text":""#, "\"}]}}", bytes)
}

fn padded(head: &str, tail: &str, bytes: usize) -> Vec<u8> {
    let fill = "x".repeat(bytes.saturating_sub(head.len() + tail.len()));
    [head, &fill, tail].concat().into_bytes()
}

/// A stream in one chunk.
pub(crate) fn one_chunk() -> Vec<Bytes> {
    vec![event().repeat(EVENTS).into()]
}

/// A stream with a chunk for each event.
pub(crate) fn chunk_each() -> Vec<Bytes> {
    vec![event().into(); EVENTS]
}

fn event() -> Vec<u8> {
    let event = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    format!("event: message\ndata: {event}\n\n").into_bytes()
}

/// A gateway before so many backends with so many tools each, and the name of one of the last backend's.
pub(crate) fn world((backends, tools): (usize, usize)) -> (World, String) {
    // The configuration and the lists are the bench's own.
    let world = World::new(backends, tools).expect("a gateway");
    (world, format!("b{}__tool_{}", backends - 1, tools / 2))
}
