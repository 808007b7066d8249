//! The one way from the file to the model: section by section, reporting what is wrong and going on.
//!
//! A value that is wrong is reported where it stands and then left out or replaced by its default: what is built after
//! a report is never seen, it only lets the rest be looked at.

mod backend;
mod command;
mod limit;
mod listener;
mod pin;
mod reach;
mod remote;
mod runtime;
mod secret;
mod tool;
mod traces;
mod url;
mod webhook;

use crate::Config;
use crate::expand::Text;
use crate::walk::{Section, Value, Wrong};

/// A whole file. `files` is left for who read it to fill in.
pub(crate) fn config(root: &Value<'_>) -> Option<Config> {
    if !root.is_mapping() {
        root.mistyped("a mapping with `listeners` and `backends`", None);
        return None;
    }
    root.section(sections).flatten()
}

fn sections(file: &mut Section<'_>) -> Option<Config> {
    let mut addresses = listener::Addresses::default();
    let listeners = file.required("listeners", |value| listener::listeners(value, &mut addresses));
    let admin = file.optional("admin", |value| listener::admin(value, &mut addresses));
    let mut names = backend::Names::default();
    let backends = file.required("backends", |value| backend::backends(value, &mut names));
    let limits = file.optional("limits", |value| limit::limits(value, &names));
    let health = file.optional("health", runtime::health);
    let catalog = file.optional("catalog", runtime::catalog);
    let pin = file.optional("pin", pin::pin).unwrap_or_else(|| pin::default(file));
    let webhook = file.optional("webhook", webhook::webhook);
    let sessions = file.optional("sessions", runtime::sessions);
    let bridge = file.optional("bridge", runtime::bridge);
    let log = file.optional("log", runtime::log);
    let traces = file.optional("traces", traces::traces);
    let reload = file.optional("reload", runtime::reload);
    let drain = file.optional("drain", runtime::drain);
    let threads = file.optional("threads", |value| value.number(1..=1024));
    Some(Config {
        listeners: listeners?,
        admin: admin.unwrap_or_default(),
        backends: backends?,
        limits: limits.unwrap_or_default(),
        health: health.unwrap_or_default(),
        catalog: catalog.unwrap_or_default(),
        pin,
        webhook,
        sessions: sessions.unwrap_or_default(),
        bridge: bridge.unwrap_or_default(),
        log: log.unwrap_or_default(),
        traces: traces.flatten(),
        reload: reload.unwrap_or_default(),
        drain: drain.unwrap_or_default(),
        threads,
        files: Vec::new(),
    })
}

/// A name that is a label of metrics and a part of tool names: 1 to 64 of `A-Za-z0-9_.-`.
fn name(value: &Value<'_>) -> Option<Text> {
    let text = value.text()?;
    if (1..=64).contains(&text.value.len()) && text.value.bytes().all(is_name_byte) {
        return Some(text);
    }
    value.wrong(&text, Wrong::new("1 to 64 of A-Z a-z 0-9 _ . -"));
    None
}

/// Whether a byte may stand in the name of a tool, as MCP has it.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}
