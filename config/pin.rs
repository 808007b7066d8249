//! `pin`: the definitions of tools that are trusted, and the file that they stand in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// The one version of the lock file that there is.
const VERSION: u64 = 1;
const SHA256: &str = "sha256:";

/// `pin`: which definitions of tools are trusted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pin {
    /// What becomes of a tool that is not pinned, or is defined differently from what was pinned. Default `off`.
    pub mode: PinMode,
    /// Where the pinned tools stand. Default `toolgate.lock`, beside the configuration.
    pub file: PathBuf,
    /// What that file holds; nothing where the mode is `off`.
    pub lock: Arc<Lock>,
}

/// What becomes of a tool that is not pinned.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PinMode {
    /// Nothing is looked up.
    #[default]
    Off,
    /// It is shown, logged and counted.
    Warn,
    /// It is hidden and cannot be called, besides.
    Enforce,
}

/// The pinned tools of every backend.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lock(BTreeMap<String, BTreeMap<String, Fingerprint>>);

impl Lock {
    /// Reads what a lock is printed as.
    ///
    /// # Errors
    /// What is wrong with the text, in words that fit after its name.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        if file.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return Err(format!("is not a lock file of version {VERSION}"));
        }
        let backends = file.get("tools").and_then(Value::as_object).ok_or("has no `tools`, an object")?;
        let mut lock = Self::default();
        for (backend, tools) in backends {
            let tools = tools.as_object().ok_or_else(|| format!("has no object at `tools.{backend}`"))?;
            let mut pinned = BTreeMap::new();
            for (tool, print) in tools {
                let print = print.as_str().and_then(|print| print.parse().ok());
                let print = print.ok_or_else(|| {
                    format!("has no `{SHA256}` and 64 hexadecimal digits at `tools.{backend}.{tool}`")
                })?;
                pinned.insert(tool.clone(), print);
            }
            lock.0.insert(backend.clone(), pinned);
        }
        Ok(lock)
    }

    /// What a backend's tool was pinned as, by the backend's own name for it.
    pub fn get(&self, backend: &str, tool: &str) -> Option<&Fingerprint> {
        self.0.get(backend)?.get(tool)
    }

    /// All that is pinned of a backend.
    pub fn of(&self, backend: &str) -> impl Iterator<Item = (&str, &Fingerprint)> {
        self.0.get(backend).into_iter().flatten().map(|(tool, print)| (tool.as_str(), print))
    }

    /// Pins these tools of a backend, and no others of it.
    pub fn set(&mut self, backend: &str, tools: BTreeMap<String, Fingerprint>) {
        self.0.insert(backend.to_owned(), tools);
    }

    /// Keeps what is pinned of these backends only.
    pub fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.0.retain(|backend, _| keeps(backend));
    }
}

/// As the lock file has it: a line for each tool, in the order of their names.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tools = |tools: &BTreeMap<String, Fingerprint>| {
            tools.iter().map(|(tool, print)| (tool.clone(), Value::from(print.to_string()))).collect::<Map<_, _>>()
        };
        let all: Map<_, _> = self.0.iter().map(|(backend, of)| (backend.clone(), tools(of).into())).collect();
        writeln!(f, "{:#}", json!({ "tools": all, "version": VERSION }))
    }
}

/// SHA-256 of a tool's definition. Printed as `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHA256)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text
            .strip_prefix(SHA256)
            .filter(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .ok_or(())?;
        let mut print = [0; 32];
        for (at, byte) in print.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(drop)?;
        }
        Ok(Self(print))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let print = Fingerprint(std::array::from_fn(|at| at as u8 * 7));
        let mut lock = Lock::default();
        lock.set("files", BTreeMap::from([("read".to_owned(), print), ("a \"b\"".to_owned(), Fingerprint([0; 32]))]));
        lock.set("empty", BTreeMap::new());

        let text = lock.to_string();

        assert_eq!(Lock::read(&text).unwrap(), lock);
        assert_eq!(lock.get("files", "read"), Some(&print));
        assert_eq!(lock.get("files", "write"), None);
        assert!(text.contains("\n      \"read\": \"sha256:00070e15"), "{text}");
    }

    #[test]
    fn what_is_wrong_with_a_lock_file_is_said() {
        for (text, said) in [
            ("", "is not JSON: EOF while parsing a value at line 1 column 0"),
            ("[]", "is not a lock file of version 1"),
            (r#"{"version":2,"tools":{}}"#, "is not a lock file of version 1"),
            (r#"{"version":1}"#, "has no `tools`, an object"),
            (r#"{"version":1,"tools":{"a":[]}}"#, "has no object at `tools.a`"),
            (
                r#"{"version":1,"tools":{"a":{"x":"md5:00"}}}"#,
                "has no `sha256:` and 64 hexadecimal digits at `tools.a.x`",
            ),
        ] {
            assert_eq!(Lock::read(text).unwrap_err(), said, "{text}");
        }
        let digits = "0".repeat(62);
        for wrong in [format!("sha256:{digits}+1"), format!("sha256:{digits}é"), format!("sha256:{digits}")] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }
}
