//! The backend: an MCP server that does as little as a server can, so that what is measured is what stands before it.
//!
//! It speaks both eras, takes any session for one of its own, and does what a call's arguments say: `bytes` of answer, or
//! `events` of it, after `delay_ms`. How many tools it lists stands in the path (`/tools-100/mcp`); each of them does the
//! same. `GET /stats` says what it was asked for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::clock;
use crate::mcp::{LEGACY, MODERN, integer, member};
use crate::wire::{Reader, Request, Verb};

/// Between two events of a stream. The timer is no finer.
const GAP: Duration = Duration::from_millis(1);
/// The largest answer.
const MOST: usize = 32 << 20;

#[derive(Default)]
struct Server {
    calls: AtomicU64,
    lists: AtomicU64,
    sessions: AtomicU64,
    streams: AtomicU64,
    /// Ready-made lists, by number of tools.
    listed: Mutex<HashMap<usize, Bytes>>,
    fill: Vec<u8>,
}

/// Serves on so many free ports and prints them, until killed.
pub(crate) async fn run(ports: usize) -> Result<()> {
    let server = Arc::new(Server { fill: vec![b'x'; MOST], ..Server::default() });
    let mut line = Vec::new();
    for _ in 0..ports {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(4096)?;
        line.push(listener.local_addr()?.port().to_string());
        tokio::spawn(accept(listener, Arc::clone(&server)));
    }
    println!("{}", line.join(" "));
    std::future::pending().await
}

async fn accept(listener: TcpListener, server: Arc<Server>) {
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            let server = Arc::clone(&server);
            // A peer that breaks off or sends what is no HTTP loses its connection, and will say so.
            tokio::spawn(async move { server.serve(socket).await });
        }
    }
}

impl Server {
    async fn serve(&self, mut socket: TcpStream) -> Result<()> {
        let (mut reader, mut body, mut out) = (Reader::new(), Vec::new(), Vec::new());
        while let Some(request) = reader.request(&mut socket).await? {
            body.clear();
            reader.whole(&mut socket, &mut body).await?;
            match request.verb {
                Verb::Post => self.post(&mut socket, &request, &body, &mut out).await?,
                Verb::Get if request.path == "/stats" => {
                    whole(&mut socket, &mut out, "", self.stats().as_bytes()).await?
                }
                Verb::Get => self.stream(&mut socket, &mut reader, ": here\n\n").await?,
                Verb::Delete => whole(&mut socket, &mut out, "", b"").await?,
            }
        }
        Ok(())
    }

    async fn post(&self, socket: &mut TcpStream, request: &Request, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let method = member(body, "\"method\"").unwrap_or_default();
        if method.starts_with(b"\"tools/call\"") {
            self.calls.fetch_add(1, Ordering::Relaxed);
            return self.call(socket, request, body, out).await;
        }
        let message: Value = serde_json::from_slice(body)?;
        let Some(id) = message.get("id") else {
            socket.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
            return Ok(());
        };
        match message["method"].as_str().unwrap_or_default() {
            "initialize" => {
                let session = self.sessions.fetch_add(1, Ordering::Relaxed);
                let header = format!("mcp-session-id: {session:032x}\r\n");
                whole(socket, out, &header, response(id, &initialized(&message), false).as_bytes()).await
            }
            "server/discover" => whole(socket, out, "", response(id, &discovered(), true).as_bytes()).await,
            "subscriptions/listen" => self.listen(socket, id, &message).await,
            "tools/list" => {
                self.lists.fetch_add(1, Ordering::Relaxed);
                let tools = self.tools(count(&request.path));
                let modern = if request.modern { MODERN_LIST } else { "" };
                let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{modern}\"tools\":[");
                let body = [head.as_bytes(), &tools, b"]}}"].concat();
                whole(socket, out, "", &body).await
            }
            "ping" | "logging/setLevel" => whole(socket, out, "", response(id, &json!({}), false).as_bytes()).await,
            _ => whole(socket, out, "", unknown(id).as_bytes()).await,
        }
    }

    async fn call(&self, socket: &mut TcpStream, request: &Request, body: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let id = integer(body, "\"id\"").unwrap_or_default();
        let argument = |quoted| integer(body, quoted).and_then(|value| usize::try_from(value).ok()).unwrap_or_default();
        let delay = argument("\"delay_ms\"");
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay as u64)).await;
        }
        let events = argument("\"events\"");
        if events > 0 {
            return stream_of_events(socket, id, events, request.modern).await;
        }
        let kind = if request.modern { "\"resultType\":\"complete\"," } else { "" };
        let head = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{kind}\"content\":[{{\"type\":\"text\",\"text\":\""
        );
        let tail = "\"}]}}";
        let fill = argument("\"bytes\"").saturating_sub(head.len() + tail.len()).min(MOST);
        out.clear();
        out.extend_from_slice(begin("application/json", head.len() + fill + tail.len()).as_bytes());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.fill[..fill]);
        out.extend_from_slice(tail.as_bytes());
        socket.write_all(out).await?;
        Ok(())
    }

    async fn listen(&self, socket: &mut TcpStream, id: &Value, message: &Value) -> Result<()> {
        let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
        let params = json!({ "_meta": meta, "notifications": message["params"]["notifications"] });
        let method = "notifications/subscriptions/acknowledged";
        let first = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.stream(socket, &mut Reader::new(), &format!("event: message\ndata: {first}\n\n")).await
    }

    /// A stream that says one thing, and then nothing until the peer leaves.
    async fn stream(&self, socket: &mut TcpStream, reader: &mut Reader, first: &str) -> Result<()> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        socket.write_all(format!("{STREAM}{}", chunk(first)).as_bytes()).await?;
        let _ = reader.request(socket).await;
        self.streams.fetch_sub(1, Ordering::Relaxed);
        anyhow::bail!("the stream's connection is over with it")
    }

    /// Definitions, with commas between them.
    fn tools(&self, count: usize) -> Bytes {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed.entry(count).or_insert_with(|| definitions(count).into()).clone()
    }

    fn stats(&self) -> String {
        let [calls, lists, sessions, streams] =
            [&self.calls, &self.lists, &self.sessions, &self.streams].map(|count| count.load(Ordering::Relaxed));
        json!({ "calls": calls, "lists": lists, "sessions": sessions, "streams": streams }).to_string()
    }
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                      transfer-encoding: chunked\r\n\r\n";
const MODERN_LIST: &str = "\"resultType\":\"complete\",\"ttlMs\":60000,\"cacheScope\":\"public\",";

/// Progress, event by event, each with the time at which it left; the last is the response.
async fn stream_of_events(socket: &mut TcpStream, id: u64, events: usize, modern: bool) -> Result<()> {
    socket.write_all(STREAM.as_bytes()).await?;
    let kind = if modern { "\"resultType\":\"complete\"," } else { "" };
    for n in 1..=events {
        if n > 1 {
            tokio::time::sleep(GAP).await;
        }
        let at = clock::now();
        let message = if n < events {
            let params = format!("{{\"progressToken\":\"t\",\"progress\":{n},\"at\":{at}}}");
            format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{params}}}")
        } else {
            let content = "[{\"type\":\"text\",\"text\":\"done\"}]";
            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{kind}\"content\":{content},\"at\":{at}}}}}")
        };
        let mut bytes = chunk(&format!("event: message\ndata: {message}\n\n"));
        if n == events {
            bytes.push_str("0\r\n\r\n");
        }
        socket.write_all(bytes.as_bytes()).await?;
    }
    Ok(())
}

async fn whole(socket: &mut TcpStream, out: &mut Vec<u8>, headers: &str, body: &[u8]) -> Result<()> {
    let head = begin("application/json", body.len());
    out.clear();
    out.extend_from_slice(head.trim_end().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    socket.write_all(out).await?;
    Ok(())
}

fn begin(media_type: &str, length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n")
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn response(id: &Value, result: &Value, modern: bool) -> String {
    let mut result = result.clone();
    if modern {
        result["resultType"] = json!("complete");
    }
    json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
}

fn unknown(id: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "Method not found" } }).to_string()
}

fn initialized(message: &Value) -> Value {
    let version = message["params"]["protocolVersion"].as_str().unwrap_or(LEGACY);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": { "listChanged": true } },
        "serverInfo": { "name": "load", "version": "1" },
    })
}

fn discovered() -> Value {
    json!({
        "supportedVersions": [MODERN],
        "capabilities": { "tools": { "listChanged": true } },
        "ttlMs": 60000,
        "cacheScope": "public",
        "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "load", "version": "1" } },
    })
}

/// How many tools a path asks for. One, unless it says so.
fn count(path: &str) -> usize {
    let named = path.split('/').find_map(|part| part.strip_prefix("tools-"));
    named.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// The name of the n-th tool.
pub(crate) fn tool(n: usize) -> String {
    format!("tool_{n}")
}

fn definitions(count: usize) -> String {
    let schema = r#"{"type":"object","properties":{"bytes":{"type":"integer"},"events":{"type":"integer"},"delay_ms":{"type":"integer"},"fill":{"type":"string"}},"required":["bytes"]}"#;
    let one = |n| {
        format!(r#"{{"name":"{}","description":"Answers with what it is asked for.","inputSchema":{schema}}}"#, tool(n))
    };
    (0..count).map(one).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_how_many_tools_there_are() {
        assert_eq!((count("/mcp"), count("/tools-1000/mcp")), (1, 1000));
        let tools: Vec<Value> = serde_json::from_str(&format!("[{}]", definitions(3))).expect("JSON");
        assert_eq!(tools[2]["name"], tool(2));
    }
}
