//! JSON made over for a log line: what stands under keys of secrets is replaced, and what is too long is cut.
//!
//! It is read once and only as far as it is shown. It may be the beginning of something longer: then it ends as what is cut
//! does. What comes out is always JSON, on one line.

use std::borrow::Cow;
use std::str::from_utf8;

use toolgate_config::{Pattern, Payloads};

use super::lexer::{LONGEST_KEY, Lexer, Missing, Token, unescaped};

/// In place of what stands under a key of a secret.
const REDACTED: &str = "[redacted]";
/// At the end of what is cut, or in place of all that would follow.
const CUT: &str = "[cut]";
/// What a cut may add to what there is room for: a comma, a key and a value.
const SPARE: usize = 24;
/// How deep strings are looked into that are JSON themselves, and have strings in them that are. This is the only recursion.
const LEVELS: u8 = 4;

/// A whole value. `None` if it is none.
pub(super) fn shown(json: &str, wanted: &Payloads) -> Option<String> {
    Masking::new(wanted).one(&mut Lexer::new(json, true))
}

/// The result of a response, or the error in its place, of a message that begins so. `None` if there is none.
pub(super) fn result(message: &[u8], wanted: &Payloads) -> Option<String> {
    let mut lexer = Lexer::new(beginning(message)?, false);
    let mut error = None;
    if lexer.next() != (Token::Open { is_object: true }) {
        return None;
    }
    while let Token::Text { raw, is_whole: true } = lexer.next() {
        if lexer.next() != Token::Colon {
            break;
        }
        let is_null = lexer.clone().next() == Token::Scalar("null");
        match &*unescaped(raw, LONGEST_KEY)?.0 {
            "method" => return None,
            "result" if !is_null => return Masking::new(wanted).one(&mut lexer),
            "error" if !is_null => error = Masking::new(wanted).one(&mut lexer.clone()),
            _ => {}
        }
        if lexer.skip().is_err() || lexer.next() != Token::Comma {
            break;
        }
    }
    error
}

/// As much as is text of what may end within a character.
fn beginning(bytes: &[u8]) -> Option<&str> {
    match from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(problem) if problem.error_len().is_some() => None,
        Err(problem) => from_utf8(bytes.get(..problem.valid_up_to())?).ok(),
    }
}

/// What may come next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Due {
    /// The first key of an object, or its end.
    FirstKey,
    /// The first item of an array, or its end.
    FirstItem,
    Key,
    Nothing,
    /// A comma, or the end of what it is in.
    Rest,
    Value,
}

/// Why no more is shown.
enum Stop {
    /// It is not JSON.
    Bad,
    /// There is no more room, or no more of it: it is to be cut where this is due.
    Cut(Due),
    /// It has been cut.
    Done,
}

/// How much was shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shown {
    All,
    Beginning,
}

struct Masking<'a> {
    /// Keys, in lower case.
    hides: &'a [Pattern],
    level: u8,
    out: String,
    /// Bytes that there is room for still.
    left: usize,
    /// What is open, and whether it is an object.
    open: Vec<bool>,
    /// Whether a comma is to be written before what comes next.
    comma: bool,
    /// Whether anything was hidden.
    has_hidden: bool,
}

impl<'a> Masking<'a> {
    fn new(wanted: &'a Payloads) -> Self {
        let room = usize::try_from(wanted.max).unwrap_or(usize::MAX).saturating_sub(SPARE);
        Self::within(&wanted.redact, 0, room)
    }

    fn within(hides: &'a [Pattern], level: u8, left: usize) -> Self {
        Self { hides, level, out: String::new(), left, open: Vec::new(), comma: false, has_hidden: false }
    }

    fn one(mut self, lexer: &mut Lexer<'_>) -> Option<String> {
        self.value(lexer).ok()?;
        Some(self.out)
    }

    /// Takes a value over, or as much of it as there is room for.
    fn value(&mut self, lexer: &mut Lexer<'_>) -> Result<Shown, ()> {
        let mut due = Due::Value;
        while due != Due::Nothing {
            due = match self.take(due, lexer) {
                Ok(due) => due,
                Err(Stop::Bad) => return Err(()),
                Err(Stop::Cut(due)) => {
                    self.cut(due);
                    return Ok(Shown::Beginning);
                }
                Err(Stop::Done) => return Ok(Shown::Beginning),
            };
        }
        Ok(Shown::All)
    }

    fn take(&mut self, due: Due, lexer: &mut Lexer<'_>) -> Result<Due, Stop> {
        let is_in_object = self.open.last() == Some(&true);
        match (due, lexer.next()) {
            (_, Token::Gap) => Err(Stop::Cut(due)),
            (Due::Value | Due::FirstItem, Token::Open { is_object }) => {
                // And its end.
                self.begin(2, due)?;
                self.out.push(if is_object { '{' } else { '[' });
                self.open.push(is_object);
                Ok(if is_object { Due::FirstKey } else { Due::FirstItem })
            }
            (Due::FirstItem, Token::Close { is_object: false }) | (Due::FirstKey, Token::Close { is_object: true }) => {
                Ok(self.end())
            }
            (Due::Rest, Token::Close { is_object }) if is_object == is_in_object => Ok(self.end()),
            (Due::Rest, Token::Comma) => {
                self.comma = true;
                Ok(if is_in_object { Due::Key } else { Due::Value })
            }
            (Due::Value | Due::FirstItem, Token::Scalar(scalar)) => {
                self.begin(scalar.len(), due)?;
                self.out.push_str(scalar);
                Ok(self.after())
            }
            (Due::Value | Due::FirstItem, Token::Text { raw, is_whole }) => self.text(raw, is_whole, due),
            (Due::Key | Due::FirstKey, Token::Text { is_whole: false, .. }) => Err(Stop::Cut(due)),
            (Due::Key | Due::FirstKey, Token::Text { raw, .. }) => self.key(raw, lexer, due),
            (_, _) => Err(Stop::Bad),
        }
    }

    /// Takes room, and writes the comma that is due.
    fn begin(&mut self, length: usize, due: Due) -> Result<(), Stop> {
        let all = length + usize::from(self.comma);
        self.left = self.left.checked_sub(all).ok_or(Stop::Cut(due))?;
        if std::mem::take(&mut self.comma) {
            self.out.push(',');
        }
        Ok(())
    }

    fn after(&self) -> Due {
        if self.open.is_empty() { Due::Nothing } else { Due::Rest }
    }

    fn end(&mut self) -> Due {
        self.close_one();
        self.after()
    }

    fn close_one(&mut self) -> bool {
        let closed = self.open.pop();
        self.out.extend(closed.map(|is_object| if is_object { '}' } else { ']' }));
        closed.is_some()
    }

    /// Says that there would be more, and ends all that is open.
    fn cut(&mut self, due: Due) {
        let is_in_object = self.open.last() == Some(&true);
        if std::mem::take(&mut self.comma) || due == Due::Rest {
            self.out.push(',');
        }
        if matches!(due, Due::Key | Due::FirstKey) || (due == Due::Rest && is_in_object) {
            self.out.extend(["\"", CUT, "\":"]);
        }
        self.out.extend(["\"", CUT, "\""]);
        while self.close_one() {}
    }

    /// A key, and what stands under it where that is hidden.
    fn key(&mut self, raw: &str, lexer: &mut Lexer<'_>, due: Due) -> Result<Due, Stop> {
        let (key, Missing::Nothing) = unescaped(raw, self.left).ok_or(Stop::Bad)? else { return Err(Stop::Cut(due)) };
        let json = encoded(&key);
        self.begin(json.len() + 3, due)?;
        self.out.extend(["\"", &*json, "\":"]);
        let token = lexer.next();
        if token != Token::Colon {
            return Err(if token == Token::Gap { Stop::Cut(Due::Value) } else { Stop::Bad });
        }
        if !self.hides(&key) {
            return Ok(Due::Value);
        }
        self.begin(REDACTED.len() + 2, Due::Value)?;
        self.out.extend(["\"", REDACTED, "\""]);
        self.has_hidden = true;
        match lexer.skip() {
            Ok(()) => Ok(Due::Rest),
            Err(Missing::More) => Err(Stop::Cut(Due::Rest)),
            Err(Missing::Nothing) => Err(Stop::Bad),
        }
    }

    fn hides(&self, key: &str) -> bool {
        let key = key.to_lowercase();
        self.hides.iter().any(|pattern| pattern.matches(&key))
    }

    /// A string, or as much of it as there is room for.
    fn text(&mut self, raw: &str, is_whole: bool, due: Due) -> Result<Due, Stop> {
        // What of it is hidden takes no room.
        let (text, missing) = unescaped(raw, self.left.saturating_mul(4)).ok_or(Stop::Bad)?;
        let is_whole = is_whole && missing == Missing::Nothing;
        let (shown, is_marked) = self.looked_into(&text, is_whole);
        let json = encoded(&shown);
        if (is_whole || is_marked) && self.begin(json.len() + 2, due).is_ok() {
            self.out.extend(["\"", &*json, "\""]);
            return Ok(self.after());
        }
        self.begin(2, due)?;
        self.out.push('"');
        for (at, c) in shown.char_indices() {
            let json = encoded(shown.get(at..at + c.len_utf8()).unwrap_or_default());
            let Some(left) = self.left.checked_sub(json.len()) else { break };
            self.left = left;
            self.out.push_str(&json);
        }
        self.out.extend([CUT, "\""]);
        while self.close_one() {}
        Err(Stop::Done)
    }

    /// A string without what is to be hidden in it, and whether what is missing of it is marked already. The text of a result is
    /// JSON more often than not.
    fn looked_into<'t>(&mut self, text: &'t str, is_whole: bool) -> (Cow<'t, str>, bool) {
        let is_like_json = text.trim_start().starts_with(['{', '[', '"']);
        let mut is_hidden = is_like_json && self.level >= LEVELS;
        if is_like_json && !is_hidden {
            match self.inner(text, is_whole) {
                Ok(shown) => return (shown.into(), true),
                Err(has_hidden) => is_hidden = has_hidden,
            }
        }
        if is_hidden || self.mentions(text) {
            self.has_hidden = true;
            return (REDACTED.into(), true);
        }
        (text.into(), false)
    }

    /// One value or several, one after the other. Where that is not what it is: whether something would have been hidden.
    fn inner(&mut self, text: &str, is_whole: bool) -> Result<String, bool> {
        let mut lexer = Lexer::new(text, is_whole);
        let mut inner = Masking::within(self.hides, self.level + 1, self.left);
        loop {
            match inner.value(&mut lexer) {
                Ok(Shown::All) => {}
                Ok(Shown::Beginning) => break,
                Err(()) => return Err(inner.has_hidden),
            }
            if matches!(lexer.clone().next(), Token::End | Token::Gap) {
                break;
            }
            inner.out.push('\n');
            inner.left = inner.left.saturating_sub(1);
        }
        self.has_hidden |= inner.has_hidden;
        Ok(inner.out)
    }

    /// Whether a key of a secret stands in text that is no JSON: in quotes, before a colon.
    fn mentions(&self, text: &str) -> bool {
        text.match_indices(':').any(|(colon, _)| {
            let before = text.get(..colon).unwrap_or_default().trim_end();
            let Some((before, quote)) =
                ['"', '\''].iter().find_map(|quote| Some((before.strip_suffix(*quote)?, *quote)))
            else {
                return false;
            };
            // Those of JSON in a string are escaped.
            let before = before.trim_end_matches('\\');
            let key = before.rsplit(quote).next().unwrap_or_default();
            key.len() <= LONGEST_KEY && self.hides(key)
        })
    }
}

/// Text as it stands between the quotes of a JSON string, fit for a terminal.
fn encoded(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !(c.is_control() || is_format(c) || matches!(c, '"' | '\\'));
    if text.chars().all(is_plain) {
        return text.into();
    }
    let mut json = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\t' => json.push_str("\\t"),
            c if is_plain(c) => json.push(c),
            // None of these is longer.
            c => json.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    json.into()
}

/// What makes a terminal show text in another order, or on another line.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
