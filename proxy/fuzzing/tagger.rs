//! Event ids that are tagged, wherever the chunks end, and every other byte as it came.

use bytes::Bytes;

use crate::backend::sse::Tagger;

const TAG: &str = "c/b/";

/// One stream; its first byte chooses a chunk size.
pub fn tagger(bytes: &[u8]) {
    let [chunk, stream @ ..] = bytes else { return };
    let expected = expected(stream);
    for chunk in [stream.len(), 1, usize::from(*chunk)] {
        let mut tagger = Tagger::new(TAG);
        let pieces = stream.chunks(chunk.max(1)).map(|chunk| tagger.push(Bytes::copy_from_slice(chunk)));
        let tagged = pieces.collect::<Vec<_>>().concat();
        assert_eq!(tagged.escape_ascii().to_string(), expected.escape_ascii().to_string(), "chunks of {chunk}");
        assert_eq!(tagger.has_ids(), tagged.len() > stream.len());
    }
    let readers = |stream: &[u8]| super::events(stream, stream.len());
    let mut events = readers(stream);
    for id in events.iter_mut().filter_map(|event| event.id.as_mut()).filter(|id| !id.is_empty()) {
        id.insert_str(0, TAG);
    }
    assert_eq!(readers(&expected), events);
}

/// Line by line.
fn expected(stream: &[u8]) -> Vec<u8> {
    let mark = b"\xef\xbb\xbf";
    let start = if stream.starts_with(mark) { mark.len() } else { 0 };
    let mut tagged = stream[..start].to_vec();
    for line in stream[start..].split_inclusive(|byte| matches!(byte, b'\r' | b'\n')) {
        let value = line.strip_prefix(b"id:").map(|value| value.strip_prefix(b" ").unwrap_or(value));
        match value {
            Some(value) if !matches!(value, [] | [b'\r' | b'\n']) => {
                let (field, value) = line.split_at(line.len() - value.len());
                tagged.extend_from_slice(&[field, TAG.as_bytes(), value].concat());
            }
            _ => tagged.extend_from_slice(line),
        }
    }
    tagged
}
