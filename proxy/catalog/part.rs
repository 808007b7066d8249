//! Which resources are parts of others, as far as their URIs tell.

use std::borrow::Cow;

/// Whether a resource is another one, or lies below it.
pub(crate) fn is_part(uri: &str, whole: &str) -> bool {
    lies_below(uri, whole) || lies_below(&plain(uri), &plain(whole))
}

fn lies_below(uri: &str, whole: &str) -> bool {
    let Some(rest) = uri.strip_prefix(whole) else { return false };
    rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '?', '#'])
}

/// The same for more of the ways to write a URI: some servers make them over before they say them again (RFC 3986, section 6.2).
fn plain(uri: &str) -> Cow<'_, str> {
    let authority = uri.find("://").map(|at| at + 3);
    let head = authority.map_or(0, |at| uri[at..].find(['/', '?', '#']).map_or(uri.len(), |end| at + end));
    let (head, rest) = uri.split_at(head);
    if !rest.contains('%') && !head.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return uri.into();
    }
    let mut decoded = head.to_ascii_lowercase().into_bytes();
    let mut rest = rest.as_bytes();
    while let [first, more @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let escaped = match rest {
            [b'%', high, low, ..] => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[3..] } else { more };
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(uri), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_below_its_whole() {
        for (uri, whole, expected) in [
            ("file:///d", "file:///d", true),
            ("file:///d/x", "file:///d", true),
            ("file:///d#1", "file:///d", true),
            ("file:///d?q", "file:///d", true),
            ("file:///dd", "file:///d", false),
            ("file:///d", "file:///d/x", false),
            ("file:///", "file:///", true),
            ("file:///d", "file:///", true),
            ("other:", "file:///d", false),
            ("", "file:///d", false),
        ] {
            assert_eq!(is_part(uri, whole), expected, "{uri} of {whole}");
        }
    }

    #[test]
    fn a_uri_may_be_written_in_other_ways() {
        for (uri, whole, expected) in [
            ("file:///a%20b/%C3%A9", "file:///a b", true),
            ("file:///a b", "file:///a%20b", true),
            ("https://host/", "HTTPS://Host", true),
            ("https://host/D", "https://host/d", false),
            ("a:%zz", "a:%zz", true),
            ("a:%2", "a:%", false),
            ("a:%ff", "a:%fe", false),
        ] {
            assert_eq!(is_part(uri, whole), expected, "{uri} of {whole}");
        }
    }
}
