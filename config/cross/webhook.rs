//! `webhook`.

use super::{remote, secret};
use crate::backend::Timeout;
use crate::grammar::{duration, duration_or_none};
use crate::reach::{HttpTransport, Remote};
use crate::walk::{Section, Value};
use crate::webhook::{DEFAULT_WEBHOOK_REPEAT, DEFAULT_WEBHOOK_TIMEOUT, Webhook};

pub(super) fn webhook(value: &Value<'_>) -> Option<Webhook> {
    value.section(read).flatten()
}

fn read(s: &mut Section<'_>) -> Option<Webhook> {
    let placed = s.required("url", |value| Some(remote::one(value))).unwrap_or_default();
    let secret = s.required("secret", secret::signing_key);
    let headers = s.optional("headers", headers).unwrap_or_default();
    let tls_given = s.get("tls");
    let tls = remote::tls_of(tls_given.as_ref(), &placed);
    let limit = s.optional("timeout", duration).unwrap_or(DEFAULT_WEBHOOK_TIMEOUT);
    let repeat = s.optional("repeat", duration_or_none).unwrap_or(DEFAULT_WEBHOOK_REPEAT);
    let urls = placed.into_iter().map(|(_, url)| url).collect::<Option<Vec<_>>>()?;
    let remote = Remote { urls, transport: HttpTransport::default(), tls, headers };
    let timeout = Timeout { connect: limit, first_byte: limit, idle: limit };
    (!remote.urls.is_empty()).then_some(Webhook { remote, secret: secret?, timeout, repeat })
}

fn headers(value: &Value<'_>) -> Option<Vec<crate::reach::Header>> {
    let headers = remote::headers(value)?;
    if headers.iter().any(|header| header.name.as_str().starts_with("webhook-")) {
        value.problem_with("the gateway writes the `webhook-…` headers itself", "remove them");
    }
    Some(headers)
}
