//! `limits`.

use schemars::JsonSchema;

use super::value::{Name, Number, OrVariable, Pattern, Rate};

/// One limit: which calls it covers, what it counts apart, and a rate or a concurrency cap or both.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Limit {
    /// Its name, unique among limits: in refusals, metrics and logs.
    name: Name,
    /// Patterns for the tools it covers, by public name (`github__search`). Default `["*"]`.
    #[schemars(length(min = 1))]
    tools: Option<Vec<Pattern>>,
    /// Names of the backends it covers. Default: all.
    #[schemars(length(min = 1))]
    backends: Option<Vec<Name>>,
    /// What is counted apart. Default `global`.
    key: Option<OrVariable<Key>>,
    /// Calls in a second, minute, hour or day; this, or `concurrency`, or both. Default: any number.
    rate: Option<Rate>,
    /// Calls at once after a rest; only with `rate`. Default: the number in `rate`.
    burst: Option<OrVariable<Number<1, 1_000_000>>>,
    /// Calls under way at once, each until its stream ends. Default: any number.
    concurrency: Option<OrVariable<Number<1, 1_000_000>>>,
    /// How a refusal looks. Default `tool_error`.
    refusal: Option<OrVariable<Refusal>>,
    /// Keys counted apart; keys beyond share one count. Default 100000.
    max_keys: Option<OrVariable<Number<1, 10_000_000>>>,
}

/// What a limit counts apart.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Key {
    /// Everything together.
    Global,
    /// Each client address, of IPv6 each /64.
    Ip,
    /// Each MCP session; modern clients have none, and are counted by their address.
    Session,
}

/// How a refused call is answered.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Refusal {
    /// HTTP 200 with a tool result that is an error, which an agent reads.
    ToolError,
    /// HTTP 429 with `Retry-After` and a JSON-RPC error.
    Http,
}
