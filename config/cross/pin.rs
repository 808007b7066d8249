//! `pin`.

use std::sync::Arc;

use crate::pin::{Lock, Pin, PinMode};
use crate::walk::{Section, Value, quote};

const DEFAULT_FILE: &str = "toolgate.lock";
const HOW: &str = "make it with: toolgate pin --config FILE";

pub(super) fn pin(value: &Value<'_>) -> Option<Pin> {
    value.section(pin_of)
}

/// What holds where the file has no such section.
pub(super) fn default(file: &Section<'_>) -> Pin {
    Pin { mode: PinMode::Off, file: file.value().source().resolve(DEFAULT_FILE), lock: Arc::default() }
}

fn pin_of(s: &mut Section<'_>) -> Pin {
    let modes = [("off", PinMode::Off), ("warn", PinMode::Warn), ("enforce", PinMode::Enforce)];
    let mode = s.optional("mode", |value| value.choice(&modes)).unwrap_or_default();
    let given = s.get("file");
    let path = given.as_ref().and_then(Value::text);
    let written = path.map_or_else(|| DEFAULT_FILE.to_owned(), |path| path.value);
    let place = given.as_ref().unwrap_or_else(|| s.value());
    let lock = if mode == PinMode::Off { None } else { lock(place, &written) };
    Pin { mode, file: s.value().source().resolve(&written), lock: Arc::new(lock.unwrap_or_default()) }
}

fn lock(value: &Value<'_>, written: &str) -> Option<Lock> {
    let bytes = match value.source().read_lock(written)? {
        Ok(bytes) => bytes,
        Err(error) => {
            value.problem_with(format!("cannot read {}: {error}", quote(written)), HOW);
            return None;
        }
    };
    let read = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned()).and_then(|text| Lock::read(&text));
    read.map_err(|wrong| value.problem_with(format!("{} {wrong}", quote(written)), HOW)).ok()
}
