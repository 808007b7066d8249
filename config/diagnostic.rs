//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// One problem.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The file it is in.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The field, as a path: `backends[1].url`. Empty when it is the file itself.
    pub field: String,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What would mend it.
    pub help: Option<String>,
}

/// Every problem of a file, sorted by position; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report(pub(crate) Vec<Diagnostic>);

impl Report {
    /// The problems.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
