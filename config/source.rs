//! What a configuration is read from (a file's name, its folder, the environment) and where its problems gather.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Config;
use crate::diagnostic::{Diagnostic, Report};
use crate::yaml::Place;

/// The largest file read, of any kind: far above any real one, far below what hurts.
pub(crate) const MAX_FILE: u64 = 1024 * 1024;
/// The same for a lock file: a hundred bytes for each tool there may be.
const MAX_LOCK: u64 = 64 * 1024 * 1024;

/// One reading of one configuration.
pub(crate) struct Source<'a> {
    file: &'a Path,
    env: &'a dyn Fn(&str) -> Option<String>,
    is_unlocked: bool,
    problems: RefCell<Vec<Diagnostic>>,
    files: RefCell<Vec<PathBuf>>,
    #[cfg(test)]
    asked: RefCell<std::collections::BTreeSet<String>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file,
            env,
            is_unlocked: false,
            problems: RefCell::default(),
            files: RefCell::new(vec![file.to_owned()]),
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    /// Leaves lock files alone.
    pub(crate) fn unlocked(self) -> Self {
        Self { is_unlocked: true, ..self }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// A path of the configuration, which starts at its folder when it is relative.
    pub(crate) fn resolve(&self, written: &str) -> PathBuf {
        self.file.parent().unwrap_or_else(|| Path::new("")).join(written)
    }

    /// Reads a file named in the configuration, and remembers it.
    pub(crate) fn read(&self, written: &str) -> io::Result<(PathBuf, Vec<u8>)> {
        let path = self.resolve(written);
        let bytes = read_bounded(&path, MAX_FILE)?;
        self.remember(&path);
        Ok((path, bytes))
    }

    /// The same for a lock file; none where such are left alone. One that cannot be read is remembered too: it may come.
    pub(crate) fn read_lock(&self, written: &str) -> Option<io::Result<Vec<u8>>> {
        let path = self.resolve(written);
        if self.is_unlocked {
            return None;
        }
        self.remember(&path);
        Some(read_bounded(&path, MAX_LOCK))
    }

    fn remember(&self, path: &Path) {
        let mut files = self.files.borrow_mut();
        if !files.iter().any(|known| known == path) {
            files.push(path.to_owned());
        }
    }

    pub(crate) fn report(&self, at: Place, field: &str, message: String, help: Option<String>) {
        let problem = Diagnostic {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            field: field.to_owned(),
            message,
            help,
        };
        self.problems.borrow_mut().push(problem);
    }

    /// What was built, if nothing was wrong; every problem otherwise.
    pub(crate) fn finish(self, built: Option<Config>) -> Result<Config, Report> {
        let mut problems = self.problems.into_inner();
        match built {
            Some(config) if problems.is_empty() => Ok(Config { files: self.files.into_inner(), ..config }),
            _ => {
                debug_assert!(!problems.is_empty(), "something was left out without a report");
                problems.sort_by_key(|problem| (problem.line, problem.column));
                Err(Report(problems))
            }
        }
    }

    /// Notes that the crossing knows this key, so that a test can hold the crossing against the schema.
    #[cfg(test)]
    pub(crate) fn ask(&self, field: String) {
        self.asked.borrow_mut().insert(field);
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> std::collections::BTreeSet<String> {
        self.asked.borrow().clone()
    }
}

/// Reads a file of at most so many bytes. Says no to anything longer, endless devices among them.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let problem = format!("larger than {} MiB", max >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}
