use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use toolgate_config::Config;

use super::*;

/// What stands for a secret: nothing else has this character.
const SECRET: char = '§';

fn config(payloads: &str) -> Arc<Config> {
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, url: 'http://127.0.0.1:1/mcp' }}]\n\
         log: {{ payloads: {{ {payloads} }} }}\n"
    );
    Arc::new(toolgate_config::parse(std::path::Path::new("t.yaml"), &yaml, &|_| None).unwrap())
}

fn given(payloads: &str, arguments: &str) -> Option<String> {
    let raw = RawValue::from_string(arguments.to_owned()).unwrap();
    let payload = Payload::of(&config(&format!("arguments: true, {payloads}")), Some(&raw))?;
    payload.arguments().map(str::to_owned)
}

/// Of a body in chunks of this size.
fn gave(payloads: &str, body: &str, chunk: usize) -> String {
    let mut payload = Payload::of(&config(&format!("results: true, {payloads}")), None).unwrap();
    for chunk in body.as_bytes().chunks(chunk) {
        if body.starts_with('{') { payload.json(chunk) } else { payload.events(chunk) }
    }
    payload.result().unwrap()
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for() {
    let raw = RawValue::from_string("{}".to_owned()).unwrap();

    assert!(Payload::of(&config("max: 1KiB"), Some(&raw)).is_none());
    let arguments = Payload::of(&config("arguments: true"), Some(&raw)).unwrap();
    let mut results = Payload::of(&config("results: true"), Some(&raw)).unwrap();
    results.json(b"{\"result\":{}}");
    assert_eq!((arguments.arguments(), arguments.result()), (Some("{}"), None));
    assert_eq!((results.arguments(), results.result()), (None, Some("{}".to_owned())));
}

#[test]
fn what_stands_under_a_key_of_a_secret_is_redacted_wherever_it_is() {
    for (arguments, shown) in [
        (r#"{ "path" : "/a", "n": [ 1.50, true , null, 1e400 ] }"#, r#"{"path":"/a","n":[1.50,true,null,1e400]}"#),
        (r#"{"password":"§","b":1}"#, r#"{"password":"[redacted]","b":1}"#),
        (r#"{"a":[{"dbPassWord":{"x":["§"]}}],"b":1}"#, r#"{"a":[{"dbPassWord":"[redacted]"}],"b":1}"#),
        (r#"{"pass\u0077ord":"§","p":"\ud83d\ude00\ud83d"}"#, r#"{"password":"[redacted]","p":"😀�"}"#),
        (
            r#"{"API-Key":"§","X-Api_Key":7,"apikey":null}"#,
            r#"{"API-Key":"[redacted]","X-Api_Key":"[redacted]","apikey":"[redacted]"}"#,
        ),
        (r#"[{"Authorization":"§"},"password"]"#, r#"[{"Authorization":"[redacted]"},"password"]"#),
        (r#""plain""#, r#""plain""#),
    ] {
        assert_eq!(given("", arguments).as_deref(), Some(shown), "{arguments}");
    }
    let own = given("redact: ['user?', '*Id']", r#"{"USER1":"§","userId":"§","password":"seen"}"#);
    assert_eq!(own.as_deref(), Some(r#"{"USER1":"[redacted]","userId":"[redacted]","password":"seen"}"#));
    assert_eq!(given("redact: []", r#"{"password":"seen"}"#).as_deref(), Some(r#"{"password":"seen"}"#));
}

#[test]
fn json_in_strings_is_looked_into() {
    for (text, shown) in [
        (r#"{ "token": "§", "a": 1 }"#, r#"{"token":"[redacted]","a":1}"#),
        ("{\"token\":\"§\"}\n{\"token\":\"§\"}\n", "{\"token\":\"[redacted]\"}\n{\"token\":\"[redacted]\"}"),
        (r#"{"token":"§", oops"#, "[redacted]"),
        (r#"{"a":"x","token":"§"#, "[redacted]"),
        (r#"the answer is {"token": "§"}"#, "[redacted]"),
        (r#"{'token' : '§'}"#, "[redacted]"),
        (r#"log: {\"token\":\"§\"}"#, "[redacted]"),
        (r#""{\"token\":\"§\"}""#, r#""{\"token\":\"[redacted]\"}""#),
        ("[INFO] token: seen", "[INFO] token: seen"),
        ("{not json}", "{not json}"),
    ] {
        let arguments = json!({ "text": text }).to_string();
        assert_eq!(given("", &arguments), Some(json!({ "text": shown }).to_string()), "{text}");
    }
    let mut nested = json!({ "token": "§" });
    for _ in 0..10 {
        nested = json!({ "text": nested.to_string() });
    }
    let shown = given("max: 64KiB", &nested.to_string()).unwrap();
    assert!(shown.contains("[redacted]") && !shown.contains(SECRET), "{shown}");
}

#[test]
fn what_is_too_long_is_cut_and_is_json_still() {
    let long = "x".repeat(200);
    for (arguments, shown) in [
        (json!({ "a": long }).to_string(), format!(r#"{{"a":"{}[cut]"}}"#, "x".repeat(32))),
        (json!({ "a": 1, long.clone(): 1 }).to_string(), r#"{"a":1,"[cut]":"[cut]"}"#.to_owned()),
        (json!(["a".repeat(30), "b".repeat(30)]).to_string(), format!(r#"["{}","bbb[cut]"]"#, "a".repeat(30))),
        (json!({ "password": long, "a": 1 }).to_string(), r#"{"a":1,"password":"[redacted]"}"#.to_owned()),
        (format!("[{}]", "1".repeat(200)), r#"["[cut]"]"#.to_owned()),
    ] {
        assert_eq!(given("max: 64B", &arguments), Some(shown), "{arguments}");
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let shown = given("max: 64KiB", &deep).unwrap();
    assert!(shown.len() <= 64 * 1024 && shown.contains("[cut]"));
}

#[test]
fn what_a_terminal_would_obey_is_escaped() {
    let shown = given("", "{\"a\":\"\\u001b[2J\\n\u{9b}\u{202e}\u{7f}é\"}").unwrap();

    assert_eq!(shown, r#"{"a":"\u001b[2J\n\u009b\u202e\u007fé"}"#);
}

#[test]
fn the_result_is_found_in_json_and_in_events() {
    let result = r#"{"content":[{"type":"text","text":"hi"}],"token":"§"}"#;
    let shown = r#"{"content":[{"type":"text","text":"hi"}],"token":"[redacted]"}"#;
    let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
    let progress = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"result\":1}}\n\n";
    let events = format!(": hello\r\n{progress}id: 7\ndata: {response}\n\n{progress}");
    for chunk in [1, 3, 1000] {
        assert_eq!(gave("", &response, chunk), shown);
        assert_eq!(gave("", &events, chunk), shown);
    }
    let pretty = "data: {\ndata: \"result\":\ndata: {} }\n\n";
    assert_eq!(gave("", pretty, 5), "{}");
    let error = r#"{"jsonrpc":"2.0","result":null,"error":{"code":-32602,"message":"no","data":{"token":"§"}},"id":1}"#;
    assert_eq!(gave("", error, 7), r#"{"code":-32602,"message":"no","data":{"token":"[redacted]"}}"#);
}

#[test]
fn of_a_result_that_is_too_long_the_beginning_is_shown_and_of_none_that_there_is_none() {
    let text = "y".repeat(10_000);
    let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#);
    for body in [response.clone(), format!("data: {response}\n\n")] {
        let shown = gave("max: 1KiB", &body, 100);
        let told: Value = serde_json::from_str(&shown).unwrap();
        let told = told["content"][0]["text"].as_str().unwrap();
        assert!(told.starts_with("yyyy") && told.ends_with("y[cut]") && told.len() > 900, "{shown}");
    }
    let late = format!(r#"{{"jsonrpc":"2.0","id":"{text}","result":{{}}}}"#);
    for body in [&*late, ": only comments\n\n", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{]}", "{}", "{"] {
        assert_eq!(gave("max: 1KiB", body, 100), UNREAD, "{body}");
    }
    assert_eq!(Payload::of(&config("results: true"), None).unwrap().result().as_deref(), Some(UNREAD));
}

/// JSON in which secrets stand under keys of secrets only, be it in strings that are JSON.
fn some_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof!["[a-z\"\\\\: ]{0,6}", Just("Password".to_owned()), Just("x_token_y".to_owned())];
    let leaf = prop_oneof![
        "[a-z\\[{\"':,\\\\ é\u{1}]{0,20}".prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let object = proptest::collection::vec((key.clone(), inner.clone()), 0..6).prop_map(|members| {
            let hidden = |key: &str| key == "Password" || key == "x_token_y";
            let secret = |key: &str, value: Value| {
                if hidden(key) {
                    json!([SECRET.to_string().repeat(9), { "a": SECRET.to_string(), "b": value }])
                } else {
                    value
                }
            };
            Value::Object(
                members.into_iter().map(|(key, value)| (key.clone(), secret(&key, value))).collect::<Map<_, _>>(),
            )
        });
        prop_oneof![
            object.clone(),
            proptest::collection::vec(inner, 0..6).prop_map(Value::from),
            object.prop_map(|value| Value::from(value.to_string())),
        ]
    })
}

proptest! {
    #[test]
    fn a_secret_is_never_shown(value in some_json(), max in 64..2000_u64, cut in 0..4000_usize, chunk in 1..50_usize) {
        let text = value.to_string();
        let shown = given(&format!("max: {max}B"), &text).unwrap();
        prop_assert!(!shown.contains(SECRET), "{}", shown);
        prop_assert!(shown.len() as u64 <= max, "{}", shown);
        prop_assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{}", shown);

        let response = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#);
        let beginning: String = response.chars().take(cut).collect();
        for body in [response.clone(), beginning.clone(), format!("data: {response}\n\n"), format!("data: {beginning}\n\n")] {
            if body.is_empty() {
                continue;
            }
            let shown = gave(&format!("max: {max}B"), &body, chunk);
            prop_assert!(!shown.contains(SECRET), "{}", shown);
            prop_assert!(shown.len() as u64 <= max, "{}", shown);
            prop_assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{}", shown);
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..300), like in "[\\[\\]{}\",:0-9a\\\\u \n]{0,200}") {
        let config = config("arguments: true, results: true, max: 64B");
        for body in [&*bytes, like.as_bytes()] {
            let mut of_json = Payload::of(&config, None).unwrap();
            of_json.json(body);
            let mut of_events = Payload::of(&config, None).unwrap();
            of_events.events(body);
            for shown in [of_json.result().unwrap(), of_events.result().unwrap()] {
                prop_assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{}", shown);
            }
        }
        let _ = mask::shown(&like, &config.log.payloads);
    }
}
