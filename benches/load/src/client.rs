//! The client: connections that are kept, sessions of either era, and a look at every answer.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock;
use crate::mcp::{self, Era, Request, Work, integer, member};
use crate::wire::{Reader, Response};

/// Where to a client connects, and what it speaks there.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) era: Era,
    /// TLS and HTTP/2 instead of HTTP/1.1.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// What every call of a client asks for.
#[derive(Clone)]
pub(crate) enum Ask {
    /// A call of the tool whose public name ends so: a gateway puts its backend's name before it.
    Call { tool: String, work: Work },
    /// The whole list.
    List,
    /// A file of so many bytes, by GET.
    File { path: String, bytes: usize },
}

/// One client: a connection, a session, and the request that it repeats.
pub(crate) struct Client {
    connection: Connection,
    request: Prepared,
    expected: Expected,
    body: Body,
}

struct Prepared {
    request: Request,
    wire: Vec<u8>,
    id_at: usize,
}

struct Expected {
    bytes: usize,
    events: usize,
    /// Whether the answer carries the request's id; a file does not.
    id: bool,
}

impl Client {
    /// Connects, opens a session where there are any, and gets its request ready.
    pub(crate) async fn open(target: &Target, ask: &Ask) -> Result<Self> {
        let mut connection = Connection::open(target).await?;
        if let Ask::File { path, bytes } = ask {
            let mut wire = mcp::head("GET", &target.address.to_string(), path, &[]);
            wire.extend_from_slice(b"\r\n");
            let request = Prepared { request: Request::new(target.era, None, "", "{}"), wire, id_at: usize::MAX };
            let expected = Expected { bytes: *bytes, events: 0, id: false };
            return Ok(Self { connection, request, expected, body: Body::default() });
        }
        let session = handshake(&mut connection, target).await?;
        let (request, expected) = match ask {
            Ask::Call { tool, work } => {
                let request = Request::call(target.era, session.as_deref(), tool, *work);
                (request, Expected { bytes: work.bytes, events: work.events, id: true })
            }
            Ask::List | Ask::File { .. } => {
                let request = Request::new(target.era, session.as_deref(), "tools/list", "{}");
                (request, Expected { bytes: 0, events: 0, id: true })
            }
        };
        Ok(Self { request: Prepared::new(request, target), connection, expected, body: Body::default() })
    }

    /// Asks once more. Everything but the answer that was asked for is an error.
    pub(crate) async fn ask(&mut self, n: u64) -> Result<&Body> {
        let id = mcp::id(n);
        let response = self.connection.send(&mut self.request, id, &mut self.body).await?;
        let body = &self.body;
        ensure!(response.status == 200, "HTTP {}: {}", response.status, excerpt(&body.bytes));
        ensure!(body.bytes.len() >= self.expected.bytes, "{} bytes are too few", body.bytes.len());
        if response.events && self.expected.events > 0 {
            let (found, expected) = (body.delays.len(), self.expected.events);
            ensure!(found == expected, "{found} events of {expected}: {}", excerpt(&body.bytes));
        }
        ensure!(response.events || self.expected.events == 0, "no stream of events");
        if self.expected.id {
            check(&body.bytes, id)?;
        }
        Ok(&self.body)
    }
}

/// A response to this id, with a result that is no error.
fn check(body: &[u8], id: u64) -> Result<()> {
    ensure!(integer(body, "\"id\"") == Some(id), "another id: {}", excerpt(body));
    ensure!(member(body, "\"result\"").is_some(), "no result: {}", excerpt(body));
    let (head, tail) = (&body[..body.len().min(512)], &body[body.len().saturating_sub(512)..]);
    let failed =
        [head, tail].iter().any(|part| member(part, "\"isError\"").is_some_and(|value| value.starts_with(b"true")));
    ensure!(!failed, "a tool's error: {}", excerpt(body));
    Ok(())
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(160)]).into_owned()
}

/// A legacy session on this connection; a modern client has none.
async fn handshake(connection: &mut Connection, target: &Target) -> Result<Option<String>> {
    if target.era == Era::Modern {
        return Ok(None);
    }
    let mut body = Body::default();
    let mut request = Prepared::new(Request::initialize(), target);
    let response = connection.send(&mut request, mcp::id(0), &mut body).await?;
    ensure!(response.status == 200, "initialize: HTTP {}: {}", response.status, excerpt(&body.bytes));
    check(&body.bytes, mcp::id(0)).context("initialize")?;
    let mut request = Prepared::new(Request::initialized(response.session.as_deref()), target);
    let answer = connection.send(&mut request, 0, &mut body).await?;
    ensure!((200..300).contains(&answer.status), "initialized: HTTP {}: {}", answer.status, excerpt(&body.bytes));
    Ok(response.session)
}

/// The public names of the tools.
pub(crate) async fn tools(target: &Target) -> Result<Vec<String>> {
    let mut client = Client::open(target, &Ask::List).await?;
    let body = client.ask(1).await?;
    let text = String::from_utf8_lossy(&body.bytes);
    let json = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
    let message: serde_json::Value = serde_json::from_str(json.trim())?;
    let listed = message["result"]["tools"].as_array().context("no tools")?;
    Ok(listed.iter().filter_map(|tool| tool["name"].as_str()).map(str::to_owned).collect())
}

/// How many lists the backend at this port, and its neighbours, were asked for.
pub(crate) async fn lists_seen(port: u16) -> Result<u64> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    socket.write_all(b"GET /stats HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let (mut reader, mut body) = (Reader::new(), Vec::new());
    reader.response(&mut socket).await?;
    reader.whole(&mut socket, &mut body).await?;
    integer(&body, "\"lists\"").context("no count of lists")
}

/// The first answer to `initialize`, on a connection of its own.
pub(crate) async fn initialize(target: &Target) -> Result<()> {
    let mut connection = Connection::open(target).await?;
    let mut body = Body::default();
    let mut request = Prepared::new(Request::initialize(), target);
    let response = connection.send(&mut request, mcp::id(0), &mut body).await?;
    ensure!(response.status == 200, "HTTP {}", response.status);
    check(&body.bytes, mcp::id(0))
}

/// A connection on which sessions are opened, one after the other, that nobody uses any more.
pub(crate) struct Opener {
    connection: Connection,
    target: Target,
}

impl Opener {
    pub(crate) async fn new(target: &Target) -> Result<Self> {
        Ok(Self { connection: Connection::open(target).await?, target: target.clone() })
    }

    pub(crate) async fn session(&mut self) -> Result<Option<String>> {
        handshake(&mut self.connection, &self.target).await
    }
}

/// An event stream on which nothing happens. Dropped, its client has left.
pub(crate) struct Idle {
    _socket: TcpStream,
}

impl Idle {
    /// Waits for the stream's head.
    pub(crate) async fn open(target: &Target, session: Option<&str>) -> Result<Self> {
        let mut socket = TcpStream::connect(target.address).await?;
        let authority = target.address.to_string();
        let wire = match target.era {
            Era::Legacy => {
                let mut wire = mcp::head("GET", &authority, &target.path, &Request::stream(session));
                wire.extend_from_slice(b"\r\n");
                wire
            }
            Era::Modern => {
                let params = r#"{"notifications":{"toolsListChanged":true}}"#;
                Request::new(Era::Modern, None, "subscriptions/listen", params).http1(&authority, &target.path).0
            }
        };
        socket.write_all(&wire).await?;
        let mut reader = Reader::new();
        let response = reader.response(&mut socket).await?;
        ensure!(response.status == 200, "a stream is answered with HTTP {}", response.status);
        ensure!(response.events, "what should be a stream is none");
        Ok(Self { _socket: socket })
    }
}

/// The bytes of an answer, and how late each of its events came.
#[derive(Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    /// Nanoseconds from when the backend wrote an event to when it was here, in order.
    pub(crate) delays: Vec<u64>,
    looked_at: usize,
}

impl Body {
    fn clear(&mut self) {
        self.bytes.clear();
        self.delays.clear();
        self.looked_at = 0;
    }

    fn take(&mut self, piece: &[u8], events: bool) {
        self.bytes.extend_from_slice(piece);
        if events {
            self.look(clock::now());
        }
    }

    /// Looks at the events that are whole by now.
    fn look(&mut self, now: u64) {
        while let Some(length) = memchr::memmem::find(&self.bytes[self.looked_at..], b"\n\n") {
            let end = self.looked_at + length + 2;
            if let Some(at) = integer(&self.bytes[self.looked_at..end], "\"at\"") {
                self.delays.push(now.saturating_sub(at));
            }
            self.looked_at = end;
        }
    }
}

impl Prepared {
    fn new(request: Request, target: &Target) -> Self {
        let (wire, id_at) = request.http1(&target.address.to_string(), &target.path);
        Self { request, wire, id_at }
    }
}

enum Connection {
    Http1 { socket: TcpStream, reader: Reader },
    Http2 { sender: h2::client::SendRequest<Bytes>, uri: http::Uri },
}

impl Connection {
    async fn open(target: &Target) -> Result<Self> {
        let socket = TcpStream::connect(target.address).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &target.tls else { return Ok(Self::Http1 { socket, reader: Reader::new() }) };
        let name = ServerName::try_from("localhost")?;
        let socket = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await?;
        ensure!(socket.get_ref().1.alpn_protocol() == Some(b"h2"), "no HTTP/2");
        let window = 4 << 20;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window);
        let (sender, connection) = builder.handshake(socket).await?;
        tokio::spawn(connection);
        let uri = format!("https://localhost:{}{}", target.address.port(), target.path).parse()?;
        Ok(Self::Http2 { sender, uri })
    }

    async fn send(&mut self, prepared: &mut Prepared, id: u64, body: &mut Body) -> Result<Response> {
        body.clear();
        match self {
            Self::Http1 { socket, reader } => {
                mcp::number(&mut prepared.wire, prepared.id_at, id);
                socket.write_all(&prepared.wire).await?;
                let response = reader.response(socket).await?;
                while let Some(piece) = reader.piece(socket).await? {
                    body.take(&piece, response.events);
                }
                Ok(response)
            }
            Self::Http2 { sender, uri } => send_h2(sender, uri, &prepared.request, id, body).await,
        }
    }
}

async fn send_h2(
    sender: &h2::client::SendRequest<Bytes>,
    uri: &http::Uri,
    request: &Request,
    id: u64,
    body: &mut Body,
) -> Result<Response> {
    let mut bytes = Bytes::from(request.body(id));
    let mut head = http::Request::post(uri.clone()).header("content-length", bytes.len());
    for (name, value) in &request.headers {
        head = head.header(*name, value);
    }
    let mut ready = sender.clone().ready().await?;
    let (answer, mut stream) = ready.send_request(head.body(())?, false)?;
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.context("the stream was closed")??;
        let piece = bytes.split_to(room.min(bytes.len()));
        stream.send_data(piece, bytes.is_empty())?;
    }
    let answer = answer.await?;
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let response = Response {
        status: answer.status().as_u16(),
        events: header("content-type").is_some_and(|media| media.starts_with("text/event-stream")),
        session: header("mcp-session-id").map(str::to_owned),
    };
    let mut pieces = answer.into_body();
    while let Some(piece) = pieces.data().await {
        let piece = piece?;
        pieces.flow_control().release_capacity(piece.len())?;
        body.take(&piece, response.events);
    }
    if body.bytes.is_empty() && response.status == 200 {
        bail!("an empty answer");
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_never_taken_for_an_answer() {
        let id = mcp::id(1);
        let good = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        let tool_error = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"isError": true}}}}"#);
        let rpc_error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{}}}}"#);

        assert!(check(good.as_bytes(), id).is_ok());
        assert!(check(good.as_bytes(), id + 1).is_err());
        assert!(check(tool_error.as_bytes(), id).is_err());
        assert!(check(rpc_error.as_bytes(), id).is_err());
    }

    #[test]
    fn events_are_timed_when_they_are_whole() {
        let mut body = Body::default();
        body.bytes.extend_from_slice(b"data: {\"at\":100}\n\ndata: {\"at\":");
        body.look(150);
        body.bytes.extend_from_slice(b"160}\n\n");
        body.look(170);

        assert_eq!(body.delays, [50, 10]);
    }
}
