//! How fields, choices and pieces of the file are named in problems.

/// The name of what stands in a field under a key.
pub(super) fn join(field: &str, key: &str) -> String {
    let simple =
        !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (field, simple) {
        ("", true) => key.to_owned(),
        (_, true) => format!("{field}.{key}"),
        (_, false) => format!("{field}[{}]", quote(key)),
    }
}

/// `a`, `b` or `c`
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Text from the file, fit to be shown: on one line, of bearable length, without control characters.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN: usize = 64;
    let mut shown = String::from("`");
    for c in text.chars().take(SHOWN) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown + "`"
}
