//! HTTP/1 with one client: heads by `httparse`, bodies as they come, a short reply in one write.
//!
//! The session of a library for proxies sets up more for each request than a call costs, and holds its buffers while a stream
//! waits. Here a connection that waits, for a request or for an event, holds none.

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use memchr::memmem;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::MAX_HEAD;
use super::accept::Stream;
use super::downstream::{Gone, RequestHead};
use crate::clock;
use crate::deadline::within;
use crate::fields::Fields;
use crate::framing::{self, Framing, Malformed};

/// The most headers of a request.
pub(super) const MAX_HEADERS: usize = 128;
/// What is read at once where it is not known how much there is, by way of the stack.
const READ: usize = 4 * 1024;
/// How much of what a client sends ahead is read while it is answered.
const AHEAD: usize = 64 * 1024;
/// Room that is made at once for a body of which the rest is still to come.
const ROOM: usize = 256 * 1024;
/// Up to so much is copied together and written from one place; more is written from where it is.
const COPIED: usize = 16 * 1024;

/// A connection, and the request on it whose turn it is.
pub(super) struct Http1 {
    stream: Stream,
    pub(super) peer: IpAddr,
    /// What was read and not used yet.
    read: BytesMut,
    pub(super) request: RequestHead,
    /// What is still to come of its body.
    body: Framing,
    /// Whether the connection may be used again after it.
    pub(super) keeps_alive: bool,
    /// How long a client may take to read anything of what is written.
    pub(super) write_timeout: Duration,
    /// What was not written yet: the head of a reply goes with the first bytes of its body.
    head: Vec<u8>,
    extent: Extent,
}

/// How the end of a reply is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Extent {
    /// There is no body, whatever its head says.
    Bodiless,
    Chunks,
    /// By its length, or the end of the connection.
    Plain,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unread {
    Closed,
    Malformed,
    TooLarge,
    /// Headers.
    TooMany,
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl Http1 {
    pub(super) fn new(stream: Stream, peer: IpAddr) -> Self {
        Self {
            stream,
            peer,
            read: BytesMut::new(),
            request: RequestHead::default(),
            body: Framing::Length(0),
            keeps_alive: false,
            write_timeout: Duration::MAX,
            head: Vec::new(),
            extent: Extent::Bodiless,
        }
    }

    /// Waits for the first bytes of a request; false when the client closed the connection instead.
    pub(super) async fn begun(&mut self) -> bool {
        // What may wait for long holds on to no memory, nor to what it was read into.
        self.request = RequestHead::default();
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        !self.read.is_empty() || self.fill().await.is_ok_and(|read| read > 0)
    }

    /// Reads the head of the next request into [`Self::request`]. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn next(&mut self) -> Result<(), Unread> {
        // A head that comes in pieces is looked at when it may be whole, and not for every byte.
        let mut is_due = !self.read.is_empty();
        loop {
            if is_due && self.parse()? {
                return Ok(());
            }
            if self.read.len() > MAX_HEAD {
                return Err(Unread::TooLarge);
            }
            let before = self.read.len();
            if self.fill().await? == 0 {
                return Err(if self.read.is_empty() { Unread::Closed } else { Unread::Malformed });
            }
            let new = self.read.get(before.saturating_sub(3)..).unwrap_or_default();
            is_due = before == 0 || [&b"\n\r\n"[..], b"\n\n"].iter().any(|end| memmem::find(new, end).is_some());
        }
    }

    /// Takes the head at the start of what was read, if it is all there.
    fn parse(&mut self) -> Result<bool, Unread> {
        let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_request_with_uninit_headers(&mut request, &self.read, &mut space)
            .map_err(
                |error| {
                    if error == httparse::Error::TooManyHeaders { Unread::TooMany } else { Unread::Malformed }
                },
            )?;
        let httparse::Status::Complete(length) = parsed else { return Ok(false) };
        if length > MAX_HEAD {
            return Err(Unread::TooLarge);
        }
        let method = Method::from_bytes(request.method.unwrap_or("").as_bytes()).map_err(|_| Unread::Malformed)?;
        let target = framing::place(&self.read, request.path.unwrap_or("").as_bytes());
        let version = if request.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let fields = framing::places(&self.read, request.headers)?;
        let head = self.read.split_to(length).freeze();
        let headers = framing::headers(&head, fields)?;
        let uri = Uri::from_maybe_shared(head.slice(target)).map_err(|_| Unread::Malformed)?;
        one_host(version, &uri, &headers)?;
        (self.body, self.keeps_alive) = Framing::of_request(version, &headers)?;
        self.request = RequestHead { method, uri, version, headers };
        Ok(true)
    }

    /// Whether the request's body was read to its end.
    pub(super) fn is_body_done(&self) -> bool {
        self.body.is_over()
    }

    /// Tells a client that waits for it to go on with the body.
    pub(super) async fn go_on(&mut self) -> Result<(), Gone> {
        if self.body.is_over() || !self.read.is_empty() {
            return Ok(());
        }
        self.write(&mut [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")]).await
    }

    /// The next bytes of the request's body, never empty; `None` at its end. One of known length comes whole, if it is not
    /// longer than `most`.
    ///
    /// # Errors
    /// When there is no more of it though it is not whole.
    pub(super) async fn body(&mut self, most: u64) -> Result<Option<Bytes>, Unread> {
        loop {
            let missing = match self.body {
                Framing::Length(left) if left <= most => left.saturating_sub(self.read.len() as u64),
                Framing::Length(_) | Framing::Chunks(_) | Framing::Close => 0,
            };
            if missing == 0 {
                let taken = self.body.take(&mut self.read)?;
                if !taken.is_empty() {
                    return Ok(Some(taken));
                }
                if self.body.is_over() {
                    return Ok(None);
                }
            }
            if missing > READ as u64 {
                self.read.reserve(usize::try_from(missing).unwrap_or(ROOM).min(ROOM));
                if self.stream.read_buf(&mut self.read).await? == 0 {
                    return Err(Unread::Closed);
                }
            } else if self.fill().await? == 0 {
                return Err(Unread::Closed);
            }
        }
    }

    /// Completes when the client has left, or will send no more. What it sent ahead waits for its turn; more of that than is
    /// kept here hides what comes behind it.
    pub(super) async fn left(&mut self) {
        poll_fn(|cx| {
            while self.read.len() < AHEAD {
                match ready!(self.poll_fill(cx)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
            Poll::Pending
        })
        .await;
    }

    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Reads more, by way of the stack: whoever waits here holds no buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        self.read.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Begins a reply, which is written with the first bytes of its body. Without a length the body ends as the client's
    /// version of HTTP lets it.
    pub(super) fn begin(
        &mut self,
        status: StatusCode,
        headers: [&[(HeaderName, HeaderValue)]; 2],
        length: Option<usize>,
    ) {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(b"HTTP/1.1 ");
        head.extend_from_slice(status.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
        head.extend_from_slice(b"\r\n");
        let mut has_length = length.is_some();
        for (name, value) in headers.into_iter().flatten() {
            has_length |= name == CONTENT_LENGTH;
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        self.extent = Extent::Plain;
        match length {
            Some(_) if status == StatusCode::NO_CONTENT => self.extent = Extent::Bodiless,
            // Writing to memory cannot fail.
            Some(length) => drop(write!(head, "content-length: {length}\r\n")),
            None if has_length => {}
            None if self.request.version == Version::HTTP_10 => self.keeps_alive = false,
            None => {
                head.extend_from_slice(b"transfer-encoding: chunked\r\n");
                self.extent = Extent::Chunks;
            }
        }
        if self.request.method == Method::HEAD {
            self.extent = Extent::Bodiless;
        }
        match (self.keeps_alive, self.request.version) {
            (false, _) => head.extend_from_slice(b"connection: close\r\n"),
            (true, Version::HTTP_10) => head.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
        }
        head.extend_from_slice(b"date: ");
        head.extend_from_slice(&clock::date());
        head.extend_from_slice(b"\r\n\r\n");
        self.head = head;
    }

    /// Writes bytes of the reply's body, after its head if that is still to be written.
    pub(super) async fn send(&mut self, pieces: &[Bytes], is_last: bool) -> Result<(), Gone> {
        let mut front = std::mem::take(&mut self.head);
        let length = if self.extent == Extent::Bodiless { 0 } else { pieces.iter().map(Bytes::len).sum() };
        let is_chunk = self.extent == Extent::Chunks && length > 0;
        if is_chunk {
            let _ = write!(front, "{length:x}\r\n");
        }
        let back: &[u8] = match (is_chunk, is_last && self.extent == Extent::Chunks) {
            (true, true) => b"\r\n0\r\n\r\n",
            (true, false) => b"\r\n",
            (false, true) => b"0\r\n\r\n",
            (false, false) => b"",
        };
        let pieces = if length == 0 { &[][..] } else { pieces };
        if length <= COPIED {
            pieces.iter().for_each(|piece| front.extend_from_slice(piece));
            front.extend_from_slice(back);
            return if front.is_empty() { Ok(()) } else { self.write(&mut [IoSlice::new(&front)]).await };
        }
        let parts = [&*front].into_iter().chain(pieces.iter().map(|piece| &**piece)).chain([back]);
        let mut parts: Vec<_> = parts.filter(|part| !part.is_empty()).map(IoSlice::new).collect();
        self.write(&mut parts).await
    }

    /// Writes the head of a reply whose body is still to come.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.send(&[], false).await
    }

    async fn write(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), Gone> {
        while !parts.is_empty() {
            let writing = poll_fn(|cx| {
                let stream = Pin::new(&mut self.stream);
                match &*parts {
                    [one] => stream.poll_write(cx, one),
                    several => stream.poll_write_vectored(cx, several),
                }
            });
            let written = within(self.write_timeout, writing).await.map_err(|_| Gone)?.map_err(|_| Gone)?;
            if written == 0 {
                return Err(Gone);
            }
            IoSlice::advance_slices(&mut parts, written);
        }
        within(self.write_timeout, self.stream.flush()).await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Closes the connection.
    pub(super) async fn shutdown(&mut self) {
        // The client may be gone already.
        let _ = timeout(self.write_timeout, tokio::io::AsyncWriteExt::shutdown(&mut self.stream)).await;
    }
}

/// A request names one host, or none in HTTP/1.0: of two, whoever reads it next may take the other (RFC 9112, section 3.2).
fn one_host(version: Version, uri: &Uri, headers: &Fields) -> Result<(), Malformed> {
    let mut hosts = headers.get_all(HOST).map(HeaderValue::as_bytes);
    let (host, another) = (hosts.next(), hosts.next());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let differs = host.zip(authority).is_some_and(|(host, authority)| host != authority);
    let has_user = host.into_iter().chain(authority).any(|name| name.contains(&b'@'));
    let lacks_host = version == Version::HTTP_11 && host.is_none();
    if another.is_some() || differs || has_user || lacks_host { Err(Malformed) } else { Ok(()) }
}
