//! Accepts connections: no more than fit, each with its TLS handshake under a deadline, until the gateway goes down.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::listeners::tls::Acceptor;
pub(super) use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::{Edge, http2};

/// Connections to the operator's listener, or to a demo server, at once.
const OWN_CONNECTIONS: usize = 256;
/// After an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client begins with that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Between two looks at a preface of which only a part has come.
const PEEK_AGAIN: Duration = Duration::from_millis(5);

/// Accepts the connections of one address.
pub(crate) struct Door {
    edge: Arc<Edge>,
    acceptor: Option<Arc<Acceptor>>,
    label: Box<str>,
    open: Arc<Open>,
    stopping: watch::Receiver<bool>,
}

/// Counts open connections.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    closed: Notify,
}

/// One open connection, until dropped.
struct Opened {
    open: Arc<Open>,
    gauge: prometheus::IntGauge,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        self.open.closed.notify_one();
        self.gauge.dec();
    }
}

impl Door {
    /// `stopping` turns true when connections should come to their end.
    pub(crate) fn new(edge: Edge, tls: Option<ServerConfig>, label: &str, stopping: watch::Receiver<bool>) -> Self {
        let acceptor = tls.map(|config| Arc::new(Acceptor::from_server_config(Arc::new(config))));
        Self { edge: Arc::new(edge), acceptor, label: label.into(), open: Arc::default(), stopping }
    }

    /// Runs until nothing is left that a new connection could be of use for.
    pub(crate) async fn accept(self, listener: Arc<TcpListener>) {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one(&listener) => accepted,
                () = self.edge.gateway.until(self.edge.shuts()) => return,
                // Whoever connects from now on is the other process's.
                () = self.edge.gateway.until_handed_over() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.serve(Socket::new(stream, peer, self.edge.head_timeout())),
                Err(cause) => {
                    tracing::warn!(listener = &*self.label, %cause, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next connection, once there is room for it. Until then it waits in the kernel's queue.
    async fn accept_one(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let max = self.edge.max_connections().unwrap_or(OWN_CONNECTIONS);
            self.edge
                .gateway
                .metrics
                .connections_max
                .with_label_values(&[&*self.label])
                .set(max.try_into().unwrap_or(i64::MAX));
            if self.open.count.load(Ordering::Relaxed) < max {
                break;
            }
            self.open.closed.notified().await;
        }
        listener.accept().await
    }

    fn serve(&self, socket: Socket) {
        self.open.count.fetch_add(1, Ordering::Relaxed);
        let gauge = self.edge.gateway.metrics.connections.with_label_values(&[&*self.label]);
        gauge.inc();
        let opened = Opened { open: Arc::clone(&self.open), gauge };
        let (edge, acceptor) = (Arc::clone(&self.edge), self.acceptor.clone());
        let stopping = self.stopping.clone();
        let counted = edge.count();
        let is_late = edge.is_public() && counted.is_none();
        tokio::spawn(async move {
            let _held = (opened, counted);
            let peer = socket.peer;
            let (stream, is_http2): (Stream, bool) = match acceptor {
                None => match edge.speaks_http2(socket).await {
                    Some((socket, is_http2)) => (Box::new(socket), is_http2),
                    None => return,
                },
                Some(acceptor) => match timeout(edge.handshake_timeout(), acceptor.tls_handshake(socket)).await {
                    Ok(Ok(stream)) => {
                        let is_http2 = matches!(stream.selected_alpn_proto(), Some(ALPN::H2));
                        (Box::new(stream), is_http2)
                    }
                    Ok(Err(cause)) => return tracing::debug!(%cause, "TLS handshake failed"),
                    Err(_) => return tracing::debug!("TLS handshake took too long"),
                },
            };
            if is_http2 {
                http2::serve(&edge, stream, &stopping, is_late).await;
            } else {
                edge.http1(stream, peer, is_late).await;
            }
        });
    }
}

/// A client's TCP connection as pingora wants it, without buffers of its own.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    peer: IpAddr,
    /// How long a client may take to show which HTTP it speaks.
    patience: Duration,
    digest: Arc<SocketDigest>,
}

impl Socket {
    fn new(stream: TcpStream, peer: SocketAddr, patience: Duration) -> Self {
        // Replies are flushed when they should leave; Nagle's algorithm would only hold them back.
        let _ = stream.set_nodelay(true);
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(peer)));
        Self { stream, peer: peer.ip(), patience, digest: Arc::new(digest) }
    }

    /// Whether the client speaks HTTP/2 with prior knowledge; nothing when it has left or took too long to show.
    pub(super) async fn speaks_http2(&mut self) -> Option<bool> {
        let mut start = [0; PREFACE.len()];
        self.try_peek(&mut start).await.ok()?;
        Some(start == *PREFACE)
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // The client may be gone already.
        let _ = self.stream.shutdown().await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.stream.as_raw_fd()
    }
}

impl Ssl for Socket {}

#[async_trait]
impl Peek for Socket {
    /// Tells HTTP/2 with prior knowledge from HTTP/1: `buf` is filled only as long as it looks like the former's preface.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let looking = async {
            loop {
                let seen = self.stream.peek(buf).await?;
                if seen == 0 || seen == buf.len() || buf.get(..seen) != PREFACE.get(..seen) {
                    return Ok(true);
                }
                // Part of a preface lies there, so the socket counts as readable: only time tells when the rest has come.
                sleep(PEEK_AGAIN).await;
            }
        };
        timeout(self.patience, looking).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<pingora_core::protocols::raw_connect::ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.digest = Arc::new(digest);
    }
}
