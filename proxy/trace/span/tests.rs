use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};

use super::{Ended, Span, Tracer};
use crate::backend::http::Connector;
use crate::dispatch::{Request, RequestId};
use crate::era::McpHeaders;
use crate::error::Kind;
use crate::jsonrpc::{self, Message};
use crate::metrics::Metrics;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// One that was never started, and what it counts.
fn tracer(sample_one_in: u32) -> (Arc<Tracer>, Metrics) {
    let traces = format!("{{ endpoint: 'http://127.0.0.1:1/v1/traces', sample_one_in: {sample_one_in} }}");
    let yaml = format!(
        "listeners: [{{ address: '127.0.0.1:0' }}]\nbackends: [{{ name: a, url: 'http://a' }}]\ntraces: {traces}"
    );
    let config = toolgate_config::parse(Path::new("t.yaml"), &yaml, &|_| None).unwrap();
    let metrics = Metrics::new();
    (Tracer::new(&config.traces.unwrap(), &Connector::new(), &metrics).unwrap(), metrics)
}

/// Begins the span of a request that says these of where it belongs.
fn begun(tracer: &Tracer, header: Option<&str>, meta: Option<&str>) -> Option<Box<Span>> {
    let trace = [("traceparent", header), ("tracestate", header.map(|_| "a=b")), ("baggage", Some("c=d"))];
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    let trace = trace.iter().filter_map(|(name, text)| Some((HeaderName::from_static(name), value((*text)?))));
    let request = Request {
        verb: Method::POST,
        headers: McpHeaders { trace: trace.collect(), ..McpHeaders::default() },
        prefers_events: false,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        request_id: RequestId::new(None),
        started: Instant::now(),
        is_late: false,
    };
    let meta = meta.map(|meta| format!(r#""traceparent":"{meta}""#)).unwrap_or_default();
    let body = format!(r#"{{"jsonrpc":"2.0","id":"x","method":"ping","params":{{"_meta":{{{meta}}}}}}}"#);
    let Ok(Message::Request(parsed)) = jsonrpc::parse(body.as_bytes()) else { panic!("{body}") };
    let span = tracer.begin(&request, &parsed.params, parsed.id)?;
    let sent: Vec<_> = span.headers(&request.headers.trace).iter().map(|(name, _)| name.to_string()).collect();
    assert!(sent.contains(&"baggage".to_owned()) && sent.contains(&"traceparent".to_owned()), "{sent:?}");
    assert_eq!(sent.contains(&"tracestate".to_owned()), span.traceparent()[..35] == header.unwrap_or(OTHER)[..35]);
    Some(span)
}

fn ended() -> Ended {
    Ended {
        method: "ping",
        kind: Kind::Ok,
        started: Instant::now(),
        took: Duration::ZERO,
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        request_id: RequestId::new(None),
        session: String::new(),
        tool: None,
    }
}

#[test]
fn clients_decide_and_of_the_others_one_in_so_many_is_traced() {
    for (one_in, least, most) in [(0, 0, 0), (1, 1000, 1000), (10, 40, 250)] {
        let (tracer, _metrics) = tracer(one_in);

        let drawn = (0..1000).filter_map(|_| begun(&tracer, None, None)).count();

        assert!((least..=most).contains(&drawn), "one in {one_in}: {drawn}");
        assert!(begun(&tracer, Some(SAMPLED), None).is_some());
        assert!(begun(&tracer, Some(UNSAMPLED), None).is_none());
        assert!(begun(&tracer, Some(SAMPLED), Some(UNSAMPLED)).is_none());
        assert!(begun(&tracer, Some(UNSAMPLED), Some(SAMPLED)).is_some());
    }
}

#[test]
fn what_the_message_says_counts_before_what_its_http_request_says() {
    let (tracer, _metrics) = tracer(0);

    let both = begun(&tracer, Some(OTHER), Some(SAMPLED)).unwrap();
    let unreadable = begun(&tracer, Some(SAMPLED), Some("00-x")).unwrap();

    assert!(both.is_told_in_body() && !unreadable.is_told_in_body());
    for span in [&both, &unreadable] {
        assert!(span.traceparent().starts_with(&SAMPLED[..36]) && span.traceparent().ends_with("-01"));
        assert_ne!(span.traceparent(), SAMPLED);
    }
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
    let (tracer, metrics) = tracer(1);

    for _ in 0..3000 {
        begun(&tracer, None, None).unwrap().end(ended());
    }

    let text = String::from_utf8(metrics.text()).unwrap();
    assert!(text.contains(&format!("toolgate_spans_total{{result=\"dropped\"}} {}\n", 3000 - 2048)), "{text}");
}
