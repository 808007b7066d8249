//! Puts the parts together: binds, starts the loops, accepts connections, stops in order.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use toolgate_config::Config;

use crate::demo;
use crate::gateway::{Gateway, Phase};
use crate::reload::{Outcome, Reloader};
use crate::server::accept::Door;
use crate::server::{Edge, Site};
use crate::tls::{self, Certificates, Resolver, TlsError};

/// Connections the kernel queues for a listener.
const BACKLOG: i32 = 4096;
/// What calls that are cut get to write their last bytes.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// The same where it ends at once: they are told why, and logged as what they are.
const LAST_WORD: Duration = Duration::from_millis(200);

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
            let edge = Edge::new(&self.gateway, bound.site);
            let door = Door::new(edge, bound.tls, &bound.address.to_string(), stopping.clone());
            tokio::spawn(door.accept(TcpListener::from_std(bound.socket)?));
        }
        let admin = admin.unwrap_or(self.gateway.snapshot().config.admin.address);
        Ok(Running { gateway: self.gateway, reloader: self.reloader, shutdown, addresses, admin })
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

/// A gateway that runs. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    gateway: Arc<Gateway>,
    reloader: Arc<Reloader>,
    shutdown: watch::Sender<bool>,
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

    /// Stops in order: not ready, still serving, for `drain.delay`; then no new requests, and calls under way get
    /// `drain.timeout` to end; then they are ended. The operator is served to the end.
    pub async fn stop(self) {
        self.stop_unless(std::future::pending()).await;
    }

    /// The same, unless `hurry` completes: then calls are cut, and nothing else is ended.
    pub(crate) async fn stop_unless(self, hurry: impl Future<Output = ()>) {
        tokio::select! {
            () = self.stop_in_order() => {}
            () = hurry => {
                self.cut();
                let _ = timeout(LAST_WORD, self.gateway.under_way.over()).await;
            }
        }
    }

    async fn stop_in_order(&self) {
        let drain = self.gateway.snapshot().config.drain;
        self.enter(Phase::LameDuck);
        sleep(drain.delay).await;
        self.enter(Phase::Draining);
        self.shutdown.send_replace(true);
        let cut = timeout(drain.timeout, self.gateway.under_way.over()).await.is_err();
        if cut {
            self.cut();
            let _ = timeout(CUT_GRACE, self.gateway.under_way.over()).await;
        }
        self.enter(Phase::Closing);
        self.gateway.close_sessions().await;
        self.gateway.phase.send_replace(Phase::Over);
        tracing::info!(cut, "stopped");
    }

    /// Ends calls, those that wait for input too: nobody could take one up any more.
    fn cut(&self) {
        self.enter(Phase::Cut);
        self.gateway.parked.clear();
    }

    /// A stop goes one way, wherever a second signal finds it.
    fn enter(&self, phase: Phase) {
        tracing::info!(phase = ?phase, "stopping");
        self.gateway.phase.send_modify(|now| *now = phase.max(*now));
    }
}
