//! What a running process can take up.

use super::{SMALLEST, parse};
use crate::{Change, compare};

fn change(extra: &str) -> Change {
    let (old, new) = (parse(SMALLEST).unwrap(), parse(&format!("{SMALLEST}{extra}")).unwrap());
    compare(&old, &new)
}

fn replaced(from: &str, to: &str) -> Change {
    let (old, new) = (parse(SMALLEST).unwrap(), parse(&SMALLEST.replace(from, to)).unwrap());
    compare(&old, &new)
}

fn restart(fields: &[&str]) -> Change {
    Change::Restart { fields: fields.iter().map(|field| (*field).to_owned()).collect() }
}

#[test]
fn the_same_meaning_is_no_change() {
    assert_eq!(change(""), Change::None);
    assert_eq!(change("# a comment\nhealth: { interval: 10000ms }\n"), Change::None);
}

#[test]
fn most_keys_reload() {
    for extra in [
        "limits: [{ name: a, rate: 1/s }]",
        "health: { rise: 3 }",
        "catalog: { refresh: 1s }",
        "sessions: { idle: 1m }",
        "bridge: { parked: 0 }",
        "reload: { watch: false }",
        "drain: { delay: 0s }",
    ] {
        assert_eq!(change(extra), Change::Reload, "{extra}");
    }
    assert_eq!(replaced("everything", "other"), Change::Reload);
    assert_eq!(replaced("address: 127.0.0.1:8080", "address: 127.0.0.1:8080, path: /x"), Change::Reload);
}

#[test]
fn what_is_bound_at_start_needs_a_restart() {
    assert_eq!(replaced("127.0.0.1:8080", "127.0.0.1:8081"), restart(&["listeners"]));
    assert_eq!(change("admin: { address: 127.0.0.1:9465 }"), restart(&["admin.address"]));
    assert_eq!(change("log: { format: json }"), restart(&["log"]));
    assert_eq!(change("log: { payloads: { redact: [] } }"), restart(&["log"]));
    assert_eq!(change("traces: { endpoint: 'http://127.0.0.1:4318/v1/traces' }"), restart(&["traces"]));
    assert_eq!(change("threads: 2\nlog: { level: warn }\nhealth: { rise: 3 }"), restart(&["log", "threads"]));
}

#[test]
fn a_listener_more_needs_a_restart() {
    let more = replaced("8080 }]", "8080 }, { address: 127.0.0.1:8081 }]");

    assert_eq!(more, restart(&["listeners"]));
}
