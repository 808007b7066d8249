//! A connection on which the test writes every byte: for what no client library would send.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

/// A connection.
pub(crate) struct Raw {
    stream: TcpStream,
    address: SocketAddr,
    read: Vec<u8>,
}

/// A response as it was read.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// By name in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|problem| panic!("{problem}: {self:?}"))
    }
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await.expect("a gateway that listens");
        stream.set_nodelay(true).expect("a socket that takes options");
        Self { stream, address, read: Vec::new() }
    }

    /// The head of a POST, its length and the blank line left out.
    pub(crate) fn head(&self) -> String {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n",
            self.address
        )
    }

    /// Writes all of it, or as much as the gateway takes before it closes the connection.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within(self.stream.write_all(bytes.as_ref())).await;
    }

    /// The next response, whatever frames its body.
    pub(crate) async fn response(&mut self) -> Response {
        let head = self.take_past(b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("an ASCII head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut response = Response { status: status.expect("a status"), headers, body: Vec::new() };
        let length = response.header("content-length").parse::<usize>().ok();
        response.body = match length {
            Some(length) => self.take(length).await,
            None if response.header("transfer-encoding") == "chunked" => self.chunks().await,
            None if matches!(response.status, 100 | 204) => Vec::new(),
            None => self.rest().await,
        };
        response
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = self.take_past(b"\r\n").await;
            let size = std::str::from_utf8(&size).expect("an ASCII size").trim();
            let size = usize::from_str_radix(size, 16).expect("a size in hex");
            body.extend(self.take(size).await);
            self.take_past(b"\r\n").await;
            if size == 0 {
                return body;
            }
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more().await, "the connection ended within a body: {:?}", self.text());
        }
        self.read.drain(..length).collect()
    }

    async fn take_past(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|bytes| bytes == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.more().await, "the connection ended before {end:?}: {:?}", self.text());
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads on. False at the end, however it came.
    async fn more(&mut self) -> bool {
        matches!(within(self.stream.read_buf(&mut self.read)).await, Ok(1..))
    }
}
