//! JSON texts and strings, read and written with all the checks that `serde_json` leaves out where it skips.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Malformed;

/// The deepest nesting that is read, which is where `serde_json` stops too where it does not skip.
const MAX_DEPTH: usize = 127;

/// Reads a whole text: UTF-8, JSON, and not too deep.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::not_json("the body is not UTF-8"))?;
    let value = serde_json::from_str(text).map_err(|error| Malformed::not_json(format!("not valid JSON: {error}")))?;
    if is_too_deep(body) { Err(Malformed::not_json("the JSON is nested too deeply")) } else { Ok(value) }
}

/// The string that a value is, if it is one.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    unescape(raw.get())
}

/// As [`text`], of what need not be JSON. Lone surrogates make no string.
pub(super) fn unescape(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if needs_escapes(inner) { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// `text` as a JSON string, quotes included.
pub(crate) fn json_string(text: &str) -> String {
    if needs_escapes(text) { Value::from(text).to_string() } else { ["\"", text, "\""].concat() }
}

fn needs_escapes(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
}

/// Few bodies hold enough brackets to be too deep, and looking for so many is quicker than reading them.
fn is_too_deep(json: &[u8]) -> bool {
    memchr::memchr2_iter(b'{', b'[', json).nth(MAX_DEPTH).is_some() && depth(json) > MAX_DEPTH
}

/// How deep valid JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}
