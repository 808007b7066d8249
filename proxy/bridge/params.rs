//! `Mcp-Param-*`: arguments of a tool that its schema wants repeated in headers (2026-07-28, `x-mcp-header`, SEP-2243).

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::envelope::header_text;
use crate::catalog::param::{HeaderParam, ParamKind};
use crate::era;
use crate::error::Error;
use crate::jsonrpc;

/// The headers for a call with these arguments.
pub(crate) fn headers(params: &[HeaderParam], arguments: Option<&RawValue>) -> Vec<(HeaderName, HeaderValue)> {
    let arguments = arguments.map_or("", RawValue::get);
    let header =
        |param: &HeaderParam| Some((param.name.clone(), header_text(&text(value(arguments, param)?, param.kind)?)));
    params.iter().filter_map(header).collect()
}

/// Whether the headers that came with a call say what its arguments do.
///
/// # Errors
/// The first header that does not.
pub(crate) fn check(
    params: &[HeaderParam],
    arguments: Option<&RawValue>,
    given: &[(HeaderName, HeaderValue)],
) -> Result<(), Error> {
    let arguments = arguments.map_or("", RawValue::get);
    for param in params {
        let expected = value(arguments, param).and_then(|value| text(value, param.kind));
        let header = given.iter().find(|(name, _)| name == param.name).map(|(_, value)| value);
        let mismatch = |problem: &'static str| {
            Err(Error::ParamMismatch { header: param.name.as_str().into(), problem: problem.into() })
        };
        match (expected, header) {
            (None, None) => {}
            (None, Some(_)) => return mismatch("stands for an argument that is not there"),
            (Some(_), None) => return mismatch("is missing"),
            (Some(expected), Some(header)) => match era::header_text(header) {
                None => return mismatch("is not readable"),
                Some(found) if is_same(&found, &expected, param.kind) => {}
                Some(_) => return mismatch("differs from the body"),
            },
        }
    }
    Ok(())
}

/// The argument at the parameter's path; `null` is none.
fn value<'a>(arguments: &'a str, param: &HeaderParam) -> Option<&'a str> {
    param.path.iter().try_fold(arguments, |object, key| jsonrpc::member(object, key)).filter(|value| *value != "null")
}

/// A value as a header says it. What is not of a primitive type is not the header's to say.
fn text(value: &str, kind: ParamKind) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(value).ok().map(Cow::Owned),
        b'{' | b'[' => None,
        _ if kind == ParamKind::Integer => {
            Some(integer(value).map_or_else(|| value.into(), |number| number.to_string().into()))
        }
        _ => Some(value.into()),
    }
}

/// The value of a number without a fraction, however it is written.
fn integer(number: &str) -> Option<i64> {
    // What JavaScript counts exactly; the specification allows no more.
    const SAFE: f64 = 9_007_199_254_740_991.0;
    if let Ok(plain) = number.parse() {
        return Some(plain);
    }
    let float: f64 = number.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
    (float.fract() == 0.0 && float.abs() <= SAFE).then_some(float as i64)
}

fn is_same(found: &str, expected: &str, kind: ParamKind) -> bool {
    found == expected
        || (kind == ParamKind::Integer
            && matches!((integer(found), integer(expected)), (Some(found), Some(expected)) if found == expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(name: &'static str, path: &[&str], kind: ParamKind) -> HeaderParam {
        HeaderParam {
            name: HeaderName::from_static(name),
            path: path.iter().map(|key| Box::from(*key)).collect(),
            kind,
        }
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    fn all() -> Vec<HeaderParam> {
        vec![
            param("mcp-param-region", &["region"], ParamKind::String),
            param("mcp-param-size", &["box", "size"], ParamKind::Integer),
            param("mcp-param-dry", &["dry"], ParamKind::Boolean),
        ]
    }

    #[test]
    fn arguments_are_said_in_headers() {
        let arguments = raw(r#"{"region":"caf\u00e9","box":{"size":42.0},"dry":true,"other":1}"#);
        let made = headers(&all(), Some(&arguments));
        let made: Vec<_> = made.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            made,
            [("mcp-param-region", "=?base64?Y2Fmw6k=?="), ("mcp-param-size", "42"), ("mcp-param-dry", "true")]
        );
        assert!(headers(&all(), Some(&raw(r#"{"region":null,"box":7}"#))).is_empty());
        assert!(headers(&all(), None).is_empty());
    }

    #[test]
    fn headers_that_were_made_pass_and_others_do_not() {
        let arguments = raw(r#"{"region":" padded ","box":{"size":1e2},"dry":false}"#);
        let made = headers(&all(), Some(&arguments));
        assert!(check(&all(), Some(&arguments), &made).is_ok());
        assert!(check(&all(), Some(&arguments), &made[1..]).is_err());
        assert!(check(&all(), Some(&raw("{}")), &made).is_err());
        let with = |index: usize, value: &'static str| {
            let mut headers = made.clone();
            headers[index].1 = HeaderValue::from_static(value);
            check(&all(), Some(&arguments), &headers)
        };
        assert!(with(1, "100.0").is_ok());
        assert!(with(1, "101").is_err());
        assert!(with(0, "=?base64?%%?=").is_err());
        assert!(with(2, "FALSE").is_err());
    }
}
