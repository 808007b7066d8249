//! Puts the parts together: binds, starts the loops, accepts connections, stops in order.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::Stream;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};
use toolgate_config::Config;

use crate::demo;
use crate::gateway::{Gateway, Phase};
use crate::reload::{Outcome, Reloader};
use crate::server::socket::Socket;
use crate::server::{Edge, Site};
use crate::tls::{self, Certificates, Resolver, TlsError};

/// Connections the kernel queues for a listener.
const BACKLOG: i32 = 4096;
/// Connections to the operator's listener, or to a demo server, at once.
const ADMIN_CONNECTIONS: usize = 256;
/// After an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What calls that are cut get to write their last bytes.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{field}: cannot listen on {address}: {cause}")]
    Bind {
        /// The field it stands in.
        field: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Certificates or keys do not fit together.
    #[error("{field}: {problem}")]
    Tls {
        /// The field they stand in.
        field: String,
        /// What is wrong.
        problem: String,
    },
}

/// A gateway whose addresses are bound and whose parts are built; nothing runs yet.
pub struct App {
    gateway: Arc<Gateway>,
    listeners: Vec<Bound>,
    reloader: Arc<Reloader>,
}

/// A bound address.
struct Bound {
    socket: StdListener,
    address: SocketAddr,
    site: Site,
    tls: Option<ServerConfig>,
}

impl App {
    /// Binds every address of the configuration and builds everything that can fail.
    ///
    /// # Errors
    /// When an address is taken, or certificates and keys do not fit together.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let mut listeners = Vec::new();
        let mut resolvers = Vec::new();
        for (index, listener) in config.listeners.iter().enumerate() {
            let field = format!("listeners[{index}]");
            let in_tls =
                |problem: TlsError| StartError::Tls { field: format!("{field}.tls"), problem: problem.to_string() };
            let resolver = match &listener.tls {
                Some(tls) => Some(Arc::new(Resolver::new(Certificates::new(tls).map_err(in_tls)?))),
                None => None,
            };
            let tls = resolver.clone().map(tls::server_config).transpose().map_err(in_tls)?;
            let (socket, address) = bind(listener.address, &format!("{field}.address"))?;
            listeners.push(Bound { socket, address, site: Site::Public { listener: index }, tls });
            resolvers.push(resolver);
        }
        let (socket, address) = bind(config.admin.address, "admin.address")?;
        listeners.push(Bound { socket, address, site: Site::Admin, tls: None });
        let gateway = Gateway::build(Arc::clone(&config))
            .map_err(|problem| StartError::Tls { field: "backends".to_owned(), problem: problem.to_string() })?;
        let reloader = Arc::new(Reloader::new(&gateway, resolvers));
        gateway.reloader.get_or_init(|| Arc::clone(&reloader));
        Ok(Self { gateway, listeners, reloader })
    }

    /// Adds a small MCP server of the demo, on a free port of the loopback.
    pub(crate) fn add_demo(&mut self, socket: StdListener, server: demo::Server) -> std::io::Result<()> {
        let address = socket.local_addr()?;
        self.listeners.push(Bound { socket, address, site: Site::Demo(server), tls: None });
        Ok(())
    }

    /// Starts serving, on the tokio runtime this is called in.
    ///
    /// # Errors
    /// When a bound address cannot be handed to the runtime.
    pub fn start(self) -> std::io::Result<Running> {
        let (shutdown, stopping) = watch::channel(false);
        // Each connection holds a sender: when the last one is gone, so are the connections.
        let (alive, gone) = mpsc::channel(1);
        let mut addresses = Vec::new();
        let mut admin = None;
        self.gateway.start();
        self.reloader.measure();
        for bound in self.listeners {
            match bound.site {
                Site::Public { .. } => addresses.push(bound.address),
                Site::Admin => admin = Some(bound.address),
                Site::Demo(_) => {}
            }
            let door = Door {
                acceptor: bound.tls.map(|config| Arc::new(Acceptor::from_server_config(Arc::new(config)))),
                edge: Arc::new(Edge::new(&self.gateway, bound.site)),
                gateway: Arc::clone(&self.gateway),
                label: bound.address.to_string().into(),
                open: Arc::default(),
                stopping: stopping.clone(),
                alive: alive.clone(),
            };
            tokio::spawn(door.accept(TcpListener::from_std(bound.socket)?));
        }
        let admin = admin.unwrap_or(self.gateway.snapshot().config.admin.address);
        Ok(Running { gateway: self.gateway, reloader: self.reloader, shutdown, gone, addresses, admin })
    }
}

/// Builds everything that can fail without binding an address, and throws it away.
///
/// # Errors
/// When certificates and keys do not fit together.
pub(crate) fn check(config: Config) -> Result<(), StartError> {
    for (index, listener) in config.listeners.iter().enumerate() {
        let problem = |problem: TlsError| StartError::Tls {
            field: format!("listeners[{index}].tls"),
            problem: problem.to_string(),
        };
        listener.tls.as_ref().map(Certificates::new).transpose().map_err(problem)?;
    }
    Gateway::build(Arc::new(config))
        .map(drop)
        .map_err(|problem| StartError::Tls { field: "backends".to_owned(), problem: problem.to_string() })
}

/// Binds at once or says why not: a taken port is a mistake to be told, not to be waited for.
fn bind(address: SocketAddr, field: &str) -> Result<(StdListener, SocketAddr), StartError> {
    use socket2::{Domain, Protocol, Socket, Type};
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = StdListener::from(socket);
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    };
    bind().map_err(|cause| StartError::Bind { field: field.to_owned(), address, cause })
}

/// Accepts the connections of one address.
struct Door {
    edge: Arc<Edge>,
    acceptor: Option<Arc<Acceptor>>,
    gateway: Arc<Gateway>,
    label: Box<str>,
    open: Arc<Open>,
    stopping: watch::Receiver<bool>,
    alive: mpsc::Sender<()>,
}

/// Counts open connections.
#[derive(Default)]
struct Open {
    count: AtomicUsize,
    closed: Notify,
}

/// One open connection, until dropped.
struct Opened {
    open: Arc<Open>,
    gauge: prometheus::IntGauge,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        self.open.closed.notify_one();
        self.gauge.dec();
    }
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept_one(&listener) => accepted,
                () = self.gateway.until(Phase::Draining) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.serve(Socket::new(stream, peer)),
                Err(cause) => {
                    tracing::warn!(listener = &*self.label, %cause, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The next connection, once there is room for it. Until then it waits in the kernel's queue.
    async fn accept_one(&self, listener: &TcpListener) -> std::io::Result<(tokio::net::TcpStream, SocketAddr)> {
        while self.open.count.load(Ordering::Relaxed) >= self.edge.max_connections().unwrap_or(ADMIN_CONNECTIONS) {
            self.open.closed.notified().await;
        }
        listener.accept().await
    }

    fn serve(&self, socket: Socket) {
        self.open.count.fetch_add(1, Ordering::Relaxed);
        let gauge = self.gateway.metrics.connections.with_label_values(&[&*self.label]);
        gauge.inc();
        let opened = Opened { open: Arc::clone(&self.open), gauge };
        let (edge, acceptor) = (Arc::clone(&self.edge), self.acceptor.clone());
        let (stopping, alive) = (self.stopping.clone(), self.alive.clone());
        tokio::spawn(async move {
            let _held = (opened, alive);
            let stream: Stream = match acceptor {
                None => Box::new(socket),
                Some(acceptor) => match timeout(edge.timeouts().handshake, acceptor.tls_handshake(socket)).await {
                    Ok(Ok(stream)) => Box::new(stream),
                    Ok(Err(cause)) => return tracing::debug!(%cause, "TLS handshake failed"),
                    Err(_) => return tracing::debug!("TLS handshake took too long"),
                },
            };
            edge.connection(stream, &stopping).await;
        });
    }
}

/// A gateway that runs. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    gateway: Arc<Gateway>,
    reloader: Arc<Reloader>,
    shutdown: watch::Sender<bool>,
    gone: mpsc::Receiver<()>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
}

impl Running {
    /// Where clients connect, one address per listener, in the configuration's order; free ports are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the operator connects.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Takes up another configuration: all of it or, when something is wrong with it, nothing.
    pub async fn reload(&self, config: Config) -> Outcome {
        self.reloader.take(config).await
    }

    /// Reads the configuration file again, on a signal or a request, and whenever a file it names changes.
    pub(crate) fn follow(&self, path: std::path::PathBuf) -> Arc<Reloader> {
        self.reloader.follow(path);
        Arc::clone(&self.reloader)
    }

    /// Stops in order: not ready, still serving, for `drain.delay`; then no new connections, and calls under way get
    /// `drain.timeout` to end; then they are ended.
    pub async fn stop(mut self) {
        let drain = self.gateway.snapshot().config.drain;
        self.enter(Phase::LameDuck);
        sleep(drain.delay).await;
        self.enter(Phase::Draining);
        self.shutdown.send_replace(true);
        if timeout(drain.timeout, self.gone.recv()).await.is_err() {
            self.enter(Phase::Cut);
            let _ = timeout(CUT_GRACE, self.gone.recv()).await;
        }
        self.gateway.close_sessions().await;
    }

    fn enter(&self, phase: Phase) {
        tracing::info!(phase = ?phase, "stopping");
        self.gateway.phase.send_replace(phase);
    }
}
