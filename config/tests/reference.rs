//! `reference.yaml` shows every key, at its default.

use std::collections::BTreeSet;

use super::{SMALLEST, parse};

pub(super) const REFERENCE: &str = include_str!("../reference.yaml");

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
