//! `limits`: how often, and how many at once, tools may be called.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::backend::BackendName;
use crate::tool::Pattern;

/// Distinct keys one limit keeps count of when `max_keys` is not given.
pub const DEFAULT_MAX_KEYS: u32 = 100_000;

/// One limit: a selector, a key, and a rate or a concurrency cap or both.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limit {
    /// Its name, unique; in refusals, metrics and logs.
    pub name: String,
    /// Public tool names it covers. Default `["*"]`.
    pub tools: Vec<Pattern>,
    /// Backends it covers; all when empty. Each one exists.
    pub backends: Vec<BackendName>,
    /// What is counted apart. Default `global`.
    pub key: Key,
    /// Calls per time.
    pub rate: Option<Rate>,
    /// Calls under way at once, until their streams end.
    pub concurrency: Option<NonZeroU32>,
    /// How a refusal looks. Default `tool_error`.
    pub refusal: Refusal,
    /// Distinct keys counted apart; keys beyond share one cell. Default 100,000.
    pub max_keys: u32,
}

/// What a limit counts apart.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Key {
    /// Everything together.
    #[default]
    Global,
    /// Each client address (IPv6: each /64).
    Ip,
    /// Each MCP session.
    Session,
}

/// `20/s` with its burst.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rate {
    /// Calls in `per`.
    pub count: NonZeroU32,
    /// 1 s, 1 min, 1 h or 1 d.
    pub per: Duration,
    /// Calls at once from rest. Default: `count`.
    pub burst: NonZeroU32,
}

/// How a refused `tools/call` is answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Refusal {
    /// HTTP 200 with a tool result `isError: true`, which an agent reads.
    #[default]
    ToolError,
    /// HTTP 429 with `Retry-After` and a JSON-RPC error.
    Http,
}
