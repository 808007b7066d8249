//! `10s`: a whole number and one unit.

use std::time::Duration;

use super::{Value, Wrong, is_fractional, split_number};

const EXPECTED: &str = "a duration such as 10s";
/// Longer than any deadline, far from where clocks overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// What people write instead.
const FOREIGN: [(&str, &[&str]); 5] = [
    ("d", &["day", "days", "D"]),
    ("h", &["hr", "hrs", "hour", "hours", "H"]),
    ("m", &["min", "mins", "minute", "minutes", "M"]),
    ("s", &["sec", "secs", "second", "seconds", "S"]),
    ("ms", &["msec", "msecs", "milli", "millis", "millisecond", "milliseconds", "MS"]),
];

/// A duration that is not nothing.
pub(crate) fn duration(value: &Value<'_>) -> Option<Duration> {
    value.parsed(EXPECTED, |text| within(text, Duration::from_millis(1)))
}

/// A duration that may be `0s`.
pub(crate) fn duration_or_none(value: &Value<'_>) -> Option<Duration> {
    value.parsed(EXPECTED, |text| within(text, Duration::ZERO))
}

/// In the longest unit that leaves no fraction.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS.iter().find(|(_, unit)| millis != 0 && millis.is_multiple_of(*unit));
    unit.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

fn within(text: &str, shortest: Duration) -> Result<Duration, Wrong> {
    let duration = parse(text)?;
    if duration < shortest || duration > LONGEST {
        return Err(Wrong::new(format!("a duration from {} to 365d", show_duration(shortest))));
    }
    Ok(duration)
}

fn parse(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::new(EXPECTED);
    let (digits, unit) = split_number(text);
    if digits.is_empty() {
        return Err(wrong());
    }
    if let Some((_, millis)) = UNITS.iter().find(|(name, _)| *name == unit) {
        // Too many digits are too long a time.
        let count = digits.parse::<u64>().unwrap_or(u64::MAX);
        return Ok(Duration::from_millis(count.saturating_mul(*millis)));
    }
    let meant = FOREIGN.iter().find(|(_, words)| words.contains(&unit.trim_start()));
    Err(match (unit, meant) {
        ("", _) => wrong().help(format!("write {digits}s")),
        (_, Some((unit, _))) => wrong().help(format!("write {digits}{unit}")),
        _ if is_fractional(text) => wrong().help("whole numbers only: instead of 1.5s write 1500ms"),
        _ => match sum(text) {
            Some(sum) => wrong().help(format!("one number and one unit: write {}", show_duration(sum))),
            None => wrong().help("the units are ms, s, m, h and d"),
        },
    })
}

/// `1h30m`, which other tools accept, as one duration.
fn sum(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let (digits, after) = split_number(rest);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == after[..end].trim())?;
        total = total.checked_add(Duration::from_millis(digits.parse::<u64>().ok()?.checked_mul(*millis)?))?;
        rest = &after[end..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_and_one_unit_make_a_duration() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("365d", 31_536_000_000)]
        {
            assert_eq!(within(text, Duration::ZERO), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, help) in [
            ("", None),
            ("soon", None),
            ("-1s", None),
            ("10", Some("write 10s")),
            ("10 s", Some("one number and one unit: write 10s")),
            ("10sec", Some("write 10s")),
            ("5 minutes", Some("write 5m")),
            ("1.5s", Some("whole numbers only: instead of 1.5s write 1500ms")),
            ("1h30m", Some("one number and one unit: write 90m")),
            ("1us", Some("the units are ms, s, m, h and d")),
        ] {
            assert_eq!(parse(text).unwrap_err().help.as_deref(), help, "{text}");
        }
    }

    #[test]
    fn zero_and_the_endless_are_out_of_range() {
        for text in ["0s", "366d", "99999999999999999999999d"] {
            let wrong = within(text, Duration::from_millis(1)).unwrap_err();
            assert_eq!(wrong.expected, "a duration from 1ms to 365d", "{text}");
        }
        assert_eq!(within("0s", Duration::ZERO), Ok(Duration::ZERO));
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0..=31_536_000_000_u64) {
            let duration = Duration::from_millis(millis);
            proptest::prop_assert_eq!(parse(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*|[0-9]{0,25} ?(ms|s|m|h|d|min)?[0-9smhd. ]*") {
            let _ = within(&text, Duration::ZERO);
        }
    }
}
