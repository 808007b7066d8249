//! The model back in the file's own shape, for people: defaults filled in, secrets as `***`, PEM files as their paths.
//!
//! Without secrets, what comes out reads in as the same configuration.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::backend::{Backend, Protocol, Synthetic, ToolTimeout};
use crate::grammar::{show_duration, show_rate, show_size};
use crate::limit::{Key, Limit, Refusal};
use crate::listener::{Listener, Tls};
use crate::pin::{Pin, PinMode};
use crate::reach::{BackendTls, Command, Header, HttpTransport, Instances, Reach, Remote, Url};
use crate::runtime::{LogFormat, LogLevel, Sessions};
use crate::tool::{Pattern, Tools};
use crate::traces::Traces;
use crate::value::Pem;
use crate::webhook::Webhook;
use crate::{Config, runtime};

const HIDDEN: &str = "***";

pub(crate) fn config(config: &Config) -> Value {
    object([
        ("listeners", Some(config.listeners.iter().map(listener).collect())),
        ("admin", Some(json!({ "address": config.admin.address.to_string() }))),
        ("backends", Some(config.backends.iter().map(backend).collect())),
        ("limits", Some(config.limits.iter().map(limit).collect())),
        ("health", Some(health(&config.health))),
        ("catalog", Some(catalog(&config.catalog))),
        ("pin", Some(pin(&config.pin))),
        ("webhook", config.webhook.as_ref().map(webhook)),
        ("sessions", Some(sessions(&config.sessions))),
        ("bridge", Some(bridge(config.bridge))),
        ("log", Some(log(&config.log))),
        ("traces", config.traces.as_ref().map(traces)),
        ("reload", Some(json!({ "watch": config.reload.watch, "poll": show_duration(config.reload.poll) }))),
        ("drain", Some(drain(config.drain))),
        ("threads", config.threads.map(Value::from)),
    ])
}

fn listener(listener: &Listener) -> Value {
    let timeout = &listener.timeout;
    object([
        ("address", Some(json!(listener.address.to_string()))),
        ("path", Some(json!(listener.path))),
        ("tls", listener.tls.as_ref().map(tls)),
        ("allowed_hosts", Some(strings(&listener.allowed_hosts))),
        ("allowed_origins", Some(strings(&listener.allowed_origins))),
        ("trusted_proxies", Some(strings(&listener.trusted_proxies))),
        ("max_body", Some(json!(show_size(listener.max_body)))),
        ("max_connections", Some(json!(listener.max_connections))),
        ("keep_alive", Some(json!(show_duration(listener.keep_alive)))),
        (
            "timeout",
            Some(json!({
                "handshake": show_duration(timeout.handshake),
                "header": show_duration(timeout.header),
                "body": show_duration(timeout.body),
                "idle": show_duration(timeout.idle),
                "write": show_duration(timeout.write),
            })),
        ),
    ])
}

fn tls(tls: &Tls) -> Value {
    let pair = |pair: &crate::Certificate| json!({ "cert": path(&pair.cert), "key": path(&pair.key) });
    json!({ "certificates": tls.certificates.iter().map(pair).collect::<Value>() })
}

fn backend(backend: &Backend) -> Value {
    let mut shown = object([
        ("name", Some(json!(backend.name.as_str()))),
        ("timeout", Some(timeout(backend))),
        ("prefix", Some(json!(backend.prefix))),
        ("protocol", Some(json!(protocol(backend.protocol)))),
        ("max_inflight", Some(json!(backend.max_inflight))),
        ("tools", Some(tools(&backend.tools))),
        ("synthetic", backend.synthetic.as_ref().map(synthetic)),
    ]);
    let reach = match &backend.reach {
        Reach::Command(reach) => command(reach),
        Reach::Remote(reach) => remote(reach),
    };
    if let (Value::Object(shown), Value::Object(reach)) = (&mut shown, reach) {
        shown.extend(reach);
    }
    shown
}

fn synthetic(synthetic: &Synthetic) -> Value {
    object([
        ("tool", Some(json!(synthetic.tool))),
        ("arguments", Some(json!(synthetic.arguments))),
        ("expect", synthetic.expect.as_ref().map(|text| json!(text))),
        ("interval", Some(json!(show_duration(synthetic.interval)))),
        ("timeout", Some(json!(show_duration(synthetic.timeout)))),
    ])
}

fn traces(traces: &Traces) -> Value {
    let receiver = &traces.receiver;
    object([
        ("endpoint", receiver.urls.first().map(|endpoint| json!(url(endpoint)))),
        ("sample_one_in", Some(json!(traces.sample_one_in))),
        ("headers", Some(hidden(&receiver.headers))),
        ("tls", receiver.urls.iter().any(|url| url.https).then(|| backend_tls(&receiver.tls))),
    ])
}

fn remote(remote: &Remote) -> Value {
    let transport = match remote.transport {
        HttpTransport::Sse => "sse",
        HttpTransport::StreamableHttp => "streamable_http",
    };
    let (single, several) = match remote.urls.as_slice() {
        [only] => (Some(json!(url(only))), None),
        urls => (None, Some(urls.iter().map(url).collect())),
    };
    object([
        ("url", single),
        ("urls", several),
        ("transport", Some(json!(transport))),
        ("tls", remote.urls.iter().any(|url| url.https).then(|| backend_tls(&remote.tls))),
        ("headers", Some(hidden(&remote.headers))),
    ])
}

fn command(command: &Command) -> Value {
    let env = command.env.iter().map(|variable| (variable.name.clone(), json!(HIDDEN)));
    let words = std::iter::once(&command.program).chain(&command.arguments);
    let instances = match command.instances {
        Instances::Session => "session",
        Instances::Shared => "shared",
    };
    object([
        ("command", Some(words.map(String::as_str).collect())),
        ("env", Some(Value::Object(env.collect()))),
        ("cwd", command.cwd.as_deref().map(|cwd| json!(cwd.to_string_lossy()))),
        ("instances", Some(json!(instances))),
        ("max_instances", (command.instances == Instances::Session).then(|| json!(command.max_instances))),
        ("max_line", Some(json!(show_size(command.max_line)))),
    ])
}

/// A query may hold a token, so only that there is one is shown.
fn url(url: &Url) -> String {
    let scheme = if url.https { "https" } else { "http" };
    match url.path.split_once('?') {
        Some((path, _)) => format!("{scheme}://{}{path}?{HIDDEN}", url.authority),
        None => format!("{scheme}://{}{}", url.authority, url.path),
    }
}

fn backend_tls(tls: &BackendTls) -> Value {
    object([
        ("ca", tls.ca.as_ref().map(path)),
        ("cert", tls.cert.as_ref().map(path)),
        ("key", tls.key.as_ref().map(path)),
        ("server_name", tls.server_name.as_ref().map(|name| json!(name))),
    ])
}

fn timeout(backend: &Backend) -> Value {
    let timeout = &backend.timeout;
    let connects = matches!(backend.reach, Reach::Remote(_));
    let tool = |tool: &ToolTimeout| {
        json!({
            "match": patterns(&tool.tools),
            "first_byte": show_duration(tool.timeout.first_byte),
            "idle": show_duration(tool.timeout.idle),
        })
    };
    object([
        ("connect", connects.then(|| json!(show_duration(timeout.connect)))),
        ("first_byte", Some(json!(show_duration(timeout.first_byte)))),
        ("idle", Some(json!(show_duration(timeout.idle)))),
        ("tools", Some(backend.tool_timeouts.iter().map(tool).collect())),
    ])
}

fn tools(tools: &Tools) -> Value {
    object([
        ("allow", Some(if tools.allow.is_empty() { json!(["*"]) } else { patterns(&tools.allow) })),
        ("deny", Some(patterns(&tools.deny))),
        ("rename", Some(json!(tools.rename))),
        ("describe", Some(json!(tools.describe))),
        ("max_description", tools.max_description.map(|most| json!(most))),
    ])
}

fn limit(limit: &Limit) -> Value {
    object([
        ("name", Some(json!(limit.name))),
        ("tools", Some(patterns(&limit.tools))),
        ("backends", (!limit.backends.is_empty()).then(|| strings(&limit.backends))),
        ("key", Some(json!(key(limit.key)))),
        ("rate", limit.rate.map(|rate| json!(show_rate(rate.count, rate.per)))),
        ("burst", limit.rate.map(|rate| json!(rate.burst))),
        ("concurrency", limit.concurrency.map(|most| json!(most))),
        ("refusal", Some(json!(refusal(limit.refusal)))),
        ("max_keys", Some(json!(limit.max_keys))),
    ])
}

fn health(health: &runtime::Health) -> Value {
    json!({
        "interval": show_duration(health.interval),
        "timeout": show_duration(health.timeout),
        "rise": health.rise,
        "fall": health.fall,
        "max_backoff": show_duration(health.max_backoff),
    })
}

fn catalog(catalog: &runtime::Catalog) -> Value {
    object([
        ("refresh", Some(json!(show_duration(catalog.refresh)))),
        ("stale_for", Some(json!(show_duration(catalog.stale_for)))),
        ("timeout", Some(json!(show_duration(catalog.timeout)))),
        ("max_tools", Some(json!(catalog.max_tools))),
        ("max_bytes", Some(json!(show_size(catalog.max_bytes)))),
        ("budget", catalog.budget.map(|budget| json!(show_size(budget)))),
    ])
}

fn sessions(sessions: &Sessions) -> Value {
    json!({
        "keys": sessions.keys.iter().map(|_| HIDDEN).collect::<Value>(),
        "idle": show_duration(sessions.idle),
        "lifetime": show_duration(sessions.lifetime),
        "max": sessions.max,
    })
}

fn pin(pin: &Pin) -> Value {
    let mode = match pin.mode {
        PinMode::Off => "off",
        PinMode::Warn => "warn",
        PinMode::Enforce => "enforce",
    };
    json!({ "mode": mode, "file": pin.file.to_string_lossy() })
}

fn webhook(webhook: &Webhook) -> Value {
    let remote = &webhook.remote;
    object([
        ("url", remote.urls.first().map(|to| json!(url(to)))),
        ("secret", Some(json!(HIDDEN))),
        ("headers", Some(hidden(&remote.headers))),
        ("tls", remote.urls.iter().any(|url| url.https).then(|| backend_tls(&remote.tls))),
        ("timeout", Some(json!(show_duration(webhook.timeout.first_byte)))),
        ("repeat", Some(json!(show_duration(webhook.repeat)))),
    ])
}

/// The names of headers.
fn hidden(headers: &[Header]) -> Value {
    Value::Object(headers.iter().map(|header| (header.name.to_string(), json!(HIDDEN))).collect())
}

fn bridge(bridge: runtime::Bridge) -> Value {
    json!({
        "parked": bridge.parked,
        "parked_ttl": show_duration(bridge.parked_ttl),
        "max_answer": show_size(bridge.max_answer),
    })
}

fn drain(drain: runtime::Drain) -> Value {
    json!({ "delay": show_duration(drain.delay), "timeout": show_duration(drain.timeout) })
}

fn log(log: &runtime::Log) -> Value {
    object([
        ("format", Some(json!(format(log.format)))),
        ("level", Some(json!(level(log.level)))),
        ("calls", log.calls.as_ref().map(|path| json!(path.to_string_lossy()))),
        ("payloads", Some(payloads(&log.payloads))),
    ])
}

fn payloads(payloads: &runtime::Payloads) -> Value {
    json!({
        "arguments": payloads.arguments,
        "results": payloads.results,
        "redact": patterns(&payloads.redact),
        "max": show_size(payloads.max),
    })
}

fn format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    }
}

fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Error => "error",
        LogLevel::Info => "info",
        LogLevel::Trace => "trace",
        LogLevel::Warn => "warn",
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Auto => "auto",
        Protocol::Legacy => "legacy",
        Protocol::Modern => "modern",
    }
}

fn key(key: Key) -> &'static str {
    match key {
        Key::Global => "global",
        Key::Ip => "ip",
        Key::Session => "session",
    }
}

fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Http => "http",
        Refusal::ToolError => "tool_error",
    }
}

fn path(pem: &Pem) -> Value {
    let path: &Path = &pem.path;
    json!(path.to_string_lossy())
}

fn patterns(patterns: &[Pattern]) -> Value {
    patterns.iter().map(Pattern::as_str).collect()
}

fn strings<T: ToString>(items: &[T]) -> Value {
    items.iter().map(T::to_string).collect()
}

/// An object of the entries that have a value: what is absent has no form in the file.
fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let given = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}
