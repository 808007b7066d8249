//! `traces`: where spans are sent, and how many.

use super::remote;
use crate::reach::{HttpTransport, Remote};
use crate::traces::Traces;
use crate::walk::{Section, Value};

pub(super) fn traces(value: &Value<'_>) -> Option<Option<Traces>> {
    value.section(traces_of)
}

fn traces_of(s: &mut Section<'_>) -> Option<Traces> {
    let placed = s.required("endpoint", |value| Some(remote::one(value))).unwrap_or_default();
    if let [(value, Some(url))] = &*placed
        && url.path == "/"
    {
        value.problem_with("has no path, and spans are not sent to the root", "OTLP over HTTP is at /v1/traces");
    }
    let tls_given = s.get("tls");
    let tls = remote::tls_of(tls_given.as_ref(), &placed);
    let headers = s.optional("headers", remote::headers).unwrap_or_default();
    let sample_one_in = s.optional("sample_one_in", |value| value.number(0..=1_000_000)).unwrap_or(1);
    let urls: Vec<_> = placed.into_iter().filter_map(|(_, url)| url).collect();
    let receiver = Remote { urls, transport: HttpTransport::StreamableHttp, tls, headers };
    (!receiver.urls.is_empty()).then_some(Traces { receiver, sample_one_in })
}
