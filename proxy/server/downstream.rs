//! One request of a client and its reply, over either HTTP.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::http1::{Http1, Unread};
use super::http2;
use crate::fields::Fields;

/// The client is gone, or does not read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Gone;

/// The head of a request.
#[derive(Default)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) headers: Fields,
}

/// A client's side of a request.
pub(super) enum Downstream {
    Http1(Box<Http1>),
    Http2(Box<http2::Session>, RequestHead),
}

impl Downstream {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(..))
    }

    /// The head of the request.
    pub(super) fn head(&self) -> &RequestHead {
        match self {
            Self::Http1(http1) => &http1.request,
            Self::Http2(_, head) => head,
        }
    }

    /// The other end of the connection.
    pub(super) fn peer(&self) -> IpAddr {
        match self {
            Self::Http1(http1) => http1.peer,
            Self::Http2(session, _) => {
                let peer = session.client_addr().and_then(|addr| addr.as_inet());
                peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), std::net::SocketAddr::ip)
            }
        }
    }

    /// How long a client may take to read anything of what is written.
    pub(super) fn set_write_timeout(&mut self, limit: Duration) {
        match self {
            Self::Http1(http1) => http1.write_timeout = limit,
            Self::Http2(session, _) => session.set_write_timeout(Some(limit)),
        }
    }

    /// Has the connection closed after this request. Those of HTTP/2 end by themselves.
    pub(super) fn close(&mut self) {
        if let Self::Http1(http1) = self {
            http1.keeps_alive = false;
        }
    }

    /// Whether the connection may be used for another request.
    pub(super) fn keeps_alive(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.keeps_alive && http1.is_body_done(),
            Self::Http2(..) => false,
        }
    }

    /// Whether the request's body was read to its end.
    pub(super) fn is_body_done(&mut self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_body_done(),
            Self::Http2(session, _) => session.is_body_done(),
        }
    }

    /// Tells a client that waits for it to go on with the body.
    pub(super) async fn go_on(&mut self) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => http1.go_on().await,
            Self::Http2(session, _) => session.write_continue_response().await.map_err(|_| Gone),
        }
    }

    /// The next bytes of the request's body; `None` at its end. Where its length is known it comes whole, if it is not longer
    /// than `most`.
    pub(super) async fn body(&mut self, most: u64) -> Result<Option<Bytes>, Unread> {
        match self {
            Self::Http1(http1) => http1.body(most).await,
            Self::Http2(session, _) => session.read_request_body().await.map_err(|_| Unread::Closed),
        }
    }

    /// Completes when the client has left.
    pub(super) async fn left(&mut self) {
        match self {
            Self::Http1(http1) => http1.left().await,
            Self::Http2(session, _) => drop(session.read_body_or_idle(true).await),
        }
    }

    /// Begins a reply; `length` of its body, if it is known and not among the headers.
    pub(super) async fn begin(
        &mut self,
        status: StatusCode,
        headers: [&[(HeaderName, HeaderValue)]; 2],
        length: Option<usize>,
    ) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => {
                http1.begin(status, headers, length);
                Ok(())
            }
            Self::Http2(session, _) => http2::begin(session, status, headers, length).await,
        }
    }

    /// Has what was begun leave, where nothing of the body can go with it yet.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => http1.flush().await,
            Self::Http2(..) => Ok(()),
        }
    }

    /// Writes bytes of the reply's body, and its end with the last of them.
    pub(super) async fn send(&mut self, pieces: &[Bytes], is_last: bool) -> Result<(), Gone> {
        match self {
            Self::Http1(http1) => http1.send(pieces, is_last).await,
            Self::Http2(session, _) => {
                let end = pieces.iter().rposition(|piece| !piece.is_empty());
                for (place, piece) in pieces.iter().enumerate() {
                    if !piece.is_empty() {
                        let is_end = is_last && end == Some(place);
                        session.write_response_body(piece.clone(), is_end).await.map_err(|_| Gone)?;
                    }
                }
                if !is_last || end.is_some() {
                    return Ok(());
                }
                session.write_response_body(Bytes::new(), true).await.map_err(|_| Gone)
            }
        }
    }
}
