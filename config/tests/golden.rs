//! `tests/config/*.yaml` against the text beside each: its report, or what it means.

use std::fs;
use std::path::{Path, PathBuf};

use super::assert_kept;
use crate::parse;

/// What every secret of these files holds: as it is, in base64, in hex.
const SECRET: [&str; 3] = ["sesame", "c2VzYW1l", "736573616d65"];

fn env(name: &str) -> Option<String> {
    let value = match name {
        "CONTROL" => "sesame\u{7}",
        "EMPTY" => "",
        "SECONDS_TEN" => "10s",
        "SECRET" => "sesame",
        "SECRET_NAME" => "sesame-name",
        "SESSION_KEY" => "736573616d652d6f70656e2d736573616d652d6f70656e2d736573616d652d32",
        _ => return None,
    };
    Some(value.to_owned())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/config")
}

#[test]
fn every_file_has_its_text() {
    let mut files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty());

    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let said = match parse(&file, &text, &env) {
            Ok(config) => format!("{:#}\n", config.redacted()),
            Err(report) => format!("{report}\n"),
        };
        let said = said.replace(&format!("{}/", folder().display()), "");

        for secret in SECRET {
            assert!(!said.contains(secret), "{} tells a secret:\n{said}", file.display());
        }
        assert_kept(&file.with_extension("txt"), &said);
    }
}

#[test]
fn debug_output_tells_no_secret() {
    let file = folder().join("full.yaml");
    let config = parse(&file, &fs::read_to_string(&file).unwrap(), &env).unwrap();

    let said = format!("{config:?}");

    assert!(SECRET.iter().all(|secret| !said.contains(secret)), "{said}");
}
