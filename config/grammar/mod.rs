//! Values with a unit: how they are written, and how they are printed back.

mod duration;
mod rate;
mod size;

use crate::walk::{Value, Wrong};

pub(crate) use duration::{duration, duration_or_none, show_duration};
pub(crate) use rate::{rate, show_rate};
pub(crate) use size::{show_size, size};

/// `10s` as 10 and `s`: leading digits, and what follows them.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Whether this is a number with a fraction and perhaps a unit, which no value here may be.
fn is_fractional(text: &str) -> bool {
    let (whole, rest) = split_number(text);
    !whole.is_empty() && rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}
