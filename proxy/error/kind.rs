//! How a request ended, and whose doing it was: closed sets, for metrics and logs.

/// Whose doing an error is: decides the log level, and who is blamed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Downstream,
    Internal,
    Upstream,
}

/// The closed set of outcomes a request can have: metric label and log field.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// Answered with a result.
    Ok,
    /// A tool's own failure: a result with `isError: true`.
    ToolError,
    /// A JSON-RPC error, the backend's or ours about the message.
    RpcError,
    /// Refused by a limit.
    Limited,
    /// A request that breaks HTTP's or MCP's rules.
    Invalid,
    /// Refused because of where it came from or goes to.
    Denied,
    /// A backend that is down, unreachable or too busy: nothing was sent.
    Unavailable,
    /// A backend that failed while answering.
    UpstreamError,
    /// A backend that was too slow.
    Timeout,
    /// A client that left.
    ClientClosed,
    /// Ours.
    Internal,
}

impl Kind {
    /// Every kind, in declaration order.
    pub(crate) const ALL: [Self; 11] = [
        Self::Ok,
        Self::ToolError,
        Self::RpcError,
        Self::Limited,
        Self::Invalid,
        Self::Denied,
        Self::Unavailable,
        Self::UpstreamError,
        Self::Timeout,
        Self::ClientClosed,
        Self::Internal,
    ];

    /// The label value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::RpcError => "rpc_error",
            Self::Limited => "limited",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::ClientClosed => "client_closed",
            Self::Internal => "internal",
        }
    }
}
