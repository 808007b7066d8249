//! `webhook`: who is told of changes in what backends offer.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{BackendName, Timeout};
use crate::reach::Remote;
use crate::value::SigningKey;

/// How long a message may take when `timeout` is not given.
pub const DEFAULT_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the same change is not told again when `repeat` is not given.
pub const DEFAULT_WEBHOOK_REPEAT: Duration = Duration::from_secs(15 * 60);

/// A server that is told of changes in what backends offer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Webhook {
    /// Where messages are posted: one URL.
    pub remote: Remote,
    /// What each message is signed with.
    pub secret: SigningKey,
    /// For one try of one message. Default 10 s.
    pub timeout: Timeout,
    /// The same change is told once in this long. Default 15 min.
    pub repeat: Duration,
}

impl Webhook {
    /// What errors call it: no backend can have this name.
    pub fn label() -> BackendName {
        BackendName(Arc::from("(webhook)"))
    }
}
