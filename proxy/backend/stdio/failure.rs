//! How the processes of a command failed last: what the operator needs to know to mend it.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::backend::LastError;

/// The last failure of any process of a command. It stays when others work: what says whether it still matters is its age.
#[derive(Debug)]
pub(super) struct Failure {
    program: String,
    last: Mutex<Option<LastError>>,
}

impl Failure {
    pub(super) fn new(program: &Path) -> Self {
        Self { program: program.display().to_string(), last: Mutex::default() }
    }

    /// There could be no process.
    pub(super) fn not_started(&self, cause: &io::Error) {
        self.note(format!("`{}` was not started: {cause}", self.program));
    }

    /// A process ended that was to go on; `complaint` is the last that it wrote to its standard error.
    pub(super) fn ended(&self, how: &str, complaint: Option<&str>) {
        let complaint = complaint.map(|line| format!("; last on its standard error: {line}")).unwrap_or_default();
        self.note(format!("`{}` {how}{complaint}", self.program));
    }

    pub(super) fn last(&self) -> Option<LastError> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, what: String) {
        let noted = LastError { what, when: Instant::now() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }
}
