//! Lines of a process's output, up to a length.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What is read at once.
const CHUNK: usize = 16 * 1024;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, its end left out.
    Line(Bytes),
    /// The start of a line that is too long.
    TooLong(Bytes),
}

/// Reads lines.
pub(super) struct Lines<R> {
    source: R,
    read: BytesMut,
    /// What lies before holds no line end.
    seen: usize,
    max: usize,
    /// Whether what comes next is the rest of a line that was too long.
    inside: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(source: R, max: usize) -> Self {
        Self { source, read: BytesMut::new(), seen: 0, max, inside: false }
    }

    /// The next line; `None` at the end. What follows the last line end is a line too. Of one that is too long the start
    /// is given and the rest is passed over. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            self.read.reserve(CHUNK);
            if self.source.read_buf(&mut self.read).await? == 0 {
                let rest = self.read.split().freeze();
                self.seen = 0;
                let is_line = !rest.is_empty() && !std::mem::take(&mut self.inside);
                return Ok(is_line.then_some(Line::Line(rest)));
            }
        }
    }

    fn take(&mut self) -> Option<Line> {
        loop {
            let end = memchr(b'\n', self.read.get(self.seen..).unwrap_or_default()).map(|at| self.seen + at);
            let Some(end) = end else {
                self.seen = self.read.len();
                if self.inside {
                    self.read.clear();
                    self.seen = 0;
                }
                return (self.seen > self.max).then(|| self.cut());
            };
            if end > self.max && !self.inside {
                return Some(self.cut());
            }
            let mut line = self.read.split_to(end).freeze();
            self.read.advance(1);
            self.seen = 0;
            if line.ends_with(b"\r") {
                line.truncate(line.len() - 1);
            }
            if !std::mem::take(&mut self.inside) && !line.is_empty() {
                return Some(Line::Line(line));
            }
        }
    }

    /// Gives the start of a line that is too long.
    fn cut(&mut self) -> Line {
        self.seen = 0;
        self.inside = true;
        Line::TooLong(self.read.split_to(self.max).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &'static [u8], max: usize) -> Vec<Line> {
        let mut lines = Lines::new(text, max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    fn line(text: &'static str) -> Line {
        Line::Line(text.into())
    }

    #[tokio::test]
    async fn lines_end_in_either_way_and_empty_ones_are_none() {
        let lines = all(b"a\r\nb\n\n\r\n c \nd", 10).await;

        assert_eq!(lines, [line("a"), line("b"), line(" c "), line("d")]);
    }

    #[tokio::test]
    async fn of_a_line_that_is_too_long_only_the_start_is_given() {
        let lines = all(b"1234\n12345\n12345678901234567890\n1\n12345", 4).await;

        let cut = || Line::TooLong("1234".into());
        assert_eq!(lines, [line("1234"), cut(), cut(), line("1"), cut()]);
    }

    #[tokio::test]
    async fn a_line_may_come_in_pieces() {
        let (mut writer, reader) = tokio::io::duplex(1);
        let mut lines = Lines::new(reader, 100);

        let writing = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"{\"a\":1}\r\n{}").await.unwrap();
            drop(writer);
        };
        let ((), first) = tokio::join!(writing, async { [lines.next().await.unwrap(), lines.next().await.unwrap()] });

        assert_eq!(first, [Some(line("{\"a\":1}")), Some(line("{}"))]);
    }
}
