use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::batch::MAX_BATCH;
use super::splice::Layout;
use super::*;
use crate::fuzzing::sample::{self, Choices};

/// One address for all.
static CALL: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"github__search","arguments":{"q":"a"}}}"#;

fn request(body: &str) -> Request<'_> {
    match parse(body.as_bytes()) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn response(body: &str) -> Response<'_> {
    match parse(body.as_bytes()) {
        Ok(Message::Response(response)) => response,
        other => panic!("{other:?}"),
    }
}

fn refusal(body: &str) -> (i64, String, Option<String>) {
    let malformed = parse(body.as_bytes()).unwrap_err();
    (malformed.code, malformed.reason.into_owned(), malformed.id.map(|id| id.to_string()))
}

// === reading ===

#[test]
fn reads_a_request() {
    let request = request(CALL);

    assert_eq!((request.id.raw(), &*request.method), ("7", "tools/call"));
    assert_eq!(request.params.name().as_deref(), Some("github__search"));
    assert_eq!(request.params.arguments.map(RawValue::get), Some(r#"{"q":"a"}"#));
}

#[test]
fn reads_what_the_modern_envelope_holds() {
    let request = request(
        r#"{"jsonrpc":"2.0","id":"a","method":"tools/list","params":{"cursor":"c","_meta":{"progressToken":3,
            "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#,
    );

    let meta = request.params.meta.as_ref().unwrap();
    assert_eq!(meta.protocol_version().as_deref(), Some("2026-07-28"));
    assert_eq!(meta.client_capabilities.map(RawValue::get), Some("{}"));
    assert_eq!(meta.progress_token.map(RawValue::get), Some("3"));
    assert_eq!(request.params.cursor.and_then(text).as_deref(), Some("c"));
}

#[test]
fn a_call_without_an_id_is_a_notification() {
    let body = br#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"x"}}"#;

    let Ok(Message::Notification(notification)) = parse(body) else { panic!("a notification") };

    assert_eq!(notification.params.request_id().unwrap().raw(), r#""x""#);
}

#[test]
fn tells_results_from_errors() {
    let result = response(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let error = response(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#);
    let padded = response(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#);

    assert_eq!((result.error, result.value.get()), (false, "{}"));
    assert_eq!((error.error, error.id), (true, None));
    assert!(!padded.error);
}

#[test]
fn a_value_of_a_wrong_type_is_seen_and_does_no_harm() {
    let params =
        request(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":5,"uri":null,"requestId":1.5}}"#).params;

    assert_eq!((params.name(), params.name.map(RawValue::get)), (None, Some("5")));
    assert_eq!((params.uri(), params.uri.map(RawValue::get)), (None, Some("null")));
    assert_eq!(params.request_id(), None);
}

#[test]
fn escaped_keys_and_names_are_read() {
    let request = request(
        r#"{"json\u0072pc":"2.\u0030","id":1,"m\u0065thod":"a\/b","params":{"n\u0061me":"\u00e9\ud83d\ude00"}}"#,
    );

    assert_eq!((&*request.method, request.params.name().as_deref()), ("a/b", Some("é😀")));
}

// === refusing ===

#[test]
fn names_the_key_that_repeats() {
    for (key, body) in [
        ("method", r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#),
        ("jsonrpc", r#"{"jsonrpc":"2.0","id":1,"method":"a","jsonrpc":"2.0"}"#),
        ("params", r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{},"params":{}}"#),
        ("name", r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"name":"x","n\u0061me":"y"}}"#),
        ("uri", r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"uri":"x","uri":"x"}}"#),
        ("_meta", r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{},"_meta":{}}}"#),
        (
            "progressToken",
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":1,"progressToken":1}}}"#,
        ),
    ] {
        assert_eq!(refusal(body), (-32600, format!("duplicate `{key}`"), Some("1".to_owned())), "{body}");
    }
}

#[test]
fn a_repeated_id_is_nobodys() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"a","id":2}"#;

    assert_eq!(refusal(body), (-32600, "duplicate `id`".to_owned(), None));
}

#[test]
fn keys_that_are_not_read_may_repeat() {
    let body =
        r#"{"x":1,"x":2,"jsonrpc":"2.0","id":1,"method":"a","params":{"y":1,"y":2,"arguments":{"name":1,"name":2}}}"#;

    assert!(parse(body.as_bytes()).is_ok());
}

#[test]
fn says_what_is_no_message() {
    for (body, reason, id) in [
        ("[]", "the message must be an object", None),
        ("\"{}\"", "the message must be an object", None),
        ("1", "the message must be an object", None),
        ("{}", "`jsonrpc` must be \"2.0\"", None),
        (r#"{"id":1,"method":"a"}"#, "`jsonrpc` must be \"2.0\"", Some("1")),
        (r#"{"jsonrpc":2.0,"id":1,"method":"a"}"#, "`jsonrpc` must be \"2.0\"", Some("1")),
        (r#"{"jsonrpc":"2.0","id":1}"#, "none of `method`, `result` and `error`", Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "`method` must be a string", Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#, "both `method` and `result`", Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"error":{},"result":1}"#, "both `result` and `error`", Some("1")),
        (r#"{"jsonrpc":"2.0","result":1}"#, "`id` is missing", None),
        (r#"{"jsonrpc":"2.0","method":"a","params":[],"id":"x"}"#, "`params` must be an object", Some("\"x\"")),
        (r#"{"jsonrpc":"2.0","method":"a","params":null,"id":1}"#, "`params` must be an object", Some("1")),
        (r#"{"jsonrpc":"2.0","method":"a","params":{"_meta":[]},"id":1}"#, "`_meta` must be an object", Some("1")),
    ] {
        assert_eq!(refusal(body), (-32600, reason.to_owned(), id.map(str::to_owned)), "{body}");
    }
}

#[test]
fn an_id_is_a_string_or_an_integer() {
    for id in ["null", "1.5", "1.0", "1e3", "true", "{}", "[]", r#""\ud800""#] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"a"}}"#);
        assert_eq!(
            refusal(&body),
            (-32600, "`id` must be a string, whole characters in it, or an integer".to_owned(), None),
            "{id}"
        );
    }
}

#[test]
fn what_is_not_json_is_a_parse_error_without_an_id() {
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","x":{}{}}}"#, "[".repeat(127), "]".repeat(127));
    let texts = [
        "",
        " ",
        "{",
        "\u{feff}{}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}x",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\0",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\0\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",}",
        "{'jsonrpc':'2.0'}",
        "{\"jsonrpc\":\"2.0\",\"id\":01,\"method\":\"a\"}",
        &deep,
    ];

    for text in texts {
        let (code, _, id) = refusal(text);
        assert_eq!((code, id), (-32700, None), "{text}");
    }
    assert_eq!(parse(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"x\":\"\xff\"}").unwrap_err().code, -32700);
}

#[test]
fn brackets_in_strings_are_not_deep() {
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","x":"\"{}","y":[{}1]}}"#, "[".repeat(999), "[],".repeat(999));

    assert!(parse(body.as_bytes()).is_ok());
}

// === batches ===

#[test]
fn reads_a_batch() {
    let body = format!(" [{CALL},\n{CALL}] ");

    let messages = parse_batch(body.as_bytes()).unwrap();

    assert_eq!(messages.len(), 2);
    assert_eq!(split_batch(body.as_bytes()).unwrap(), [CALL, CALL]);
}

#[test]
fn refuses_a_batch_that_is_empty_too_long_or_holds_one_bad_message() {
    let full = format!("[{}]", vec![CALL; MAX_BATCH].join(","));
    let long = format!("[{}]", vec![CALL; MAX_BATCH + 1].join(","));
    let bad = format!(r#"[{CALL},{{"id":1}}]"#);
    let reason = |body: &str| parse_batch(body.as_bytes()).unwrap_err().reason;

    assert!(parse_batch(full.as_bytes()).is_ok());
    assert_eq!(reason(&long), "the batch holds more than 64 messages");
    assert_eq!(reason("[]"), "the batch is empty");
    assert_eq!(reason(CALL), "a batch must be an array");
    assert_eq!(parse_batch(bad.as_bytes()).unwrap_err(), Malformed::invalid("message 1: `jsonrpc` must be \"2.0\""));
}

// === ids ===

#[test]
fn ids_are_equal_by_value() {
    let id = |raw: &'static str| Id::read(raw).unwrap();
    let seen = HashSet::from([id("1").owned(), id("\"a\"").owned(), id("18446744073709551616").owned()]);

    assert!(seen.contains(&id(r#""\u0061""#).owned()));
    assert!(seen.contains(&id("18446744073709551616").owned()));
    assert!(!seen.contains(&id("\"1\"").owned()));
    assert_eq!(id("-0"), id("0"));
    assert_eq!(OwnedId::integer(1), id("1").owned());
    assert_eq!(id(r#""\u0061""#).to_string(), r#""\u0061""#);
}

#[test]
fn what_is_no_json_is_no_id() {
    for raw in ["", "-", "01", "+1", "1 ", "--1", "\"", "\"a", "\"a\"b\"", "\"\n\"", "nan"] {
        assert_eq!(Id::read(raw), None, "{raw}");
    }
}

// === changing and writing ===

#[test]
fn renames_and_renumbers_at_once() {
    let request = request(CALL);
    let at = |part| span(CALL.as_bytes(), part).unwrap();

    let edits: [(_, &[u8]); 2] =
        [(at(request.id.raw()), b"\"g-1\""), (at(request.params.name.unwrap().get()), b"\"search\"")];

    assert_eq!(
        splice(CALL.as_bytes(), &edits),
        r#"{"jsonrpc":"2.0","id":"g-1","method":"tools/call","params":{"name":"search","arguments":{"q":"a"}}}"#
    );
}

#[test]
fn a_part_of_another_body_has_no_span() {
    let body = CALL.to_owned();

    assert_eq!(span(body.as_bytes(), request(CALL).id.raw()), None);
}

#[test]
fn finds_where_to_add() {
    let body = br#" {"params": {"_meta":{"a":1} } } "#;

    assert_eq!(layout(body), Some(Layout { end: 31, params: Some(12..30), meta: Some(21..28) }));
    assert_eq!(layout(b"{}"), Some(Layout { end: 1, params: None, meta: None }));
    assert_eq!(layout(b"[]"), None);
}

#[test]
fn writes_what_it_reads() {
    let error = ErrorObject { code: -1, message: "no \"x\"".into(), data: Some(json!({ "retryAfterMs": 5 })) };

    assert_eq!(
        error_body(Some("7"), &error),
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-1,"message":"no \"x\"","data":{"retryAfterMs":5}}}"#
    );
    assert_eq!(
        error_body(None, &ErrorObject { data: None, ..error.clone() }),
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no \"x\""}}"#
    );
    assert_eq!(
        error_body_without_id(&ErrorObject { data: None, ..error }),
        r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"no \"x\""}}"#
    );
    assert_eq!(result_body("\"a\"", "{}"), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#);
    assert_eq!(request_body("1", "ping", None), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!(notification_body("n", Some("{}")), r#"{"jsonrpc":"2.0","method":"n","params":{}}"#);
}

// === properties ===

/// The rules over again, for a value whose keys cannot repeat.
fn is_message(value: &Value) -> bool {
    let is_absent = |key: &str| value.get(key).is_none();
    let is_object = |value: Option<&Value>| value.is_none_or(Value::is_object);
    let is_id = value["id"].is_string() || value["id"].is_i64() || value["id"].is_u64();
    let shape = match (value.get("method"), value.get("result"), value.get("error")) {
        (Some(method), None, None) => method.is_string() && (is_id || is_absent("id")),
        (None, Some(_), None | Some(Value::Null)) => is_id,
        (None, None | Some(Value::Null), Some(_)) => is_id || value["id"].is_null(),
        _ => false,
    };
    let params = &value["params"];
    value.is_object()
        && value["jsonrpc"] == "2.0"
        && is_object(value.get("params"))
        && is_object(params.get("_meta"))
        && shape
}

proptest! {
    #[test]
    fn takes_exactly_the_messages(value in sample::message(), mut choices in Choices::any()) {
        let body = choices.write(&value);

        let message = parse(body.as_bytes());

        prop_assert_eq!(message.is_ok(), is_message(&value), "{}: {:?}", body, message);
        prop_assert!(message.err().is_none_or(|malformed| malformed.code == -32600));
    }

    #[test]
    fn written_messages_keep_the_invariants(value in sample::message(), mut choices in Choices::any()) {
        crate::fuzzing::envelope(choices.write(&value).as_bytes());
    }

    #[test]
    fn any_value_keeps_the_invariants(value in sample::value(), mut choices in Choices::any()) {
        crate::fuzzing::envelope(choices.write(&value).as_bytes());
    }

    #[test]
    fn strings_are_read_back(string in sample::string(), mut choices in Choices::any()) {
        let encoded = json_string(&string);
        let written = choices.write(&json!({ "jsonrpc": "2.0", "id": string, "method": string }));

        let Ok(Message::Request(request)) = parse(written.as_bytes()) else { panic!("{written}") };

        prop_assert_eq!(&request.method, &string);
        prop_assert_eq!(Some(request.id), Id::read(&encoded));
        prop_assert_eq!(serde_json::from_str::<String>(&encoded).unwrap(), string);
    }
}
