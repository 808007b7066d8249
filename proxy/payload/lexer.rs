//! The tokens of JSON that may end anywhere.

use memchr::memchr2;
use serde::de::IgnoredAny;

/// The longest key that matters.
pub(super) const LONGEST_KEY: usize = 128;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    Bad,
    Close {
        is_object: bool,
    },
    Colon,
    Comma,
    End,
    /// There is more, which is not here.
    Gap,
    Open {
        is_object: bool,
    },
    /// A number or a literal.
    Scalar(&'a str),
    /// What stands between quotes, and whether the second one has come.
    Text {
        raw: &'a str,
        is_whole: bool,
    },
}

/// What is not here of something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    More,
    Nothing,
}

#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    is_whole: bool,
}

impl<'a> Lexer<'a> {
    /// Of text that is all there is, or its beginning.
    pub(super) fn new(text: &'a str, is_whole: bool) -> Self {
        Self { text, at: 0, is_whole }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let rest = self.rest();
        let token = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.at += rest.len() - token.len();
        let punctuation = match token.as_bytes().first() {
            None if self.is_whole => return Token::End,
            None => return Token::Gap,
            Some(b'"') => return self.text(),
            Some(b'{') => Token::Open { is_object: true },
            Some(b'[') => Token::Open { is_object: false },
            Some(b'}') => Token::Close { is_object: true },
            Some(b']') => Token::Close { is_object: false },
            Some(b',') => Token::Comma,
            Some(b':') => Token::Colon,
            Some(_) => return self.scalar(),
        };
        self.at += 1;
        punctuation
    }

    fn text(&mut self) -> Token<'a> {
        let inside = self.rest().get(1..).unwrap_or_default();
        let mut end = 0;
        while let Some(found) = inside.as_bytes().get(end..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            end += found;
            if inside.as_bytes().get(end) == Some(&b'"') {
                self.at += end + 2;
                return Token::Text { raw: inside.get(..end).unwrap_or_default(), is_whole: true };
            }
            // And what it escapes.
            end += 2;
        }
        self.at = self.text.len();
        if self.is_whole { Token::Bad } else { Token::Text { raw: inside, is_whole: false } }
    }

    fn scalar(&mut self) -> Token<'a> {
        let rest = self.rest();
        let end = rest.find([' ', '\t', '\n', '\r', ',', ':', '{', '}', '[', ']', '"']);
        let scalar = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += scalar.len();
        if end.is_none() && !self.is_whole {
            return Token::Gap;
        }
        if serde_json::from_str::<IgnoredAny>(scalar).is_ok() { Token::Scalar(scalar) } else { Token::Bad }
    }

    /// Passes over a value.
    ///
    /// # Errors
    /// When its end is not here: there is more of it, or it is no value.
    pub(super) fn skip(&mut self) -> Result<(), Missing> {
        let mut depth = 0_usize;
        loop {
            match self.next() {
                Token::Open { .. } => depth += 1,
                Token::Close { .. } if depth > 0 => depth -= 1,
                Token::Comma | Token::Colon if depth > 0 => {}
                Token::Scalar(_) | Token::Text { is_whole: true, .. } => {}
                Token::Gap | Token::Text { is_whole: false, .. } => return Err(Missing::More),
                Token::Bad | Token::Close { .. } | Token::Colon | Token::Comma | Token::End => {
                    return Err(Missing::Nothing);
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// What a string says, or its beginning: some more than `most` bytes, and whether that is all. Half a surrogate pair says
/// nothing that text can hold. `None` if it is none.
pub(super) fn unescaped(raw: &str, most: usize) -> Option<(String, Missing)> {
    let mut text = String::with_capacity(raw.len().min(most));
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if text.len() > most {
            return Some((text, Missing::More));
        }
        text.push(match c {
            '\\' => match chars.next() {
                None => return Some((text, Missing::More)),
                Some(c @ ('"' | '\\' | '/')) => c,
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => match unicode(&mut chars)? {
                    Some(c) => c,
                    None => return Some((text, Missing::More)),
                },
                Some(_) => return None,
            },
            c if c < ' ' => return None,
            c => c,
        });
    }
    Some((text, Missing::Nothing))
}

/// What follows `\u`. Nothing where it ends too early.
fn unicode(chars: &mut std::str::Chars<'_>) -> Option<Option<char>> {
    let Some(unit) = digits(chars)? else { return Some(None) };
    let mut ahead = chars.clone();
    if (0xd800..0xdc00).contains(&unit)
        && ahead.next() == Some('\\')
        && ahead.next() == Some('u')
        && let Some(low) = digits(&mut ahead)?
        && (0xdc00..0xe000).contains(&low)
    {
        *chars = ahead;
        return Some(char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)));
    }
    Some(Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)))
}

/// Four hexadecimal digits.
fn digits(chars: &mut std::str::Chars<'_>) -> Option<Option<u32>> {
    let mut unit = 0;
    for _ in 0..4 {
        let Some(c) = chars.next() else { return Some(None) };
        unit = unit << 4 | c.to_digit(16)?;
    }
    Some(Some(unit))
}
