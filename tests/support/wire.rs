//! HTTP over a connection that the test made, be it TLS or not.

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, within};

async fn whole(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = within(body.collect()).await.expect("a whole body").to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

/// Sends one request by HTTP/1.1.
pub(crate) async fn http1<Io>(io: Io, request: Request<Full<Bytes>>) -> Answer
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(io)).await.expect("a connection");
    tokio::spawn(connection);
    whole(within(sender.send_request(request)).await.expect("an answer")).await
}

/// An HTTP/2 connection.
pub(crate) struct Http2(conn::http2::SendRequest<Full<Bytes>>);

impl Http2 {
    pub(crate) async fn over<Io>(io: Io) -> Self
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (sender, connection) = within(handshake).await.expect("a connection");
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request and waits for the head of the answer. Dropped, its stream is reset.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.try_open(request).await.expect("an answer")
    }

    async fn try_open(&self, mut request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let host = request.headers_mut().remove(HOST).expect("a host");
        let uri = format!("http://{}{}", host.to_str().expect("an ASCII host"), request.uri());
        *request.uri_mut() = uri.parse::<Uri>().expect("a URI");
        within(self.0.clone().send_request(request)).await
    }

    /// As [`Self::send`]; nothing where the gateway has said before that it takes no more on this connection.
    pub(crate) async fn send_unless_gone(&self, request: Request<Full<Bytes>>) -> Option<Answer> {
        match self.try_open(request).await {
            Ok(response) => Some(whole(response).await),
            Err(problem) if problem.is_canceled() => None,
            Err(problem) => panic!("no answer: {problem:?}"),
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        whole(self.open(request).await).await
    }
}
