use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fuzzing::sample::{self, Choices};
use crate::jsonrpc::Id;

fn outcome(message: &str) -> Option<Outcome> {
    let mut scan = Scan::new();
    scan.push(message.as_bytes());
    scan.outcome()
}

#[test]
fn tells_the_three_outcomes() {
    for (message, expected) in [
        (r#"{"result":{"content":[]}}"#, Outcome::Ok),
        (r#"{"result":{"isError":false}}"#, Outcome::Ok),
        (r#"{"result":{"isError":"true"}}"#, Outcome::Ok),
        (r#"{"result":{"x":{"isError":true}},"isError":true}"#, Outcome::Ok),
        (r#"{"result":{"x":"\"isError\":true"}}"#, Outcome::Ok),
        (r#"{"result":{"isError" : true }}"#, Outcome::ToolError),
        (r#"{"r\u0065sult":{"is\u0045rror":true}}"#, Outcome::ToolError),
        (r#"{"error":{"code":-32601,"message":"{"}}"#, Outcome::RpcError { code: -32601 }),
        (r#"{"error":{"data":{"code":1}}}"#, Outcome::RpcError { code: 0 }),
        (r#"{"error":{"code":"5"}}"#, Outcome::RpcError { code: 0 }),
        (r#"{"error":"no object"}"#, Outcome::RpcError { code: 0 }),
        (r#"{"error":null,"result":{}}"#, Outcome::Ok),
    ] {
        assert_eq!(outcome(message), Some(expected), "{message}");
    }
}

#[test]
fn tells_a_response_of_the_wrong_shape() {
    for (message, expected) in [
        (r#"{"result":["isError",true]}"#, Outcome::Broken(Fault::Result)),
        (r#"{"result":null}"#, Outcome::Broken(Fault::Result)),
        (r#"{"result":"{}","error":null}"#, Outcome::Broken(Fault::Result)),
        (r#"{"result":{},"result":7}"#, Outcome::Broken(Fault::Result)),
        (r#"{"result":7,"other":{},"result":{}}"#, Outcome::Ok),
        (r#"{"result":{},"error":{"code":1}}"#, Outcome::Broken(Fault::Both)),
        (r#"{"error":{"code":1},"result":7}"#, Outcome::Broken(Fault::Both)),
        (r#"{"error":{"code":1},"result":null}"#, Outcome::RpcError { code: 1 }),
    ] {
        assert_eq!(outcome(message), Some(expected), "{message}");
    }
}

#[test]
fn tells_the_id_of_another_request_whatever_the_chunks() {
    let (own, other, none) = (Outcome::Ok, Outcome::Broken(Fault::OtherId), Outcome::Broken(Fault::NoId));
    let long = format!("\"{}\"", "x".repeat(100));
    for (expected, found, outcome) in [
        ("7", "7", own),
        ("7", " 7 ", own),
        ("7", "7.0", own),
        ("7", "8", other),
        ("7", "\"7\"", other),
        ("7", "70", other),
        ("7", "true", other),
        ("7", "[7]", other),
        ("7", "{\"id\":7}", other),
        ("7", "null", none),
        ("123456789012345678901234567890", "123456789012345678901234567890", own),
        ("\"a\"", "\"a\"", own),
        ("\"a\"", "\"b\"", other),
        ("\"a\"", "\"ab\"", other),
        ("\"ab\"", "\"a\"", other),
        ("\"a\"", "\"\"", other),
        ("\"7\"", "7", other),
        ("\"a\"", "7", other),
        ("\"a\"", "\"\\u0061\"", own),
        ("\"\\u0061\"", "\"a\"", own),
        (&*long, &*long, own),
        (&*long, "\"xxx\"", other),
    ] {
        let texts = [
            format!(r#"{{"jsonrpc":"2.0","id":{found},"result":{{"id":[1,"id"]}}}}"#),
            format!(r#"{{"result":{{"id":[1,"id"]}},"jsonrpc":"2.0","id":{found}}}"#),
            format!(r#"{{"id":"first","result":{{}},"id":{found}}}"#),
        ];
        for (text, chunk) in texts.iter().flat_map(|text| [1, 3, 1000].map(|chunk| (text, chunk))) {
            let id = Id::read(expected).unwrap().owned();
            let mut scan = Scan::of(Some(id));
            text.as_bytes().chunks(chunk).for_each(|chunk| scan.push(chunk));
            assert_eq!(scan.outcome(), Some(outcome), "{expected}: {text}");
        }
    }
}

#[test]
fn an_error_needs_no_id_and_a_result_does() {
    let outcome = |text: &str| {
        let mut scan = Scan::of(Id::read("7").map(Id::owned));
        scan.push(text.as_bytes());
        let found = scan.take().outcome();
        scan.push(br#"{"id":7,"result":{}}"#);
        assert_eq!(scan.outcome(), Some(Outcome::Ok), "what comes next is another message");
        found
    };

    assert_eq!(outcome(r#"{"error":{"code":1}}"#), Some(Outcome::RpcError { code: 1 }));
    assert_eq!(outcome(r#"{"id":null,"error":{"code":1}}"#), Some(Outcome::RpcError { code: 1 }));
    assert_eq!(outcome(r#"{"id":8,"error":{"code":1}}"#), Some(Outcome::Broken(Fault::OtherId)));
    assert_eq!(outcome(r#"{"result":{}}"#), Some(Outcome::Broken(Fault::NoId)));
}

#[test]
fn the_last_of_a_repeated_key_counts() {
    assert_eq!(outcome(r#"{"result":{"isError":true,"isError":false}}"#), Some(Outcome::Ok));
    assert_eq!(outcome(r#"{"result":{"isError":true},"result":{}}"#), Some(Outcome::Ok));
}

#[test]
fn what_is_no_complete_response_has_no_outcome() {
    for text in [
        "",
        "x",
        "1",
        "\"result\"",
        r#"{"method":"a"}"#,
        r#"{"method":"a","result":1}"#,
        r#"[{"result":1}]"#,
        r#"{"result":1"#,
        r#"{"result":"#,
        r#"{"result":1}}"#,
        r#"{"result":1} {}"#,
        r#"{"result":1]"#,
        r#"{"result":{]}"#,
        r#"{"\u00zzresult":1}"#,
    ] {
        assert_eq!(outcome(text), None, "{text}");
    }
}

#[test]
fn knows_a_response_by_its_first_telling_key() {
    let mut scan = Scan::new();

    scan.push(br#"{"jsonrpc":"2.0","id":1,"result""#);
    assert_eq!(scan.kind(), Kind::Other);
    scan.push(b":");

    assert!(scan.is_response());
}

proptest! {
    #[test]
    fn agrees_with_a_parser_whatever_the_chunks(value in sample::message(), mut choices in Choices::any()) {
        let text = choices.write(&value);
        let mut scan = Scan::new();

        choices.cut(text.as_bytes()).into_iter().for_each(|chunk| scan.push(chunk));

        if value.get("method").is_none() {
            prop_assert_eq!(scan.outcome(), expected(&value), "{}", text);
        }
        let id = value.get("id").map(Value::to_string);
        if let Some(id) = id.as_deref().and_then(Id::read).map(Id::owned) {
            let mut scan = Scan::of(Some(id));
            choices.cut(text.as_bytes()).into_iter().for_each(|chunk| scan.push(chunk));
            prop_assert!(!matches!(scan.outcome(), Some(Outcome::Broken(fault)) if fault.is_of_id()), "{}", text);
        }
    }
}

fn expected(message: &Value) -> Option<Outcome> {
    match (message.get("result"), message.get("error")) {
        (None, None) => None,
        (Some(result), None | Some(Value::Null)) if !result.is_object() => Some(Outcome::Broken(Fault::Result)),
        (Some(result), None | Some(Value::Null)) if result["isError"] == true => Some(Outcome::ToolError),
        (Some(_), None | Some(Value::Null)) => Some(Outcome::Ok),
        (Some(result), Some(_)) if !result.is_null() => Some(Outcome::Broken(Fault::Both)),
        (_, Some(error)) => Some(Outcome::RpcError { code: error["code"].as_i64().unwrap_or(0) }),
    }
}
