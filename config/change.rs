//! Old configuration against new: what a running process can take up, and what it cannot.

use serde_json::Value;

use crate::Config;

/// What a new configuration asks of a running process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Nothing: they are equal.
    None,
    /// To take it up.
    Reload,
    /// To be started anew: these fields, as paths, cannot change while it runs.
    Restart {
        /// The fields, in file order.
        fields: Vec<String>,
    },
}

/// Compares the configuration that runs with one that should.
pub fn compare(old: &Config, new: &Config) -> Change {
    if old == new {
        return Change::None;
    }
    let fields = restart_only(&old.redacted(), &new.redacted());
    if fields.is_empty() { Change::Reload } else { Change::Restart { fields } }
}

/// What is different between two configurations, as [`Config::redacted`] shows them, and cannot change while a process runs:
/// fields, as paths, in file order.
pub fn restart_only(old: &Value, new: &Value) -> Vec<String> {
    let sockets = |config: &Value| {
        let listeners = config.get("listeners").and_then(Value::as_array).into_iter().flatten();
        let socket = |listener: &Value| (listener.get("address").cloned(), listener.get("tls").is_some());
        listeners.map(socket).collect::<Vec<_>>()
    };
    let mut fields = Vec::new();
    if sockets(old) != sockets(new) {
        fields.push("listeners".to_owned());
    }
    let fixed = [("admin.address", "/admin/address"), ("log", "/log"), ("traces", "/traces"), ("threads", "/threads")];
    for (field, pointer) in fixed {
        if old.pointer(pointer) != new.pointer(pointer) {
            fields.push(field.to_owned());
        }
    }
    fields
}
