//! Which URIs a template may stand for (RFC 6570), read leniently: enough to find who has a resource, not to take it apart.

use std::collections::HashSet;

/// The longest URI that is compared with templates.
const MAX_URI: usize = 8 * 1024;
/// The most pieces of a template; one with more stands for no URI but itself.
const MAX_PIECES: usize = 64;

/// One piece of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Literal(Box<str>),
    /// `{x}`: some characters, none of them a slash.
    Segment,
    /// `{+x}`, `{x*}` and the other operators: any characters, or none.
    Any,
}

/// A template, ready to be matched.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    text: Box<str>,
    pieces: Box<[Piece]>,
}

impl Template {
    /// Reads a template. Braces without their other half stand for themselves.
    pub(crate) fn read(text: &str) -> Self {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find('{') {
            let Some(length) = rest[open..].find('}') else { break };
            literal.push_str(&rest[..open]);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            let piece = expression(&rest[open + 1..open + length]);
            match (pieces.last_mut(), piece) {
                // Two that touch take what the wider of them takes.
                (Some(Piece::Any), _) | (Some(Piece::Segment), Piece::Segment) => {}
                (Some(last @ Piece::Segment), Piece::Any) => *last = Piece::Any,
                (_, piece) => pieces.push(piece),
            }
            rest = &rest[open + length + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Self { text: text.into(), pieces: pieces.into() }
    }

    /// How many bytes of it stand for themselves.
    pub(crate) fn literals(&self) -> usize {
        let length = |piece: &Piece| if let Piece::Literal(text) = piece { text.len() } else { 0 };
        self.pieces.iter().map(length).sum()
    }

    /// Whether it may stand for `uri`.
    ///
    /// Keeps the set of all places in `uri` that the pieces so far can have led to, so that each piece is one pass over it,
    /// whatever there is to try.
    pub(crate) fn matches(&self, uri: &str) -> bool {
        if uri.len() > MAX_URI || self.pieces.len() > MAX_PIECES {
            return uri == &*self.text;
        }
        // Most templates differ from most URIs in how they begin.
        let (rest, pieces) = match self.pieces.split_first() {
            Some((Piece::Literal(begin), pieces)) => match uri.strip_prefix(&**begin) {
                Some(rest) => (rest.as_bytes(), pieces),
                None => return false,
            },
            _ => (uri.as_bytes(), &*self.pieces),
        };
        let mut places = vec![false; rest.len() + 1];
        places[0] = true;
        for piece in pieces {
            places = match piece {
                Piece::Literal(text) => after_literal(&places, rest, text.as_bytes()),
                Piece::Any => after_any(&places),
                Piece::Segment => after_segment(&places, rest),
            };
        }
        places.last() == Some(&true)
    }
}

fn expression(inner: &str) -> Piece {
    let is_wide = inner.starts_with(['+', '#', '.', '/', ';', '?', '&']) || inner.contains('*');
    if is_wide { Piece::Any } else { Piece::Segment }
}

/// Every place where `text` ends that began at one of `places`, found in one pass (Knuth, Morris, Pratt).
fn after_literal(places: &[bool], uri: &[u8], text: &[u8]) -> Vec<bool> {
    let borders = borders(text);
    let mut after = vec![false; places.len()];
    let mut matched = 0;
    for (at, byte) in uri.iter().enumerate() {
        while matched > 0 && text.get(matched) != Some(byte) {
            matched = borders[matched - 1];
        }
        matched += usize::from(text.get(matched) == Some(byte));
        if matched == text.len() {
            after[at + 1] = places[at + 1 - matched];
        }
    }
    after
}

/// For each beginning of `text`, how long the longest end of it is that is a beginning too.
fn borders(text: &[u8]) -> Vec<usize> {
    let mut borders = vec![0; text.len()];
    let mut border = 0;
    for at in 1..text.len() {
        while border > 0 && text[border] != text[at] {
            border = borders[border - 1];
        }
        border += usize::from(text[border] == text[at]);
        borders[at] = border;
    }
    borders
}

fn after_any(places: &[bool]) -> Vec<bool> {
    let first = places.iter().position(|&place| place).unwrap_or(places.len());
    (0..places.len()).map(|at| at >= first).collect()
}

fn after_segment(places: &[bool], uri: &[u8]) -> Vec<bool> {
    let mut after = vec![false; places.len()];
    let mut within = false;
    for (at, &byte) in uri.iter().enumerate() {
        within = byte != b'/' && (within || places[at]);
        after[at + 1] = within;
    }
    after
}

/// What a backend's URIs begin with: a hint who may have one that nobody lists.
#[derive(Debug, Default)]
pub(crate) struct Origins(HashSet<Box<str>>);

impl Origins {
    /// Takes in a URI, or a template of some.
    pub(crate) fn add(&mut self, uri: &str) {
        let fixed = uri.split('{').next().unwrap_or_default();
        for part in [scheme(fixed), origin(fixed)].into_iter().flatten() {
            self.0.insert(part.into());
        }
    }

    /// How much `uri` is like those taken in.
    pub(crate) fn likeness(&self, uri: &str) -> u8 {
        let has = |part: Option<&str>| u8::from(part.is_some_and(|part| self.0.contains(part)));
        has(scheme(uri)) + has(origin(uri))
    }
}

/// `scheme:`
fn scheme(uri: &str) -> Option<&str> {
    uri.find(':').map(|colon| &uri[..=colon])
}

/// `scheme://authority/`
fn origin(uri: &str) -> Option<&str> {
    let authority = uri.find("://")? + 3;
    let slash = authority + uri[authority..].find('/')?;
    Some(&uri[..=slash])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_stand_for_what_they_may() {
        for (template, yes, no) in [
            ("a://{x}", &["a://1", "a://b c"][..], &["a://", "a://1/2", "b://1", "a:/1"][..]),
            (
                "test://template/{id}/data",
                &["test://template/7/data"],
                &["test://template//data", "test://template/1/2/data"],
            ),
            ("f:///{+path}", &["f:///", "f:///a/b.txt"], &["f://a"]),
            ("f:///{path*}.md", &["f:///a/b.md", "f:///.md"], &["f:///a.txt"]),
            ("s://a{?q,r}", &["s://a", "s://a?q=1&r=2"], &["s://b"]),
            ("s://a{/b}{#c}", &["s://a", "s://a/b#c"], &["s://"]),
            ("a{x}b{y}c", &["a1b2c", "abbbc", "a1bb2cc"], &["abc", "a1b2", "a1/b2c"]),
            ("plain", &["plain"], &["plai", "plainer", ""]),
            ("{x}", &["a"], &["", "a/b"]),
            ("a{", &["a{"], &["a"]),
            ("", &[""], &["a"]),
            ("{x}aab", &["aaab", "xaaab"], &["aab", "aaba"]),
        ] {
            let read = Template::read(template);
            for uri in yes {
                assert!(read.matches(uri), "{template} {uri}");
            }
            for uri in no {
                assert!(!read.matches(uri), "{template} {uri}");
            }
        }
    }

    #[test]
    fn what_has_more_literals_is_nearer() {
        assert!(Template::read("a://b/{x}").literals() > Template::read("a://{x}/{y}").literals());
        assert_eq!(Template::read("a{x}b{+y}").literals(), 2);
    }

    #[test]
    fn no_template_takes_long() {
        let templates = [
            "{x}a".repeat(32),
            "{+x}a".repeat(32),
            "a".repeat(4_000) + "{x}" + &"a".repeat(4_000) + "b",
            "{+x}{y}{+z}a".repeat(5_000),
        ];
        let uri = "a".repeat(MAX_URI);
        let started = Instant::now();

        for template in templates {
            let _ = Template::read(&template).matches(&uri);
        }

        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn likely_owners_have_uris_that_begin_alike() {
        let mut origins = Origins::default();
        origins.add("file:///x/y");
        origins.add("db://main/{table}");

        assert_eq!(
            ["db://main/z", "db://other/z", "file:///z", "x://main/", ""].map(|uri| origins.likeness(uri)),
            [2, 1, 2, 0, 0]
        );
    }

    proptest! {
        #[test]
        fn anything_can_be_read_and_matched(template in "[a/{}+*?]{0,12}", uri in "[a/{}]{0,12}") {
            let _ = Template::read(&template).matches(&uri);
        }

        #[test]
        fn a_template_stands_for_what_it_expands_to(parts in proptest::collection::vec(("[ab/:]{0,4}", "[abc:]{1,3}", any::<bool>()), 1..5)) {
            let template: String = parts.iter().map(|(fixed, _, wide)| format!("{fixed}{{{}x}}", if *wide { "+" } else { "" })).collect();
            let uri: String = parts.iter().map(|(fixed, value, _)| format!("{fixed}{value}")).collect();
            prop_assert!(Template::read(&template).matches(&uri), "{} {}", template, uri);
        }

        #[test]
        fn it_agrees_with_trying_everything(template in "(a|b|/|\\{x\\}|\\{\\+x\\}){0,6}", uri in "[ab/]{0,8}") {
            let read = Template::read(&template);
            prop_assert_eq!(read.matches(&uri), tries(&read.pieces, uri.as_bytes()));
        }
    }

    fn tries(pieces: &[Piece], uri: &[u8]) -> bool {
        let Some((piece, pieces)) = pieces.split_first() else { return uri.is_empty() };
        match piece {
            Piece::Literal(text) => uri.strip_prefix(text.as_bytes()).is_some_and(|rest| tries(pieces, rest)),
            Piece::Any => (0..=uri.len()).any(|at| tries(pieces, &uri[at..])),
            Piece::Segment => (1..=uri.len()).take_while(|&at| uri[at - 1] != b'/').any(|at| tries(pieces, &uri[at..])),
        }
    }
}
