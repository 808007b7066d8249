//! `${VAR}`, `${VAR:-default}` and `$${` in values.

/// Text with its variables put in.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    /// The text itself. When `substituted`, it may hold a secret and must not be printed.
    pub(crate) value: String,
    /// As written in the file, which may always be printed.
    pub(crate) written: String,
    /// Whether a variable was put in.
    pub(crate) substituted: bool,
}

/// Why variables could not be put in.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Unexpanded {
    /// A `${` that does not begin `${NAME}` or `${NAME:-default}`.
    Malformed,
    /// No such variable, and no default for it.
    Unset(String),
}

/// Puts variables in. A default is used when the variable is unset or empty, as in a shell; it is taken as it stands.
pub(crate) fn expand(written: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Text, Unexpanded> {
    let (mut value, mut substituted) = (String::with_capacity(written.len()), false);
    let mut rest = written;
    while let Some(dollar) = rest.find('$') {
        let (before, from) = rest.split_at(dollar);
        value.push_str(before);
        if let Some(after) = from.strip_prefix("$${") {
            value.push_str("${");
            rest = after;
        } else if let Some(after) = from.strip_prefix("${") {
            let (inside, after) = after.split_once('}').ok_or(Unexpanded::Malformed)?;
            value.push_str(&look_up(inside, &variable)?);
            (rest, substituted) = (after, true);
        } else {
            value.push('$');
            rest = &from[1..];
        }
    }
    value.push_str(rest);
    Ok(Text { value, written: written.to_owned(), substituted })
}

fn look_up(inside: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, Unexpanded> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_variable_name(name) {
        return Err(Unexpanded::Malformed);
    }
    match (variable(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Unexpanded::Unset(name.to_owned())),
    }
}

/// Whether a shell would take this as a variable's name.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(written: &str) -> Result<String, Unexpanded> {
        let variable = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        expand(written, variable).map(|text| text.value)
    }

    #[test]
    fn variables_are_put_in_once() {
        for (written, value) in [
            ("plain", "plain"),
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-2}", "2"),
            ("${NONE:-a:-b$}", "a:-b$"),
            ("${NONE:-}", ""),
            ("${NESTED}", "${A}"),
            ("$${A}", "${A}"),
            ("$A $ $$ 5$", "$A $ $$ 5$"),
            ("$$${A}", "$${A}"),
        ] {
            assert_eq!(expanded(written).as_deref(), Ok(value), "{written}");
        }
    }

    #[test]
    fn what_is_not_a_variable_is_malformed() {
        for written in ["${", "${}", "${A", "${1A}", "${A-x}", "${A:?x}", "${ A }", "${:-x}"] {
            assert_eq!(expanded(written), Err(Unexpanded::Malformed), "{written}");
        }
        assert_eq!(expanded("${NONE}"), Err(Unexpanded::Unset("NONE".to_owned())));
    }
}
