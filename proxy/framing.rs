//! How long the body of an HTTP/1 message is (RFC 9112, section 6.3), and taking it out of its chunks.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode, Version};

use crate::dispatch::REQUEST_ID;
use crate::fields::Fields;

/// The longest line that announces a chunk, its extensions included, and the longest trailer section.
const MAX_LINE: usize = 4 * 1024;

/// What is no HTTP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// How much of a body is still to come.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunks(Chunks),
    /// Whatever comes until the connection is closed.
    Close,
}

/// Where in the chunks of a body the next byte is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Chunks {
    /// Before a line that announces a chunk.
    Size,
    /// So many bytes before the end of one.
    Data(u64),
    /// Before the line end after one.
    DataEnd,
    /// In the lines after the last one, so many bytes of which have been.
    Trailers(usize),
    Over,
}

impl Framing {
    /// Of the body of a request, and whether its connection may be used again once it is over.
    ///
    /// # Errors
    /// When the head leaves open where the body ends, or says it twice: what one reader takes for a body, another may take for
    /// the next request.
    pub(crate) fn of_request(version: Version, headers: &Fields) -> Result<(Self, bool), Malformed> {
        let framing = match (is_chunked(version, headers)?, length(headers)?) {
            (true, Some(_)) => return Err(Malformed),
            (true, None) => Self::Chunks(Chunks::Size),
            (false, length) => Self::Length(length.unwrap_or(0)),
        };
        Ok((framing, keeps_alive(version, headers)))
    }

    /// Of the body of a response, and whether its connection can be used again once it is over.
    ///
    /// # Errors
    /// When the head leaves open where the body ends.
    pub(crate) fn of_response(
        version: Version,
        status: StatusCode,
        headers: &Fields,
    ) -> Result<(Self, bool), Malformed> {
        let keeps_alive = keeps_alive(version, headers);
        if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok((Self::Length(0), keeps_alive));
        }
        if is_chunked(version, headers)? {
            // Both at once may be an attempt to smuggle: nothing else is read from such a connection.
            return Ok((Self::Chunks(Chunks::Size), keeps_alive && !headers.has(CONTENT_LENGTH)));
        }
        Ok(match length(headers)? {
            Some(length) => (Self::Length(length), keeps_alive),
            None => (Self::Close, false),
        })
    }

    /// Whether the body is all there. One that ends with its connection never is before that.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunks(Chunks::Over))
    }

    /// Whether a body that ended with its connection is whole.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Takes the next bytes of the body out of what was read; empty when more has to be read first, or the body is over.
    ///
    /// # Errors
    /// When what was read are no chunks.
    pub(crate) fn take(&mut self, read: &mut BytesMut) -> Result<Bytes, Malformed> {
        match self {
            Self::Length(left) => Ok(split(read, left)),
            Self::Chunks(chunks) => chunks.take(read),
            Self::Close => Ok(read.split().freeze()),
        }
    }
}

impl Chunks {
    fn take(&mut self, read: &mut BytesMut) -> Result<Bytes, Malformed> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(read) {
                    Ok(httparse::Status::Complete((line, size))) => {
                        read.advance(line);
                        *self = if size == 0 { Self::Trailers(0) } else { Self::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if read.len() < MAX_LINE => return Ok(Bytes::new()),
                    Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed),
                },
                Self::Data(left) => {
                    let data = split(read, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    if !data.is_empty() || *self != Self::DataEnd {
                        return Ok(data);
                    }
                }
                Self::DataEnd => match read.get(..2) {
                    Some(b"\r\n") => {
                        read.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Malformed),
                    None if b"\r\n".starts_with(read) => return Ok(Bytes::new()),
                    None => return Err(Malformed),
                },
                // What trailers say is of no use here.
                Self::Trailers(seen) => match memchr::memchr(b'\n', read) {
                    Some(end) => {
                        let is_blank = read.get(..end).is_some_and(|line| line.is_empty() || line == b"\r");
                        read.advance(end + 1);
                        *seen += end + 1;
                        if *seen > MAX_LINE {
                            return Err(Malformed);
                        }
                        if is_blank {
                            *self = Self::Over;
                        }
                    }
                    None if read.len() < MAX_LINE => return Ok(Bytes::new()),
                    None => return Err(Malformed),
                },
                Self::Over => return Ok(Bytes::new()),
            }
        }
    }
}

/// Takes up to `left` bytes.
fn split(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= here as u64;
    read.split_to(here).freeze()
}

/// Where in what was read a part of it is.
pub(crate) fn place(read: &[u8], part: &[u8]) -> Range<usize> {
    let at = part.as_ptr().addr() - read.as_ptr().addr();
    at..at + part.len()
}

/// The names of parsed header fields, and where in what was read their values are.
///
/// # Errors
/// When something is no name.
pub(crate) fn places(
    read: &[u8],
    fields: &[httparse::Header<'_>],
) -> Result<Vec<(HeaderName, Range<usize>)>, Malformed> {
    fields.iter().map(|field| Ok((name(field.name.as_bytes())?, place(read, field.value)))).collect()
}

/// The fields, whose values are not copied out of the head.
///
/// # Errors
/// When something is no value.
pub(crate) fn headers(head: &Bytes, fields: Vec<(HeaderName, Range<usize>)>) -> Result<Fields, Malformed> {
    let mut headers = Fields::with_capacity(fields.len());
    for (name, place) in fields {
        let value = HeaderValue::from_maybe_shared(head.slice(place)).map_err(|_| Malformed)?;
        headers.push(name, value);
    }
    Ok(headers)
}

/// A header name. Those of MCP, which `http` does not know, come with every call and need not be copied for each.
fn name(bytes: &[u8]) -> Result<HeaderName, Malformed> {
    static KNOWN: [HeaderName; 5] = [
        HeaderName::from_static("mcp-session-id"),
        HeaderName::from_static("mcp-protocol-version"),
        HeaderName::from_static("mcp-method"),
        HeaderName::from_static("mcp-name"),
        REQUEST_ID,
    ];
    match KNOWN.iter().find(|known| known.as_str().as_bytes().eq_ignore_ascii_case(bytes)) {
        Some(known) => Ok(known.clone()),
        None => HeaderName::from_bytes(bytes).map_err(|_| Malformed),
    }
}

/// Whether a body is of this type, as its head says: `type/subtype`. Parameters do not matter, nor does case.
pub(crate) fn is_of_type(headers: &Fields, wanted: &str) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    let is_it = |essence: &[u8]| essence.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
    value.as_bytes().split(|byte| *byte == b';').next().is_some_and(is_it)
}

/// Whether the connection stays open after the message, as far as its head says.
fn keeps_alive(version: Version, headers: &Fields) -> bool {
    !has_token(headers, "close") && (version != Version::HTTP_10 || has_token(headers, "keep-alive"))
}

/// Whether the body comes in chunks. No other coding is known.
fn is_chunked(version: Version, headers: &Fields) -> Result<bool, Malformed> {
    let mut codings = headers.get_all(TRANSFER_ENCODING);
    let Some(coding) = codings.next() else { return Ok(false) };
    let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if is_chunked && codings.next().is_none() && version != Version::HTTP_10 { Ok(true) } else { Err(Malformed) }
}

/// `Content-Length`, which may come more than once if it says the same.
fn length(headers: &Fields) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for one in value.as_bytes().split(|byte| *byte == b',') {
            let one = number(one.trim_ascii()).ok_or(Malformed)?;
            if length.replace(one).is_some_and(|other| other != one) {
                return Err(Malformed);
            }
        }
    }
    Ok(length)
}

/// Digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn has_token(headers: &Fields, token: &str) -> bool {
    let is_it = |one: &[u8]| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes());
    headers.get_all(CONNECTION).any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_it))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Fields {
        let header = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        headers.iter().map(header).collect()
    }

    fn framing(headers: &[(&str, &str)]) -> Result<(Framing, bool), Malformed> {
        Framing::of_response(Version::HTTP_11, StatusCode::OK, &head(headers))
    }

    #[test]
    fn the_head_tells_where_the_body_ends() {
        assert_eq!(framing(&[("content-length", "5")]), Ok((Framing::Length(5), true)));
        assert_eq!(framing(&[("content-length", "5, 5")]), Ok((Framing::Length(5), true)));
        assert_eq!(framing(&[("content-length", "5"), ("connection", "Close")]), Ok((Framing::Length(5), false)));
        assert_eq!(framing(&[("transfer-encoding", "Chunked")]), Ok((Framing::Chunks(Chunks::Size), true)));
        assert_eq!(framing(&[]), Ok((Framing::Close, false)));
        let empty = Framing::of_response(Version::HTTP_11, StatusCode::NO_CONTENT, &head(&[("content-length", "5")]));
        assert_eq!(empty, Ok((Framing::Length(0), true)));
        let old = Framing::of_response(Version::HTTP_10, StatusCode::OK, &head(&[("content-length", "5")]));
        assert_eq!(old, Ok((Framing::Length(5), false)));
    }

    #[test]
    fn a_head_that_leaves_it_open_is_refused() {
        for headers in [
            &[("content-length", "5"), ("content-length", "6")][..],
            &[("content-length", "5, 6")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "99999999999999999999")],
            &[("transfer-encoding", "gzip, chunked")],
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            &[("transfer-encoding", "xchunked")],
        ] {
            assert_eq!(framing(headers), Err(Malformed), "{headers:?}");
        }
    }

    #[test]
    fn a_connection_with_two_framings_is_not_used_again() {
        let both = framing(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        assert_eq!(both, Ok((Framing::Chunks(Chunks::Size), false)));
    }

    #[test]
    fn what_are_no_chunks_is_refused() {
        for bytes in ["x\r\n", "5\r\nhelloXX", "5\r\nhello\nX", "-1\r\n", "11111111111111111\r\n"] {
            let mut read = BytesMut::from(bytes);
            let mut chunks = Chunks::Size;
            let refused = (0..10).any(|_| chunks.take(&mut read).is_err());
            assert!(refused, "{bytes}");
        }
        let mut endless = BytesMut::from(&[b'1'; 1][..]);
        endless.extend_from_slice(&b";"[..]);
        endless.extend_from_slice(&vec![b'x'; MAX_LINE]);
        assert_eq!(Chunks::Size.take(&mut endless), Err(Malformed));
    }

    #[test]
    fn a_request_says_where_its_body_ends_in_one_way() {
        let request = |headers: &[(&str, &str)]| Framing::of_request(Version::HTTP_11, &head(headers));
        assert_eq!(request(&[]), Ok((Framing::Length(0), true)));
        assert_eq!(request(&[("content-length", "5")]), Ok((Framing::Length(5), true)));
        assert_eq!(request(&[("transfer-encoding", "chunked")]), Ok((Framing::Chunks(Chunks::Size), true)));
        assert_eq!(request(&[("connection", "x, close")]), Ok((Framing::Length(0), false)));
        assert_eq!(request(&[("transfer-encoding", "chunked"), ("content-length", "5")]), Err(Malformed));
        assert_eq!(request(&[("transfer-encoding", "xchunked"), ("content-length", "5")]), Err(Malformed));
        assert_eq!(request(&[("content-length", "0"), ("content-length", "5")]), Err(Malformed));
        let old = |headers: &[(&str, &str)]| Framing::of_request(Version::HTTP_10, &head(headers));
        assert_eq!(old(&[]), Ok((Framing::Length(0), false)));
        assert_eq!(old(&[("connection", "keep-alive")]), Ok((Framing::Length(0), true)));
        assert_eq!(old(&[("transfer-encoding", "chunked")]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn chunks_are_the_body_however_they_arrive(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            trailer in prop::bool::ANY,
            cuts in prop::collection::vec(1_usize..20, 1..40),
            rest in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x};ext=1\r\n", chunk.len()).bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n");
            if trailer {
                wire.extend(b"x-trailer: y\r\n");
            }
            wire.extend(b"\r\n");
            wire.extend(&rest);
            let (mut framing, mut read, mut body) = (Framing::Chunks(Chunks::Size), BytesMut::new(), Vec::new());
            let mut wire = &wire[..];
            for cut in cuts.into_iter().cycle() {
                let (now, later) = wire.split_at(cut.min(wire.len()));
                read.extend_from_slice(now);
                wire = later;
                loop {
                    let taken = framing.take(&mut read).unwrap();
                    if taken.is_empty() {
                        break;
                    }
                    body.extend_from_slice(&taken);
                }
                if wire.is_empty() {
                    break;
                }
            }
            prop_assert!(framing.is_over());
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(&read[..], &rest[..]);
        }
    }
}
