//! `20/s`: a whole number of calls in one second, minute, hour or day.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Value, Wrong, is_fractional, split_number};

const EXPECTED: &str = "a rate such as 20/s";
/// One call a microsecond; a limit above is no limit.
const MOST: u32 = 1_000_000;
const PERIODS: [(&str, u64); 5] = [("s", 1), ("m", 60), ("min", 60), ("h", 3_600), ("d", 86_400)];

/// Calls, and the time they are for.
pub(crate) fn rate(value: &Value<'_>) -> Option<(NonZeroU32, Duration)> {
    value.parsed(EXPECTED, parse)
}

/// As it is written in the file.
pub(crate) fn show_rate(count: NonZeroU32, per: Duration) -> String {
    let period = PERIODS.iter().find(|(_, seconds)| *seconds == per.as_secs());
    format!("{count}/{}", period.map_or("s", |(name, _)| name))
}

fn parse(text: &str) -> Result<(NonZeroU32, Duration), Wrong> {
    let (digits, rest) = split_number(text);
    let period = rest.strip_prefix('/').and_then(|rest| PERIODS.iter().find(|(name, _)| *name == rest));
    let (false, Some((_, seconds))) = (digits.is_empty(), period) else { return Err(misspelt(text)) };
    let count = digits.parse().ok().filter(|count| (1..=MOST).contains(count)).and_then(NonZeroU32::new);
    let count = count.ok_or_else(|| Wrong::new(format!("a rate of 1 to {MOST} calls")))?;
    Ok((count, Duration::from_secs(*seconds)))
}

fn misspelt(text: &str) -> Wrong {
    let (digits, rest) = split_number(text);
    let wrong = Wrong::new(EXPECTED);
    if is_fractional(text) {
        return wrong.help("whole numbers only: instead of 1.5/s write 90/m");
    }
    let word = rest.trim_start_matches([' ', '/']).trim_start_matches("per ");
    match (digits, word) {
        ("", _) => wrong,
        (_, "") => wrong.help(format!("write {digits}/s")),
        (_, "sec" | "second" | "s" | "rps") => wrong.help(format!("write {digits}/s")),
        (_, "minute" | "min" | "m" | "rpm") => wrong.help(format!("write {digits}/m")),
        (_, "hour" | "hr" | "h") => wrong.help(format!("write {digits}/h")),
        (_, "day" | "d") => wrong.help(format!("write {digits}/d")),
        _ => wrong.help("calls per s, m, h or d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_calls_per_period() {
        for (text, count, seconds) in
            [("20/s", 20, 1), ("100/m", 100, 60), ("1/min", 1, 60), ("5/h", 5, 3600), ("9/d", 9, 86_400)]
        {
            let expected = (NonZeroU32::new(count).unwrap(), Duration::from_secs(seconds));
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, help) in [
            ("", None),
            ("fast", None),
            ("20", Some("write 20/s")),
            ("20 / s", Some("write 20/s")),
            ("20/sec", Some("write 20/s")),
            ("100 per minute", Some("write 100/m")),
            ("5rps", Some("write 5/s")),
            ("1.5/s", Some("whole numbers only: instead of 1.5/s write 90/m")),
            ("1/week", Some("calls per s, m, h or d")),
        ] {
            assert_eq!(parse(text).unwrap_err().help.as_deref(), help, "{text}");
        }
    }

    #[test]
    fn none_and_too_many_are_out_of_range() {
        for text in ["0/s", "1000001/s", "99999999999/s"] {
            assert_eq!(parse(text).unwrap_err().expected, "a rate of 1 to 1000000 calls", "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(count in 1..=MOST, period in proptest::sample::select(&[1_u64, 60, 3600, 86_400])) {
            let rate = (NonZeroU32::new(count).unwrap(), Duration::from_secs(period));
            proptest::prop_assert_eq!(parse(&show_rate(rate.0, rate.1)), Ok(rate));
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*|[0-9]{0,12}/?[smhdin]*") {
            let _ = parse(&text);
        }
    }
}
