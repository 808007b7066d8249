//! Values that are handed on as they are: any JSON, written as YAML.

use serde_json::{Map, Number};

use super::Value;
use super::scalar::Plain;
use crate::yaml::Kind;

impl Value<'_> {
    /// A mapping as a JSON object.
    pub(crate) fn json_object(&self) -> Option<Map<String, serde_json::Value>> {
        let entries = self.entries()?.into_iter();
        Some(entries.filter_map(|entry| Some((entry.key.to_owned(), entry.value.json()?))).collect())
    }

    /// What stands here, as JSON: scalars as YAML's core schema takes them, variables put into strings.
    fn json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        match &self.node.kind {
            Kind::Broken => None,
            Kind::List(_) => self.list(Self::json).map(Json::Array),
            Kind::Map(_) => self.json_object().map(Json::Object),
            Kind::Scalar { text, plain } => match Plain::of(text, *plain) {
                Plain::Null => Some(Json::Null),
                Plain::Bool => Some(Json::Bool(text.eq_ignore_ascii_case("true"))),
                Plain::Number => self.json_number(text),
                Plain::Text => self.text().map(|text| Json::String(text.value)),
            },
        }
    }

    fn json_number(&self, text: &str) -> Option<serde_json::Value> {
        let number = serde_json::from_str::<Number>(text).ok();
        if number.is_none() {
            self.problem_with("not a number as JSON has it", "write it in decimal, or put it in quotes");
        }
        number.map(serde_json::Value::Number)
    }
}
