//! `reference.yaml` shows every key, at its default, and explains it in the words of the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{SMALLEST, assert_kept, parse};

pub(super) const REFERENCE: &str = include_str!("../reference.yaml");

/// Where comments stand, if the code before them leaves room.
const COLUMN: usize = 38;
/// Where lines end.
const WIDTH: usize = 120;

#[test]
fn the_reference_explains_keys_in_the_words_of_the_schema() {
    let mut choices = super::schema::choices();
    let mut words = BTreeMap::new();
    for (key, description) in super::schema::descriptions() {
        let said = [Some(description.replace('\n', " ")), choices.remove(&key)].into_iter().flatten();
        words.insert(key.replace("[]", "").replace("{}", ""), said.collect::<Vec<_>>().join("\n"));
    }

    let text = explained(REFERENCE, &mut words);

    assert_kept(&Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.yaml"), &text);
    // Values of headers and `tls` are written alike wherever they are, and explained where they come first.
    let is_told = |key: &str| {
        let (within, last) = key.rsplit_once('.').unwrap_or_default();
        matches!(last, "env" | "file" | "value") || matches!(within, "webhook.tls" | "traces.tls")
    };
    let untold: Vec<_> = words.keys().filter(|key| !is_told(key)).collect();
    assert_eq!(untold, Vec::<&String>::new(), "keys without a line of their own");
}

/// The file with the comment of each key written anew, where the key stands for the first time. The order of keys, the
/// examples, and comments on anything else are the file's own.
fn explained(file: &str, words: &mut BTreeMap<String, String>) -> String {
    let mut lines = Vec::new();
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut is_ours = false;
    for line in file.lines() {
        let body = line.trim_start_matches([' ', '#']);
        let goes_on = !body.is_empty() && line.rfind(body) > Some(20);
        if goes_on && is_ours {
            continue;
        }
        let words = key(line).filter(|_| !goes_on).and_then(|(column, key)| {
            above.retain(|(other, _)| *other < column);
            above.push((column, key));
            words.remove(&above.iter().map(|(_, key)| *key).collect::<Vec<_>>().join("."))
        });
        is_ours = words.is_some() || (is_ours && goes_on);
        match words {
            Some(words) => lines.extend(commented(line, &words)),
            None => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// The key of a line, in force or in a comment, and its column.
fn key(line: &str) -> Option<(usize, &str)> {
    let body = line.trim_start_matches([' ', '#', '-']);
    let (key, _) = body.split_once(':')?;
    let marker = if line.trim_start().starts_with('#') { 2 } else { 0 };
    let is_key = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    is_key.then(|| (line.len() - body.len() - marker, key))
}

/// A line of code and its comment, which goes on below when it is long.
fn commented(line: &str, words: &str) -> Vec<String> {
    let start = line.len() - line.trim_start_matches([' ', '#']).len();
    let code = line[start..].find(" #").map_or(line, |end| &line[..start + end]).trim_end();
    let column = COLUMN.max(code.len() + 2);
    let margin = code.trim_start().starts_with('#').then(|| format!("{}#", &code[..code.find('#').unwrap()]));
    let mut lines = vec![format!("{code:column$}#")];
    let go_on = format!("{:column$}#", margin.as_deref().unwrap_or_default());
    for (index, paragraph) in words.lines().enumerate() {
        if index > 0 {
            lines.push(go_on.clone());
        }
        for word in unbroken(&without_default(paragraph, code)) {
            if lines.last().unwrap().chars().count() + 1 + word.chars().count() > WIDTH {
                lines.push(go_on.clone());
            }
            let line = lines.last_mut().unwrap();
            line.push(' ');
            line.push_str(&word);
        }
    }
    lines
}

/// The words of a text; what stands between backticks is one.
fn unbroken(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut().filter(|last| last.matches('`').count() % 2 == 1) {
            Some(last) => *last += &format!(" {word}"),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// A description without the default that the line itself shows.
fn without_default(words: &str, code: &str) -> String {
    let is_empty = code.ends_with("[]") || code.ends_with("{}");
    let is_shown = |said: &str| match said.strip_prefix("Default ") {
        Some(value) => !value.contains(' '),
        None => is_empty && said == "Default: none",
    };
    words.trim_end_matches('.').split(". ").filter(|said| !is_shown(said)).collect::<Vec<_>>().join(". ")
}

#[test]
fn the_reference_is_the_smallest_file_with_its_defaults_shown() {
    assert_eq!(parse(REFERENCE), parse(SMALLEST));
}

#[test]
fn the_reference_names_every_key() {
    let words = REFERENCE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect::<BTreeSet<_>>();

    for key in super::schema::keys() {
        let name = key.rsplit('.').next().unwrap_or_default().trim_end_matches("[]").trim_end_matches("{}");
        assert!(words.contains(name), "{key}");
    }
}

#[test]
fn the_schema_tells_the_defaults_of_the_reference() {
    let bare = |text: &str| text.replace(['"', '`'], "");
    let mut told = 0;

    for (key, description) in super::schema::descriptions() {
        let Some((_, default)) = description.split_once("Default ") else { continue };
        let end: &[char] = if default.starts_with('`') { &['`'] } else { &['.', ','] };
        let default = bare(default.trim_start_matches('`').split(end).next().unwrap_or_default());
        let name = key.rsplit('.').next().unwrap_or_default();
        let shown = |line: &str| {
            let (given, value) = line.trim_start_matches([' ', '#', '-']).split_once(':').unwrap_or_default();
            given == name && bare(value.split(" #").next().unwrap_or_default()).trim() == default
        };
        assert!(REFERENCE.lines().any(shown), "{key}: {default}");
        told += 1;
    }

    assert!(told > 20, "{told}");
}

/// The reference with its examples put in force: comments that stand where keys stand.
fn with_examples() -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in REFERENCE.lines().skip_while(|line| line.starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let is_example = line[indent..].starts_with("# ") && indent < 20;
        if is_example && let Some(before) = lines.last_mut() {
            let code = before.split("  #").next().unwrap_or_default().trim_end();
            *before = code.strip_suffix("[]").or_else(|| code.strip_suffix("{}")).unwrap_or(code).to_owned();
        }
        // A comment that goes on stands far right, and is in the way of what is an example after it.
        if is_example || indent < 20 {
            lines.push(if is_example { line.replacen("# ", "", 1) } else { line.to_owned() });
        }
    }
    lines.join("\n")
}

#[test]
fn the_examples_are_right_too() {
    let text = with_examples().replace("http://127.0.0.1:3001/mcp", "https://mcp.internal/mcp");

    let report = parse(&text).unwrap_err();

    for problem in report.diagnostics() {
        let is_elsewhere = problem.message.starts_with("cannot read ") || problem.message.ends_with(" is not set");
        assert!(is_elsewhere, "{problem}\n{text}");
    }
}

#[test]
fn what_is_shown_for_people_reads_back_as_the_same() {
    let config = parse(REFERENCE).unwrap();

    assert_eq!(parse(&config.redacted().to_string()), Ok(config));
}
