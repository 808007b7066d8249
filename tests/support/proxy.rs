//! The gateway in this process, on free ports, with a configuration that is put together line by line.

use std::net::SocketAddr;
use std::path::Path;

use http::Method;
use toolgate::{App, Outcome, Running};
use toolgate_config::Config;

use super::client::{Answer, Client};
use super::{FakeBackend, Server, eventually, within};

/// The newest version that clients of the tests speak.
pub(crate) const VERSION: &str = "2025-11-25";

/// A configuration.
#[derive(Clone)]
pub(crate) struct Setup {
    listeners: Vec<String>,
    backends: Vec<String>,
    sections: Vec<(&'static str, String)>,
}

impl Setup {
    /// One listener on the loopback and no backend yet. Probes and listings happen once, at the start, unless a section says
    /// otherwise.
    pub(crate) fn new() -> Self {
        Self {
            listeners: vec!["address: \"127.0.0.1:0\"".to_owned()],
            backends: Vec::new(),
            sections: vec![
                ("admin", "{ address: \"127.0.0.1:0\" }".to_owned()),
                ("health", "{ interval: 1h, timeout: 3s, max_backoff: 1h }".to_owned()),
                ("catalog", "{ refresh: 1h }".to_owned()),
                ("drain", "{ delay: 0s, timeout: 5s }".to_owned()),
            ],
        }
    }

    /// In front of these.
    pub(crate) fn fronting(backends: &[&FakeBackend]) -> Self {
        backends.iter().fold(Self::new(), |setup, backend| setup.backend(*backend, ""))
    }

    /// Adds a backend, with more keys if there are any, in YAML's flow style.
    pub(crate) fn backend(self, backend: &impl Server, keys: &str) -> Self {
        self.backend_at(backend.name(), &backend.url(), keys)
    }

    pub(crate) fn backend_at(mut self, name: &str, url: &str, keys: &str) -> Self {
        self.backends.push(format!("name: {name}, url: \"{url}\"{}{keys}", if keys.is_empty() { "" } else { ", " }));
        self
    }

    /// Adds a backend with all that is said of it, in YAML's flow style.
    pub(crate) fn backend_reached(mut self, name: &str, keys: &str) -> Self {
        self.backends.push(format!("name: {name}, {keys}"));
        self
    }

    /// Adds keys to the listener.
    pub(crate) fn listener(mut self, keys: &str) -> Self {
        self.listeners[0] += &format!(", {keys}");
        self
    }

    /// Puts the listener elsewhere.
    pub(crate) fn listening_on(mut self, address: &str) -> Self {
        self.listeners[0] = format!("address: \"{address}\"");
        self
    }

    /// Sets a section, in YAML's flow style.
    pub(crate) fn section(mut self, name: &'static str, value: &str) -> Self {
        self.sections.retain(|(other, _)| *other != name);
        self.sections.push((name, value.to_owned()));
        self
    }

    pub(crate) fn yaml(&self) -> String {
        let list = |items: &[String]| items.iter().map(|item| format!("- {{ {item} }}\n")).collect::<String>();
        let sections: String = self.sections.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("listeners:\n{}backends:\n{}{sections}", list(&self.listeners), list(&self.backends))
    }

    pub(crate) fn config(&self) -> Config {
        let yaml = self.yaml();
        toolgate_config::parse(Path::new("test.yaml"), &yaml, &|_| None)
            .unwrap_or_else(|report| panic!("{report}\n{yaml}"))
    }

    pub(crate) async fn start(&self) -> TestProxy {
        let running = App::bind(self.config()).expect("free ports").start().expect("a gateway that starts");
        TestProxy { running }
    }
}

/// A gateway that runs until the test ends.
pub(crate) struct TestProxy {
    running: Running,
}

impl TestProxy {
    /// In front of these, with a configuration that says nothing else.
    pub(crate) async fn fronting(backends: &[&FakeBackend]) -> Self {
        Setup::fronting(backends).start().await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.running.admin_address()
    }

    /// A client without a session.
    pub(crate) fn stranger(&self) -> Client {
        Client::stranger(self.address())
    }

    /// A client in a session of the newest legacy version.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(VERSION).await
    }

    /// A client in a session of this version.
    pub(crate) async fn client_of(&self, version: &str) -> Client {
        self.stranger().started(version).await
    }

    /// A client in a session of the newest legacy version that can be asked everything.
    pub(crate) async fn asked_client(&self) -> Client {
        let all = serde_json::json!({
            "roots": { "listChanged": true }, "sampling": {}, "elicitation": { "form": {}, "url": {} },
        });
        self.stranger().started_with(VERSION, all).await
    }

    /// Waits until so many tools of a backend are listed.
    #[track_caller]
    pub(crate) fn until_tools(&self, backend: &impl Server, tools: usize) -> impl Future<Output = ()> {
        let series = format!("toolgate_catalog_tools{{backend=\"{}\"}}", backend.name());
        eventually(async move || self.metric(&series).await == Some(tools as f64))
    }

    /// A page of the operator.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        page(self.admin_address(), Method::GET, path).await
    }

    /// What a metric says; `None` without such a series. `series` is written as in the text format.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        metric(self.admin_address(), series).await
    }

    /// Waits until a metric says this.
    #[track_caller]
    pub(crate) fn until_metric(&self, series: &str, value: f64) -> impl Future<Output = ()> {
        eventually(async move || self.metric(series).await == Some(value))
    }

    /// Waits until a backend is in this state.
    #[track_caller]
    pub(crate) fn until_state(&self, backend: &impl Server, state: &str) -> impl Future<Output = ()> {
        let series = format!("toolgate_backend_state{{backend=\"{}\",state=\"{state}\"}}", backend.name());
        eventually(async move || self.metric(&series).await == Some(1.0))
    }

    pub(crate) async fn reload(&self, setup: &Setup) -> Outcome {
        within(self.running.reload(setup.config())).await
    }

    /// As [`reload`](Self::reload), where it must be taken up.
    pub(crate) async fn apply(&self, setup: &Setup) {
        let outcome = self.reload(setup).await;
        assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
    }

    /// Stops, beside what the test does.
    pub(crate) fn stop(self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.running.stop())
    }
}

/// A page of an operator's listener.
pub(crate) async fn page(admin: SocketAddr, verb: Method, path: &str) -> Answer {
    let client = Client::stranger(admin);
    let mut request = client.request(verb, "");
    *request.uri_mut() = path.parse().expect("a path");
    client.send(request).await
}

/// What a metric says.
pub(crate) async fn metric(admin: SocketAddr, series: &str) -> Option<f64> {
    let text = page(admin, Method::GET, "/metrics").await;
    let text = std::str::from_utf8(&text.body).expect("UTF-8");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}
