//! The operator's pages: metrics, health, and JSON views of what runs. Nothing of it is reachable through a listener of
//! clients.

pub(crate) mod live;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use toolgate_config::Reach;

use self::live::Live;
use crate::backend::Backend;
use crate::catalog::drift::{Drift, Seen};
use crate::catalog::{Kind, LeftOut, Merged, Omission};
use crate::gateway::{Gateway, Phase};
use crate::reload::Outcome;
use crate::reply::{Body, Reply, Source};
use crate::server::is_safe;

/// Every page, for whoever asks for one that is not there.
const PAGES: &[&str] =
    &["/", "/backends", "/catalog", "/config", "/drift", "/healthz", "/livez", "/metrics", "/readyz"];
/// What Prometheus expects of the text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a request of the operator.
pub(crate) async fn answer(gateway: &Arc<Gateway>, verb: &Method, path: &str) -> Reply {
    if let "/reload" | "/upgrade" = path {
        return match (verb, path) {
            (&Method::POST, "/reload") => reload(gateway).await,
            (&Method::POST, _) => upgrade(gateway).await,
            _ => not_allowed("POST"),
        };
    }
    if !is_safe(verb) {
        return not_allowed("GET");
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/" => {
            let search = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "q");
            let html = status::page(gateway, &search.map(|(_, value)| value).unwrap_or_default()).into_string();
            let mut reply = page(StatusCode::OK, "text/html; charset=utf-8", html.into());
            reply.headers.extend([
                (CONTENT_SECURITY_POLICY, HeaderValue::from_static(status::POLICY)),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ]);
            reply
        }
        "/status.css" => page(StatusCode::OK, "text/css; charset=utf-8", Bytes::from_static(status::STYLE.as_bytes())),
        "/status.js" => {
            page(StatusCode::OK, "text/javascript; charset=utf-8", Bytes::from_static(status::SCRIPT.as_bytes()))
        }
        "/status/events" => Reply::events(Source::Status(Box::new(Live::new(gateway)))),
        "/metrics" => {
            gateway.measure();
            page(StatusCode::OK, METRICS_TYPE, gateway.metrics.text().into())
        }
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" | "/healthz" => ready(gateway),
        "/config" => json_page(StatusCode::OK, &gateway.snapshot().config.redacted()),
        "/backends" => json_page(StatusCode::OK, &backends(gateway)),
        "/drift" => json_page(StatusCode::OK, &drift(gateway)),
        "/catalog" => {
            let catalog = gateway.snapshot().catalog();
            json_page(StatusCode::OK, &CatalogPage::of(gateway, &catalog))
        }
        _ => json_page(
            StatusCode::NOT_FOUND,
            &json!({ "error": "no such page", "pages": PAGES, "POST": ["/reload", "/upgrade"] }),
        ),
    }
}

fn page(status: StatusCode, media_type: &'static str, body: Bytes) -> Reply {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(media_type))];
    Reply { status, headers, body: Body::Whole(vec![body]), record: None }
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    page(status, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn json_page(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
    body.push(b'\n');
    page(status, "application/json", body.into())
}

fn not_allowed(allow: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    reply.headers.push((ALLOW, HeaderValue::from_static(allow)));
    reply
}

fn ready(gateway: &Gateway) -> Reply {
    match (gateway.is_ready(), gateway.phase()) {
        (true, _) => text(StatusCode::OK, "ok\n"),
        (false, Phase::Serving) => text(StatusCode::SERVICE_UNAVAILABLE, "no backend is usable\n"),
        (false, Phase::LameDuck) => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn reload(gateway: &Arc<Gateway>) -> Reply {
    if gateway.phase() >= Phase::Draining {
        let problem = "the gateway is shutting down";
        return json_page(StatusCode::CONFLICT, &json!({ "outcome": "rejected", "problems": [problem] }));
    }
    let outcome = match gateway.reloader.get() {
        Some(reloader) => reloader.reload().await,
        None => None,
    };
    match outcome {
        Some(Outcome::Applied { generation }) => {
            json_page(StatusCode::OK, &json!({ "outcome": "applied", "generation": generation }))
        }
        Some(Outcome::Unchanged) => json_page(StatusCode::OK, &json!({ "outcome": "unchanged" })),
        Some(Outcome::Rejected { problems }) => {
            json_page(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "outcome": "rejected", "problems": problems }))
        }
        None => json_page(
            StatusCode::CONFLICT,
            &json!({ "outcome": "rejected", "problems": ["there is no configuration file to read again"] }),
        ),
    }
}

/// Answers once the other process serves, or is known not to.
async fn upgrade(gateway: &Gateway) -> Reply {
    let rejected = |status, problem: &str| json_page(status, &json!({ "outcome": "rejected", "problem": problem }));
    let (asker, outcome) = oneshot::channel();
    let asked = match gateway.upgrader.get() {
        Some(upgrader) => upgrader.try_send(asker).map_err(|_| "the gateway is being upgraded, or is shutting down"),
        None => Err("only a gateway that `toolgate run` has started is upgraded"),
    };
    if let Err(problem) = asked {
        return rejected(StatusCode::CONFLICT, problem);
    }
    match outcome.await {
        Ok(Ok(successor)) => json_page(StatusCode::OK, &json!({ "outcome": "handed over", "pid": successor })),
        Ok(Err(problem)) => rejected(StatusCode::INTERNAL_SERVER_ERROR, &problem),
        Err(_) => rejected(StatusCode::CONFLICT, "the gateway is shutting down"),
    }
}

fn backends(gateway: &Gateway) -> Value {
    let snapshot = gateway.snapshot();
    let view = |backend: &Arc<Backend>| {
        let (health, listing) = (&backend.health, backend.listing.load());
        let endpoints = backend.endpoints().into_iter().map(|endpoint| {
            json!({
                "url": endpoint.address,
                "inflight": endpoint.inflight,
                "ejectedForSeconds": endpoint.ejected_for.map(|left| left.as_secs_f64().ceil()),
            })
        });
        // Without queries, which may hold tokens.
        let (url, command) = match &backend.config.reach {
            Reach::Command(command) => (None, Some(&command.program)),
            Reach::Remote(remote) => (remote.urls.first().filter(|_| remote.urls.len() == 1), None),
        };
        json!({
            "name": backend.name().as_str(),
            "url": url.map(ToString::to_string),
            "command": command,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "state": health.state().as_str(),
            "stateForSeconds": health.since().elapsed().as_secs(),
            "takesCalls": health.allows_calls(),
            "failuresInARow": health.failures(),
            "credentialsRefused": health.refuses_credentials(),
            "lastFailure": health.last_failure().map(|(failure, when)| json!({
                "kind": failure.as_str(),
                "secondsAgo": when.elapsed().as_secs(),
            })),
            "lastError": backend.last_error().map(|error| json!({
                "what": error.what,
                "secondsAgo": error.when.elapsed().as_secs(),
            })),
            "certificateForDays": backend.certificate_not_after().map(|at| {
                at.duration_since(SystemTime::now()).unwrap_or_default().as_secs() / 86_400
            }),
            "synthetic": backend.synthetic.load().as_ref().map(|last| json!({
                "result": last.ended.verdict.as_str(),
                "why": last.ended.why,
                "secondsAgo": last.when.elapsed().as_secs(),
            })),
            "inflight": backend.metrics.inflight.get(),
            "sessions": backend.metrics.sessions.get(),
            "eras": backend.spoken().map(|spoken| spoken.eras()),
            "versions": backend.spoken().map(|spoken| {
                spoken.versions().into_iter().map(|(_, version)| version).collect::<Vec<_>>()
            }),
            "protocolVersion": listing.as_ref().map(|listing| listing.version),
            "listing": listing_of(backend),
        })
    };
    json!({ "backends": snapshot.backends.iter().map(view).collect::<Vec<_>>() })
}

/// How the last listing of a backend went, and what it has.
fn listing_of(backend: &Backend) -> Value {
    let listing = backend.listing.load();
    let failure = backend.listing_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let listed = |kind| listing.as_ref().map(|listing| listing.lists.get(kind).entries.len());
    json!({
        "tools": listed(Kind::Tools),
        "prompts": listed(Kind::Prompts),
        "resources": listed(Kind::Resources),
        "resourceTemplates": listed(Kind::Templates),
        "failures": listing.as_ref().map(|listing| {
            let failed = Kind::ALL.into_iter().filter_map(|kind| {
                Some((kind.field().to_owned(), Value::from(&**listing.failures.get(kind).as_ref()?)))
            });
            failed.collect::<serde_json::Map<_, _>>()
        }),
        "ageSeconds": listing.as_ref().map(|listing| listing.fetched.elapsed().as_secs()),
        "failure": failure.as_ref().map(|failure| &failure.reason),
        "failingForSeconds": failure.as_ref().map(|failure| failure.since.elapsed().as_secs()),
    })
}

/// The last changes of what backends offer, the newest first.
fn drift(gateway: &Gateway) -> Value {
    let snapshot = gateway.snapshot();
    let view = |seen: Seen| {
        let Drift { change, tool, detail } = seen.drift;
        let backend = snapshot.backends.iter().find(|backend| backend.name() == &seen.backend);
        json!({
            "backend": seen.backend.as_str(),
            "change": change.as_str(),
            // As clients know it, and as its backend does.
            "tool": tool.as_deref().zip(backend).map(|(own, backend)| backend.config.public_name(own)),
            "ownName": tool,
            "detail": detail,
            "secondsAgo": seen.when.elapsed().unwrap_or_default().as_secs(),
        })
    };
    json!({ "changes": gateway.drift.last().into_iter().map(view).collect::<Vec<_>>() })
}

/// About as many tokens as a model reads in so many bytes of definitions. Each model counts otherwise; for JSON and English, 4
/// bytes a token is a common rule of thumb.
fn tokens(bytes: usize) -> usize {
    bytes.div_ceil(4)
}

fn left_out(omission: &Omission) -> Value {
    let mut view = json!({ omission.kind.noun(): omission.own, "why": omission.why.to_string() });
    if let LeftOut::Collision { owner, .. } = &omission.why {
        view["owner"] = json!(owner.as_str());
    }
    view
}

/// What clients are shown, and how it came to be.
#[derive(Serialize)]
struct CatalogPage<'a> {
    #[serde(flatten)]
    about: Value,
    /// The definitions of each kind, as their backends wrote them.
    #[serde(flatten)]
    lists: BTreeMap<&'static str, Vec<&'a RawValue>>,
}

impl<'a> CatalogPage<'a> {
    fn of(gateway: &Gateway, catalog: &'a Merged) -> Self {
        let parts = catalog.parts.iter().map(|part| {
            let mut view = json!({
                "backend": part.backend.as_str(),
                "state": part.freshness.as_str(),
                "toolBytes": part.bytes,
                "toolTokensEstimated": tokens(part.bytes),
                "leftOut": part.left_out.iter().map(left_out).collect::<Vec<_>>(),
            });
            for kind in Kind::ALL {
                view[kind.field()] = json!(part.shown.get(kind));
            }
            view
        });
        let revisions = *gateway.revision.borrow();
        let bytes = catalog.tool_bytes();
        let about = json!({
            "toolBytes": bytes,
            "toolTokensEstimated": tokens(bytes),
            "toolBudgetBytes": gateway.snapshot().config.catalog.budget,
            "revision": revisions.tools,
            "revisions": {
                "tools": revisions.tools,
                "prompts": revisions.prompts,
                "resources": revisions.resources,
            },
            "generation": gateway.generation(),
            "backends": parts.collect::<Vec<_>>(),
        });
        Self { about, lists: Kind::ALL.map(|kind| (kind.field(), catalog.definitions(kind))).into() }
    }
}
