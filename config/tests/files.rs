//! Files: found from the configuration's folder, remembered, and refused when they cannot be.

use std::fs;
use std::path::{Path, PathBuf};

use super::SMALLEST;
use crate::{Config, load};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            fs::write(folder.path(name), bytes).unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Config, String> {
        load(&self.path("toolgate.yaml")).map_err(|report| {
            let said = report.to_string();
            said.replace(&format!("{}/", self.0.path().display()), "")
        })
    }
}

fn key(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

#[test]
fn files_are_found_from_the_folder_of_the_configuration_and_listed_once() {
    let yaml = "listeners:\n  - { address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.pem }] } }\n\
                backends: [{ name: a, url: http://a, headers: { X-A: { file: token }, X-B: { file: token } } }]\n";
    let pem = [CERTIFICATE, &key("PRIVATE KEY")].concat();
    let folder =
        Folder::with(&[("toolgate.yaml", yaml.as_bytes()), ("a.pem", pem.as_bytes()), ("token", b"sesame\r\n\n")]);

    let config = folder.load().unwrap();

    assert_eq!(config.files, ["toolgate.yaml", "a.pem", "token"].map(|name| folder.path(name)));
    let crate::Reach::Remote(remote) = &config.backends[0].reach else { panic!("a command") };
    assert_eq!(remote.headers[0].value.expose(), "sesame");
    assert_eq!(&*config.listeners[0].tls.as_ref().unwrap().certificates[0].key.bytes, pem.as_bytes());
}

#[test]
fn a_changed_certificate_changes_the_configuration() {
    let yaml =
        format!("{SMALLEST}# \n").replace("8080 }", "8080, tls: { certificates: [{ cert: c.pem, key: k.pem }] } }");
    let folder = Folder::with(&[
        ("toolgate.yaml", yaml.as_bytes()),
        ("c.pem", CERTIFICATE.as_bytes()),
        ("k.pem", key("PRIVATE KEY").as_bytes()),
    ]);
    let old = folder.load().unwrap();

    fs::write(folder.path("c.pem"), CERTIFICATE.replace("AAAA", "BBBB")).unwrap();

    assert_eq!(crate::compare(&old, &folder.load().unwrap()), crate::Change::Reload);
}

#[test]
fn private_keys_come_in_three_forms() {
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        let yaml = SMALLEST.replace("8080 }", "8080, tls: { certificates: [{ cert: c.pem, key: k.pem }] } }");
        let folder = Folder::with(&[
            ("toolgate.yaml", yaml.as_bytes()),
            ("c.pem", CERTIFICATE.as_bytes()),
            ("k.pem", key(label).as_bytes()),
        ]);

        assert!(folder.load().is_ok(), "{label}");
    }
}

#[test]
fn a_file_that_is_no_text_is_refused_where_it_stops_being_one() {
    let folder = Folder::with(&[("toolgate.yaml", b"a: \xc3\xa4\nb: x\xff\n")]);

    assert_eq!(folder.load().unwrap_err(), "toolgate.yaml:2:5: not UTF-8 text");
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let folder = Folder::with(&[("toolgate.yaml", format!("\u{feff}{SMALLEST}").as_bytes())]);

    assert!(folder.load().is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem() {
    let said = load(Path::new("/nonexistent/toolgate.yaml")).unwrap_err().to_string();
    let folder = load(Path::new("/")).unwrap_err().to_string();

    assert_eq!(said, "/nonexistent/toolgate.yaml:1:1: cannot read the file: No such file or directory (os error 2)");
    assert_eq!(folder, "/:1:1: cannot read the file: Is a directory (os error 21)");
}

#[test]
fn files_larger_than_a_mebibyte_are_refused() {
    let large = format!("{SMALLEST}#{}", "x".repeat(1024 * 1024));
    let folder = Folder::with(&[("toolgate.yaml", large.as_bytes())]);

    assert_eq!(folder.load().unwrap_err(), "toolgate.yaml:1:1: cannot read the file: larger than 1 MiB");
    assert_eq!(super::parse(&large).unwrap_err().to_string(), "toolgate.yaml:1:1: larger than 1 MiB");
    let endless = SMALLEST.replace("mcp }", "mcp, headers: { X-A: { file: /dev/zero } } }");
    let said = super::parse(&endless).unwrap_err().to_string();
    assert!(said.ends_with("cannot read `/dev/zero`: larger than 1 MiB"), "{said}");
}
