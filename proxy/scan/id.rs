//! Compares the id of a response, as it passes, with the one it should have.
//!
//! Only what is certainly another id is one: where it is written in another way, readers may take it for the same.

use crate::jsonrpc::OwnedId;

/// What a message's id is, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is none, or it is `null`.
    None,
    /// Certainly not the request's.
    Other,
    /// The request's, or that of no request that is known.
    Own,
}

/// The id at hand.
#[derive(Debug)]
pub(super) struct IdScan {
    expected: Option<OwnedId>,
    string: Option<Progress>,
    found: Found,
}

/// How far a string is equal to what is expected.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Differs,
    /// It has an escape in it.
    Escaped,
    /// So many bytes, the quote included.
    Same(usize),
}

impl IdScan {
    pub(super) const fn new(expected: Option<OwnedId>) -> Self {
        let found = if expected.is_some() { Found::None } else { Found::Own };
        Self { expected, string: None, found }
    }

    pub(super) fn found(&self) -> Found {
        self.found
    }

    pub(super) fn take_expected(&mut self) -> Option<OwnedId> {
        self.expected.take()
    }

    /// Its key was read. Of several ids the last one counts.
    pub(super) fn clear(&mut self) {
        self.string = None;
    }

    /// A string begins.
    pub(super) fn begins(&mut self) {
        self.string = Some(Progress::Same(1));
    }

    /// A piece of the string.
    pub(super) fn text(&mut self, text: &[u8]) {
        let (Some(expected), Some(Progress::Same(so_far))) = (&self.expected, self.string) else { return };
        let rest = expected.raw().as_bytes().get(so_far..).unwrap_or_default();
        let is_same = rest.starts_with(text);
        self.string = Some(if is_same { Progress::Same(so_far + text.len()) } else { Progress::Differs });
    }

    pub(super) fn escaped(&mut self) {
        self.string = Some(Progress::Escaped);
    }

    /// The value has ended; `scalar` is its text if it was a number or a literal, empty if not, and nothing if it is long.
    pub(super) fn ends(&mut self, scalar: Option<&str>) {
        let Some(expected) = &self.expected else { return };
        let expected = expected.raw();
        let is_same = match (self.string, scalar) {
            (Some(Progress::Same(length)), _) => expected.starts_with('"') && length + 1 == expected.len(),
            (Some(Progress::Differs), _) => expected.contains('\\'),
            (Some(Progress::Escaped), _) => expected.starts_with('"'),
            (None, Some("null")) => return self.found = Found::None,
            (None, Some(scalar)) => scalar == expected || number(scalar).is_some_and(|it| number(expected) == Some(it)),
            (None, None) => !expected.starts_with('"'),
        };
        self.found = if is_same { Found::Own } else { Found::Other };
    }
}

/// As many readers have it: `1`, `1.0` and `1e0` are the same.
fn number(text: &str) -> Option<f64> {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
