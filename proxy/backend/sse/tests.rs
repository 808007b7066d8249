use std::convert::Infallible;

use eventsource_stream::Eventsource as _;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use proptest::prelude::*;

use super::*;
use crate::fuzzing::sample::{self, Choices};
use crate::scan::Outcome;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}"#;
const RESULT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;

fn pieces(splitter: &mut Splitter, chunk: &str) -> Vec<Piece> {
    splitter.push(Bytes::copy_from_slice(chunk.as_bytes()));
    std::iter::from_fn(|| splitter.next()).map(Result::unwrap).collect()
}

fn split(chunks: &[&str]) -> Vec<Piece> {
    let mut splitter = Splitter::new(1000);
    chunks.iter().flat_map(|chunk| pieces(&mut splitter, chunk)).collect()
}

fn pass(bytes: impl Into<Bytes>) -> Piece {
    Piece::Pass(bytes.into())
}

fn events(stream: &str) -> Vec<Event> {
    let mut events = Events::new(1000);
    events.push(stream.as_bytes()).unwrap();
    std::iter::from_fn(|| events.next()).collect()
}

// === splitter ===

#[test]
fn a_response_flows_before_it_is_complete() {
    let [start, rest] = [r#"data: {"id":1,"result":{"text":"aaa"#, "bbb\"}}\n\n"];
    let mut splitter = Splitter::new(1000);

    assert_eq!(pieces(&mut splitter, start), [pass(start)]);
    assert_eq!(pieces(&mut splitter, rest), [pass(rest), Piece::Response(Outcome::Ok)]);
}

#[test]
fn what_was_held_passes_once_it_is_known_to_be_a_response() {
    let chunks = ["id: 7\nda", r#"ta: {"id":1,"err"#, r#"or":{"code":-3}}"#, "\n\n"];

    let expected =
        [pass(chunks[..2].concat()), pass(chunks[2]), pass(chunks[3]), Piece::Response(Outcome::RpcError { code: -3 })];

    assert_eq!(split(&chunks), expected);
}

#[test]
fn a_call_is_held_back_whole() {
    let event = format!("id: 7\r\nevent: message\r\ndata: {CALL}\r\n\r\n");
    let (before, after) = event.split_at(40);

    let expected = [Piece::Message { raw: event.clone().into(), data: CALL.into() }];

    assert_eq!(split(&[before, after]), expected);
    assert_eq!(split(&[&event]), expected);
}

#[test]
fn an_event_does_not_wait_for_the_second_byte_of_its_line_end() {
    let pieces = split(&[&format!("data: {CALL}\r\n\r"), "\n"]);

    let expected = [Piece::Message { raw: format!("data: {CALL}\r\n\r").into(), data: CALL.into() }, pass("\n")];

    assert_eq!(pieces, expected);
}

#[test]
fn a_call_in_one_chunk_is_not_copied() {
    let event = Bytes::from(format!(": hello\n\ndata: {CALL}\n\n"));
    let mut splitter = Splitter::new(1000);

    splitter.push(event.clone());

    assert_eq!(splitter.next(), Some(Ok(pass(&b": hello\n\n"[..]))));
    let Some(Ok(Piece::Message { raw, data })) = splitter.next() else { panic!("a message") };
    assert_eq!((raw.as_ptr(), data.as_ptr()), (event[9..].as_ptr(), event[15..].as_ptr()));
}

#[test]
fn a_batch_is_held_back() {
    let stream = format!("data: [{CALL},\ndata: {RESULT}]\n\n");

    let expected = [Piece::Message { data: format!("[{CALL},\n{RESULT}]").into(), raw: stream.clone().into() }];

    assert_eq!(split(&[&stream]), expected);
}

#[test]
fn what_holds_no_message_passes() {
    let stream = ": comment\n\nid: 1\ndata:\n\nevent: endpoint\ndata: /messages?id=1\n\nretry: 5\n\nunknown\n\n";

    assert_eq!(split(&[stream]), [pass(stream)]);
}

#[test]
fn a_comment_does_not_wait_for_its_end() {
    assert_eq!(split(&[": keep", "-alive", "\n"]), [pass(": keep"), pass("-alive"), pass("\n")]);
}

#[test]
fn knows_when_something_may_be_written_between() {
    let mut splitter = Splitter::new(1000);
    let mut between = |chunk: &str| {
        pieces(&mut splitter, chunk);
        splitter.is_between_events()
    };

    assert!(between(""));
    assert!(!between(": comm"));
    assert!(between("ent\n"));
    assert!(between("data: {"));
    assert!(!between("\"result\":"));
    assert!(!between("1}\n"));
    assert!(between("\n"));
}

#[test]
fn an_undecided_event_may_not_be_long() {
    let long = format!("data: {{\"method\":\"{}\"}}\n\n", "a".repeat(2000));
    let mut splitter = Splitter::new(1000);

    splitter.push(Bytes::from(format!(": x\n\n{long}")));
    splitter.push(Bytes::from_static(b"data: 1\n\n"));

    assert_eq!(splitter.next(), Some(Ok(pass(&b": x\n\n"[..]))));
    assert_eq!(splitter.next(), Some(Err(TooLong { limit: 1000 })));
    assert_eq!((splitter.next(), splitter.finish()), (None, None));
}

#[test]
fn an_event_of_just_the_limit_is_held() {
    let event = "data: {\"method\":1}\n\n";
    let split = |limit| {
        let mut splitter = Splitter::new(limit);
        splitter.push(Bytes::from(event));
        splitter.next()
    };

    assert!(matches!(split(event.len()), Some(Ok(Piece::Message { .. }))));
    assert_eq!(split(event.len() - 1), Some(Err(TooLong { limit: event.len() - 1 })));
}

#[test]
fn a_response_may_be_as_long_as_it_likes() {
    let mut splitter = Splitter::new(100);
    let mut passed = 0;
    let chunks = std::iter::once(r#"data: {"result":{"x":""#.to_owned());
    let chunks = chunks.chain((0..1000).map(|_| "a".repeat(1000))).chain(["\"}}\n\n".to_owned()]);

    for chunk in chunks {
        for piece in pieces(&mut splitter, &chunk) {
            let Piece::Pass(bytes) = piece else {
                return assert_eq!((piece, passed), (Piece::Response(Outcome::Ok), 1_000_027));
            };
            passed += bytes.len();
        }
    }

    panic!("no end");
}

#[test]
fn an_event_cut_short_is_left_over() {
    let mut splitter = Splitter::new(1000);

    assert_eq!(pieces(&mut splitter, &format!("data: {CALL}\n")), []);

    assert_eq!(splitter.finish(), Some(Bytes::from(format!("data: {CALL}\n"))));
}

// === events ===

#[test]
fn reads_every_field() {
    let expected =
        Event { id: Some("1".to_owned()), event: "endpoint".to_owned(), data: "a\n b".to_owned(), retry: Some(5) };

    assert_eq!(events("\u{feff}id:1\nevent: endpoint\r\nretry: 5\rdata: a\ndata:  b\r\r"), [expected]);
}

#[test]
fn an_event_without_data_is_none_but_its_id_holds() {
    let [priming, event] = &events("id: 1\ndata:\n\nid: 2\nevent: x\n\ndata: a\nid: 3\0\nretry: 5x\n\n")[..] else {
        panic!("two events")
    };

    assert_eq!((priming.id.as_deref(), &*priming.data), (Some("1"), ""));
    assert_eq!((event.id.as_deref(), &*event.event, event.retry), (Some("2"), "message", None));
}

#[test]
fn a_retry_is_told_once() {
    let retries = events("retry: 5\n\ndata: 1\n\ndata: 2\n\n").into_iter().map(|event| event.retry);

    assert_eq!(retries.collect::<Vec<_>>(), [Some(5), None]);
}

#[test]
fn half_a_byte_order_mark_is_text() {
    let mut events = Events::new(1000);

    events.push(b"\xef\xbbdata: 1\ndata: 2\n\n").unwrap();

    assert_eq!(events.next().unwrap().data, "2");
}

#[test]
fn all_lines_of_an_event_count() {
    let mut events = Events::new(100);

    assert_eq!(events.push(&b"data: 0123456789\n".repeat(20)), Err(TooLong { limit: 100 }));
}

#[test]
fn an_event_may_not_be_long_but_a_stream_may() {
    let mut events = Events::new(100);

    for _ in 0..100 {
        assert_eq!(events.push(b": comment\ndata: 0123456789\n\n"), Ok(()));
    }

    assert_eq!(events.push(&[b'x'; 101]), Err(TooLong { limit: 100 }));
    assert_eq!(std::iter::from_fn(|| events.next()).count(), 100);
}

// === writing ===

#[test]
fn writes_one_data_line_a_line() {
    assert_eq!(event(b"{}"), "data: {}\n\n");
    assert_eq!(event(b"{\r\n\"a\":1\r}\n"), "data: {\ndata: \"a\":1\ndata: }\ndata: \n\n");
}

#[test]
fn a_keep_alive_is_no_event() {
    assert_eq!(events(std::str::from_utf8(KEEP_ALIVE).unwrap()), []);
}

// === properties ===

const LINES: &[&str] = &[
    "data",
    "data:",
    "data: ",
    "data:  x",
    "data: {",
    "data: }",
    "data: [",
    "dat",
    "datax: 1",
    "Data: 1",
    " data: 1",
    "\u{feff}data: 1",
    ":",
    ": a:b",
    "id",
    "id: 1",
    "id: a\0b",
    "event",
    "event: endpoint",
    "retry: 10",
    "retry: x",
    "é",
];

/// Streams of lines that mean something, with all line ends.
fn streams() -> impl Strategy<Value = String> {
    let message = (sample::message(), Choices::any())
        .prop_map(|(message, mut choices)| format!("data: {}", choices.write(&message).replace(['\r', '\n'], "")));
    let line = prop_oneof![
        4 => Just(String::new()),
        2 => message,
        1 => prop::sample::select(LINES).prop_map(str::to_owned),
        1 => sample::string().prop_map(|value| format!("data:{}", value.replace(['\r', '\n'], "_"))),
    ];
    let end = prop::sample::select(vec!["\n", "\r", "\r\n"]);
    let mark = prop::sample::select(vec!["", "\u{feff}"]);
    (mark, prop::collection::vec((line, end), 0..16))
        .prop_map(|(mark, lines)| lines.into_iter().fold(mark.to_owned(), |stream, (line, end)| stream + &line + end))
}

/// What another decoder makes of it. Comments go around because it panics at some byte order marks and waits for what
/// follows a last carriage return.
fn oracle(stream: &str) -> Vec<(String, String, String)> {
    let chunks = [":\n", stream.strip_prefix('\u{feff}').unwrap_or(stream), ":\n"];
    let events = stream::iter(chunks.map(Ok::<_, Infallible>)).eventsource();
    let events: Vec<_> = events.collect().now_or_never().unwrap();
    events.into_iter().map(|event| event.unwrap()).map(|event| (event.id, event.event, event.data)).collect()
}

proptest! {
    #[test]
    fn events_are_those_of_another_decoder(stream in streams(), mut choices in Choices::any()) {
        let mut events = Events::new(usize::MAX);

        choices.cut(stream.as_bytes()).into_iter().for_each(|chunk| events.push(chunk).unwrap());

        let events = std::iter::from_fn(|| events.next());
        let events: Vec<_> = events.map(|event| (event.id.unwrap_or_default(), event.event, event.data)).collect();
        prop_assert_eq!(events, oracle(&stream));
    }

    #[test]
    fn streams_keep_the_invariants(stream in streams(), chunk in 0_u8..32, held in any::<u8>()) {
        crate::fuzzing::sse(&[&[chunk, held], stream.as_bytes()].concat());
    }
}
