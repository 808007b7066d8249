//! HTTP/1.1 as the client and the backend need it: heads, and bodies of either framing, from a socket that is kept.
//!
//! It trusts its peers: there is no cap on anything. What it saves, beside a full server, is time that would be taken from
//! the core that client and backend share.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is asked of the socket at once.
const READ: usize = 64 << 10;
const MAX_HEADERS: usize = 64;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
    Over,
}

/// What is used of a request's head.
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) path: String,
    /// Whether the header says so; a legacy client's first request says nothing.
    pub(crate) modern: bool,
}

/// A request's verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Delete,
    Get,
    Post,
}

/// What is used of a response's head.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) events: bool,
    pub(crate) session: Option<String>,
}

/// One side's reading half, with what was read too far.
pub(crate) struct Reader {
    buffer: BytesMut,
    framing: Framing,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), framing: Framing::Over }
    }

    /// The next request's head; `None` when the peer has closed.
    pub(crate) async fn request<S: AsyncRead + Unpin>(&mut self, socket: &mut S) -> Result<Option<Request>> {
        loop {
            if let Some((request, framing, length)) = parse_request(&self.buffer)? {
                self.buffer.advance(length);
                self.framing = framing;
                return Ok(Some(request));
            }
            if self.more(socket).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next response's head.
    pub(crate) async fn response<S: AsyncRead + Unpin>(&mut self, socket: &mut S) -> Result<Response> {
        loop {
            if let Some((response, framing, length)) = parse_response(&self.buffer)? {
                self.buffer.advance(length);
                self.framing = framing;
                return Ok(response);
            }
            ensure!(self.more(socket).await? > 0, "the connection was closed before the answer");
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece<S: AsyncRead + Unpin>(&mut self, socket: &mut S) -> Result<Option<Bytes>> {
        loop {
            match self.framing {
                Framing::Over | Framing::Length(0) => return Ok(None),
                Framing::Length(left) if !self.buffer.is_empty() => {
                    let piece = self.take(left);
                    self.framing = Framing::Length(left - piece.len());
                    return Ok(Some(piece));
                }
                Framing::UntilClosed if !self.buffer.is_empty() => return Ok(Some(self.take(usize::MAX))),
                Framing::Chunked => {
                    if let Some(chunk) = self.chunk()? {
                        return Ok((!chunk.is_empty()).then_some(chunk));
                    }
                }
                Framing::Length(_) | Framing::UntilClosed => {}
            }
            if self.more(socket).await? == 0 {
                ensure!(self.framing == Framing::UntilClosed, "the connection was closed in the middle of a body");
                self.framing = Framing::Over;
            }
        }
    }

    /// Appends the rest of the body.
    pub(crate) async fn whole<S: AsyncRead + Unpin>(&mut self, socket: &mut S, body: &mut Vec<u8>) -> Result<()> {
        while let Some(piece) = self.piece(socket).await? {
            body.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// A whole chunk, if it is there; the last is empty.
    fn chunk(&mut self) -> Result<Option<Bytes>> {
        let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(&self.buffer) else {
            ensure!(self.buffer.len() < 32, "no size of a chunk");
            return Ok(None);
        };
        let size = usize::try_from(size)?;
        if self.buffer.len() < at + size + 2 {
            return Ok(None);
        }
        self.buffer.advance(at);
        let chunk = self.buffer.split_to(size).freeze();
        self.buffer.advance(2);
        if size == 0 {
            self.framing = Framing::Over;
        }
        Ok(Some(chunk))
    }

    fn take(&mut self, most: usize) -> Bytes {
        let length = self.buffer.len().min(most);
        self.buffer.split_to(length).freeze()
    }

    async fn more<S: AsyncRead + Unpin>(&mut self, socket: &mut S) -> Result<usize> {
        // An idle connection holds no buffer to speak of.
        self.buffer.reserve(if self.framing == Framing::Over { 2 << 10 } else { READ });
        Ok(socket.read_buf(&mut self.buffer).await?)
    }
}

fn parse_request(bytes: &[u8]) -> Result<Option<(Request, Framing, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
    let verb = match head.method {
        Some("DELETE") => Verb::Delete,
        Some("GET") => Verb::Get,
        Some("POST") => Verb::Post,
        other => bail!("verb {other:?}"),
    };
    let version = header(head.headers, "mcp-protocol-version");
    let request = Request {
        verb,
        path: head.path.unwrap_or("/").to_owned(),
        modern: version == Some(crate::mcp::MODERN.as_bytes()),
    };
    Ok(Some((request, framing(head.headers, Framing::Over)?, length)))
}

fn parse_response(bytes: &[u8]) -> Result<Option<(Response, Framing, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
    let status = head.code.context("no status")?;
    let bodiless = status == 204 || status == 304;
    let framing = if bodiless { Framing::Over } else { framing(head.headers, Framing::UntilClosed)? };
    let session = header(head.headers, "mcp-session-id");
    let events = header(head.headers, "content-type").is_some_and(|media| media.starts_with(b"text/event-stream"));
    let session = session.map(|id| String::from_utf8_lossy(id).into_owned());
    Ok(Some((Response { status, events, session }, framing, length)))
}

fn framing(headers: &[httparse::Header<'_>], otherwise: Framing) -> Result<Framing> {
    if header(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Ok(Framing::Chunked);
    }
    let Some(length) = header(headers, "content-length") else { return Ok(otherwise) };
    Ok(Framing::Length(std::str::from_utf8(length)?.trim().parse()?))
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> (Response, Vec<u8>) {
        let (mut reader, mut socket, mut body) = (Reader::new(), bytes, Vec::new());
        let response = reader.response(&mut socket).await.expect("a head");
        reader.whole(&mut socket, &mut body).await.expect("a body");
        (response, body)
    }

    #[tokio::test]
    async fn reads_bodies_of_every_framing() {
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nMcp-Session-Id: s\r\n\r\nhello";
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n";
        let closed = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\nhello";

        let (first, of_length) = read(length).await;
        let (_, of_chunks) = read(chunked).await;
        let (third, until_closed) = read(closed).await;

        assert_eq!((of_length, of_chunks, until_closed), (b"hello".to_vec(), b"hello".to_vec(), b"hello".to_vec()));
        assert_eq!((first.session.as_deref(), first.events, third.events), (Some("s"), false, true));
    }

    #[tokio::test]
    async fn a_body_that_was_cut_is_an_error() {
        let (mut reader, mut body) = (Reader::new(), Vec::new());
        let mut socket: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
        reader.response(&mut socket).await.expect("a head");

        assert!(reader.whole(&mut socket, &mut body).await.is_err());
    }
}
