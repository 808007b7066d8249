//! Errors of a backend's own that come with a status which says that it failed, or has too much to do.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Answer, Call, FakeBackend, FakeModern, Setup, TestProxy, within};

/// A backend of each era, each with a tool `x` whose calls the test answers.
struct World {
    legacy: FakeBackend,
    modern: FakeModern,
    proxy: TestProxy,
}

/// The client's era, then the backend's.
const CELLS: [(&str, &str); 4] =
    [("legacy", "legacy"), ("modern", "modern"), ("modern", "legacy"), ("legacy", "modern")];

impl World {
    async fn new() -> Self {
        let (legacy, modern) =
            (FakeBackend::with_held_tool("legacy", "x").await, FakeModern::with_held_tool("modern", "x").await);
        // However often they fail, they are called.
        let health = "{ interval: 1h, timeout: 3s, max_backoff: 1h, fall: 1000 }";
        let setup = Setup::fronting(&[&legacy]).backend(&modern, "").section("health", health);
        let proxy = setup.start().await;
        Self { legacy, modern, proxy }
    }

    /// Calls the tool and has `answer` answer it. The call must have come once.
    async fn call(&self, (client, backend): (&str, &str), answer: impl FnOnce(Call)) -> Answer {
        let tool = format!("{backend}__x");
        let before = self.calls();
        let running = match client {
            "legacy" => self.proxy.client().await.start_call(&tool),
            _ => self.proxy.modern().start_call(&tool),
        };
        answer(match backend {
            "legacy" => self.legacy.next_call().await,
            _ => self.modern.next_call().await,
        });
        let answer = within(running).await.unwrap();
        assert_eq!(self.calls(), before + 1, "{answer:?}");
        answer
    }

    fn calls(&self) -> usize {
        self.legacy.all("tools/call").len() + self.modern.by_clients("tools/call").len()
    }

    async fn counted(&self, backend: &str, outcome: &str) -> f64 {
        let series =
            format!("toolgate_tool_calls_total{{backend=\"{backend}\",outcome=\"{outcome}\",tool=\"{backend}__x\"}}");
        self.proxy.metric(&series).await.unwrap_or(0.0)
    }
}

fn error(id: &str, error: &Value) -> String {
    format!(r#"{{"error" : {error}, "id": {id}, "jsonrpc":"2.0"}}"#)
}

#[tokio::test]
async fn an_error_that_comes_with_a_status_of_failure_reaches_the_client() {
    let world = World::new().await;
    let own = json!({ "code": 7, "message": "the disk is full", "data": { "free": 0 } });

    for (number, cell) in CELLS.into_iter().enumerate() {
        for status in [500, 502, 503, 429] {
            let mut sent = String::new();
            let answer = world
                .call(cell, |call| {
                    sent = error(&call.id(), &own);
                    call.respond(status, "application/json", sent.clone());
                })
                .await;

            assert_eq!((answer.status, answer.error()), (200, own.clone()), "{cell:?} {status}");
            assert!(cell.0 != cell.1 || answer.body == sent, "{cell:?} {status}: {answer:?}");
        }
        assert_eq!(world.counted(cell.1, "rpc_error").await, if number < 2 { 4.0 } else { 8.0 }, "{cell:?}");
    }
}

#[tokio::test]
async fn an_error_without_an_id_comes_under_that_of_the_request() {
    let world = World::new().await;
    let own = json!({ "code": 7, "message": "the disk is full" });
    let bodies = [error("null", &own), format!(r#" {{"jsonrpc":"2.0","error":{own}}}"#)];

    for (cell, body) in CELLS.into_iter().flat_map(|cell| bodies.iter().map(move |body| (cell, body))) {
        let mut id = Value::Null;
        let answer = world
            .call(cell, |call| {
                id = serde_json::from_str(&call.id()).unwrap();
                call.respond(500, "application/json", body.clone());
            })
            .await;

        assert_eq!((answer.status, answer.error()), (200, own.clone()), "{cell:?}");
        assert!(cell.0 != cell.1 || answer.json()["id"] == id, "{cell:?}: {answer:?}");
        assert!(!answer.json()["id"].is_null(), "{cell:?}: {answer:?}");
    }
}

#[tokio::test]
async fn codes_that_lead_to_another_try_do_not_with_a_status_of_failure() {
    let world = World::new().await;

    for (cell, code) in CELLS.into_iter().flat_map(|cell| [-32020, -32022, -32001, -32000].map(|code| (cell, code))) {
        let own = json!({ "code": code, "message": "no" });
        let answer = world
            .call(cell, |call| {
                let body = error(&call.id(), &own);
                call.respond(503, "application/json", body);
            })
            .await;

        // Some codes mean something else in the other era.
        assert_eq!((answer.status, answer.error()["message"].clone()), (200, json!("no")), "{cell:?} {code}");
    }
}

#[tokio::test]
async fn a_status_without_an_error_of_this_call_is_told_with_when_to_try_again() {
    let world = World::new().await;
    let other = error("\"other\"", &json!({ "code": 7, "message": "secret" }));

    for cell in CELLS {
        for (status, code) in [(429, 429), (503, 503), (500, 502), (504, 502)] {
            for (media_type, body) in
                [("text/plain", "secret"), ("application/json", "{}"), ("application/json", &*other)]
            {
                let answer = world.call(cell, |call| call.respond(status, media_type, body.to_owned())).await;

                let (object, data) = (answer.error(), json!({ "backend": cell.1, "status": status }));
                assert_eq!((answer.status, answer.code(), &object["data"]), (200, code, &data), "{cell:?}");
                assert!(answer.message().contains(&format!("(HTTP {status})")), "{answer:?}");
                assert!(!answer.message().contains("secret"), "{answer:?}");
            }
        }
    }
    assert_eq!(world.counted("legacy", "upstream_error").await, 24.0);
}

#[tokio::test]
async fn retry_after_is_told_in_milliseconds() {
    let world = World::new().await;
    let in_an_hour = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));

    for cell in CELLS {
        for (status, value) in [(429, "7"), (503, "7"), (429, &*in_an_hour), (503, "soon")] {
            let answer = world.call(cell, |call| call.refuse(status, ("retry-after", value))).await;

            let after = answer.error()["data"]["retryAfterMs"].as_u64();
            match value {
                "7" => assert_eq!(after, Some(7_000), "{cell:?}"),
                "soon" => assert_eq!(after, None, "{cell:?}"),
                _ => assert!(after.is_some_and(|ms| (3_500_000..=3_600_000).contains(&ms)), "{cell:?}: {after:?}"),
            }
            assert_eq!(answer.message().contains("retry in 7s"), value == "7", "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_error_with_a_status_of_failure_counts_against_its_backend() {
    let backend = FakeBackend::with_held_tool("a", "x").await;
    let health = "{ interval: 1h, timeout: 3s, max_backoff: 1h, fall: 3 }";
    let proxy = Setup::fronting(&[&backend]).section("health", health).start().await;
    let client = proxy.client().await;
    proxy.until_state(&backend, "healthy").await;

    for _ in 0..3 {
        let (running, call) = client.pending_call("a__x", &backend).await;
        let body = error(&call.id(), &json!({ "code": 7, "message": "no" }));
        call.respond(500, "application/json", body);
        assert_eq!(within(running).await.unwrap().code(), 7);
    }

    proxy.until_state(&backend, "unhealthy").await;
}
