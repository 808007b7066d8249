//! Calls of modern clients that wait for input a legacy backend asked for.
//!
//! The backend waits on an open stream in this process, so only this process can take the call up again. The client holds a
//! sealed `requestState` that names it, and is good once, for a while, for the principal and the request it was given for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::shape::SERVER_INFO;
use super::to_legacy::Call;
use crate::error::Error;
use crate::jsonrpc::{self, OwnedId, Params, Request, json_string};
use crate::metrics::{Cap, ParkedMetrics};
use crate::session::Sessions;
use crate::underway::{Counted, UnderWay};

/// What a token is for; keeps it apart from anything else sealed with the same keys.
const PURPOSE: &[u8] = b"toolgate parked call v1";

/// URLs that a backend may want visited before one call.
const MAX_URLS: usize = 16;

/// All that wait.
pub(crate) struct Parked {
    /// Each in a lock that nobody waits for: what a call holds cannot be shared otherwise.
    calls: Arc<DashMap<u64, Mutex<Waiting>>>,
    next: AtomicU64,
    /// Tells this process from others with the same keys.
    instance: u64,
    metrics: ParkedMetrics,
    under_way: UnderWay,
}

/// One that waits.
pub(crate) struct Waiting {
    pub(crate) call: Box<Call>,
    pub(crate) question: Question,
    lapse: AbortHandle,
    /// A stop leaves the client time to come back.
    _under_way: Counted,
}

/// What a call is bound to: nobody but its principal takes it up, and by no other request.
pub(crate) struct Binding {
    principal: Box<str>,
    /// Of the method and everything in `params` that says what is wanted.
    digest: String,
}

/// What a `requestState` says.
#[derive(Deserialize, Serialize)]
struct State {
    /// The process.
    n: u64,
    /// The call.
    k: u64,
    /// The principal.
    p: String,
    /// The request's digest.
    d: String,
}

impl State {
    fn new(instance: u64, call: u64, binding: &Binding) -> Self {
        Self { n: instance, k: call, p: binding.principal.to_string(), d: binding.digest.clone() }
    }

    /// Whether the call that it names may be taken up by this request of this principal.
    fn is_for(&self, binding: &Binding) -> bool {
        *self.p == *binding.principal && self.d == binding.digest
    }
}

/// What a backend asks.
pub(crate) struct Question {
    /// The backend's id for it; none where it has refused the call until the client has done something.
    id: Option<OwnedId>,
    /// `inputRequests`.
    requests: Box<str>,
}

/// A call that could not be parked.
pub(crate) struct Refused {
    pub(crate) call: Box<Call>,
    pub(crate) why: Error,
    /// What its backend is told, where it waits for an answer.
    pub(crate) told: Option<Bytes>,
}

impl Question {
    /// The key of the one question that is asked at a time.
    const KEY: &'static str = "toolgate";

    pub(crate) fn new(request: &Request<'_>, body: &Bytes) -> Self {
        let text = std::str::from_utf8(body).unwrap_or("{}");
        let method = json_string(&request.method);
        let mut members = vec![("method", &*method)];
        members.extend(jsonrpc::member(text, "params").map(|params| ("params", params)));
        let (id, asked) = (request.id.owned(), jsonrpc::object(members));
        Self { id: Some(id), requests: jsonrpc::object([(Self::KEY, &*asked)]).into() }
    }

    /// What a backend wants done before the call is sent again, if that is what its error says (`-32042`, 2025-11-25 only).
    pub(crate) fn urls(error: &str) -> Option<Self> {
        let wanted: Vec<&RawValue> =
            serde_json::from_str(jsonrpc::member(jsonrpc::member(error, "data")?, "elicitations")?).ok()?;
        let requests: Vec<(String, String)> = wanted
            .iter()
            .take(MAX_URLS)
            .enumerate()
            .filter(|(_, params)| jsonrpc::member(params.get(), "url").is_some())
            .map(|(index, params)| {
                let method = ("method", "\"elicitation/create\"");
                (format!("{}-{index}", Self::KEY), jsonrpc::object([method, ("params", params.get())]))
            })
            .collect();
        (!requests.is_empty()).then(|| {
            let requests = requests.iter().map(|(key, request)| (&**key, &**request));
            Self { id: None, requests: jsonrpc::object(requests).into() }
        })
    }

    pub(crate) fn id(&self) -> Option<&OwnedId> {
        self.id.as_ref()
    }

    pub(crate) fn key(&self) -> &'static str {
        Self::KEY
    }
}

impl Binding {
    pub(crate) fn new(method: &str, params: &Params<'_>, principal: &str) -> Self {
        let mut digest = Context::new(&SHA256);
        let mut add = |part: &str| {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        };
        add(method);
        for part in [params.name, params.uri, params.arguments] {
            add(&canonical(part));
        }
        let digest = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { principal: principal.into(), digest }
    }
}

/// The same for every way to write a value, as far as it can be read: clients print their retries anew.
fn canonical(raw: Option<&RawValue>) -> String {
    let Some(raw) = raw else { return String::new() };
    serde_json::from_str::<Value>(raw.get()).map_or_else(|_| raw.get().to_owned(), |value| value.to_string())
}

impl Parked {
    pub(crate) fn new(metrics: ParkedMetrics, under_way: UnderWay) -> Self {
        use std::hash::{BuildHasher as _, Hasher as _, RandomState};
        let instance = RandomState::new().build_hasher().finish();
        Self { calls: Arc::default(), next: AtomicU64::new(1), instance, metrics, under_way }
    }

    /// Parks a call. Returns the result that asks its client.
    ///
    /// # Errors
    /// When there are too many: the call goes on without an answer, and its backend is told so.
    pub(crate) fn park(
        &self,
        sessions: &Sessions,
        binding: &Binding,
        call: Box<Call>,
        question: Question,
        (ttl, max): (Duration, u32),
    ) -> Result<String, Box<Refused>> {
        if self.calls.len() >= max as usize {
            self.metrics.refused.inc();
            call.backend().cap_reached(Cap::Parked);
            let why = Error::TooManyParked { max };
            let told = question.id.as_ref().map(|id| jsonrpc::error_body(Some(id.raw()), &why.object()));
            return Err(Box::new(Refused { call, why, told }));
        }
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let state = State::new(self.instance, key, binding);
        let state = sessions.seal(PURPOSE, &serde_json::to_vec(&state).unwrap_or_default());
        let result = format!(
            "{{\"resultType\":\"input_required\",\"inputRequests\":{},\"requestState\":{},\"_meta\":{{{SERVER_INFO}}}}}",
            question.requests,
            json_string(&state),
        );
        let (calls, metrics) = (Arc::clone(&self.calls), self.metrics.clone());
        let lapse = tokio::spawn(async move {
            sleep(ttl).await;
            // Dropped, it is cancelled at its backend.
            if calls.remove(&key).is_some() {
                metrics.waiting.dec();
                metrics.lapsed.inc();
            }
        });
        self.metrics.waiting.inc();
        let (lapse, _under_way) = (lapse.abort_handle(), self.under_way.count());
        self.calls.insert(key, Mutex::new(Waiting { call, question, lapse, _under_way }));
        Ok(result)
    }

    /// What a `requestState` says, if it is one of this process.
    fn read(&self, sessions: &Sessions, state: &str) -> Option<State> {
        let state: State = serde_json::from_slice(&sessions.open(PURPOSE, state)?).ok()?;
        (state.n == self.instance).then_some(state)
    }

    /// Whether a `requestState` was given out here, for a call that waits still or does no more.
    pub(crate) fn knows(&self, sessions: &Sessions, state: &str) -> bool {
        self.read(sessions, state).is_some()
    }

    /// Whether the call that a `requestState` names waits here.
    pub(crate) fn holds(&self, sessions: &Sessions, state: &str) -> bool {
        self.read(sessions, state).is_some_and(|state| self.calls.contains_key(&state.k))
    }

    /// The call that a `requestState` names, if it waits here for this request.
    pub(crate) fn take(&self, sessions: &Sessions, state: &str, binding: &Binding) -> Option<Waiting> {
        let state = self.read(sessions, state)?;
        if !state.is_for(binding) {
            return None;
        }
        let (_, waiting) = self.calls.remove(&state.k)?;
        let waiting = waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        waiting.lapse.abort();
        self.metrics.waiting.dec();
        self.metrics.resumed.inc();
        Some(waiting)
    }

    /// Ends every one that waits, for a stop.
    pub(crate) fn clear(&self) {
        let keys: Vec<u64> = self.calls.iter().map(|entry| *entry.key()).collect();
        for (_, waiting) in keys.into_iter().filter_map(|key| self.calls.remove(&key)) {
            waiting.into_inner().unwrap_or_else(PoisonError::into_inner).lapse.abort();
            self.metrics.waiting.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::Message;

    fn binding(method: &str, params: &str, principal: &str) -> Binding {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{params}}}"#);
        let Ok(Message::Request(request)) = jsonrpc::parse(body.as_bytes()) else { panic!("{body}") };
        Binding::new(method, &request.params, principal)
    }

    #[test]
    fn a_state_is_for_one_request_of_one_principal() {
        let (method, params) = ("tools/call", r#"{"name":"x","arguments":{"a":1}}"#);
        let state = State::new(1, 1, &binding(method, params, "alice"));

        assert!(state.is_for(&binding(method, r#"{"arguments":{"a" : 1},"name":"\u0078"}"#, "alice")));
        for other in [
            binding(method, params, "bob"),
            binding(method, params, ""),
            binding("prompts/get", params, "alice"),
            binding(method, r#"{"name":"y","arguments":{"a":1}}"#, "alice"),
            binding(method, r#"{"name":"x","arguments":{"a":2}}"#, "alice"),
            binding(method, r#"{"name":"x"}"#, "alice"),
            binding(method, r#"{"uri":"x","arguments":{"a":1}}"#, "alice"),
        ] {
            assert!(!state.is_for(&other));
        }
    }
}
