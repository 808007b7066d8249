//! Backends that the gateway runs: `command`, `env`, `cwd`, `instances`, `max_instances`, `max_line`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::secret;
use crate::expand::{Text, is_variable_name};
use crate::reach::{Instances, Variable};
use crate::walk::{Entry, Value, quote};

/// The program and its arguments.
pub(super) fn words(value: &Value<'_>) -> Option<(String, Vec<String>)> {
    let mut complete = true;
    let words = value.some("name the program: [mcp-server-filesystem, /srv/shared]", |value| {
        let word = word(value);
        complete &= word.is_some();
        word.map(|word| (value.clone(), word))
    })?;
    let ((first, name), arguments) = words.split_first().filter(|_| complete)?;
    if name.value.is_empty() {
        value.problem_with("the program's name is empty", "the first word is the program");
        return None;
    }
    let program = if name.value.contains('/') { path(first, name)? } else { name.value.clone() };
    Some((program, arguments.iter().map(|(_, word)| word.value.clone()).collect()))
}

fn word(value: &Value<'_>) -> Option<Text> {
    let text = value.text()?;
    if text.value.contains('\0') {
        value.problem("has a null character, which no argument can");
        return None;
    }
    Some(text)
}

/// A program that is named by its path, which must be there. A name is looked up when it is run: the `PATH` of whoever checks
/// the file need not be the gateway's.
fn path(value: &Value<'_>, written: &Text) -> Option<String> {
    let (path, program) = resolve(value, &written.value)?;
    match is_executable(&path) {
        Ok(true) => return Some(program),
        Ok(false) => value.problem_with(
            format!("{} is not an executable file", quote(&written.written)),
            "make it one with `chmod +x`, or name the program that runs it first",
        ),
        Err(error) => value.problem_with(
            format!("cannot read {}: {error}", quote(&written.written)),
            "a relative path starts at the folder of this file; a name without / is looked up in PATH",
        ),
    }
    None
}

fn is_executable(path: &Path) -> std::io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// A path from the folder of the file, as a path and as text.
fn resolve(value: &Value<'_>, written: &str) -> Option<(PathBuf, String)> {
    let path = value.source().resolve(written);
    let text = path.to_str().map(str::to_owned);
    if text.is_none() {
        value.problem("lies in a folder whose name is not UTF-8");
    }
    Some((path, text?))
}

pub(super) fn env(value: &Value<'_>) -> Option<Vec<Variable>> {
    let mut variables = Vec::new();
    for entry in value.entries()? {
        let (name, value) = (variable_name(&entry), variable_value(&entry.value));
        let (Some(name), Some(value)) = (name, value) else { continue };
        variables.push(Variable { name, value });
    }
    Some(variables)
}

fn variable_name(entry: &Entry<'_>) -> Option<String> {
    if !is_variable_name(entry.key) {
        let help = "letters, digits and _, not a digit first".to_owned();
        entry.problem_at_key("not a name of an environment variable", Some(help));
        return None;
    }
    Some(entry.key.to_owned())
}

fn variable_value(value: &Value<'_>) -> Option<crate::value::Secret> {
    let secret = secret::secret(value)?;
    if secret.expose().contains('\0') {
        value.problem("has a null character, which no variable can");
        return None;
    }
    Some(secret)
}

pub(super) fn cwd(value: &Value<'_>) -> Option<PathBuf> {
    let text = value.text()?;
    let path = value.source().resolve(&text.value);
    match is_folder(&path) {
        Ok(true) => return Some(path),
        Ok(false) => value.problem(format!("{} is not a folder", quote(&text.written))),
        Err(error) => value.problem(format!("cannot read {}: {error}", quote(&text.written))),
    }
    None
}

fn is_folder(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.is_dir())
}

pub(super) fn instances(value: &Value<'_>) -> Option<Instances> {
    value.choice(&[("session", Instances::Session), ("shared", Instances::Shared)])
}
