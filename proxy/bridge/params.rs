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
///
/// # Errors
/// When an argument cannot be said in one. To leave its header out would be refused by any server: the body has it.
pub(crate) fn headers(
    params: &[HeaderParam],
    arguments: Option<&RawValue>,
) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let arguments = arguments.map_or("", RawValue::get);
    let mut headers = Vec::new();
    for param in params {
        match said(arguments, param) {
            Ok(Some(text)) => headers.push((param.name.clone(), header_text(&text))),
            Ok(None) => {}
            Err(NoText) => {
                let what =
                    format!("an argument holds half of a surrogate pair, which its `{}` cannot say", param.shown);
                return Err(Error::InvalidParams { what: what.into() });
            }
        }
    }
    Ok(headers)
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
        let header = given.iter().find(|(name, _)| name == param.name).map(|(_, value)| value);
        let mismatch =
            |problem: &'static str| Err(Error::ParamMismatch { header: param.shown.clone(), problem: problem.into() });
        let Ok(expected) = said(arguments, param) else {
            return mismatch("cannot say half of a surrogate pair, which the body holds");
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

/// A JSON string that is none of Unicode: a header says text in UTF-8, which has no way to write half of a surrogate pair.
struct NoText;

/// What a header says of an argument, where it is there. What is not of a primitive type is not the header's to say.
fn said<'a>(arguments: &'a str, param: &HeaderParam) -> Result<Option<Cow<'a, str>>, NoText> {
    let Some(value) = value(arguments, param) else { return Ok(None) };
    match value.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(value).map(|text| Some(Cow::Owned(text))).map_err(|_| NoText),
        None | Some(b'{' | b'[') => Ok(None),
        _ if param.kind == ParamKind::Integer => {
            Ok(Some(integer(value).map_or_else(|| value.into(), |number| number.to_string().into())))
        }
        _ => Ok(Some(value.into())),
    }
}

/// The value of a number without a fraction, however it is written.
fn integer(number: &str) -> Option<i64> {
    // What JavaScript counts exactly; the specification allows no more.
    const SAFE: f64 = 9_007_199_254_740_991.0;
    // Rust's own readers take `+42` and `042` too, which are no numbers in JSON.
    serde_json::from_str::<&RawValue>(number).ok()?;
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
            shown: name.into(),
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
        let made = headers(&all(), Some(&arguments)).unwrap();
        let made: Vec<_> = made.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            made,
            [("mcp-param-region", "=?base64?Y2Fmw6k=?="), ("mcp-param-size", "42"), ("mcp-param-dry", "true")]
        );
        assert!(headers(&all(), Some(&raw(r#"{"region":null,"box":7}"#))).unwrap().is_empty());
        assert!(headers(&all(), None).unwrap().is_empty());
    }

    #[test]
    fn headers_that_were_made_pass_and_others_do_not() {
        let arguments = raw(r#"{"region":" padded ","box":{"size":1e2},"dry":false}"#);
        let made = headers(&all(), Some(&arguments)).unwrap();
        assert!(check(&all(), Some(&arguments), &made).is_ok());
        assert!(check(&all(), Some(&arguments), &made[1..]).is_err());
        assert!(check(&all(), Some(&raw("{}")), &made).is_err());
        let with = |index: usize, value: &'static str| {
            let mut headers = made.clone();
            headers[index].1 = HeaderValue::from_static(value);
            check(&all(), Some(&arguments), &headers)
        };
        assert!(with(1, "100.0").is_ok());
        for other in ["101", "0100", "+100", "100.", "0x64", "1_00", "100 0", ""] {
            assert!(with(1, other).is_err(), "{other}");
        }
        assert!(with(0, "=?base64?%%?=").is_err());
        assert!(with(2, "FALSE").is_err());
    }

    #[test]
    fn half_a_surrogate_pair_cannot_be_said() {
        let arguments = raw(r#"{"region":"\ud800"}"#);
        let given = [(HeaderName::from_static("mcp-param-region"), HeaderValue::from_static("=?base64?77+9?="))];

        assert!(headers(&all(), Some(&arguments)).is_err());
        assert!(check(&all(), Some(&arguments), &given).is_err() && check(&all(), Some(&arguments), &[]).is_err());
        let elsewhere = raw(r#"{"\ud800":"\udfff","region":"eu"}"#);
        assert_eq!(headers(&all(), Some(&elsewhere)).unwrap()[0].1, "eu");
    }
}
