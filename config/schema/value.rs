//! Kinds of values. Each admits `${VARIABLE}`, which an editor cannot look into.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Something, or a variable that gives it.
pub(super) struct OrVariable<T>(T);

impl<T: JsonSchema> JsonSchema for OrVariable<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}OrVariable", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<T>(), variable()] })
    }
}

fn variable() -> Value {
    json!({ "type": "string", "pattern": r"^\$\{.+\}$" })
}

/// A whole number from `MIN` to `MAX`.
pub(super) struct Number<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> JsonSchema for Number<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("NumberFrom{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// A string of this form, or one with a variable in it.
macro_rules! text {
    ($(#[doc = $doc:literal] $name:ident = $pattern:literal;)*) => {$(
        #[doc = $doc]
        #[derive(JsonSchema)]
        pub(super) struct $name(#[schemars(regex(pattern = $pattern))] String);
    )*};
}

text! {
    #[doc = "A whole number and one unit: `500ms`, `10s`, `5m`, `1h`, `1d`."]
    Duration = r"^[0-9]+(ms|s|m|h|d)$|\$\{";
    #[doc = "A whole number and one unit, in powers of 1024: `512B`, `64KiB`, `4MiB`, `1GiB`."]
    Size = r"^[0-9]+(B|KiB|MiB|GiB)$|\$\{";
    #[doc = "Calls in a second, minute, hour or day: `20/s`, `100/m`, `5/h`, `1/d`."]
    Rate = r"^[0-9]+/(s|m|min|h|d)$|\$\{";
    #[doc = "1 to 64 of `A-Za-z0-9_.-`."]
    Name = r"^[A-Za-z0-9_.-]{1,64}$|\$\{";
    #[doc = "A piece of a tool's name, perhaps empty, of `A-Za-z0-9_.-`."]
    NamePart = r"^[A-Za-z0-9_.-]*$|\$\{";
    #[doc = "The name of a tool: 1 to 128 of `A-Za-z0-9_.-`."]
    ToolName = r"^[A-Za-z0-9_.-]{1,128}$|\$\{";
    #[doc = "A pattern for names of tools: `*` for any run of characters, `?` for one. Case matters."]
    Pattern = r"^[!-~]{1,128}$|\$\{";
    #[doc = "A pattern for keys: `*` for any run of characters, `?` for one. Case does not matter."]
    KeyPattern = r"^.{1,128}$|\$\{";
    #[doc = "An IP address and a port: `127.0.0.1:8080`, `[::]:8443`."]
    Address = r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$|\$\{";
    #[doc = "A host: `mcp.example.com`, `*.example.com`, `localhost:8080`, `[::1]`, `*`."]
    Host = r"^[A-Za-z0-9_.:*\[\]-]+$|\$\{";
    #[doc = "An origin: `https://app.example.com`, `http://localhost:*`, `*`."]
    Origin = r"^(\*|.+://[^/]+)$|\$\{";
    #[doc = "An address or a network: `127.0.0.1`, `10.0.0.0/8`, `fd00::/8`."]
    Network = r"^[0-9A-Fa-f:.]+(/[0-9]+)?$|\$\{";
    #[doc = "A path, from the folder of this file when it is relative."]
    FilePath = ".";
}

/// Text that is never printed: a string (better with a variable in it), or where it comes from.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(super) enum Secret {
    /// The text itself.
    Text(String),
    /// An environment variable.
    Variable(FromVariable),
    /// A file.
    File(FromFile),
    /// The text itself, in the form of the others.
    Value(FromValue),
}

/// A secret from an environment variable.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FromVariable {
    /// The variable's name. It must be set, and not empty.
    env: String,
}

/// A secret from a file.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FromFile {
    /// Its path. Line breaks at its end are left out. The file is watched, and its changes are taken up.
    file: FilePath,
}

/// A secret in place.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FromValue {
    /// The text itself.
    value: String,
}
