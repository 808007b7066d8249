//! Log levels of sessions that share a pipe, and of requests of the modern era.

use super::*;

fn set_level(level: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":"l","method":"logging/setLevel","params":{{"level":"{level}"}}}}"#)
}

fn logged(level: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } })
}

/// Asks for a level, of which the backend is told `told`.
async fn ask(world: &World, end: &mut End, session: &str, level: &str, told: &str) {
    let asking = world.start(session, &set_level(level));
    let asked = end.read().await;
    assert_eq!((&asked["method"], &asked["params"]), (&json!("logging/setLevel"), &json!({ "level": told })));
    end.answers(&asked).await;
    assert_eq!(next(&mut asking.await.unwrap().unwrap()).await.unwrap()["result"], json!({}));
}

/// Asks for a level, of which the backend is not told.
async fn ask_in_vain(world: &World, end: &mut End, session: &str, level: &str) {
    let mut answer = world.post(session, &set_level(level)).await.unwrap();
    assert_eq!(next(&mut answer).await.unwrap(), json!({ "jsonrpc": "2.0", "id": "l", "result": {} }));
    assert!(end.written.try_recv().is_err());
}

/// What a call of a session is told of what is logged meanwhile.
async fn heard(world: &World, end: &mut End, session: &str) -> Vec<String> {
    let calling = world.start(session, &call("1"));
    let asked = end.read().await;
    let levels = ["debug", "warning", "emergency"];
    for level in levels {
        end.says(&logged(level)).await;
    }
    end.answers(&asked).await;
    let (mut answer, mut heard) = (calling.await.unwrap().unwrap(), Vec::new());
    while let Some(message) = next(&mut answer).await.filter(|message| message.get("method").is_some()) {
        heard.push(message["params"]["level"].as_str().unwrap().to_owned());
    }
    heard
}

#[tokio::test]
async fn a_shared_backend_is_told_the_most_verbose_level_and_each_session_hears_its_own() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;

    ask(&world, &mut end, &alice, "error", "error").await;
    assert_eq!(heard(&world, &mut end, &bob).await, ["debug", "warning", "emergency"], "asked for nothing");
    ask(&world, &mut end, &bob, "debug", "debug").await;
    ask_in_vain(&world, &mut end, &alice, "warning").await;

    assert_eq!(heard(&world, &mut end, &alice).await, ["warning", "emergency"]);
    assert_eq!(heard(&world, &mut end, &bob).await, ["debug", "warning", "emergency"]);
    ask(&world, &mut end, &bob, "emergency", "warning").await;
    assert_eq!(heard(&world, &mut end, &bob).await, ["emergency"]);
}

#[tokio::test]
async fn the_level_goes_back_when_the_most_verbose_session_leaves() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    ask(&world, &mut end, &alice, "debug", "debug").await;
    ask_in_vain(&world, &mut end, &bob, "notice").await;

    assert_eq!(world.status(Method::DELETE, &alice).await, 204);

    let told = end.read().await;
    assert_eq!((&told["method"], &told["params"]["level"]), (&json!("logging/setLevel"), &json!("notice")));
    end.answers(&told).await;
    // No level can be taken back: the last one stays.
    assert_eq!(world.status(Method::DELETE, &bob).await, 204);
    let carol = id_of(&world.start_initialize().await.unwrap().unwrap());
    ask_in_vain(&world, &mut end, &carol, "notice").await;
}

#[tokio::test]
async fn a_level_that_the_backend_refuses_is_not_the_sessions() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let refused = world.start(&alice, &set_level("emergency"));
    let asked = end.read().await;
    end.says(&json!({ "jsonrpc": "2.0", "id": asked["id"], "error": { "code": -32603, "message": "" } })).await;
    assert_eq!(next(&mut refused.await.unwrap().unwrap()).await.unwrap()["error"]["code"], -32603);

    assert_eq!(heard(&world, &mut end, &alice).await, ["debug", "warning", "emergency"]);
    ask(&world, &mut end, &bob, "emergency", "emergency").await;
}

#[tokio::test]
async fn a_session_that_ends_before_its_turn_asks_for_nothing() {
    let mut world = World::new(Instances::Shared);
    let (alice, bob, mut end) = two(&mut world).await;
    let body = set_level("debug");
    let Ok(Message::Request(request)) = jsonrpc::parse(body.as_bytes()) else { panic!("no request") };
    let turn = end.pipe.turn(&request).await;
    let asking = world.start(&alice, &body);
    // It gets as far as it can, which is to wait for its turn.
    tokio::task::yield_now().await;
    assert_eq!(world.status(Method::DELETE, &alice).await, 204);

    drop(turn);

    assert_eq!(asking.await.unwrap().unwrap().status, 404);
    ask(&world, &mut end, &bob, "error", "error").await;
}

#[tokio::test]
async fn a_request_of_the_modern_era_is_told_what_it_asked_for() {
    for (level, expected) in [(None, &[][..]), (Some("warning"), &["warning", "emergency"])] {
        let mut world = World::new(Instances::Shared);
        let meta = level.map(|level| json!({ "io.modelcontextprotocol/logLevel": level })).unwrap_or_else(|| json!({}));
        let params = json!({ "name": "x", "_meta": meta });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let calling = world.start_modern(&body);
        let mut end = world.ends.recv().await.unwrap();
        let asked = end.read().await;

        for level in ["debug", "warning", "emergency"] {
            end.says(&logged(level)).await;
        }
        end.answers(&asked).await;

        let (mut answer, mut heard) = (calling.await.unwrap().unwrap(), Vec::new());
        while let Some(message) = next(&mut answer).await.filter(|message| message.get("method").is_some()) {
            heard.push(message["params"]["level"].clone());
        }
        assert_eq!(heard, expected, "{level:?}");
    }
}
