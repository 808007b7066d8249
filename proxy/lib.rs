//! Toolgate: a reverse proxy that puts many MCP servers behind one URL.
//!
//! # Life of a request
//!
//! A listener ([`app`](App), TCP or TLS by rustls, HTTP/1.1 or 2) hands a connection to `server`, the downstream edge. It
//! reads the head, applies MCP's HTTP rules (path, `Host`, `Origin`, verb, types) and reads the body under its cap and its
//! deadline. `dispatch` takes over: `jsonrpc` borrows an envelope from the body (id, method, and just enough of `params` to
//! find a name), `era` says which era the message belongs to and whether headers and body agree, `session` finds a legacy
//! client's session, and the method's row in `method::METHODS` says which of four verbs it is; what has no row ends here.
//!
//! ```text
//!                    ┌ answer     the gateway itself      initialize, server/discover, subscriptions/listen
//!  client ── server ─┤ merge      all backends' lists     tools/list, prompts/list, resources/list
//!            dispatch│ route      the one that owns it    tools/call, prompts/get, resources/read, completion/complete
//!                    └ broadcast  all the session used    logging/setLevel
//! ```
//!
//! A request takes the current `snapshot` once and keeps it to its end, streams included: a reload swaps the world for those
//! that come after. A routed request finds its backend by looking a public name up, whole, in the `catalog`, or whose
//! resource it is; a call gets a place among the backend's requests under way (a backend that is down refuses here) and is
//! admitted by every `limit` that covers it or by none. `route` sends it on, in one of four ways:
//!
//! ```text
//!                    legacy backend                           modern backend
//!  legacy client     the client's own session; relay          bridge::to_modern
//!  modern client     bridge::to_legacy                        as it came; relay
//! ```
//!
//! Within an era the backend's own name is spliced into the body (and into `Mcp-Name`), every other byte stays as it came, and
//! `relay` passes the answer on as it arrives; a backend's own JSON-RPC error passes untouched, for to a proxy it is an
//! answer. What a legacy backend asks on the way goes to the client under an id of the gateway's, and the client's answer back
//! to it (`bridge::question`). Across eras `bridge` makes request and answer over, message by message. When the last byte is
//! out or the client has left, everything the call held is dropped (its place, its permit, its connection) and one `record` is
//! counted and logged, and ends the request's span where it is traced (`trace`).
//!
//! `news` has the streams that say what was not asked for: a legacy session's GET stream and a modern client's
//! `subscriptions/listen`. Beside all this run three loops, and none of them is on the request path: `health::probe`,
//! `catalog::refresh` (which also finds out what a backend speaks, `backend::era`), `reload`.
//!
//! # Words
//!
//! * *downstream*, *upstream*: the client's side, the backend's side
//! * *backend*: one configured MCP server; *transport*: how bytes reach it; *endpoint*: one of its replicas
//! * *pipe*: a transport that carries messages of many requests at once: a process, or a stream of HTTP+SSE
//! * *era*: legacy (up to 2025-11-25) or modern (2026-07-28 on)
//! * *session*: an MCP session; a client's is a sealed token, a backend's is opened when first needed
//! * *leg*: one client session's side of one backend
//! * *envelope*: what a modern request says of its client, in `_meta` and headers
//! * *parked*: of a call that waits for its client's input
//! * *catalog*: the merged public names; *route*: where one goes
//! * *permit*: an admission, held until dropped
//! * *probe*: one active check of a backend
//! * *snapshot*: the immutable world of one request
//!
//! # Embedding
//!
//! Another program runs the gateway by building it from a configuration, starting it and stopping it:
//!
//! ```
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let yaml = "
//! listeners: [{ address: '127.0.0.1:0' }]
//! admin: { address: '127.0.0.1:0' }
//! backends: [{ name: files, url: 'http://127.0.0.1:3001/mcp' }]
//! drain: { delay: 0s }
//! ";
//! let config = toolgate_config::parse(Path::new("embedded.yaml"), yaml, &|name| std::env::var(name).ok())?;
//! let app = toolgate::App::bind(config)?;
//!
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let gateway = app.start()?;
//!     println!("MCP at http://{}/mcp", gateway.addresses()[0]);
//!     // … later, from anywhere: `gateway.reload(other_config).await`
//!     gateway.stop().await;
//!     Ok(())
//! })
//! # }
//! ```

/// The commit that this was built of, where whoever built it said so by `TOOLGATE_COMMIT`.
pub(crate) const COMMIT: Option<&str> = option_env!("TOOLGATE_COMMIT");

// In the order of the request.
mod app;
mod server;
mod dispatch;
mod jsonrpc;
mod era;
mod route;
mod bridge;
mod session;
mod method;
mod snapshot;
mod gateway;
mod underway;
mod catalog;
mod limit;
mod health;
mod backend;
mod clock;
mod deadline;
mod fields;
mod framing;
mod relay;
mod scan;
mod news;
mod batch;
mod reply;
mod error;
mod recent;
mod payload;
mod record;
mod trace;
mod metrics;

// Beside it.
mod admin;
pub mod cli;
mod demo;
mod difference;
mod log;
mod reload;
mod seal;
mod tls;
mod upgrade;

#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
#[doc(hidden)]
pub mod fuzzing;

pub use app::{App, Running, StartError};
pub use reload::Outcome;
