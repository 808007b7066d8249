//! What is measured, side by side: how each is told to do the same work with one worker.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::client::{self, Target};
use crate::mcp::Era;
use crate::process::{Cores, Process, Role, Start};

/// How long a subject may take until it lists what its backends have.
const READY: Duration = Duration::from_secs(30);

/// A thing that can stand between client and backend, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Direct,
    Nginx,
    Bare,
    Envoy,
    McpProxy,
    Toolgate,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Direct, Self::Nginx, Self::Bare, Self::Envoy, Self::McpProxy, Self::Toolgate];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Bare => "bare pingora",
            Self::Envoy => "Envoy MCP router",
            Self::McpProxy => "mcp-proxy",
            Self::Toolgate => "Toolgate",
        }
    }

    /// Whether it knows what MCP is; the others pass on what they get.
    pub(crate) fn is_gateway(self) -> bool {
        matches!(self, Self::Envoy | Self::McpProxy | Self::Toolgate)
    }

    fn has_tls(self) -> bool {
        !matches!(self, Self::Direct | Self::McpProxy)
    }
}

/// Where the programs are; what could not be installed says why.
pub(crate) struct Programs {
    pub(crate) toolgate: PathBuf,
    /// What Toolgate was built from.
    pub(crate) commit: String,
    pub(crate) nginx: Result<PathBuf, String>,
    pub(crate) envoy: Result<PathBuf, String>,
    pub(crate) mcp_proxy: Result<PathBuf, String>,
}

impl Programs {
    pub(crate) fn path(&self, kind: Kind) -> Result<PathBuf, String> {
        match kind {
            Kind::Direct => Ok(PathBuf::new()),
            Kind::Bare => std::env::current_exe().map_err(|error| error.to_string()),
            Kind::Nginx => self.nginx.clone(),
            Kind::Envoy => self.envoy.clone(),
            Kind::McpProxy => self.mcp_proxy.clone(),
            Kind::Toolgate => Ok(self.toolgate.clone()),
        }
    }
}

/// A certificate for localhost, and a client's configuration that trusts it.
pub(crate) struct Certificate {
    file: PathBuf,
    key: PathBuf,
    pub(crate) client: Arc<rustls::ClientConfig>,
}

impl Certificate {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (file, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        fs::write(&file, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let client = trusting(&file)?;
        Ok(Self { file, key, client })
    }
}

/// A client of HTTP/2 that trusts the certificate in this file.
pub(crate) fn trusting(file: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(client))
}

/// One MCP server that a subject is put before.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// The work that a subject is set up for.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) upstreams: Vec<Upstream>,
    /// A folder of files that nginx serves.
    pub(crate) files: Option<PathBuf>,
    /// Lines of Toolgate's configuration, beside what every run has.
    pub(crate) toolgate: String,
    /// Its log: `warn` says nothing of calls that went well, as the peers say nothing.
    pub(crate) log: Option<&'static str>,
}

/// A subject that runs.
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// What is being measured; direct, the backend is nobody's.
    pub(crate) process: Option<Process>,
    pub(crate) plain: Target,
    pub(crate) tls: Option<Target>,
}

/// What is needed to start subjects.
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    pub(crate) certificate: Certificate,
    pub(crate) cores: Cores,
    pub(crate) scratch: PathBuf,
}

/// A program, how it is called, and where it will listen.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    ports: Ports,
    path: String,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
    other: u16,
}

impl Stage {
    pub(crate) fn start(&self, role: Role, ended_by: Signal) -> Start {
        Start { cores: self.cores, role, ended_by }
    }

    /// Starts a subject, and waits until it lists so many tools.
    pub(crate) async fn subject(&self, kind: Kind, setup: &Setup, tools: usize) -> Result<Subject> {
        let mut subject = self.launch(kind, setup)?;
        let patience = Instant::now() + READY;
        loop {
            let listed = client::tools(&subject.plain).await;
            if listed.as_ref().is_ok_and(|listed| listed.len() >= tools) {
                return Ok(subject);
            }
            let ended = subject.process.as_mut().is_some_and(Process::has_ended);
            if ended || Instant::now() > patience {
                let said = fs::read_to_string(self.log(kind)).unwrap_or_default();
                let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                let found =
                    listed.map_or_else(|error| format!("{error:#}"), |listed| format!("{} tools", listed.len()));
                bail!("not ready ({found}); last said: {said}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a subject without waiting for anything.
    pub(crate) fn launch(&self, kind: Kind, setup: &Setup) -> Result<Subject> {
        if kind == Kind::Direct {
            let upstream = setup.upstreams.first().context("no backend")?;
            let plain = self.target(upstream.port, &upstream.path);
            return Ok(Subject { kind, process: None, plain, tls: None });
        }
        let launch = self.prepare(kind, setup)?;
        // nginx looks after its worker, which would go on without it.
        let ended_by = if kind == Kind::Nginx { Signal::SIGTERM } else { Signal::SIGKILL };
        let start = self.start(Role::Subject, ended_by);
        let process = Process::start(&launch.program, &launch.arguments, start, &self.log(kind))?;
        let tls = kind.has_tls().then(|| Target {
            tls: Some(Arc::clone(&self.certificate.client)),
            ..self.target(launch.ports.tls, &launch.path)
        });
        Ok(Subject { kind, process: Some(process), plain: self.target(launch.ports.plain, &launch.path), tls })
    }

    /// Writes what a subject is configured with.
    pub(crate) fn prepare(&self, kind: Kind, setup: &Setup) -> Result<Launch> {
        let program = self.programs.path(kind).map_err(anyhow::Error::msg)?;
        let ports = Ports { plain: free_port()?, tls: free_port()?, other: free_port()? };
        let first = setup.upstreams.first().context("no backend")?;
        let write = |name: &str, text: String| -> Result<String> {
            let file = self.scratch.join(name);
            fs::write(&file, text)?;
            Ok(file.display().to_string())
        };
        let mut path = first.path.clone();
        let arguments = match kind {
            Kind::Direct => bail!("nothing to start"),
            Kind::Nginx => {
                let folder = format!("{}/", self.scratch.display());
                let file = write("nginx.conf", nginx(ports, first, setup, &self.certificate, &folder))?;
                vec!["-p".to_owned(), folder, "-c".to_owned(), file]
            }
            Kind::Bare => bare(ports, first, &self.certificate),
            Kind::Envoy => {
                let file = write("envoy.yaml", envoy(ports, setup, &self.certificate))?;
                path = "/mcp".to_owned();
                ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
                    .map(str::to_owned)
                    .to_vec()
            }
            Kind::McpProxy => {
                path = "/".to_owned();
                vec!["--config".to_owned(), write("mcp-proxy.toml", mcp_proxy(ports, setup))?]
            }
            Kind::Toolgate => {
                path = "/mcp".to_owned();
                let text = toolgate(ports, setup, &self.certificate);
                vec!["run".to_owned(), "--config".to_owned(), write(&format!("toolgate-{}.yaml", ports.plain), text)?]
            }
        };
        Ok(Launch { program, arguments, ports, path })
    }

    pub(crate) fn target(&self, port: u16, path: &str) -> Target {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Target { address, path: path.to_owned(), era: Era::Legacy, tls: None }
    }

    /// So many backends in one process.
    pub(crate) fn backend(&self, ports: usize) -> Result<(Process, Vec<u16>)> {
        let arguments = ["backend".to_owned(), "--ports".to_owned(), ports.to_string()];
        let (process, line) = Process::start_self(&arguments, self.start(Role::Backend, Signal::SIGKILL))?;
        let ports = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().context("no ports")?;
        Ok((process, ports))
    }

    fn log(&self, kind: Kind) -> PathBuf {
        self.scratch.join(format!("{}.log", kind.name().replace(' ', "-")))
    }
}

impl Launch {
    pub(crate) fn target(&self, stage: &Stage) -> Target {
        stage.target(self.ports.plain, &self.path)
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn nginx(ports: Ports, upstream: &Upstream, setup: &Setup, certificate: &Certificate, folder: &str) -> String {
    let Ports { plain, tls, .. } = ports;
    let (crt, key, port) = (certificate.file.display(), certificate.key.display(), upstream.port);
    let files = setup.files.as_ref().map_or(String::new(), |files| {
        let files = files.display();
        format!(
            "location /files/ {{ alias {files}/; types {{ }} default_type application/json; open_file_cache max=16; }}"
        )
    });
    // One worker; the connections to the backend are kept, and nothing waits in a buffer.
    format!(
        "daemon off; worker_processes 1; pid {folder}nginx.pid; error_log stderr error; worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 64m; client_body_buffer_size 2m;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  client_body_temp_path {folder}body; proxy_temp_path {folder}proxy; fastcgi_temp_path {folder}fastcgi;
  uwsgi_temp_path {folder}uwsgi; scgi_temp_path {folder}scgi;
  upstream backend {{ server 127.0.0.1:{port}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl http2; http2_max_requests 1000000000;
    ssl_certificate {crt}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    {files}
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off;
      proxy_request_buffering off; proxy_read_timeout 1h; proxy_send_timeout 1h;
    }}
  }}
}}
"
    )
}

fn bare(ports: Ports, upstream: &Upstream, certificate: &Certificate) -> Vec<String> {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let file = |file: &Path| file.display().to_string();
    let pairs = [
        ("--listen", address(ports.plain)),
        ("--upstream", address(upstream.port)),
        ("--tls", address(ports.tls)),
        ("--certificate", file(&certificate.file)),
        ("--key", file(&certificate.key)),
    ];
    let pairs = pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    std::iter::once("bare".to_owned()).chain(pairs).collect()
}

fn envoy(ports: Ports, setup: &Setup, certificate: &Certificate) -> String {
    let (crt, key) = (certificate.file.display(), certificate.key.display());
    let mut servers = String::new();
    let mut clusters = String::new();
    for (n, Upstream { port, path }) in setup.upstreams.iter().enumerate() {
        servers
            .push_str(&format!("{{name: b{n}, mcp_cluster: {{cluster: b{n}, path: \"{path}\", timeout: 3600s}}}}, "));
        clusters.push_str(&format!(
            "  - {{name: b{n}, type: STATIC, connect_timeout: 5s, circuit_breakers: {{thresholds: [{{max_connections: 100000, \
             max_requests: 100000, max_pending_requests: 100000}}]}}, load_assignment: {{cluster_name: b{n}, endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}\n"
        ));
    }
    let listener = |name: &str, port: u16, tls: &str| {
        // No larger body may be configured for the `mcp` filter.
        format!(
            "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    per_connection_buffer_limit_bytes: 67108864
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: load
          stream_idle_timeout: 0s
          route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: b0, timeout: 0s}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.mcp
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.mcp.v3.Mcp
              max_request_body_size: 10485760
          - name: envoy.filters.http.mcp_router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.mcp_router.v3.McpRouter
              servers: [{servers}]
{tls}"
        )
    };
    let tls = format!(
        "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{{certificate_chain: {{filename: {crt}}}, private_key: {{filename: {key}}}}}]
"
    );
    let (plain, tls) = (listener("plain", ports.plain, ""), listener("tls", ports.tls, &tls));
    format!("static_resources:\n  listeners:\n{plain}{tls}  clusters:\n{clusters}")
}

fn mcp_proxy(ports: Ports, setup: &Setup) -> String {
    let mut text = format!(
        "[proxy]\nname = \"load\"\nseparator = \"__\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {}\n",
        ports.plain
    );
    for (n, Upstream { port, path }) in setup.upstreams.iter().enumerate() {
        text.push_str(&format!(
            "[[backends]]\nname = \"b{n}\"\ntransport = \"http\"\nurl = \"http://127.0.0.1:{port}{path}\"\n"
        ));
    }
    text
}

fn toolgate(ports: Ports, setup: &Setup, certificate: &Certificate) -> String {
    let Ports { plain, tls, other } = ports;
    let (crt, key, log) = (certificate.file.display(), certificate.key.display(), setup.log.unwrap_or("warn"));
    let more = &setup.toolgate;
    let mut text = format!(
        "listeners:
  - {{ address: \"127.0.0.1:{plain}\", max_connections: 60000, max_body: 64MiB }}
  - {{ address: \"127.0.0.1:{tls}\", max_body: 64MiB, tls: {{ certificates: [{{ cert: \"{crt}\", key: \"{key}\" }}] }} }}
admin: {{ address: \"127.0.0.1:{other}\" }}
log: {{ level: {log}, format: json }}
drain: {{ delay: 0s, timeout: 0s }}
sessions: {{ max: 1000000 }}
threads: 1
{more}
backends:
"
    );
    for (n, Upstream { port, path }) in setup.upstreams.iter().enumerate() {
        text.push_str(&format!("  - {{ name: b{n}, url: \"http://127.0.0.1:{port}{path}\", max_inflight: 100000 }}\n"));
    }
    text
}
