//! What is kept outside the file: secrets from the environment and from files, certificates and keys.
//!
//! Nothing here quotes a value, only where it was to come from.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::expand::is_variable_name;
use crate::value::{Pem, Secret, SessionKey, SigningKey};
use crate::walk::{Section, Value, quote};

/// A string, `{ env: NAME }`, `{ file: path }` or `{ value: string }`.
pub(super) fn secret(value: &Value<'_>) -> Option<Secret> {
    let value = value.clone().secret();
    let text = if value.is_mapping() { value.section(from_elsewhere).flatten() } else { literal(&value) }?;
    if text.is_empty() {
        value.problem("is empty");
        return None;
    }
    Some(Secret(Arc::from(text)))
}

fn literal(value: &Value<'_>) -> Option<String> {
    if value.is_list() {
        value.mistyped("a string, or a mapping with `env`, `file` or `value`", None);
        return None;
    }
    value.text().map(|text| text.value)
}

fn from_elsewhere(s: &mut Section<'_>) -> Option<String> {
    let sources = [s.get("env"), s.get("file"), s.get("value")];
    let given = sources.iter().flatten().count();
    // Where none is given but something is, that is an unknown key, and reported as one.
    if given > 1 || s.is_empty() {
        s.value().problem("give one of `env`, `file` and `value`");
    }
    if given != 1 {
        return None;
    }
    match sources {
        [Some(name), ..] => from_environment(&name),
        [_, Some(path), _] => from_file(&path),
        [.., given] => literal(&given?),
    }
}

fn from_environment(value: &Value<'_>) -> Option<String> {
    let name = value.text()?;
    if !is_variable_name(&name.value) {
        value.problem_with("not a name of an environment variable", "letters, digits and _, not a digit first");
        return None;
    }
    let found = value.source().variable(&name.value);
    if found.is_none() {
        value.problem(format!("environment variable {} is not set", quote(&name.written)));
    }
    found
}

fn from_file(value: &Value<'_>) -> Option<String> {
    let (pem, written) = read(value)?;
    match std::str::from_utf8(&pem.bytes) {
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        Err(_) => {
            value.problem(format!("{} is not UTF-8 text", quote(&written)));
            None
        }
    }
}

/// Session keys, no two alike.
pub(super) fn session_keys(value: &Value<'_>) -> Option<Vec<SessionKey>> {
    let mut first = HashMap::new();
    value.list(|value| {
        let key = session_key(value)?;
        if let Some(other) = first.insert(*key.expose(), value.field().to_owned()) {
            value.problem(format!("the same key as `{other}`"));
        }
        Some(key)
    })
}

fn session_key(value: &Value<'_>) -> Option<SessionKey> {
    let text = secret(value)?;
    let key = decode(text.expose().trim());
    if key.is_none() {
        value.problem_with("not 32 bytes as base64 or hex", "make one with: openssl rand -base64 32");
    }
    key.map(SessionKey)
}

/// A key that messages are signed with, also as Standard Webhooks write it.
pub(super) fn signing_key(value: &Value<'_>) -> Option<SigningKey> {
    let text = secret(value)?;
    let text = text.expose().trim();
    let key = decode(text.strip_prefix("whsec_").unwrap_or(text));
    if key.is_none() {
        value.problem_with("not 32 bytes as base64 or hex", "make them with: openssl rand -base64 32");
    }
    key.map(SigningKey)
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    // 64 digits are hex: as base64 they would be 48 bytes.
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let bytes = (0..32).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16));
        return bytes.collect::<Result<Vec<_>, _>>().ok()?.try_into().ok();
    }
    let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()?.try_into().ok()
}

/// A PEM file with at least one certificate.
pub(super) fn certificates(value: &Value<'_>) -> Option<Pem> {
    let (pem, written) = read(value)?;
    let found = CertificateDer::pem_slice_iter(&pem.bytes).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(certificates) if certificates.is_empty() => {
            value.problem(format!("{} holds no certificate", quote(&written)))
        }
        Ok(_) => return Some(pem),
        Err(_) => value.problem(format!("{} is not valid PEM", quote(&written))),
    }
    None
}

/// A PEM file with a private key.
pub(super) fn private_key(value: &Value<'_>) -> Option<Pem> {
    let (pem, written) = read(value)?;
    let encrypted = pem.bytes.windows(21).any(|bytes| bytes == b"ENCRYPTED PRIVATE KEY");
    match PrivateKeyDer::from_pem_slice(&pem.bytes) {
        Ok(_) => return Some(pem),
        Err(pem::Error::NoItemsFound) if encrypted => value.problem_with(
            format!("the key in {} is encrypted", quote(&written)),
            "decrypt it: openssl pkey -in KEY -out PLAIN",
        ),
        Err(pem::Error::NoItemsFound) => {
            value.problem_with(format!("{} holds no private key", quote(&written)), "PKCS#8, PKCS#1 and SEC1 are read")
        }
        Err(_) => value.problem(format!("{} is not valid PEM", quote(&written))),
    }
    None
}

/// A file, and its path as written.
fn read(value: &Value<'_>) -> Option<(Pem, String)> {
    let path = value.text()?;
    match value.source().read(&path.value) {
        Ok((read, bytes)) => Some((Pem { path: read, bytes: Arc::from(bytes) }, path.written)),
        Err(error) => {
            value.problem(format!("cannot read {}: {error}", quote(&path.written)));
            None
        }
    }
}
