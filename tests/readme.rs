//! The configurations in the README and the pages beside `deploy/` are ones that work, and no metric is left out there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::certificates::Certificate;
use crate::support::{FakeBackend, Setup};

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
    assert!(valid_in("deploy/behaviour.md") >= 1);
}

#[tokio::test]
async fn every_metric_is_on_the_page_of_metrics() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let proxy = Setup::new()
        .backend(&backend, "synthetic: { tool: x, interval: 100ms }")
        .section("limits", "[{ name: some, tools: ['*'], rate: 1/s }]")
        .section(
            "webhook",
            "{ url: 'http://127.0.0.1:1/', secret: { value: Ju0cbPLD5Sn6xUy4QxIJ2FvEKRRcrl1GBGjGYUCGtnE= } }",
        )
        .start()
        .await;
    proxy.client().await.call("a__x").await.result();

    let metrics = proxy.page("/metrics").await;

    let page = text_of("deploy/metrics.md");
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let names = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let names: Vec<_> = names.filter(|name| name.starts_with("toolgate_")).collect();
    let missing = |name: &&&str| !page.contains(&format!("`{name}`")) && !page.contains(&format!("`{name}{{"));
    assert_eq!(names.iter().filter(missing).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert!(names.len() > 40, "{names:?}");
}

fn text_of(page: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap()
}

/// Reads them all, and returns how many there are.
fn valid_in(page: &str) -> usize {
    let text = text_of(page);
    let configurations: Vec<_> = blocks(&text).into_iter().filter(|block| block.contains("backends:")).collect();
    let folder = tempfile::tempdir().unwrap();

    for yaml in &configurations {
        let yaml = provided(yaml, folder.path());
        let parsed = toolgate_config::parse(&folder.path().join("README.md"), &yaml, &|_| Some("something".to_owned()));
        assert!(parsed.is_ok(), "{}\n{yaml}", parsed.unwrap_err());
    }

    configurations.len()
}
