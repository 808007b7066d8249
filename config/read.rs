//! From a file or from text to a [`Config`], or to every problem.

use std::path::Path;

use crate::diagnostic::Report;
use crate::source::{MAX_FILE, Source, read_bounded};
use crate::walk::Value;
use crate::yaml::{self, Place};
use crate::{Config, cross};

const SMALLEST: &str = "the smallest: listeners: [{ address: 127.0.0.1:8080 }] and \
                        backends: [{ name: everything, url: http://127.0.0.1:3001/mcp }]";

/// Reads a file.
pub(crate) fn file(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Report> {
    from(path, Source::new(path, env))
}

/// The same, but for what tools are pinned.
pub(crate) fn file_unlocked(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Report> {
    from(path, Source::new(path, env).unlocked())
}

fn from(path: &Path, source: Source<'_>) -> Result<Config, Report> {
    let (place, message) = match read_bounded(path, MAX_FILE).map(String::from_utf8) {
        Ok(Ok(read)) => return text(source, &read),
        Ok(Err(error)) => {
            (place_after(&error.as_bytes()[..error.utf8_error().valid_up_to()]), "not UTF-8 text".to_owned())
        }
        Err(error) => (Place::START, format!("cannot read the file: {error}")),
    };
    source.report(place, "", message, None);
    source.finish(None)
}

/// Reads text.
pub(crate) fn text(source: Source<'_>, text: &str) -> Result<Config, Report> {
    if text.len() as u64 > MAX_FILE {
        source.report(Place::START, "", "larger than 1 MiB".to_owned(), None);
        return source.finish(None);
    }
    let (root, faults) = yaml::read(text);
    if root.is_none() && faults.is_empty() {
        source.report(Place::START, "", "the file is empty".to_owned(), Some(SMALLEST.to_owned()));
    }
    for fault in faults {
        source.report(fault.at, "", fault.message, fault.help.map(str::to_owned));
    }
    let config = root.and_then(|root| cross::config(&Value::root(&source, &root)));
    source.finish(config)
}

/// The place after a text that is valid so far.
fn place_after(valid: &[u8]) -> Place {
    let text = String::from_utf8_lossy(valid);
    let last = text.rsplit('\n').next().unwrap_or_default();
    Place { line: text.matches('\n').count() as u64 + 1, column: last.chars().count() as u64 + 1 }
}
