//! The steps of a request, each alone, as `benches/micro` repeats them. What they return keeps them from being left out.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::backend::client::Caching;
use crate::backend::sse::Splitter;
use crate::catalog::listing::Listing;
use crate::catalog::{Kind, Merged};
use crate::era::Era;
use crate::gateway::Gateway;
use crate::jsonrpc::{self, Message};
use crate::limit::{self, Caller};
use crate::scan::Scan;

/// The longest event that is looked at.
const MAX_EVENT: usize = 4 << 20;

/// Reads a body as a message.
pub fn parse(body: &[u8]) -> bool {
    jsonrpc::parse(body).is_ok()
}

/// Reads a body and puts a backend's own name, as JSON, in the place of the public one.
pub fn splice(body: &[u8], own_json: &str) -> Option<Bytes> {
    let Ok(Message::Request(request)) = jsonrpc::parse(body) else { return None };
    let span = jsonrpc::span(body, request.params.name?.get())?;
    Some(jsonrpc::splice(body, &[(span, own_json.as_bytes())]))
}

/// Finds out how an answer ended without reading it as JSON.
pub fn scan(answer: &[u8]) -> bool {
    let mut scan = Scan::new();
    scan.push(answer);
    scan.outcome().is_some()
}

/// Takes a stream apart, chunk by chunk, and counts what comes out.
pub fn split(chunks: &[Bytes]) -> usize {
    let mut splitter = Splitter::new(MAX_EVENT);
    let mut pieces = 0;
    for chunk in chunks {
        splitter.push(chunk.clone());
        pieces += std::iter::from_fn(|| splitter.next()).count();
    }
    pieces
}

/// A gateway that was never started, before backends that listed so much.
pub struct World {
    gateway: Arc<Gateway>,
    catalog: Arc<Merged>,
}

impl World {
    /// Backends `b0`, `b1` and so on, each with tools `tool_0`, `tool_1` and so on. A limit covers all of them.
    pub fn new(backends: usize, tools: usize) -> anyhow::Result<Self> {
        let mut yaml = String::from("listeners: [{ address: '127.0.0.1:0' }]\n");
        yaml.push_str(
            "limits: [{ name: all, key: session, rate: 1000000/s, burst: 1000000, concurrency: 1000 }]\nbackends:\n",
        );
        for n in 0..backends {
            let _ = writeln!(yaml, "- {{ name: b{n}, url: 'http://127.0.0.1:1/' }}");
        }
        let config = toolgate_config::parse(Path::new("benches.yaml"), &yaml, &|_| None)?;
        let gateway = Gateway::build(Arc::new(config))?;
        let definitions: Vec<_> = (0..tools).map(definition).collect();
        let definitions: Vec<_> = definitions.iter().map(String::as_str).collect();
        for backend in &gateway.snapshot().backends {
            let listing = Listing::of(Era::Legacy, Caching::NONE, &[(Kind::Tools, &definitions)]);
            backend.listing.store(Some(Arc::new(listing)));
        }
        gateway.remerge();
        let catalog = gateway.snapshot().catalog();
        Ok(Self { gateway, catalog })
    }

    /// Makes one list of all backends'.
    pub fn merge(&self) {
        self.gateway.remerge();
    }

    /// Finds who has a tool.
    pub fn look_up(&self, public: &str) -> bool {
        self.catalog.route(public).is_some()
    }

    /// Finds who has a tool, and takes and gives back what its limits ask for.
    pub fn admit(&self, public: &str, session: u128) -> bool {
        let caller = Caller { session: Some(session), ip: IpAddr::V4(Ipv4Addr::LOCALHOST) };
        self.catalog.route(public).is_some_and(|route| limit::admit(&route.rules, &caller).is_ok())
    }
}

fn definition(n: usize) -> String {
    let schema =
        r#"{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer"}},"required":["query"]}"#;
    format!(r#"{{"name":"tool_{n}","description":"Does what its number says.","inputSchema":{schema}}}"#)
}
