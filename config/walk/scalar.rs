//! Values that are one piece of text: strings, numbers, booleans, words, and text with a grammar of its own.

use std::ops::RangeInclusive;

use super::words::one_of;
use super::{Value, Wrong, quote};
use crate::expand::{Text, Unexpanded, expand};
use crate::suggest::closest;
use crate::yaml::Kind;

impl Value<'_> {
    /// Any scalar that is something, variables put in.
    fn scalar(&self, expected: &str) -> Option<(Plain, Text)> {
        let Kind::Scalar { text, plain } = &self.node.kind else {
            self.mistyped(expected, None);
            return None;
        };
        match expand(text, |name| self.source.variable(name)) {
            Ok(text) if text.substituted => Some((Plain::Text, text)),
            Ok(text) => {
                let kind = Plain::of(&text.written, *plain);
                if kind == Plain::Null {
                    self.mistyped(expected, None);
                }
                (kind != Plain::Null).then_some((kind, text))
            }
            Err(Unexpanded::Malformed) => {
                self.problem_with(
                    "`${` does not begin a variable",
                    "write ${NAME} or ${NAME:-default}; for the characters themselves write $${",
                );
                None
            }
            Err(Unexpanded::Unset(name)) => {
                self.problem_with(
                    format!("environment variable `{name}` is not set"),
                    format!("set it, or give a default: ${{{name}:-default}}"),
                );
                None
            }
        }
    }

    /// A string. What YAML takes for a number or a boolean is none.
    pub(crate) fn text(&self) -> Option<Text> {
        let (kind, text) = self.scalar("a string")?;
        if let Plain::Bool | Plain::Number = kind {
            self.mistyped("a string", Some("put it in quotes".to_owned()));
            return None;
        }
        Some(text)
    }

    /// A value with a grammar of its own, which `expected` names.
    pub(crate) fn parsed<T>(&self, expected: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let (_, text) = self.scalar(expected)?;
        parse(&text.value).map_err(|wrong| self.wrong(&text, wrong)).ok()
    }

    /// Reports text that does not follow a grammar, quoting it as written, never as substituted.
    pub(crate) fn wrong(&self, text: &Text, wrong: Wrong) {
        let found = match text.written.as_str() {
            _ if self.secret => "something else".to_owned(),
            "" => "an empty string".to_owned(),
            written => quote(written),
        };
        let help = wrong.help.filter(|_| !text.substituted && !self.secret);
        self.source.report(self.at, &self.field, format!("expected {}, found {found}", wrong.expected), help);
    }

    /// A whole number. In quotes it is one only if a variable gives it.
    pub(crate) fn number(&self, range: RangeInclusive<u32>) -> Option<u32> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let (kind, text) = self.scalar(&expected)?;
        let digits = !text.value.is_empty() && text.value.bytes().all(|b| b.is_ascii_digit());
        match text.value.parse() {
            Ok(number) if digits && range.contains(&number) && (kind != Plain::Text || text.substituted) => {
                Some(number)
            }
            _ if digits && kind == Plain::Text && !text.substituted => {
                self.wrong(&text, Wrong::new(expected).help("remove the quotes"));
                None
            }
            _ => {
                self.wrong(&text, Wrong::new(expected));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Option<bool> {
        let (kind, text) = self.scalar("true or false")?;
        match text.value.as_str() {
            "true" if kind == Plain::Bool || text.substituted => Some(true),
            "false" if kind == Plain::Bool || text.substituted => Some(false),
            other => {
                let help = match other.to_lowercase().as_str() {
                    "yes" | "on" | "true" => Some("write true".to_owned()),
                    "no" | "off" | "false" => Some("write false".to_owned()),
                    _ => None,
                };
                self.wrong(&text, Wrong { expected: "true or false".to_owned(), help });
                None
            }
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let expected = one_of(&words);
        self.parsed(&expected, |text| {
            let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
            found.ok_or_else(|| Wrong {
                expected: expected.clone(),
                help: closest(text, words).map(|word| format!("did you mean `{word}`?")),
            })
        })
    }
}

/// What YAML's core schema makes of a scalar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Plain {
    Null,
    Bool,
    Number,
    Text,
}

impl Plain {
    pub(super) fn of(text: &str, plain: bool) -> Self {
        match text {
            _ if !plain => Self::Text,
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Self::Bool,
            _ if is_number(text) => Self::Number,
            _ => Self::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let in_base = |prefix, base| {
        let digits = text.strip_prefix(prefix).filter(|digits: &&str| !digits.is_empty());
        digits.is_some_and(|digits| digits.chars().all(|c| c.is_digit(base)))
    };
    let is_decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    is_decimal
        || in_base("0x", 16)
        || in_base("0o", 8)
        || matches!(unsigned, ".inf" | ".Inf" | ".INF")
        || matches!(text, ".nan" | ".NaN" | ".NAN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_the_core_schema_says() {
        for (text, kind) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("null", Plain::Null),
            ("true", Plain::Bool),
            ("FALSE", Plain::Bool),
            ("yes", Plain::Text),
            ("10", Plain::Number),
            ("-1.5e3", Plain::Number),
            (".5", Plain::Number),
            ("0x1F", Plain::Number),
            ("0xyz", Plain::Text),
            ("-.inf", Plain::Number),
            ("--5", Plain::Text),
            ("10s", Plain::Text),
            ("1.2.3", Plain::Text),
            ("nan", Plain::Text),
        ] {
            assert_eq!(Plain::of(text, true), kind, "{text}");
            assert_eq!(Plain::of(text, false), Plain::Text, "{text}");
        }
    }
}
