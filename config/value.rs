//! What is kept outside the file: secrets, keys, PEM files. None of it is printed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Text that is never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub(crate) Arc<str>);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A session key: 32 bytes, written as base64 or hex. Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct SessionKey(pub(crate) [u8; 32]);

impl SessionKey {
    /// The bytes, for the one place that seals.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key that messages are signed with: 32 bytes, written as base64 or hex. Never printed.
#[derive(Clone, Eq, PartialEq)]
pub struct SigningKey(pub(crate) [u8; 32]);

impl SigningKey {
    /// The bytes, for the one place that signs.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A PEM file as it was when the configuration was loaded, so that a changed file makes a changed configuration.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pem {
    /// Where it was read.
    pub path: PathBuf,
    /// What it held.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("path", &self.path).finish_non_exhaustive()
    }
}
