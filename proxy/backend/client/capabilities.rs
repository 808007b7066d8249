//! What a server says it can do, in either era's words: they are the same.

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest `instructions` of one backend that are passed on; what is beyond is cut.
const MAX_INSTRUCTIONS: usize = 16 * 1024;

/// What a server declares.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ServerCapabilities {
    pub(crate) completions: bool,
    pub(crate) logging: bool,
    pub(crate) prompts: bool,
    pub(crate) prompts_changed: bool,
    pub(crate) resources: bool,
    pub(crate) resources_changed: bool,
    /// `resources.subscribe`.
    pub(crate) subscribe: bool,
    pub(crate) tools: bool,
    pub(crate) tools_changed: bool,
}

impl ServerCapabilities {
    /// Of a server that declares nothing.
    pub(crate) const NONE: Self = Self {
        completions: false,
        logging: false,
        prompts: false,
        prompts_changed: false,
        resources: false,
        resources_changed: false,
        subscribe: false,
        tools: false,
        tools_changed: false,
    };

    /// Reads `capabilities`. What is of a wrong type counts as not declared.
    pub(super) fn read(raw: Option<&RawValue>) -> Self {
        #[derive(Default, Deserialize)]
        struct Declared<'a> {
            #[serde(borrow)]
            completions: Option<&'a RawValue>,
            #[serde(borrow)]
            logging: Option<&'a RawValue>,
            #[serde(borrow)]
            prompts: Option<&'a RawValue>,
            #[serde(borrow)]
            resources: Option<&'a RawValue>,
            #[serde(borrow)]
            tools: Option<&'a RawValue>,
        }
        let declared: Declared<'_> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        Self {
            completions: declared.completions.is_some(),
            logging: declared.logging.is_some(),
            prompts: declared.prompts.is_some(),
            prompts_changed: has(declared.prompts, "listChanged"),
            resources: declared.resources.is_some(),
            resources_changed: has(declared.resources, "listChanged"),
            subscribe: has(declared.resources, "subscribe"),
            tools: declared.tools.is_some(),
            tools_changed: has(declared.tools, "listChanged"),
        }
    }

    /// Whether it offers what a method is for, where that is something which a server declares.
    pub(crate) fn offers(self, method: &str) -> bool {
        match method {
            "completion/complete" => self.completions,
            "resources/subscribe" | "resources/unsubscribe" => self.subscribe,
            _ => true,
        }
    }

    /// Whether it declares nothing that can be listed: some servers forget to.
    pub(crate) fn lists_nothing(self) -> bool {
        !(self.tools || self.prompts || self.resources)
    }
}

fn has(capability: Option<&RawValue>, key: &str) -> bool {
    let flags = capability.and_then(|raw| serde_json::from_str::<serde_json::Map<_, _>>(raw.get()).ok());
    flags.is_some_and(|flags| flags.get(key).and_then(serde_json::Value::as_bool) == Some(true))
}

/// A server's `instructions`, if it has any, cut where they are too long.
pub(super) fn instructions(text: Option<String>) -> Option<Box<str>> {
    text.filter(|text| !text.trim().is_empty()).map(|mut text| {
        text.truncate(text.floor_char_boundary(MAX_INSTRUCTIONS));
        text.into_boxed_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> ServerCapabilities {
        ServerCapabilities::read(Some(&RawValue::from_string(json.to_owned()).unwrap()))
    }

    #[test]
    fn declared_is_what_is_there_and_true() {
        let some = read(
            r#"{"tools":{"listChanged":true},"prompts":{"listChanged":"yes"},"resources":{"subscribe":true},"logging":{}}"#,
        );

        let tools = ServerCapabilities { tools: true, tools_changed: true, ..ServerCapabilities::default() };
        assert_eq!(
            some,
            ServerCapabilities { prompts: true, resources: true, subscribe: true, logging: true, ..tools }
        );
    }

    #[test]
    fn odd_ones_declare_nothing() {
        for json in ["{}", "[]", "7", "null", r#"{"tools":null}"#, r#"{"tools":{},"tools":{}}"#] {
            assert!(read(json).lists_nothing(), "{json}");
        }
        assert!(ServerCapabilities::read(None).lists_nothing());
        assert!(read(r#"{"tools":7}"#).tools);
    }
}
