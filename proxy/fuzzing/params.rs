//! Arguments repeated in headers: what the gateway writes it accepts, and nothing that says something else.

use http::{HeaderName, HeaderValue};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::bridge::{envelope, params as bridge};
use crate::catalog::param::{self, HeaderParam, ParamKind};
use crate::era;

const KEY: &str = "x-mcp-header";

/// A schema, arguments and lines of headers, with blank lines between them.
pub fn params(bytes: &[u8]) {
    let (schema, rest) = super::parted(bytes);
    let (arguments, head) = super::parted(rest);
    let texts = [schema, arguments, head].map(String::from_utf8_lossy);
    texts.iter().for_each(|text| round_trip(text));
    super::headers(head).values().for_each(|value| drop(era::header_text(value)));
    let [schema, arguments, _] = texts;
    let params = match param::read(&schema) {
        Ok(params) => params,
        Err(what) => return assert!(!what.is_empty()),
    };
    found(&params, &schema);
    let Ok(arguments) = serde_json::from_str::<&RawValue>(&arguments) else { return };
    let given: Vec<_> = super::headers(head).iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    repeats(&params, arguments, &given);
}

/// Any text can be said in a header.
fn round_trip(text: &str) {
    let header = envelope::header_text(text);
    assert_eq!(era::header_text(&header).as_deref(), Some(text));
}

/// Every annotation that was found is there, and none that is there was passed over.
fn found(params: &[HeaderParam], schema: &str) {
    for (at, param) in params.iter().enumerate() {
        assert!(param.name.as_str().starts_with("mcp-param-") && !param.path.is_empty());
        assert!(params[..at].iter().all(|other| other.name != param.name && other.path < param.path));
    }
    let Some(schema) = super::oracle(schema.as_bytes()) else {
        let is_json = serde_json::from_str::<&RawValue>(schema).is_ok_and(|raw| raw.get().starts_with('{'));
        return assert!(!is_json || schema.contains("$serde_json") || !schema.contains(KEY), "nobody has read it");
    };
    for param in params {
        let at = param.path.iter().fold(&schema, |schema, key| &schema["properties"][&**key]);
        let name = at[KEY].as_str().unwrap_or_default();
        assert!(format!("mcp-param-{name}").eq_ignore_ascii_case(param.name.as_str()));
        let kind = match param.kind {
            ParamKind::Boolean => "boolean",
            ParamKind::Integer => "integer",
            ParamKind::String => "string",
        };
        assert_eq!(at["type"], kind);
    }
    assert_eq!(annotated(&schema), params.len());
}

fn annotated(schema: &Value) -> usize {
    let properties = schema["properties"].as_object().into_iter().flatten();
    usize::from(schema.is_object() && schema.get(KEY).is_some())
        + properties.map(|(_, property)| annotated(property)).sum::<usize>()
}

/// What is made passes; what passes says the same as what is made.
fn repeats(params: &[HeaderParam], arguments: &RawValue, given: &[(HeaderName, HeaderValue)]) {
    let passes = |headers: &[_]| bridge::check(params, Some(arguments), headers).is_ok();
    let Ok(made) = bridge::headers(params, Some(arguments)) else {
        // What cannot be said passes in no words, and is half of a surrogate pair, which nobody else reads either.
        assert!(!passes(given) && !passes(&[]) && super::oracle(arguments.get().as_bytes()).is_none());
        return;
    };
    assert!(passes(&made));
    for left_out in 0..made.len() {
        let some: Vec<_> = made.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, h)| h.clone()).collect();
        assert!(!passes(&some));
    }
    if let Some(oracle) = super::oracle(arguments.get().as_bytes()) {
        params.iter().for_each(|param| says(param, &oracle, said(&made, &param.name).as_deref()));
    }
    let agree = params.iter().all(|param| {
        let expected = said(&made, &param.name);
        let is_there = given.iter().any(|(name, _)| name == param.name);
        match (expected, said(given, &param.name)) {
            (None, _) => !is_there,
            (Some(_), None) => false,
            (Some(expected), Some(found)) => is_same(&expected, &found, param.kind),
        }
    });
    assert_eq!(passes(given), agree);
}

fn said(headers: &[(HeaderName, HeaderValue)], name: &HeaderName) -> Option<String> {
    let (_, value) = headers.iter().find(|(given, _)| given == name)?;
    era::header_text(value).map(std::borrow::Cow::into_owned)
}

/// A header stands for what a second reader finds at the parameter's path.
fn says(param: &HeaderParam, arguments: &Value, header: Option<&str>) {
    let value = param.path.iter().try_fold(arguments, |value, key| value.as_object()?.get(&**key));
    match value {
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => assert_eq!(header, None),
        Some(Value::Bool(value)) => assert_eq!(header, Some(if *value { "true" } else { "false" })),
        Some(Value::Number(number)) => {
            let same = header.and_then(|header| header.parse::<f64>().ok()) == number.as_f64();
            assert!(same, "{number} {header:?}");
        }
        Some(Value::String(text)) => assert_eq!(header, Some(&**text)),
    }
}

/// Whole numbers may be written in more than one way.
fn is_same(one: &str, other: &str, kind: ParamKind) -> bool {
    const SAFE: f64 = 9_007_199_254_740_991.0;
    let json = |text: &str| matches!(serde_json::from_str(text), Ok(Value::Number(_)));
    let number = |text: &str| {
        text.parse::<f64>().ok().filter(|number| json(text) && number.fract() == 0.0 && number.abs() <= SAFE)
    };
    let exact = |text: &str| text.parse::<i64>().ok().filter(|_| json(text));
    one == other
        || kind == ParamKind::Integer
            && match (exact(one), exact(other)) {
                (Some(one), Some(other)) => one == other,
                _ => number(one).is_some() && number(one) == number(other),
            }
}
