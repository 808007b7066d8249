//! Reads request bodies: whole, under a cap and a deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::downstream::Downstream;
use super::http1::Unread;
use crate::deadline::within;
use crate::error::{Error, MaxBytes};

/// How much of a body that was refused is read and thrown away, and for how long, so that the client gets to read why.
const LINGER: (usize, Duration) = (8 * 1024 * 1024, Duration::from_secs(1));

/// What is known of a body before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    /// `Content-Length`.
    pub(super) length: Option<u64>,
    /// Whether the client waits to be told to go on.
    pub(super) expects: bool,
}

/// Reads the body whole.
pub(super) async fn read(
    downstream: &mut Downstream,
    announced: Announced,
    max: MaxBytes,
    deadline: Duration,
) -> Result<Bytes, Error> {
    if announced.length.is_some_and(|length| length > max.bytes as u64) {
        return Err(Error::BodyTooLarge { max });
    }
    if announced.expects {
        downstream.go_on().await.map_err(|_| Error::ClientClosed)?;
    }
    within(deadline, collect(downstream, max)).await.unwrap_or(Err(Error::BodyTimeout { deadline }))
}

async fn collect(downstream: &mut Downstream, max: MaxBytes) -> Result<Bytes, Error> {
    let mut whole = BytesMut::new();
    let mut first: Option<Bytes> = None;
    while let Some(chunk) = downstream.body(max.bytes as u64).await.map_err(unread)? {
        let so_far = first.as_ref().map_or(whole.len(), Bytes::len);
        if so_far + chunk.len() > max.bytes {
            return Err(Error::BodyTooLarge { max });
        }
        // Most bodies come in one piece, which is then not copied.
        match first.take() {
            None if whole.is_empty() => first = Some(chunk),
            earlier => {
                whole.extend_from_slice(&earlier.unwrap_or_default());
                whole.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}

fn unread(why: Unread) -> Error {
    match why {
        Unread::Closed => Error::ClientClosed,
        Unread::Malformed | Unread::TooLarge | Unread::TooMany => {
            Error::HttpMalformed { problem: "the chunks of the body are not valid HTTP".into(), too_large: false }
        }
    }
}

/// Reads what a client still sends after it was refused.
pub(super) async fn linger(downstream: &mut Downstream) {
    let (most, longest) = LINGER;
    let reading = async {
        let mut read = 0;
        while let Ok(Some(chunk)) = downstream.body(0).await {
            read += chunk.len();
            if read >= most {
                break;
            }
        }
    };
    let _ = timeout(longest, reading).await;
}
