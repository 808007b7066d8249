//! Whatever is read, nothing panics, a refusal says why, and no secret is told.

use std::path::Path;

use proptest::prelude::*;

use super::parse;
use super::reference::REFERENCE;
use crate::parse as parse_with;

const SECRET: &str = "open-sesame";

/// What variables, headers and keys of this file hold is [`SECRET`].
const SECRETS: &str = "
listeners: [{ address: 127.0.0.1:8080, max_body: '${A}', path: '/${B}', allowed_hosts: ['${C}'] }]
backends:
  - name: '${A}'
    url: 'https://${B}/mcp?x=${C}'
    headers: { X-A: open-sesame, X-B: { env: D }, X-C: { value: open-sesame }, X-D: 'Bearer ${E}' }
    timeout: { connect: '${A}', tools: [{ match: ['${B}'], idle: '${C}' }] }
    prefix: '${A}'
    protocol: '${B}'
    max_inflight: '${C}'
    tools: { allow: ['${A}'], rename: { q: '${B}' }, describe: { q: '${C}' } }
  - { name: b, command: ['${A}', '${B}'], env: { A: '${C}', B: { value: open-sesame } }, cwd: '${D}', instances: '${E}' }
  - { name: c, urls: ['${A}', 'http://${B}/?x=${C}'], transport: '${D}' }
limits: [{ name: '${A}', backends: ['${B}'], key: '${C}', rate: '${D}', burst: '${E}' }]
health: { interval: '${A}', rise: '${B}' }
sessions: { keys: ['${A}', { env: B }, open-sesame] }
log: { level: '${A}' }
reload: { watch: '${B}' }
threads: '${C}'
";

/// Secrets where they belong or nearly so, each with a mistake that must be told without them.
const MISTAKES: [&str; 16] = [
    "SECRET",
    "backends: SECRET",
    "backends: [SECRET]",
    "backends: [{ url: 'https://user:SECRET@host/' }]",
    "backends: [{ url: 'https://host/a b?token=SECRET' }]",
    "backends: [{ headers: SECRET }]",
    "backends: [{ headers: { X-A: [SECRET] } }]",
    "backends: [{ headers: { X-A: \"SECRET\\n\" } }]",
    "backends: [{ headers: { X-A: { SECRET } } }]",
    "backends: [{ headers: { X-A: { SECRET: x } } }]",
    "backends: [{ headers: { X-A: { value: SECRET, env: A } } }]",
    "backends: [{ command: [a], env: SECRET }]",
    "backends: [{ command: [a], env: { A: [SECRET], B: { value: SECRET, env: A }, C: { SECRET: x } } }]",
    "sessions: { keys: SECRET }",
    "sessions: { keys: [SECRET, { value: SECRET }, { SECRET }] }",
    "sessions: [SECRET]",
];

/// A text with some of its bytes changed, dropped, doubled or moved.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..6_u8, "[\\[\\]{}:,&*!|>'\"%@`# \\t\\n$a0~?-]{1,3}");
    prop::collection::vec(edit, 1..6).prop_map(move |edits| {
        let mut chars = text.chars().collect::<Vec<_>>();
        for (index, kind, new) in edits {
            let at = index.index(chars.len().max(1)).min(chars.len());
            let end = (at + 1 + kind as usize * 7).min(chars.len());
            match kind {
                0 | 1 => drop(chars.splice(at..at, new.chars())),
                2 | 3 => drop(chars.splice(at..end, new.chars())),
                4 => chars.truncate(at),
                _ => drop(chars.splice(at..at, chars[at..end].to_vec())),
            }
        }
        chars.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged(text in "\\PC*|[\\[\\]{}:,&*!|>'\"%@`# \\t\\na-c0-3~?-]{0,60}") {
        let report = parse(&text).unwrap_err();
        prop_assert!(!report.diagnostics().is_empty());
    }

    #[test]
    fn any_mutation_of_the_reference_is_judged(text in mutated(REFERENCE)) {
        if let Err(report) = parse(&text) {
            prop_assert!(!report.diagnostics().is_empty());
            prop_assert!(report.diagnostics().is_sorted_by_key(|problem| (problem.line, problem.column)));
        }
    }

    #[test]
    fn no_problem_tells_what_a_variable_holds(text in mutated(SECRETS), value in prop::sample::select(&[
        SECRET, "0open-sesame", "open-sesame/s", "https://u:open-sesame@h/", "\nopen-sesame", "open-sesame:0", "1.5open-sesame",
    ])) {
        // The mutations must not tear the secret out of its place, where it would be one no more.
        let text = text.replace(SECRET, "${LITERAL}");
        if let Err(report) = parse_with(Path::new("a.yaml"), &text, &|_| Some(value.to_owned())) {
            let said = report.to_string();
            prop_assert!(!said.contains("sesame"), "{}", said);
        }
    }

    #[test]
    fn no_problem_tells_what_a_header_or_a_key_holds(secret in "[a-zA-Z0-9+/]{12,40}={0,2}") {
        for place in MISTAKES {
            let said = parse(&place.replace("SECRET", &secret)).unwrap_err().to_string();
            prop_assert!(!said.contains(&secret), "{}", said);
        }
    }
}
