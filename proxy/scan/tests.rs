use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::fuzzing::sample::{self, Choices};

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
        (r#"{"result":["isError",true]}"#, Outcome::Ok),
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
    }
}

fn expected(message: &Value) -> Option<Outcome> {
    match (message.get("result"), message.get("error")) {
        (None, None) => None,
        (Some(result), None | Some(Value::Null)) if result["isError"] == true => Some(Outcome::ToolError),
        (Some(_), None | Some(Value::Null)) => Some(Outcome::Ok),
        (_, Some(error)) => Some(Outcome::RpcError { code: error["code"].as_i64().unwrap_or(0) }),
    }
}
