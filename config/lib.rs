//! Toolgate's configuration: one YAML file in, a valid [`Config`] out, or every problem at once.
//!
//! No async, no network. What this crate returns needs no further checks: references are resolved, files are read,
//! defaults are filled in, and nothing is an `Option` where a default exists.
//!
//! Text becomes a tree of nodes with places (`yaml`), which `cross` turns into the model section by section, through
//! typed getters that report what is wrong and go on (`walk`). `schema` describes the same file to editors, and
//! `redact` prints a model back in the file's shape. `reference.yaml` is the manual: every key, at its default.

mod authority;
mod backend;
mod change;
mod cross;
mod diagnostic;
mod expand;
mod grammar;
mod limit;
mod listener;
mod pin;
mod reach;
mod read;
mod redact;
mod runtime;
mod schema;
mod source;
mod suggest;
#[cfg(test)]
mod tests;
mod tool;
mod traces;
mod value;
mod walk;
mod webhook;
mod yaml;

use std::path::{Path, PathBuf};

pub use backend::*;
pub use change::{Change, compare, restart_only};
pub use diagnostic::{Diagnostic, Report};
pub use limit::*;
pub use listener::*;
pub use pin::*;
pub use reach::*;
pub use runtime::*;
pub use tool::{Pattern, Tools};
pub use traces::*;
pub use value::{Pem, Secret, SessionKey, SigningKey};
pub use webhook::*;

/// A whole, valid configuration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// The operator's listener.
    pub admin: Admin,
    /// At least one, in file order, which decides precedence.
    pub backends: Vec<Backend>,
    /// In file order.
    pub limits: Vec<Limit>,
    /// Probing.
    pub health: Health,
    /// The merged tool list.
    pub catalog: Catalog,
    /// Trusted definitions of tools.
    pub pin: Pin,
    /// Who is told of changes in what backends offer, if anybody is.
    pub webhook: Option<Webhook>,
    /// Sessions of legacy clients.
    pub sessions: Sessions,
    /// Crossing eras.
    pub bridge: Bridge,
    /// Logging.
    pub log: Log,
    /// Spans for OpenTelemetry; none are made when absent. Restart-only.
    pub traces: Option<Traces>,
    /// Noticing changes.
    pub reload: Reload,
    /// Stopping.
    pub drain: Drain,
    /// Worker threads; as many as there are processors when absent. Restart-only.
    pub threads: Option<u32>,
    /// Every file this was read from: the YAML itself first, then certificates, keys and secrets.
    pub files: Vec<PathBuf>,
}

/// Reads a configuration from a file and from the environment of this process.
///
/// # Errors
/// Every problem found, sorted by position; a file that cannot be read is one.
pub fn load(path: &Path) -> Result<Config, Report> {
    read::file(path, &|name| std::env::var(name).ok())
}

/// As [`load`], but without the lock file of `pin`, which is about to be made.
///
/// # Errors
/// As [`load`].
pub fn load_unlocked(path: &Path) -> Result<Config, Report> {
    read::file_unlocked(path, &|name| std::env::var(name).ok())
}

/// Reads a configuration from text. `file` is the name used in problems and the folder relative paths start from;
/// `env` looks variables up.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &Path, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Report> {
    read::text(source::Source::new(file, env), text)
}

/// The JSON Schema (draft 2020-12) of the file, for editors.
pub fn schema() -> serde_json::Value {
    schema::schema()
}

impl Config {
    /// The configuration as it runs, defaults filled in, in the file's own shape, for people: secrets are `***`.
    pub fn redacted(&self) -> serde_json::Value {
        redact::config(self)
    }
}
