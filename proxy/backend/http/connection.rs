//! HTTP/1.1 on one connection, as a client: one request at a time, in one write; heads by `httparse`, bodies as they come.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{StatusCode, Version};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};

use super::dial::Stream;
use crate::deadline::Alarm;
use crate::fields::Fields;
use crate::framing::{self, Framing, Malformed};

/// The largest head of a response.
const MAX_HEAD: usize = 64 * 1024;
/// The most headers of a response.
const MAX_HEADERS: usize = 128;
/// What is read at once, at first and when a backend keeps sending.
const READ: (usize, usize) = (8 * 1024, 64 * 1024);
/// A request of up to this size is copied behind its head; a larger one is written from where it is.
pub(super) const COPIED: usize = 16 * 1024;

/// One connection.
pub(super) struct Connection {
    stream: Stream,
    /// What was read and not used yet.
    read: BytesMut,
    /// How much is read at once.
    at_once: usize,
    /// For the first byte of an answer.
    pub(super) alarm: Alarm,
}

/// The head of a response.
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) headers: Fields,
}

/// Why a head could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is not HTTP")]
    Malformed,
}

impl From<Malformed> for Unread {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: BytesMut::new(), at_once: READ.0, alarm: Alarm::default() }
    }

    /// Whether it can take a request: nothing was said on it unasked, its end above all.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut space = [MaybeUninit::uninit(); 1];
        let mut space = ReadBuf::uninit(&mut space);
        let polled = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut space);
        self.read.is_empty() && polled.is_pending()
    }

    /// Writes a request; `head` is complete but for its body.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub(super) async fn write(&mut self, mut head: Vec<u8>, mut body: &[u8]) -> io::Result<()> {
        if body.len() <= COPIED {
            head.extend_from_slice(body);
            self.stream.write_all(&head).await?;
        } else {
            let mut head = &head[..];
            while !head.is_empty() {
                let written = self.stream.write_vectored(&[io::IoSlice::new(head), io::IoSlice::new(body)]).await?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                let of_head = written.min(head.len());
                head.advance(of_head);
                body.advance(written - of_head);
            }
            self.stream.write_all(body).await?;
        }
        self.stream.flush().await
    }

    /// Reads the next head.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn head(&mut self) -> Result<Head, Unread> {
        loop {
            if !self.read.is_empty()
                && let Some(head) = self.parsed()?
            {
                return Ok(head);
            }
            if self.read.len() >= MAX_HEAD {
                return Err(Unread::Malformed);
            }
            if self.fill().await? == 0 {
                return Err(if self.read.is_empty() { Unread::Closed } else { Unread::Malformed });
            }
        }
    }

    /// The head at the start of what was read, if it is all there.
    fn parsed(&mut self) -> Result<Option<Head>, Unread> {
        let mut space = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, &self.read, &mut space)
            .map_err(|_| Unread::Malformed)?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Unread::Malformed)?;
        let fields = framing::places(&self.read, response.headers)?;
        let headers = framing::headers(&self.read.split_to(length).freeze(), fields)?;
        Ok(Some(Head { version, status, headers }))
    }

    /// The next bytes of a body, never empty; `None` at its end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When it is cut short.
    pub(super) async fn body(&mut self, framing: &mut Framing) -> Result<Option<Bytes>, Unread> {
        loop {
            let taken = framing.take(&mut self.read)?;
            if !taken.is_empty() {
                return Ok(Some(taken));
            }
            if framing.is_over() {
                return Ok(None);
            }
            if self.read.is_empty() {
                // What may wait for hours holds on to no memory.
                self.read = BytesMut::new();
            }
            if self.fill().await? == 0 {
                return if framing.ends_with_connection() { Ok(None) } else { Err(Unread::Closed) };
            }
        }
    }

    /// Reads more; 0 at the end of the connection. Dropping the future loses nothing.
    async fn fill(&mut self) -> io::Result<usize> {
        // Room is made when there is something to put there.
        self.stream.readable().await?;
        self.read.reserve(self.at_once);
        let read = self.stream.read_buf(&mut self.read).await?;
        self.at_once = if read >= self.at_once { READ.1 } else { READ.0 };
        Ok(read)
    }
}
