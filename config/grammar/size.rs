//! `4MiB`: a whole number of bytes, in powers of 1024.

use super::{Value, Wrong, is_fractional, split_number};

const EXPECTED: &str = "a size such as 4MiB";
/// What one body or one list may take of memory at most.
const LARGEST: u64 = 1 << 30;
/// Largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes, not 0.
pub(crate) fn size(value: &Value<'_>) -> Option<u64> {
    value.parsed(EXPECTED, parse)
}

/// In the largest unit that leaves no fraction.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn parse(text: &str) -> Result<u64, Wrong> {
    let (digits, unit) = split_number(text);
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| !digits.is_empty() && *name == unit) else {
        return Err(misspelt(text));
    };
    let bytes = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(*factor));
    match bytes {
        Some(bytes) if (1..=LARGEST).contains(&bytes) => Ok(bytes),
        _ => Err(Wrong::new(format!("a size from 1B to {}", show_size(LARGEST)))),
    }
}

fn misspelt(text: &str) -> Wrong {
    let (digits, unit) = split_number(text);
    let wrong = Wrong::new(EXPECTED);
    let initial = unit.trim_start().chars().next().map(|c| c.to_ascii_uppercase());
    match (digits, initial) {
        ("", _) => wrong,
        (_, None) => wrong.help(match digits.parse() {
            Ok(bytes) => format!("write {}", show_size(bytes)),
            Err(_) => "the units are B, KiB, MiB and GiB".to_owned(),
        }),
        (_, Some(letter @ ('K' | 'M' | 'G'))) if unit.trim().len() <= 3 => {
            wrong.help(format!("write {digits}{letter}iB"))
        }
        _ if is_fractional(text) => wrong.help("whole numbers only: instead of 1.5MiB write 1536KiB"),
        _ => wrong.help("the units are B, KiB, MiB and GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("1B", 1), ("512B", 512), ("1KiB", 1024), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        for (text, help) in [
            ("", None),
            ("big", None),
            ("4194304", Some("write 4MiB")),
            ("1000", Some("write 1000B")),
            ("4MB", Some("write 4MiB")),
            ("4 MiB", Some("write 4MiB")),
            ("4k", Some("write 4KiB")),
            ("1gb", Some("write 1GiB")),
            ("1.5MiB", Some("whole numbers only: instead of 1.5MiB write 1536KiB")),
            ("1TiB", Some("the units are B, KiB, MiB and GiB")),
        ] {
            assert_eq!(parse(text).unwrap_err().help.as_deref(), help, "{text}");
        }
    }

    #[test]
    fn nothing_and_too_much_are_out_of_range() {
        for text in ["0B", "2GiB", "99999999999999999999KiB", "99999999999999999GiB"] {
            assert_eq!(parse(text).unwrap_err().expected, "a size from 1B to 1GiB", "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in 1..=LARGEST) {
            proptest::prop_assert_eq!(parse(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*|[0-9]{0,25} ?[KMGT]?i?B?.*") {
            let _ = parse(&text);
        }
    }
}
