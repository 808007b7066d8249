//! What legacy backends asked in calls that are over: nobody answers any more, and nobody waits.

use serde_json::{Value, json};

use crate::questions::{said, sampling};
use crate::support::backend::spoken;
use crate::support::client::Opened;
use crate::support::{Call, CallStream, Client, FakeBackend, TestProxy, within};

/// A call whose backend has asked something under 0, and its client under `id`.
struct Asking {
    backend: FakeBackend,
    proxy: TestProxy,
    client: Client,
    opened: Opened,
    stream: CallStream,
    id: Value,
}

async fn asking() -> Asking {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    stream.event(&sampling(&json!(0))).await;
    let id = opened.message().await.unwrap()["id"].clone();
    Asking { backend, proxy, client, opened, stream, id }
}

/// What a backend is told whose question nobody will answer: the call is over.
fn is_taken_back(response: &Value, id: &Value) -> bool {
    response["id"] == *id && response["error"]["code"] == 499
}

/// Method table: `sampling/createMessage` from backend.
#[tokio::test]
async fn a_question_in_an_answer_of_a_client_that_left_harms_nobody() {
    let Asking { backend, proxy: _proxy, client, opened, stream, id } = asking().await;

    drop(opened);
    within(stream.disconnected()).await;
    backend.until(|backend| backend.responses().iter().any(|told| is_taken_back(told, &json!(0)))).await;
    client.reply(&id, json!({ "said": "too late" })).await;

    let (running, call): (_, Call) = client.pending_call("a__ask", &backend).await;
    call.finish();
    assert_eq!(within(running).await.unwrap().result(), spoken("ask"));
    assert_eq!(backend.responses().len(), 1, "{:?}", backend.responses());
}

/// Cap: questions that one client has yet to answer.
#[tokio::test]
async fn what_was_asked_of_clients_that_left_takes_no_place_of_a_live_question() {
    let backend = FakeBackend::with_held_tool("a", "ask").await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut live, live_stream) = client.open_stream("a__ask", &backend).await;
    live_stream.event(&sampling(&json!("live"))).await;
    let asked = live.message().await.unwrap()["id"].clone();

    for n in 0..70 {
        let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
        stream.event(&sampling(&json!(n))).await;
        opened.message().await.unwrap();
        drop(opened);
        within(stream.disconnected()).await;
    }
    backend.until(|backend| backend.responses().len() == 70).await;
    assert!(backend.responses().iter().all(|told| is_taken_back(told, &told["id"])), "{:?}", backend.responses());
    assert_eq!(proxy.metric("toolgate_questions").await, Some(1.0));
    client.reply(&asked, json!({ "said": "in time" })).await;

    backend.until(|backend| backend.responses().contains(&said(&json!("live"), "in time"))).await;
    live_stream.finish().await;
    assert_eq!(live.message().await.unwrap()["result"], spoken("ask"));
    assert_eq!(proxy.metric("toolgate_questions").await, Some(0.0));
}

/// Complaint 22: Cancellation and progress not routed.
#[tokio::test]
async fn what_was_asked_in_a_call_that_its_client_cancels_is_taken_back() {
    let Asking { backend, proxy, client, mut opened, stream, id: asked } = asking().await;

    let call: Value = serde_json::from_str(&stream.id).unwrap();
    client.notify("notifications/cancelled", json!({ "requestId": call })).await;
    backend.until(|backend| backend.responses().iter().any(|told| is_taken_back(told, &json!(0)))).await;
    client.reply(&asked, json!({ "said": "too late" })).await;
    // One that is asked all the same ends with the call.
    stream.event(&sampling(&json!(1))).await;
    opened.message().await.unwrap();
    stream.cut().await;
    backend.until(|backend| backend.responses().len() == 2).await;

    assert!(is_taken_back(&backend.responses()[1], &json!(1)), "{:?}", backend.responses());
    let seen = backend.seen();
    let cancelled = seen.iter().position(|seen| seen.method == "notifications/cancelled").unwrap();
    assert!(seen[..cancelled].iter().all(|seen| seen.verb != http::Method::POST || !seen.method.is_empty()));
    assert_eq!(proxy.metric("toolgate_questions").await, Some(0.0));
}

/// Method table: `sampling/createMessage` from backend.
#[tokio::test]
async fn what_was_asked_on_a_stream_that_broke_off_is_taken_back() {
    let Asking { backend, proxy, mut opened, stream, .. } = asking().await;

    stream.cut().await;
    assert_eq!(opened.message().await.unwrap()["error"]["code"], 502);
    backend.until(|backend| backend.responses().iter().any(|told| is_taken_back(told, &json!(0)))).await;

    assert_eq!(proxy.metric("toolgate_questions").await, Some(0.0));
}

/// Asks on a stream, in an event with this id. Returns what the client was asked under.
async fn asked(opened: &mut Opened, stream: &CallStream, id: i64) -> Value {
    let question = json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" });
    stream.send(format!("id: {id}\ndata: {question}\n\n")).await;
    opened.message().await.unwrap()["id"].clone()
}

#[tokio::test]
async fn questions_of_a_call_that_can_be_taken_up_wait_and_end_with_its_answer() {
    let backend = FakeBackend::named("a").held("ask").resumable().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    let response = stream.response();
    let (first, _) = (asked(&mut opened, &stream, 1).await, asked(&mut opened, &stream, 2).await);
    drop(opened);
    within(stream.disconnected()).await;

    client.reply(&first, json!({ "roots": [] })).await;
    backend.until(|backend| !backend.responses().is_empty()).await;
    let (mut again, stream) = client.come_back("c/a/2", &backend).await;
    asked(&mut again, &stream, 3).await;
    assert_eq!(proxy.metric("toolgate_questions").await, Some(2.0));
    drop(stream);
    assert_eq!(again.block().await, None);
    let (again, stream) = client.come_back("c/a/3", &backend).await;
    stream.send(format!("data: {response}\n\n")).await;
    drop(stream);
    assert_eq!(again.whole().await.response()["result"], spoken("ask"));

    proxy.until_metric("toolgate_questions", 0.0).await;
    assert_eq!(backend.responses(), [json!({ "jsonrpc": "2.0", "id": 1, "result": { "roots": [] } })]);
}

#[tokio::test]
async fn questions_of_a_call_that_was_taken_up_end_when_it_is_cancelled() {
    let backend = FakeBackend::named("a").held("ask").resumable().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    for is_taken_up in [false, true] {
        let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
        let call: Value = serde_json::from_str(&stream.id).unwrap();
        asked(&mut opened, &stream, 1).await;
        drop(stream);
        assert_eq!(opened.block().await, None);
        let mut again = None;
        if is_taken_up {
            let (mut opened, stream) = client.come_back("c/a/1", &backend).await;
            asked(&mut opened, &stream, 2).await;
            again = Some((opened, stream));
        }
        let before = backend.responses().len();
        assert_eq!(proxy.metric("toolgate_questions").await, Some(if is_taken_up { 2.0 } else { 1.0 }));

        client.notify("notifications/cancelled", json!({ "requestId": call })).await;
        proxy.until_metric("toolgate_questions", 0.0).await;
        let expected = before + if is_taken_up { 2 } else { 1 };
        backend.until(|backend| backend.responses().len() == expected).await;
        assert!(backend.responses().iter().all(|told| told["error"]["code"] == 499), "{:?}", backend.responses());
        drop(again);
    }
}

#[tokio::test]
async fn questions_of_a_call_that_can_be_taken_up_end_with_the_session() {
    let backend = FakeBackend::named("a").held("ask").resumable().start().await;
    let proxy = TestProxy::fronting(&[&backend]).await;
    let client = proxy.asked_client().await;
    let (mut opened, stream) = client.open_stream("a__ask", &backend).await;
    asked(&mut opened, &stream, 1).await;
    drop(opened);
    within(stream.disconnected()).await;
    assert_eq!(proxy.metric("toolgate_questions").await, Some(1.0));

    client.delete().await;

    assert_eq!(proxy.metric("toolgate_questions").await, Some(0.0));
}
