//! URI templates: they stand for what they expand to, and no template takes long.

use std::time::{Duration, Instant};

use crate::catalog::template::{Origins, Template};

/// Longer ones are compared letter by letter.
const MAX_URI: usize = 8 * 1024;
const MAX_PIECES: usize = 64;
/// What nobody should have to wait for, on the slowest machine.
const TOO_LONG: Duration = Duration::from_secs(5);

/// A part of a template.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part<'a> {
    Fixed(&'a str),
    /// `{x}`
    Narrow,
    /// `{+x}` and its kin.
    Wide,
}

/// A template on the first line, and a URI.
pub fn templates(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, uri) = text.split_once('\n').unwrap_or((&text, ""));
    let (read, parts) = (Template::read(template), parts(template));
    let fixed: usize = parts.iter().map(|part| if let Part::Fixed(text) = part { text.len() } else { 0 }).sum();
    assert_eq!(read.literals(), fixed);
    if template.len() <= 64 && uri.len() <= 64 {
        assert_eq!(read.matches(uri), matches(&parts, uri.as_bytes()));
    }
    for (narrow, wide) in [("v", "a/b"), ("%7B\u{e9}:", ""), ("}", "{x}")] {
        expands(template, &parts, narrow, wide);
    }
    // Long ones are slow to try; one in some will do.
    if bytes.len().is_multiple_of(8) {
        long(template, uri);
    }
}

fn parts(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inner, after)) = after.split_once('}') else { break };
        parts.extend((!before.is_empty()).then_some(Part::Fixed(before)));
        let is_wide = inner.contains('*') || inner.chars().next().is_some_and(|first| "+#./;?&".contains(first));
        match (parts.last_mut(), is_wide) {
            (Some(last @ (Part::Narrow | Part::Wide)), true) => *last = Part::Wide,
            (Some(Part::Narrow | Part::Wide), false) => {}
            (_, true) => parts.push(Part::Wide),
            (_, false) => parts.push(Part::Narrow),
        }
        rest = after;
    }
    parts.extend((!rest.is_empty()).then_some(Part::Fixed(rest)));
    parts
}

/// By trying everything, from each place once.
fn matches(parts: &[Part<'_>], uri: &[u8]) -> bool {
    let mut places = vec![0];
    for part in parts {
        let ends = |&from: &usize| -> Vec<usize> {
            let rest = &uri[from..];
            let segment = rest.iter().take_while(|&&byte| byte != b'/').count();
            match part {
                Part::Fixed(text) => {
                    rest.starts_with(text.as_bytes()).then_some(from + text.len()).into_iter().collect()
                }
                Part::Narrow => (from + 1..=from + segment).collect(),
                Part::Wide => (from..=uri.len()).collect(),
            }
        };
        places = places.iter().flat_map(ends).collect();
        places.sort_unstable();
        places.dedup();
    }
    places.contains(&uri.len())
}

/// A template stands for what it expands to, whose origin is known too.
fn expands(template: &str, parts: &[Part<'_>], narrow: &str, wide: &str) {
    let value = |part: &Part<'_>| match part {
        Part::Fixed(text) => (*text).to_owned(),
        Part::Narrow => narrow.to_owned(),
        Part::Wide => wide.to_owned(),
    };
    let uri: String = parts.iter().map(value).collect();
    if uri.len() <= MAX_URI && parts.len() <= MAX_PIECES {
        assert!(Template::read(template).matches(&uri), "{template} {uri}");
    }
    let mut origins = Origins::default();
    assert_eq!(origins.likeness(&uri), 0);
    origins.add(template);
    let fixed = template.split('{').next().unwrap_or_default();
    let has_origin = fixed.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    assert!(origins.likeness(&uri) >= u8::from(fixed.contains(':')) + u8::from(has_origin), "{template} {uri}");
}

/// Whatever there is to try.
fn long(template: &str, uri: &str) {
    let times = |text: &str, bytes: usize| text.repeat(bytes / text.len().max(1));
    let templates = [times(template, 64 * 1024), times(template, 512), template.to_owned()];
    let uris = [times(uri, 64 * 1024), times(uri, MAX_URI)];
    let started = Instant::now();
    for template in &templates {
        let read = Template::read(template);
        uris.iter().for_each(|uri| assert!(read.matches(uri) || uri != template || template.contains('{')));
    }
    assert!(started.elapsed() < TOO_LONG, "{:?}", started.elapsed());
}
