//! W3C Trace Context: `traceparent`, read and written.

use std::fmt;

use http::{HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A span, as others are told of it. Neither id is 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Context {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) is_sampled: bool,
}

impl Context {
    /// From `traceparent`: `00-` and 32, 16 and 2 lower-case hexadecimal digits. Later versions may have more behind a hyphen.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace) = (parts.next()?, parts.next()?);
        let (span, flags) = (parts.next()?, parts.next()?);
        let has_more = parts.next().is_some();
        let version = digits(version, 2)?;
        if version == 0xff || (version == 0 && has_more) {
            return None;
        }
        let (trace, span) = (digits(trace, 32)?, u64::try_from(digits(span, 16)?).ok()?);
        let is_sampled = digits(flags, 2)? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, is_sampled })
    }

    /// The one that a request's headers tell of: none where they tell of several.
    pub(super) fn of_headers(headers: &[(HeaderName, HeaderValue)]) -> Option<Self> {
        let mut told = headers.iter().filter(|(name, _)| *name == TRACEPARENT);
        let (only, None) = (told.next()?, told.next()) else { return None };
        Self::read(only.1.to_str().ok()?.trim())
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, is_sampled } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled))
    }
}

fn digits(text: &str, count: usize) -> Option<u128> {
    let are_digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (text.len() == count && are_digits).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_as_it_is_written() {
        let context = Context::read(GIVEN).unwrap();

        assert_eq!(context.to_string(), GIVEN);
        assert_eq!((context.trace >> 96, context.span & 0xffff, context.is_sampled), (0x4bf9_2f35, 0x02b7, true));
        assert!(!Context::read(&GIVEN.replace("-01", "-00")).unwrap().is_sampled);
        // Flags and members of later versions mean nothing here.
        assert!(Context::read(&GIVEN.replace("-01", "-ff")).unwrap().is_sampled);
        assert!(Context::read(&GIVEN.replacen("00-", "01-", 1)).is_some());
        assert!(Context::read(&format!("{}-more", GIVEN.replacen("00-", "01-", 1))).is_some());
    }

    #[test]
    fn what_is_no_context_is_none() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(Context::read(text), None, "{text}");
        }
    }

    #[test]
    fn two_headers_tell_of_nothing() {
        let header = (TRACEPARENT, HeaderValue::from_static(GIVEN));

        assert!(Context::of_headers(std::slice::from_ref(&header)).is_some());
        assert_eq!(Context::of_headers(&[header.clone(), header]), None);
    }
}
