//! Which tools of a backend are shown and under what name, and the patterns that name tools.

use std::collections::BTreeMap;

/// Which of a backend's tools are shown, and how. All by the backend's own names.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Tools {
    /// Only these; everything when empty.
    pub allow: Vec<Pattern>,
    /// Never these; wins over `allow`.
    pub deny: Vec<Pattern>,
    /// Own name to shown name (the prefix still goes before it). Values are valid tool names and unique.
    pub rename: BTreeMap<String, String>,
    /// Own name to the description shown instead of the backend's.
    pub describe: BTreeMap<String, String>,
    /// Characters of a backend's own description that are shown; of a longer one, the beginning. Default: all.
    pub max_description: Option<u32>,
}

impl Tools {
    /// Whether the tool of this name (the backend's own) is shown.
    pub fn shows(&self, own: &str) -> bool {
        (self.allow.is_empty() || self.allow.iter().any(|p| p.matches(own)))
            && !self.deny.iter().any(|p| p.matches(own))
    }
}

/// A glob over tool names: `*` for any run of characters, `?` for one, everything else for itself. Case matters.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Pattern(pub(crate) String);

impl Pattern {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` matches. Linear in the product of the lengths, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on after a mismatch: just past the last `*`, one more byte of the name swallowed.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    retry = Some((p + 1, n));
                    p += 1;
                }
                Some(&c) if c == b'?' || c == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((after_star, swallowed)) = retry else { return false };
                    retry = Some((after_star, swallowed + 1));
                    (p, n) = (after_star, swallowed + 1);
                }
            }
        }
        pattern[p..].iter().all(|&c| c == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    /// What a pattern means, by trying every run of characters for every star.
    fn oracle(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|swallowed| oracle(rest, &name[swallowed..])),
            Some((&c, rest)) => {
                name.split_first().is_some_and(|(&n, name)| (c == b'?' || c == n) && oracle(rest, name))
            }
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        for (text, name, matches) in [
            ("search", "search", true),
            ("search", "search_all", false),
            ("search*", "search", true),
            ("*_admin", "user_admin", true),
            ("a*b*c", "aXbXbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("Search", "search", false),
        ] {
            assert_eq!(pattern(text).matches(name), matches, "{text} on {name}");
        }
    }

    #[test]
    fn stars_upon_stars_are_quick() {
        let text = "*a".repeat(64) + "b";

        assert!(!pattern(&text).matches(&"a".repeat(100_000)));
    }

    #[test]
    fn deny_wins_over_allow() {
        let tools = Tools { allow: vec![pattern("a*")], deny: vec![pattern("*_x")], ..Tools::default() };

        assert_eq!(["a", "a_x", "b"].map(|own| tools.shows(own)), [true, false, false]);
        assert!(Tools::default().shows("anything"));
    }

    proptest! {
        #[test]
        fn matching_is_what_the_oracle_says(text in "[ab?*]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(pattern(&text).matches(&name), oracle(text.as_bytes(), name.as_bytes()));
        }
    }
}
