//! Another binary takes the place of this one without a call being lost: a second process gets the listening sockets, and the
//! secret of the sessions where none is configured, and says when it serves; then this one serves what it has and ends.
//!
//! The second process is started by the first, with the same arguments and from the same path, where the other binary is by
//! then. Its standard input is a socket between the two, over which the sockets go, and over which it says that it is ready. A
//! process that does not get that far changes nothing.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cli::CONFIG;
use crate::seal::Secret;

/// Tells a process that it is to take over, and that its standard input is what it takes over by.
const VARIABLE: &str = "TOOLGATE_TAKES_OVER";
/// How long a process waits for backends that its predecessor has listed: programs have to be started anew.
pub(crate) const LISTED_WITHIN: Duration = Duration::from_secs(45);
/// How long a process may take from its start until it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long each side waits for the other to write what is written at once.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Sockets that fit into one message (`SCM_MAX_FD` of Linux).
const MAX_SOCKETS: usize = 253;
/// Backends that the other process may be told to wait for; each has a name of 64 bytes at most.
const MAX_LISTED: usize = 10_000;
/// The longest message.
const MAX_MESSAGE: u64 = 1024 * 1024;
/// What the second process says when it serves.
const READY: &str = "ready\n";

/// Why there is no second process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// It could not be started, or not be told what it needs.
    #[error("{program}: {cause}")]
    Start {
        /// What was to be run.
        program: String,
        /// What the system said.
        cause: io::Error,
    },
    /// It ended before it served; what it wrote is where this process writes.
    #[error("the new process ended before it served: {status}; {}", reason(*status))]
    Ended {
        /// How.
        status: std::process::ExitStatus,
    },
    /// It took too long, and was ended.
    #[error("the new process did not serve within {} s, and was ended", READY_WITHIN.as_secs())]
    TooLong,
    /// There are more sockets than can be handed over.
    #[error("there are {count} listeners; {MAX_SOCKETS} can be handed over at most")]
    TooMany {
        /// So many.
        count: usize,
    },
}

/// What is handed over.
pub(crate) struct Estate {
    /// By the address that the configuration has, which a port of 0 makes another than that of the socket.
    pub(crate) sockets: Vec<(SocketAddr, TcpListener)>,
    /// What sessions are sealed with where no key is configured.
    pub(crate) secret: Secret,
    /// Names of the backends whose tools clients are used to finding.
    pub(crate) listed: Vec<String>,
}

impl Estate {
    /// The socket of an address, once.
    pub(crate) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.sockets.iter().position(|(of, _)| *of == address)?;
        Some(self.sockets.swap_remove(index).1)
    }
}

/// What goes with the sockets, in their order.
#[derive(Deserialize, Serialize)]
struct Letter {
    addresses: Vec<SocketAddr>,
    secret: String,
    /// One that is older says nothing of them.
    #[serde(default)]
    listed: Vec<String>,
}

/// How this process was started, taken when it was: the file may be another by the time it is started again.
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Launch {
    /// Of this process.
    ///
    /// # Errors
    /// When the system does not tell.
    pub(crate) fn of_this() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, arguments: std::env::args_os().skip(1).collect() })
    }

    /// That nothing could be started.
    pub(crate) fn failed(&self, cause: io::Error) -> UpgradeError {
        UpgradeError::Start { program: self.program.display().to_string(), cause }
    }

    /// Starts a process that takes over, and waits until it serves. Returns its id. Dropping the future ends it.
    ///
    /// # Errors
    /// When it does not get that far. It has ended then, and nothing has changed.
    pub(crate) async fn start(&self, estate: Estate) -> Result<u32, UpgradeError> {
        if estate.sockets.len() > MAX_SOCKETS {
            return Err(UpgradeError::TooMany { count: estate.sockets.len() });
        }
        let failed = |cause| self.failed(cause);
        let (own, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env(VARIABLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let id = child.id().unwrap_or_default();
        let served = timeout(READY_WITHIN, spawn_blocking(move || hand_over(own, estate))).await;
        match served {
            Ok(Ok(Ok(()))) => {
                // From here on it lives without this one.
                std::mem::forget(child);
                Ok(id)
            }
            Ok(Ok(Err(cause))) if !is_of_an_end(&cause) => Err(failed(cause)),
            Ok(_) => Err(UpgradeError::Ended { status: child.wait().await.map_err(failed)? }),
            Err(_) => Err(UpgradeError::TooLong),
        }
    }
}

/// What is to be done about a process that ended so.
fn reason(status: std::process::ExitStatus) -> &'static str {
    if status.code() == Some(i32::from(CONFIG)) {
        "the configuration is wrong for it: its `toolgate check` says where"
    } else {
        "why is in its log"
    }
}

/// Whether the other side has ended, before or after it read what it was sent.
fn is_of_an_end(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Sends what is handed over, and waits for the other side to serve.
fn hand_over(mut peer: UnixStream, estate: Estate) -> io::Result<()> {
    let (addresses, sockets): (Vec<_>, Vec<_>) = estate.sockets.into_iter().unzip();
    let mut listed = estate.listed;
    listed.truncate(MAX_LISTED);
    let letter = Letter { addresses, secret: STANDARD.encode(estate.secret), listed };
    let mut text = serde_json::to_vec(&letter)?;
    text.push(b'\n');
    peer.set_write_timeout(Some(AT_ONCE))?;
    peer.set_read_timeout(Some(READY_WITHIN))?;
    let fds: Vec<_> = sockets.iter().map(TcpListener::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("the sockets do not fit into a message"));
    }
    let sent = sendmsg(&peer, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    peer.write_all(text.get(sent..).unwrap_or_default())?;
    let mut said = [0; READY.len()];
    peer.read_exact(&mut said)?;
    if said == READY.as_bytes() { Ok(()) } else { Err(io::Error::other("the new process is no Toolgate")) }
}

/// The process that this one takes over from.
pub(crate) struct Predecessor(UnixStream);

impl Predecessor {
    /// Tells it that this one serves.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(READY.as_bytes())
    }
}

/// What this process was handed by another, if it was started by one.
///
/// # Errors
/// When it was told so and there is no other.
pub(crate) fn taken_over() -> io::Result<Option<(Estate, Predecessor)>> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    let peer = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    receive(&peer).map(|estate| Some((estate, Predecessor(peer)))).map_err(|cause| {
        let what =
            format!("{VARIABLE} is set, which only a gateway sets that is upgraded; nothing was handed over: {cause}");
        io::Error::new(cause.kind(), what)
    })
}

fn receive(peer: &UnixStream) -> io::Result<Estate> {
    peer.set_read_timeout(Some(AT_ONCE))?;
    let mut text = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(peer, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    text.truncate(received.bytes);
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    if !text.ends_with(b"\n") {
        BufReader::new(peer.take(MAX_MESSAGE)).read_until(b'\n', &mut text)?;
    }
    let letter: Letter = serde_json::from_slice(&text)?;
    if letter.addresses.len() != sockets.len() {
        return Err(io::Error::other(format!("{} of {} sockets came", sockets.len(), letter.addresses.len())));
    }
    let secret = STANDARD.decode(letter.secret).ok().and_then(|secret| secret.try_into().ok());
    Ok(Estate {
        sockets: letter.addresses.into_iter().zip(sockets.into_iter().map(TcpListener::from)).collect(),
        secret: secret.ok_or_else(|| io::Error::other("the secret is none"))?,
        listed: letter.listed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Estate = Estate { sockets: Vec::new(), secret: [0; 32], listed: Vec::new() };

    #[test]
    fn sockets_and_secret_arrive_as_they_were() {
        let (own, theirs) = UnixStream::pair().unwrap();
        let sockets: Vec<_> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let real: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let configured = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let sockets = sockets.into_iter().zip(0_u16..).map(|(socket, port)| (configured(port), socket)).collect();
        let names: Vec<_> = (0..=MAX_LISTED).map(|number| format!("{number:064}")).collect();
        let listed = names.clone();
        let handing = std::thread::spawn(move || hand_over(own, Estate { sockets, secret: [7; 32], listed: names }));

        let mut estate = receive(&theirs).unwrap();
        Predecessor(theirs).relieve().unwrap();

        handing.join().unwrap().unwrap();
        assert_eq!(estate.secret, [7; 32]);
        assert_eq!(estate.listed, listed[..MAX_LISTED]);
        for (port, real) in (0..40).zip(real).rev() {
            assert_eq!(estate.take(configured(port)).unwrap().local_addr().unwrap(), real);
        }
        assert!(estate.take(configured(0)).is_none());
    }

    #[test]
    fn one_that_ends_early_is_noticed() {
        let (own, theirs) = UnixStream::pair().unwrap();
        let handing = std::thread::spawn(move || hand_over(own, NOTHING));
        receive(&theirs).unwrap();
        drop(theirs);

        assert_eq!(handing.join().unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
