//! Old configuration against new: what a running process can take up, and what it cannot.

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
    let mut fields = Vec::new();
    let addresses = |config: &Config| config.listeners.iter().map(|l| (l.address, l.tls.is_some())).collect::<Vec<_>>();
    if addresses(old) != addresses(new) {
        fields.push("listeners".to_owned());
    }
    if old.admin.address != new.admin.address {
        fields.push("admin.address".to_owned());
    }
    if old.log != new.log {
        fields.push("log".to_owned());
    }
    if old.threads != new.threads {
        fields.push("threads".to_owned());
    }
    if fields.is_empty() { Change::Reload } else { Change::Restart { fields } }
}
