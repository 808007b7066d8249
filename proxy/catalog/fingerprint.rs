//! What a tool's definition is told by, however its backend writes it down.

use std::fmt::Write as _;

use ring::digest;
use serde_json::Value;
use toolgate_config::Fingerprint;

use crate::jsonrpc::json_string;

/// SHA-256 of a definition: of its JSON without white space, the keys of each object in order.
pub(crate) fn of(definition: &str) -> Fingerprint {
    let made_over = serde_json::from_str(definition).map(|value| {
        let mut text = String::with_capacity(definition.len());
        canonical(&value, &mut text);
        text
    });
    // Nested too deep to be made over: then only the same bytes are the same definition.
    let text = made_over.as_deref().unwrap_or(definition);
    let mut print = [0; 32];
    print.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    Fingerprint(print)
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (at, (key, value)) in members.into_iter().enumerate() {
                let gap = if at == 0 { "" } else { "," };
                let _ = write!(text, "{gap}{}:", json_string(key));
                canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                canonical(item, text);
            }
            text.push(']');
        }
        Value::String(string) => text.push_str(&json_string(string)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_definition_has_the_same_print_however_it_is_written() {
        let one = of(r#"{"name":"a","inputSchema":{"type":"object","required":["x","y"]},"n":[1,2.5,null,true]}"#);

        for same in [
            r#" { "n" : [ 1, 2.5, null, true ], "inputSchema":{"required":["x","y"],"type":"object"},"name":"\u0061"} "#,
            r#"{"inputSchema":{"type":"object","required":["x","y"]},"n":[1,2.5,null,true],"name":"a"}"#,
        ] {
            assert_eq!(of(same), one, "{same}");
        }
        for other in [
            r#"{"name":"a","inputSchema":{"type":"object","required":["y","x"]},"n":[1,2.5,null,true]}"#,
            r#"{"name":"a","inputSchema":{"type":"object","required":["x","y"]},"n":[1,2.5,null,false]}"#,
            r#"{"name":"a","inputSchema":{"type":"object","required":["x","y"]},"n":["1",2.5,null,true]}"#,
        ] {
            assert_ne!(of(other), one, "{other}");
        }
    }

    #[test]
    fn a_print_stays_what_it_is_from_one_version_to_the_next() {
        // `printf '{"a":[1,"b"],"c":null}' | sha256sum`
        let print = of(r#"{ "c": null, "a": [1, "b"] }"#).to_string();

        assert_eq!(print, KNOWN);
    }

    const KNOWN: &str = "sha256:23973d1d6998215803cee676533c2ca5c5081d5c4bfd3c7ea40c9ec2bd0f3073";

    #[test]
    fn what_is_too_deep_has_a_print_too() {
        let deep = "[".repeat(500) + &"]".repeat(500);

        assert_eq!(of(&deep), of(&deep));
        assert_ne!(of(&deep), of(&format!(" {deep}")));
    }
}
