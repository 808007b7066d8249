//! Arguments that are repeated in headers: a tool's `x-mcp-header` annotations (2026-07-28, SEP-2243).

use http::HeaderName;
use serde_json::{Map, Value};

/// What begins the header of every such argument.
const PREFIX: &str = "mcp-param-";
/// The annotation.
const KEY: &str = "x-mcp-header";
/// Keywords whose values are objects of schemas by name.
const NAMING: [&str; 5] = ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// The deepest schema that is looked into.
const MAX_DEPTH: usize = 64;

/// One argument that is repeated in a header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HeaderParam {
    /// `mcp-param-…`
    pub(crate) name: HeaderName,
    /// The same as people read it: `Mcp-Param-…`.
    pub(crate) shown: Box<str>,
    /// The keys that lead to it from the arguments.
    pub(crate) path: Box<[Box<str>]>,
    pub(crate) kind: ParamKind,
}

/// What such an argument may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ParamKind {
    Boolean,
    Integer,
    String,
}

/// The annotations of an `inputSchema`, in the order of their paths, or what is wrong with one of them.
pub(crate) fn read(schema: &str) -> Result<Box<[HeaderParam]>, &'static str> {
    // Nearly all schemas have none, and a key cannot hide from this but by escapes.
    if !schema.contains(KEY) && !schema.contains('\\') {
        return Ok(Box::default());
    }
    let schema = match serde_json::from_str(schema) {
        Ok(Value::Object(schema)) => schema,
        Ok(_) => return Ok(Box::default()),
        // Too deep, or with a number that is too large: for a schema this reads it too closely.
        Err(_) if schema.contains(KEY) => return Err("stands in a schema that cannot be read"),
        Err(_) => return Ok(Box::default()),
    };
    let mut params = Vec::new();
    along(&schema, &mut Vec::new(), &mut params)?;
    params.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(params.into())
}

/// Looks at an object schema that was reached by `properties` alone.
fn along(
    schema: &Map<String, Value>,
    path: &mut Vec<Box<str>>,
    params: &mut Vec<HeaderParam>,
) -> Result<(), &'static str> {
    if path.len() > MAX_DEPTH {
        return Err("is nested too deeply");
    }
    for (key, value) in schema {
        match (&**key, value) {
            (KEY, annotation) => params.push(param(annotation, schema, path, params)?),
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    path.push(name.as_str().into());
                    match property {
                        Value::Object(property) => along(property, path, params)?,
                        // A schema of `true` or `false`, or none at all.
                        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {
                            elsewhere(property)?;
                        }
                    }
                    path.pop();
                }
            }
            // Here they are values, not schemas.
            ("const" | "default" | "enum" | "examples" | "example", _) => {}
            (key, Value::Object(named)) if NAMING.contains(&key) => named.values().try_for_each(elsewhere)?,
            (_, other) => elsewhere(other)?,
        }
    }
    Ok(())
}

fn param(
    annotation: &Value,
    schema: &Map<String, Value>,
    path: &[Box<str>],
    others: &[HeaderParam],
) -> Result<HeaderParam, &'static str> {
    if path.is_empty() {
        return Err("stands on something that is not a property");
    }
    let name = annotation.as_str().ok_or("is not a string")?;
    if name.is_empty() {
        return Err("is empty");
    }
    let shown = ["Mcp-Param-", name].concat().into();
    let name = HeaderName::try_from([PREFIX, name].concat()).map_err(|_| "is not a header name")?;
    if others.iter().any(|other| other.name == name) {
        return Err("stands on two properties");
    }
    let kind = match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => ParamKind::Boolean,
        Some("integer") => ParamKind::Integer,
        Some("string") => ParamKind::String,
        _ => return Err("stands on a property that is not a string, an integer or a boolean"),
    };
    Ok(HeaderParam { name, shown, path: path.into(), kind })
}

/// Anywhere but along `properties` there may be none.
fn elsewhere(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Object(members) => members.iter().try_for_each(|(key, value)| match &**key {
            KEY => Err("stands where no argument is reached by properties alone"),
            "const" | "default" | "enum" | "examples" | "example" => Ok(()),
            // The keys of what it holds are names, not keywords.
            key if NAMING.contains(&key) && value.is_object() => {
                value.as_object().into_iter().flatten().try_for_each(|(_, schema)| elsewhere(schema))
            }
            _ => elsewhere(value),
        }),
        Value::Array(values) => values.iter().try_for_each(elsewhere),
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_found_along_properties() {
        let params = read(
            r#"{"type":"object","properties":{
                "where":{"type":"object","properties":{"Zone":{"type":"string","x-mcp-header":"Zone-Name"}}},
                "n":{"type":"integer","x-mcp-h\u0065ader":"N"},
                "x-mcp-header":{"type":"string","default":{"x-mcp-header":""}},
                "list":{"type":"array","items":{"properties":{"x-mcp-header":{"type":"string"}}}}}}"#,
        )
        .unwrap();

        let found: Vec<_> = params.iter().map(|p| (p.name.as_str(), p.path.join("/"), p.kind)).collect();
        assert_eq!(
            found,
            [
                ("mcp-param-n", "n".to_owned(), ParamKind::Integer),
                ("mcp-param-zone-name", "where/Zone".to_owned(), ParamKind::String)
            ]
        );
        assert!(read(r#"{"type":"object"}"#).unwrap().is_empty());
    }

    #[test]
    fn annotations_that_break_the_rules_are_told() {
        let string = |name: &str| format!(r#"{{"type":"string","x-mcp-header":{name}}}"#);
        for (properties, told) in [
            (format!(r#""a":{}"#, string(r#""""#)), "empty"),
            (format!(r#""a":{}"#, string("7")), "not a string"),
            (format!(r#""a":{}"#, string(r#""a b""#)), "header name"),
            (format!(r#""a":{}"#, string(r#""a\r\nb""#)), "header name"),
            (format!(r#""a":{}"#, string(r#""é""#)), "header name"),
            (format!(r#""a":{},"b":{}"#, string(r#""x""#), string(r#""X""#)), "two properties"),
            (r#""a":{"type":"number","x-mcp-header":"A"}"#.to_owned(), "not a string, an integer"),
            (r#""a":{"type":"object","x-mcp-header":"A"}"#.to_owned(), "not a string, an integer"),
            (r#""a":{"type":["string"],"x-mcp-header":"A"}"#.to_owned(), "not a string, an integer"),
            (r#""a":{"x-mcp-header":"A"}"#.to_owned(), "not a string, an integer"),
            (format!(r#""a":{{"type":"array","items":{}}}"#, string(r#""A""#)), "properties alone"),
            (format!(r#""a":{{"anyOf":[{}]}}"#, string(r#""A""#)), "properties alone"),
            (format!(r#""a":{{"type":"object","additionalProperties":{}}}"#, string(r#""A""#)), "properties alone"),
        ] {
            let problem = read(&format!(r#"{{"type":"object","properties":{{{properties}}}}}"#)).unwrap_err();
            assert!(problem.contains(told), "{properties}: {problem}");
        }
        assert!(read(r#"{"type":"object","x-mcp-header":"A"}"#).is_err());
        assert!(read(r#"{"type":"object","$defs":{"a":{"type":"string","x-mcp-header":"A"}}}"#).is_err());
    }

    #[test]
    fn deep_schemas_do_no_harm() {
        let deep =
            |n: usize| format!("{}{{\"x-mcp-header\":\"a\"}}{}", r#"{"properties":{"a":"#.repeat(n), "}}".repeat(n));

        assert!(read(&deep(60)).is_err());
        let _ = read(&deep(5_000));
    }
}
