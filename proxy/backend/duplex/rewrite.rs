//! Ids and tokens put in the place of others. Every other byte of a message is left as it came.

use std::ops::Range;

use bytes::Bytes;
use memchr::memchr2;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::queue::Pieces;
use crate::jsonrpc;

/// Up to here a message is copied rather than passed on in pieces.
const SMALL: usize = 16 * 1024;

/// What goes in the place of a part of a message.
pub(super) type Edit = (Range<usize>, Bytes);

/// Replaces parts of a message, which are apart.
pub(super) fn replace(message: &Bytes, mut edits: Vec<Edit>) -> Pieces {
    edits.sort_by_key(|(range, _)| range.start);
    if message.len() <= SMALL {
        let edits: Vec<(Range<usize>, &[u8])> = edits.iter().map(|(range, with)| (range.clone(), &**with)).collect();
        return jsonrpc::splice(message, &edits).into();
    }
    let mut pieces = Vec::with_capacity(edits.len() * 2 + 1);
    let mut rest = 0;
    for (range, with) in edits {
        pieces.push(message.slice(rest..range.start));
        pieces.push(with);
        rest = range.end;
    }
    pieces.push(message.slice(rest..));
    pieces.retain(|piece| !piece.is_empty());
    Pieces(pieces)
}

/// An edit that puts `with` in the place of `part`, which was borrowed from `message`.
pub(super) fn edit(message: &Bytes, part: &str, with: impl Into<Bytes>) -> Option<Edit> {
    Some((jsonrpc::span(message, part)?, with.into()))
}

/// A message without line breaks, which JSON can have between its tokens only.
pub(super) fn one_line(body: &Bytes) -> Bytes {
    if memchr2(b'\n', b'\r', body).is_none() {
        return body.clone();
    }
    body.iter().map(|&byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect::<Vec<_>>().into()
}

/// The `_meta["io.modelcontextprotocol/subscriptionId"]` of a result: the id of the request that it ends.
pub(super) fn subscription_of(result: &RawValue) -> Option<&str> {
    #[derive(Deserialize)]
    struct Ended<'a> {
        #[serde(borrow, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
        id: Option<&'a RawValue>,
    }
    // An array would be taken for a struct's fields otherwise.
    let ended: Ended<'_> = serde_json::from_str(object(result)?).ok()?;
    let meta: Meta<'_> = serde_json::from_str(object(ended.meta?)?).ok()?;
    Some(meta.id?.get())
}

fn object(raw: &RawValue) -> Option<&str> {
    raw.get().starts_with('{').then_some(raw.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_byte_is_left_as_it_came() {
        for padding in [0, SMALL] {
            let message = Bytes::from(format!("{{\"a\" : 1,\t\"b\":\"x\"}}{}", " ".repeat(padding)));
            let text = std::str::from_utf8(&message).unwrap();
            let edits = [edit(&message, &text[14..17], "22"), edit(&message, &text[7..8], "\"one\"")];

            let replaced = replace(&message, edits.into_iter().flatten().collect());

            assert_eq!(replaced.len(), message.len() + 3);
            assert_eq!(replaced.whole().trim_ascii_end(), b"{\"a\" : \"one\",\t\"b\":22}");
        }
    }

    #[test]
    fn a_long_message_is_not_copied() {
        let message = Bytes::from(vec![b'x'; SMALL + 1]);

        let replaced = replace(&message, vec![(10..12, Bytes::from_static(b"7"))]);

        assert_eq!(replaced.0[0].as_ptr(), message.as_ptr());
        assert_eq!(replaced.0[2].as_ptr(), message[12..].as_ptr());
    }

    #[test]
    fn a_message_takes_one_line() {
        assert_eq!(one_line(&Bytes::from_static(b"{\r\n \"a\":\n1}")), "{   \"a\": 1}");
    }
}
