//! HTTP/2 with one client, which is pingora's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora_core::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp as _};
pub(super) use pingora_core::protocols::http::ServerSession as Session;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use tokio::time::sleep;

use super::Edge;
use super::accept::Stream;
use super::downstream::{Downstream, Gone, RequestHead};
use super::write::Written;

/// One client connection, as pingora drives it.
struct Connection {
    edge: Arc<Edge>,
    options: HttpServerOptions,
    is_late: bool,
    /// Whether a request has begun on it.
    begun: AtomicBool,
}

#[async_trait]
impl HttpServerApp for Connection {
    async fn process_new_http(
        self: &Arc<Self>,
        session: Session,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.begun.store(true, Ordering::Relaxed);
        let parts = session.req_header();
        let head = RequestHead {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            headers: parts.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        };
        let mut downstream = Downstream::Http2(Box::new(session), head);
        let written = self.edge.exchange(&mut downstream, self.is_late).await;
        if let Downstream::Http2(mut session, _) = downstream {
            match written {
                // A client that is gone needs no end.
                Written::Whole => drop(session.finish().await),
                Written::Broken => session.shutdown().await,
            }
        }
        None
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Serves a connection to its end, or until it has been idle from the start: the handshake has no deadline of its own.
pub(super) async fn serve(edge: &Arc<Edge>, stream: Stream, shutdown: &ShutdownWatch, is_late: bool) {
    let idle = edge.world(&edge.gateway.snapshot()).timeout.idle;
    let mut options = HttpServerOptions::default();
    options.h2c = edge.takes_h2c();
    options.h2_idle_timeout = Some(idle);
    let connection = Arc::new(Connection { edge: Arc::clone(edge), options, is_late, begun: AtomicBool::new(false) });
    let idle_from_the_start = async {
        tokio::select! {
            () = sleep(idle) => {}
            () = edge.last_chance() => {}
        }
        if connection.begun.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = connection.process_new(stream, shutdown) => {}
        () = idle_from_the_start => {}
    }
}

/// Begins a reply; `length` of its body, if it is known and not among the headers.
pub(super) async fn begin(
    session: &mut Session,
    status: StatusCode,
    headers: [&[(HeaderName, HeaderValue)]; 2],
    length: Option<usize>,
) -> Result<(), Gone> {
    let mut head = ResponseHeader::build(status, None).map_err(|_| Gone)?;
    for (name, value) in headers.into_iter().flatten() {
        head.insert_header(name.clone(), value.clone()).map_err(|_| Gone)?;
    }
    if let Some(length) = length.filter(|_| status != StatusCode::NO_CONTENT) {
        head.insert_header(CONTENT_LENGTH, length).map_err(|_| Gone)?;
    }
    session.write_response_header(Box::new(head)).await.map_err(|_| Gone)
}
