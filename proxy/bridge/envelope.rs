//! How a modern request is dressed: the `_meta` members and the headers that say what a legacy session said once.
//!
//! Members are spliced in and out; every other byte of a body stays as it came.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::era::MODERN_VERSION;
use crate::jsonrpc;

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// What a wrapped header value begins and ends with (SEP-2243).
const WRAPPED: (&str, &str) = ("=?base64?", "?=");

/// The keys of `params._meta` that are the dress.
const KEYS: [&str; 4] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
];

/// `text` as a header value: as it is where a header can carry it, wrapped in base64 otherwise.
pub(crate) fn header_text(text: &str) -> HeaderValue {
    let looks_wrapped = text.starts_with(WRAPPED.0) && text.ends_with(WRAPPED.1);
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim_ascii() == text;
    let plain = || (is_plain && !looks_wrapped).then(|| HeaderValue::from_str(text).ok()).flatten();
    plain().unwrap_or_else(|| {
        let wrapped = [WRAPPED.0, &STANDARD.encode(text), WRAPPED.1].concat();
        // Base64 and the marks around it are visible ASCII.
        HeaderValue::try_from(wrapped).unwrap_or_else(|_| HeaderValue::from_static(""))
    })
}

/// The headers that every modern request of `method` carries. `name` is what the method names in its parameters.
pub(crate) fn headers(method: &str, name: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(4);
    headers.push((PROTOCOL_VERSION, HeaderValue::from_static(MODERN_VERSION)));
    headers.push((METHOD, header_text(method)));
    headers.extend(name.map(|name| (NAME, header_text(name))));
    headers
}

/// Who asks, and what they can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    /// JSON.
    pub(crate) client_info: &'a str,
    /// A JSON object.
    pub(crate) capabilities: &'a str,
    /// A JSON string.
    pub(crate) log_level: Option<&'a str>,
}

impl Envelope<'_> {
    /// The members of `_meta`, without braces.
    pub(crate) fn members(&self) -> String {
        let [version, info, capabilities, level] = KEYS;
        let mut members = format!(
            "\"{version}\":\"{MODERN_VERSION}\",\"{info}\":{},\"{capabilities}\":{}",
            self.client_info, self.capabilities
        );
        if let Some(wanted) = self.log_level {
            members.push_str(&format!(",\"{level}\":{wanted}"));
        }
        members
    }
}

/// A request's body with the envelope in `params._meta`, in place of any that is there. A body that is no message comes back
/// as it was.
pub(crate) fn dress(body: &Bytes, envelope: &Envelope<'_>) -> Bytes {
    dressed(body, envelope).unwrap_or_else(|| body.clone())
}

fn dressed(body: &Bytes, envelope: &Envelope<'_>) -> Option<Bytes> {
    let layout = jsonrpc::layout(body)?;
    let members = envelope.members();
    let Some(params) = layout.params else {
        let added = format!(",\"params\":{{\"_meta\":{{{members}}}}}");
        return Some(jsonrpc::splice(body, &[(layout.end..layout.end, added.as_bytes())]));
    };
    let Some(meta) = layout.meta else {
        let first = params.start + 1;
        let is_empty = body.get(first..params.end - 1)?.trim_ascii().is_empty();
        let added = format!("\"_meta\":{{{members}}}{}", if is_empty { "" } else { "," });
        return Some(jsonrpc::splice(body, &[(first..first, added.as_bytes())]));
    };
    let cut = jsonrpc::cut(body, &meta, |key| KEYS.contains(&key))?;
    let (place, added) = match cut.first_kept {
        Some(first) => (first, members + ","),
        None => (meta.start + 1, members),
    };
    let mut edits: Vec<(Range<usize>, &[u8])> = vec![(place..place, added.as_bytes())];
    edits.extend(cut.removed.into_iter().map(|range| (range, &[][..])));
    edits.sort_by_key(|(range, _)| range.start);
    Some(jsonrpc::splice(body, &edits))
}

/// A request's body without the envelope. What else is in `_meta` stays byte for byte, and an emptied `_meta` stays too.
pub(crate) fn undress(body: &Bytes) -> Bytes {
    let removed = jsonrpc::layout(body)
        .and_then(|layout| jsonrpc::cut(body, &layout.meta?, |key| KEYS.contains(&key)))
        .map(|cut| cut.removed)
        .filter(|removed| !removed.is_empty());
    let Some(removed) = removed else { return body.clone() };
    let edits: Vec<(Range<usize>, &[u8])> = removed.into_iter().map(|range| (range, &[][..])).collect();
    jsonrpc::splice(body, &edits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ENVELOPE: Envelope<'_> =
        Envelope { client_info: r#"{"name":"t","version":"1"}"#, capabilities: "{}", log_level: Some("\"info\"") };

    fn dressed(body: &str) -> String {
        String::from_utf8(dress(&Bytes::copy_from_slice(body.as_bytes()), &ENVELOPE).to_vec()).unwrap()
    }

    fn undressed(body: &str) -> String {
        String::from_utf8(undress(&Bytes::copy_from_slice(body.as_bytes())).to_vec()).unwrap()
    }

    /// A document without what an envelope leaves behind where there was nothing.
    fn bare(text: &str) -> Value {
        let mut document: Value = serde_json::from_str(text).unwrap();
        if document["params"]["_meta"] == json!({}) {
            document["params"].as_object_mut().unwrap().remove("_meta");
        }
        if document["params"] == json!({}) || document["params"].is_null() {
            document.as_object_mut().unwrap().remove("params");
        }
        document
    }

    #[test]
    fn a_request_without_parameters_gets_them() {
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list" } "#;

        let out = dressed(body);

        let members = ENVELOPE.members();
        assert_eq!(
            out,
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\" ,\"params\":{{\"_meta\":{{{members}}}}}}} "
            )
        );
        assert_eq!(bare(&undressed(&out)), bare(body));
    }

    #[test]
    fn what_is_there_already_is_replaced_and_nothing_else_touched() {
        let body = r#"{"params":{ "x":[1.0 ] , "_m\u0065ta" : { "io.modelcontextprotocol/logLevel" : "x" ,
            "progressToken" : 1.50,"io.modelcontextprotocol/client\u0049nfo":{}, "z":{ },"io.modelcontextprotocol/protocolVersion":"1" } },"id":"a","jsonrpc":"2.0","method":"m"}"#;

        let out = dressed(body);

        let meta = format!("{{ {},\"progressToken\" : 1.50,\"z\":{{ }} }}", ENVELOPE.members());
        assert!(out.contains(&meta), "{out}");
        assert!(out.starts_with(r#"{"params":{ "x":[1.0 ] , "_m\u0065ta" : { "#), "{out}");
        assert!(undressed(&out).contains(r#"{ "progressToken" : 1.50,"z":{ } }"#), "{}", undressed(&out));
    }

    #[test]
    fn empty_objects_are_filled_and_emptied() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{ "_meta" : { } }}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{},"a":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1}}"#,
        ] {
            let out = dressed(body);
            let meta = &serde_json::from_str::<Value>(&out).unwrap()["params"]["_meta"];
            assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28", "{out}");
            assert_eq!(meta["io.modelcontextprotocol/logLevel"], "info");
            assert_eq!(bare(&undressed(&out)), bare(body));
        }
    }

    #[test]
    fn what_is_no_message_is_left_alone() {
        for body in ["", "[]", "7", "{", r#"{"params":7}"#, r#"{"params":{"_meta":7}}"#] {
            assert_eq!(undressed(body), body);
            let _ = dressed(body);
        }
    }

    #[test]
    fn the_headers_repeat_the_body() {
        let text = |name: &str| header_text(name).to_str().unwrap().to_owned();

        assert_eq!(text("us-west1 a"), "us-west1 a");
        assert_eq!(text(""), "");
        assert_eq!(text("Hello, 世界"), "=?base64?SGVsbG8sIOS4lueVjA==?=");
        assert_eq!(text(" padded "), "=?base64?IHBhZGRlZCA=?=");
        assert_eq!(text("line1\nline2"), "=?base64?bGluZTEKbGluZTI=?=");
        assert_eq!(text("=?base64?literal?="), "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=");
        let pairs = headers("tools/call", Some("é"));
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            pairs,
            [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "=?base64?w6k=?=")]
        );
    }

    /// White space as JSON has it.
    fn space() -> impl Strategy<Value = String> {
        "[ \t\r\n]{0,2}"
    }

    fn member() -> impl Strategy<Value = String> {
        let key = prop_oneof![
            Just("io.modelcontextprotocol/protocolVersion".to_owned()),
            Just(r"io.modelcontextprotocol\/clientInfo".to_owned()),
            Just(r"io.modelcontextprotocol/l\u006fgLevel".to_owned()),
            Just("io.modelcontextprotocol/clientCapabilities".to_owned()),
            "(a|b|progressToken|\\\\\"|\\\\u00e9|,|}|:){1,3}",
        ];
        let value = prop_oneof![
            Just("1.50"),
            Just(r#""}\",""#),
            Just("{ }"),
            Just(r#"{"io.modelcontextprotocol/logLevel":[1 ,2]}"#),
            Just("null"),
        ];
        (space(), key, space(), space(), value, space())
            .prop_map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"))
    }

    fn object(members: impl Strategy<Value = String>, most: usize) -> impl Strategy<Value = String> {
        (proptest::collection::vec(members, 0..=most), space()).prop_map(|(members, space)| {
            if members.is_empty() { format!("{{{space}}}") } else { format!("{{{}}}", members.join(",")) }
        })
    }

    fn body() -> impl Strategy<Value = String> {
        let params = (object(member(), 5), proptest::option::of(Just(r#""name" : "x\u0020y""#)), any::<bool>())
            .prop_map(|(meta, other, first)| match (other, first) {
                (None, _) => format!("{{\"_meta\":{meta}}}"),
                (Some(other), true) => format!("{{{other} , \"_meta\": {meta}}}"),
                (Some(other), false) => format!("{{ \"_meta\" :{meta} ,{other} }}"),
            });
        let params = prop_oneof![
            3 => params.prop_map(Some),
            1 => object(Just(r#" "name" :1e2"#.to_owned()), 1).prop_map(Some),
            1 => Just(None),
        ];
        (params, space()).prop_map(|(params, space)| {
            let params = params.map(|params| format!("\"params\":{params},{space}")).unwrap_or_default();
            format!("{{{params}\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\"}}")
        })
    }

    fn foreign(body: &str) -> Value {
        let mut document = bare(body);
        if let Some(meta) = document.pointer_mut("/params/_meta").and_then(Value::as_object_mut) {
            meta.retain(|key, _| !KEYS.contains(&&**key));
        }
        bare(&document.to_string())
    }

    proptest! {
        #[test]
        fn dress_puts_every_member_in_once(body in body()) {
            let out = dressed(&body);
            let document: Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(&document["params"]["_meta"]["io.modelcontextprotocol/clientInfo"], &json!({ "name": "t", "version": "1" }));
            prop_assert_eq!(foreign(&out), foreign(&body));
            for key in KEYS {
                let meta: Value = document["params"]["_meta"].clone();
                prop_assert!(meta.get(key).is_some());
            }
            prop_assert_eq!(dressed(&out), out);
        }

        #[test]
        fn undress_takes_the_members_out_and_nothing_else(body in body()) {
            let out = undressed(&body);
            prop_assert_eq!(foreign(&out), foreign(&body));
            let document: Value = serde_json::from_str(&out).unwrap();
            for key in KEYS {
                prop_assert!(document["params"]["_meta"].get(key).is_none());
            }
            // What was undressed is given back byte for byte once it is dressed and undressed again.
            if document["params"].get("_meta").is_some() {
                prop_assert_eq!(undressed(&dressed(&out)), out);
            }
        }
    }
}
