//! The configurations in the README are ones that work.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::certificates::Certificate;

/// Every fenced block of YAML.
fn blocks(markdown: &str) -> Vec<&str> {
    markdown.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Puts a file that serves the purpose where each one is named, below a folder.
fn provided(yaml: &str, folder: &Path) -> String {
    let certificate = Certificate::of("mcp.example.com");
    let is_file = |word: &&str| [".crt", ".key", ".pem"].iter().any(|ending| word.ends_with(ending));
    let words = yaml.split([' ', '"', '\'', ',', '[', ']', '{', '}', '\n']);
    let mut provided = yaml.to_owned();
    for path in words.filter(is_file).collect::<BTreeSet<_>>() {
        let file = folder.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let is_secret = path.contains("secret");
        let text = if is_secret { "Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE=" } else { &certificate.pem() };
        std::fs::write(&file, text).unwrap();
        // Relative ones start at the folder anyway.
        if path.starts_with('/') {
            provided = provided.replace(path, file.to_str().unwrap());
        }
    }
    provided
}

#[test]
fn every_configuration_in_the_readme_is_valid() {
    assert!(valid_in("README.md") >= 3);
}

#[test]
fn every_configuration_in_the_pages_on_deployment_is_valid() {
    assert!(valid_in("deploy/README.md") >= 3);
}

/// Reads them all, and returns how many there are.
fn valid_in(page: &str) -> usize {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let configurations: Vec<_> = blocks(&text).into_iter().filter(|block| block.contains("backends:")).collect();
    let folder = tempfile::tempdir().unwrap();

    for yaml in &configurations {
        let yaml = provided(yaml, folder.path());
        let parsed = toolgate_config::parse(&folder.path().join("README.md"), &yaml, &|_| Some("something".to_owned()));
        assert!(parsed.is_ok(), "{}\n{yaml}", parsed.unwrap_err());
    }

    configurations.len()
}
