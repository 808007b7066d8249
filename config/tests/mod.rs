//! What only the whole can show: every diagnostic's text, the reference, the schema, and that nothing leaks or panics.

mod change;
mod files;
mod golden;
mod hostile;
mod reference;
mod schema;

use std::path::Path;

use crate::{Config, Report};

/// The smallest file that works.
const SMALLEST: &str = "listeners: [{ address: 127.0.0.1:8080 }]\n\
                        backends: [{ name: everything, url: http://127.0.0.1:3001/mcp }]\n";

fn parse(text: &str) -> Result<Config, Report> {
    crate::parse(Path::new("toolgate.yaml"), text, &|_| None)
}

/// Compares with a file that is kept, or with `UPDATE=1` writes it anew.
fn assert_kept(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, text).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == text, "{} differs (UPDATE=1 rewrites it); it should be:\n{text}", path.display());
}
