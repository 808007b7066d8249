//! The shape of the file, for editors: JSON Schema out of types that mirror it, whose comments are the descriptions.
//!
//! Nothing is ever read into these types. The crossing reads the file, because it can report every problem at once;
//! tests hold the two against each other, key by key.
#![expect(dead_code, reason = "only the shape of these types is used")]

mod backend;
mod limit;
mod listener;
mod runtime;
mod traces;
mod value;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use value::{Number, OrVariable};

/// The schema of the whole file.
pub(crate) fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    RecursiveTransform(without_null).transform(&mut schema);
    schema.into()
}

/// A key that may be left out may still not be null.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            only.into_iter().for_each(|(key, value)| {
                schema.insert(key, value);
            });
        }
    }
}

/// Configuration of Toolgate. Values may hold `${VARIABLE}` or `${VARIABLE:-default}`; `$${` stands for `${`.
/// Relative paths start at the folder of this file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Toolgate")]
struct File {
    /// Where clients connect. At least one.
    #[schemars(length(min = 1))]
    listeners: Vec<listener::Listener>,
    /// The operator's listener: metrics, health and status. Never reachable through `listeners`.
    admin: Option<listener::Admin>,
    /// The MCP servers behind the gateway, at least one. Where two claim one tool name, the first in this order has it.
    #[schemars(length(min = 1))]
    backends: Vec<backend::Backend>,
    /// How often, and how many at once, tools may be called. A call must pass every limit that covers it. Default: none.
    limits: Option<Vec<limit::Limit>>,
    /// How backends are probed, and when they are taken out.
    health: Option<runtime::Health>,
    /// How the merged list of tools is kept.
    catalog: Option<runtime::Catalog>,
    /// Which definitions of tools are trusted: those in a file that `toolgate pin` writes.
    pin: Option<runtime::Pin>,
    /// Who is told of changes in what backends offer; see `deploy/behaviour.md`. Default: nobody.
    webhook: Option<runtime::Webhook>,
    /// Sessions of clients that speak MCP up to 2025-11-25.
    sessions: Option<runtime::Sessions>,
    /// Clients and backends of different eras.
    bridge: Option<runtime::Bridge>,
    /// The log, on standard output.
    log: Option<runtime::Log>,
    /// OpenTelemetry spans of clients' requests. Only in binaries that were built with the feature `otel`, as what is shipped
    /// is. Default: none. Takes effect at a restart, a new secret too.
    traces: Option<traces::Traces>,
    /// How a changed file, this one or one that it names, is noticed.
    reload: Option<runtime::Reload>,
    /// How a stop (SIGTERM, SIGINT) goes; a second signal ends it at once.
    drain: Option<runtime::Drain>,
    /// Worker threads. Default: as many as there are processors. Takes effect at a restart.
    threads: Option<OrVariable<Number<1, 1024>>>,
}
