//! What a client can be asked by a backend.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A client's capabilities, as far as the gateway carries them through. Tasks, extensions and experiments are not: a backend
/// that is told of none does not count on any.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct ClientCapabilities(u16);

/// Every capability that is carried, its bit and where it stands.
const BITS: [(&str, Option<&str>); 8] = [
    ("roots", None),
    ("roots", Some("listChanged")),
    ("sampling", None),
    ("sampling", Some("context")),
    ("sampling", Some("tools")),
    ("elicitation", None),
    ("elicitation", Some("form")),
    ("elicitation", Some("url")),
];
const ROOTS: u16 = 1;
const SAMPLING: u16 = 1 << 2;
const ELICITATION: u16 = 1 << 5;
const ELICITATION_FORM: u16 = 1 << 6;
const ELICITATION_URL: u16 = 1 << 7;

impl ClientCapabilities {
    /// Reads a `capabilities` object. What is not in the shape of the specification is not there.
    pub(crate) fn read(raw: Option<&RawValue>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Capabilities<'a> {
            #[serde(borrow)]
            roots: Option<&'a RawValue>,
            #[serde(borrow)]
            sampling: Option<&'a RawValue>,
            #[serde(borrow)]
            elicitation: Option<&'a RawValue>,
        }
        let is_object = |raw: &&RawValue| raw.get().starts_with('{');
        let Some(raw) = raw.filter(is_object) else { return Self::default() };
        let all: Capabilities<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
        let mut bits = 0;
        for (index, (name, part)) in BITS.into_iter().enumerate() {
            let object = match name {
                "roots" => all.roots,
                "sampling" => all.sampling,
                _ => all.elicitation,
            };
            let Some(object) = object.filter(is_object) else { continue };
            let has = match part {
                None => true,
                Some(part) => {
                    crate::jsonrpc::member(object.get(), part).is_some_and(|value| !matches!(value, "false" | "null"))
                }
            };
            bits |= u16::from(has) << index;
        }
        Self(bits)
    }

    /// From a token.
    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << BITS.len()) - 1))
    }

    /// For a token.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// As a `capabilities` object.
    pub(crate) fn json(self) -> String {
        let has = |index: usize| self.0 & (1 << index) != 0;
        let mut json = String::from("{");
        for (index, (name, _)) in BITS.iter().enumerate().filter(|(index, (_, part))| part.is_none() && has(*index)) {
            let parts = BITS.iter().enumerate().filter(|(i, (of, part))| of == name && part.is_some() && has(*i));
            let parts: Vec<_> = parts
                .filter_map(|(_, (_, part))| {
                    let part = (*part)?;
                    Some(if index == 0 { format!("\"{part}\":true") } else { format!("\"{part}\":{{}}") })
                })
                .collect();
            let comma = if json.len() > 1 { "," } else { "" };
            json.push_str(&format!("{comma}\"{name}\":{{{}}}", parts.join(",")));
        }
        json.push('}');
        json
    }

    /// Whether the client takes a request of this method; `mode` is an elicitation's.
    pub(crate) fn can(self, method: &str, mode: Option<&str>) -> bool {
        let has = |bit: u16| self.0 & bit != 0;
        match (method, mode) {
            ("roots/list", _) => has(ROOTS),
            ("sampling/createMessage", _) => has(SAMPLING),
            ("elicitation/create", Some("url")) => has(ELICITATION) && has(ELICITATION_URL),
            // An empty object means forms (2025-06-18 knew nothing else).
            ("elicitation/create", _) => has(ELICITATION) && (has(ELICITATION_FORM) || !has(ELICITATION_URL)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ClientCapabilities {
        ClientCapabilities::read(Some(&RawValue::from_string(json.to_owned()).unwrap()))
    }

    #[test]
    fn they_are_told_as_they_were_read() {
        for json in [
            "{}",
            r#"{"roots":{"listChanged":true}}"#,
            r#"{"roots":{},"sampling":{"context":{},"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
            r#"{"elicitation":{}}"#,
        ] {
            assert_eq!(read(json).json(), json);
            assert_eq!(ClientCapabilities::from_bits(read(json).bits()), read(json));
        }
        assert_eq!(read(r#"{"tasks":{},"roots":{"listChanged":false},"sampling":1,"x":[]}"#).json(), r#"{"roots":{}}"#);
        assert_eq!(read("[]"), ClientCapabilities::default());
    }

    #[test]
    fn a_client_is_asked_what_it_can_answer() {
        let all = read(r#"{"roots":{},"sampling":{},"elicitation":{"form":{},"url":{}}}"#);
        let forms = read(r#"{"elicitation":{}}"#);
        let urls = read(r#"{"elicitation":{"url":{}}}"#);

        assert!(all.can("roots/list", None) && all.can("sampling/createMessage", None));
        assert!(all.can("elicitation/create", None) && all.can("elicitation/create", Some("url")));
        assert!(forms.can("elicitation/create", Some("form")) && !forms.can("elicitation/create", Some("url")));
        assert!(!urls.can("elicitation/create", None) && urls.can("elicitation/create", Some("url")));
        assert!(!forms.can("roots/list", None) && !all.can("tasks/get", None));
    }
}
