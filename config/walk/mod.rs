//! Typed ways into the tree: each gives the value, or reports why not and lets the caller go on.

mod json;
mod mapping;
mod scalar;
mod words;

use crate::source::Source;
use crate::yaml::{Kind, Node, Place};

pub(crate) use mapping::{Entry, Section};
use scalar::Plain;
pub(crate) use words::quote;

/// Why text is not a value of some kind.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Wrong {
    /// What it should be: `a duration such as 10s`.
    pub(crate) expected: String,
    /// What would mend it. May quote the text.
    pub(crate) help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

const NOTHING: &str = "nothing";

/// A value of the file: where it is, what it is called, and the way to report what is wrong with it.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    source: &'a Source<'a>,
    node: &'a Node,
    /// The node's place, or its key's where the node is nothing.
    at: Place,
    field: String,
    /// Whether the text may be printed in problems.
    secret: bool,
}

impl<'a> Value<'a> {
    pub(crate) fn root(source: &'a Source<'a>, node: &'a Node) -> Self {
        Self { source, node, at: node.at, field: String::new(), secret: false }
    }

    pub(crate) fn source(&self) -> &'a Source<'a> {
        self.source
    }

    /// The same value, of which nothing is ever printed.
    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) fn problem(&self, message: impl Into<String>) {
        self.source.report(self.at, &self.field, message.into(), None);
    }

    pub(crate) fn problem_with(&self, message: impl Into<String>, help: impl Into<String>) {
        self.source.report(self.at, &self.field, message.into(), Some(help.into()));
    }

    /// Reports a value of the wrong type. What was refused while reading YAML was reported then.
    pub(crate) fn mistyped(&self, expected: &str, help: Option<String>) {
        if matches!(self.node.kind, Kind::Broken) {
            return;
        }
        let found = self.found();
        let help = help.or_else(|| (found == NOTHING).then(|| "give it a value, or remove the key".to_owned()));
        self.source.report(self.at, &self.field, format!("expected {expected}, found {found}"), help);
    }

    /// What stands here, by its kind only: where a section should be, a secret may stand.
    fn found(&self) -> &'static str {
        match &self.node.kind {
            Kind::Broken => "an alias",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            Kind::Scalar { text, plain } => match Plain::of(text, *plain) {
                Plain::Null => NOTHING,
                Plain::Bool => "a boolean",
                Plain::Number => "a number",
                Plain::Text => "a string",
            },
        }
    }

    /// What it is called: `backends[1].url`.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    /// A scalar's text as written, whatever it may mean.
    pub(crate) fn written(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::List(_) | Kind::Map(_) | Kind::Broken => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::List(_))
    }

    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }
}
