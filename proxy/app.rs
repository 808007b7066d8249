//! Puts the parts together: binds, starts the loops, accepts connections, stops in order.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use toolgate_config::Config;

use crate::backend::BuildError;
use crate::demo;
use crate::gateway::{Asked, Gateway, Phase, SPREAD};
use crate::reload::{Outcome, Reloader};
use crate::seal;
use crate::server::accept::Door;
use crate::server::{Edge, Site};
use crate::tls::{self, Certificates, Resolver, TlsError};
use crate::upgrade::{Estate, Launch, UpgradeError};

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
    /// Requests cannot be traced: this build has nothing to do that with, or TLS files do not fit together.
    #[error("traces: {problem}")]
    Traces {
        /// What is wrong, or what is to be done.
        problem: String,
    },
}

/// A gateway whose addresses are bound and whose parts are built; nothing runs yet.
pub struct App {
    gateway: Arc<Gateway>,
    listeners: Vec<Bound>,
    reloader: Arc<Reloader>,
    /// Names of backends that a process before had listed.
    awaited: Vec<String>,
}

/// A bound address.
struct Bound {
    socket: StdListener,
    /// As it stands in the configuration; a port of 0 is one that is free.
    configured: SocketAddr,
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
        Self::succeed(config, Estate { sockets: Vec::new(), secret: seal::secret(), listed: Vec::new() })
    }

    /// The same with what another process hands over.
    pub(crate) fn succeed(config: Config, mut estate: Estate) -> Result<Self, StartError> {
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
            let (socket, address) = estate.bind(listener.address, &format!("{field}.address"))?;
            let configured = listener.address;
            listeners.push(Bound { socket, configured, address, site: Site::Public { listener: index }, tls });
            resolvers.push(resolver);
        }
        let configured = config.admin.address;
        let (socket, address) = estate.bind(configured, "admin.address")?;
        listeners.push(Bound { socket, configured, address, site: Site::Admin, tls: None });
        let gateway = Gateway::succeed(Arc::clone(&config), estate.secret)?;
        let reloader = Arc::new(Reloader::new(&gateway, resolvers));
        gateway.reloader.get_or_init(|| Arc::clone(&reloader));
        Ok(Self { gateway, listeners, reloader, awaited: estate.listed })
    }

    /// Adds a small MCP server of the demo, on a free port of the loopback.
    pub(crate) fn add_demo(&mut self, socket: StdListener, server: demo::Server) -> std::io::Result<()> {
        let address = socket.local_addr()?;
        self.listeners.push(Bound { socket, configured: address, address, site: Site::Demo(server), tls: None });
        Ok(())
    }

    /// Starts serving, on the tokio runtime this is called in.
    ///
    /// # Errors
    /// When a bound address cannot be handed to the runtime.
    pub fn start(self) -> std::io::Result<Running> {
        self.begin();
        self.open()
    }

    /// The same, but nobody is let in before those backends were listed that the process before had listed: whoever comes is
    /// used to finding their tools. The others have a moment.
    ///
    /// # Errors
    /// As [`App::start`].
    pub(crate) async fn start_listed(self) -> std::io::Result<Running> {
        self.begin();
        let snapshot = self.gateway.snapshot();
        snapshot.listed(&self.awaited).await;
        snapshot.settle().await;
        self.open()
    }

    fn begin(&self) {
        self.gateway.start();
        self.reloader.measure();
    }

    fn open(self) -> std::io::Result<Running> {
        let (shutdown, stopping) = watch::channel(false);
        let mut addresses = Vec::new();
        let mut sockets = Vec::new();
        let mut admin = None;
        for bound in self.listeners {
            match bound.site {
                Site::Public { .. } => addresses.push(bound.address),
                Site::Admin => admin = Some(bound.address),
                Site::Demo(_) => {}
            }
            let edge = Edge::new(&self.gateway, bound.site);
            let door = Door::new(edge, bound.tls, &bound.address.to_string(), stopping.clone());
            let socket = Arc::new(TcpListener::from_std(bound.socket)?);
            sockets.push((bound.configured, Arc::clone(&socket)));
            tokio::spawn(door.accept(socket));
        }
        let admin = admin.unwrap_or(self.gateway.snapshot().config.admin.address);
        Ok(Running { gateway: self.gateway, reloader: self.reloader, shutdown, addresses, sockets, admin })
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
    Ok(Gateway::build(Arc::new(config)).map(drop)?)
}

impl From<BuildError> for StartError {
    fn from(problem: BuildError) -> Self {
        match problem {
            BuildError::Traces { problem } => Self::Traces { problem },
            BuildError::Connect { .. } | BuildError::Head { .. } | BuildError::Tls { .. } => {
                Self::Tls { field: "backends".to_owned(), problem: problem.to_string() }
            }
        }
    }
}

impl Estate {
    /// The socket that was handed over for an address, or one of its own.
    fn bind(&mut self, address: SocketAddr, field: &str) -> Result<(StdListener, SocketAddr), StartError> {
        let Some(socket) = self.take(address) else { return bind(address, field) };
        let bound = socket.local_addr();
        match bound {
            Ok(bound) => Ok((socket, bound)),
            Err(cause) => Err(StartError::Bind { field: field.to_owned(), address, cause }),
        }
    }
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
    /// By the address in the configuration; for a process that takes over. None once this one stops.
    sockets: Vec<(SocketAddr, Arc<TcpListener>)>,
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

    /// Has another process take over, started as this one was; its id. Dropping the future ends it.
    ///
    /// # Errors
    /// When it did not get so far that it serves: nothing has changed then.
    pub(crate) async fn upgrade(&self, launch: &Launch) -> Result<u32, UpgradeError> {
        let socket = |(configured, socket): &(SocketAddr, Arc<TcpListener>)| {
            Ok((*configured, StdListener::from(socket.as_fd().try_clone_to_owned()?)))
        };
        let sockets = self.sockets.iter().map(socket).collect::<std::io::Result<_>>();
        let estate = Estate {
            sockets: sockets.map_err(|cause| launch.failed(cause))?,
            secret: self.gateway.sessions.own_secret(),
            listed: self.gateway.snapshot().listed_now(),
        };
        let successor = launch.start(estate).await?;
        self.gateway.handed_over.send_replace(true);
        // What is connected by HTTP/2 is told to begin nothing more here.
        self.shutdown.send_replace(true);
        tracing::info!(successor, "handed over");
        Ok(successor)
    }

    /// The requests for an upgrade that come by the operator's listener.
    pub(crate) fn upgrades(&self) -> mpsc::Receiver<Asked> {
        let (ask, asked) = mpsc::channel(1);
        self.gateway.upgrader.get_or_init(|| ask);
        asked
    }

    /// The same, unless `hurry` completes: then calls are cut, and nothing else is ended.
    pub(crate) async fn stop_unless(mut self, hurry: impl Future<Output = ()>) {
        self.sockets.clear();
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
        // Clients of a process that was relieved leave it as they go on, and its streams end one by one.
        let handed_over = *self.gateway.handed_over.borrow();
        sleep(if handed_over { drain.delay.max(SPREAD) } else { drain.delay }).await;
        self.enter(Phase::Draining);
        self.shutdown.send_replace(true);
        let cut = timeout(drain.timeout, self.gateway.under_way.over()).await.is_err();
        if cut {
            self.cut();
            let _ = timeout(CUT_GRACE, self.gateway.under_way.over()).await;
        }
        self.enter(Phase::Closing);
        let flush = async {
            if let Some(tracer) = &self.gateway.tracer {
                tracer.flush().await;
            }
        };
        tokio::join!(self.gateway.close_sessions(), flush);
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
