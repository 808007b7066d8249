//! Commands that ask a gateway that runs, by its operator's listener: an image need hold nothing to ask with but this binary.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::str::FromStr;
use std::time::{Duration, Instant};

use http::uri::Authority;
use serde::de::DeserializeOwned;

use super::{FAILURE, fail, print};

/// How long connecting may take, and an answer that is there at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long an upgrade may take, and a little more: the gateway gives up on it before.
const UPGRADE: Duration = Duration::from_secs(75);
/// How long a page may take that tells all that a gateway has.
const PAGE: Duration = Duration::from_secs(10);
/// How much of an answer is read that should be some lines.
const LINES: usize = 16 * 1024;
/// How much of a page is read that tells all that a gateway has.
const ALL: usize = 256 * 1024 * 1024;

/// The operator's listener of a gateway: `127.0.0.1:9464`, or as a URL.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Host and port.
    authority: String,
}

impl FromStr for Operator {
    type Err = &'static str;

    fn from_str(url: &str) -> std::result::Result<Self, Self::Err> {
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let is_one = authority.parse().is_ok_and(|one: Authority| one.port().is_some() && !authority.contains('@'));
        if is_one {
            Ok(Self { authority: authority.to_owned() })
        } else {
            Err("it is no HOST:PORT, nor http://HOST:PORT")
        }
    }
}

impl Operator {
    /// What a page of it says, as JSON; or why that cannot be had, and what to do.
    pub(super) fn page<T: DeserializeOwned>(&self, page: &str) -> std::result::Result<T, String> {
        self.answer(page).map_err(|problem| {
            format!(
                "http://{}{page}: {problem}; `--against` takes the URL of the operator's listener (`admin.address`) of a \
                 gateway that runs",
                self.authority
            )
        })
    }

    fn answer<T: DeserializeOwned>(&self, page: &str) -> std::result::Result<T, String> {
        match self.ask("GET", page, PAGE, ALL).map_err(|problem| problem.to_string())? {
            (200, said) => serde_json::from_str(&said).map_err(|_| NO_GATEWAY.to_owned()),
            (status, _) => Err(format!("HTTP {status}")),
        }
    }

    /// Status and body of a page, from the first of its addresses that can be connected to.
    fn ask(&self, verb: &str, page: &str, limit: Duration, most: usize) -> Result<(u16, String)> {
        let mut connected = Err(Error::other("its name has no address"));
        for address in self.authority.to_socket_addrs()? {
            connected = TcpStream::connect_timeout(&address, AT_ONCE);
            if connected.is_ok() {
                break;
            }
        }
        ask((connected?, &self.authority), verb, page, limit, most)
    }
}

const NO_GATEWAY: &str = "what answers there is no gateway";

/// `health`: prints what the gateway whose operator's listener is at `admin` says of itself: whether it takes calls, or only
/// whether it is `alive`. [`super::OK`] if so.
pub fn health(admin: &Operator, alive: bool) -> u8 {
    tell(admin, "GET", if alive { "/livez" } else { "/readyz" }, AT_ONCE)
}

/// `upgrade`: has the gateway whose operator's listener is at `admin` start the binary that is now where its own was, and hand
/// over to it. [`super::OK`] once that one serves.
pub fn upgrade(admin: &Operator) -> u8 {
    tell(admin, "POST", "/upgrade", UPGRADE)
}

/// Prints the answer; one that is no success goes to standard error.
fn tell(admin: &Operator, verb: &str, page: &str, limit: Duration) -> u8 {
    let url = format!("http://{}{page}", admin.authority);
    match admin.ask(verb, page, limit, LINES) {
        Ok((200, said)) => print(&said),
        Ok((status, said)) => fail(FAILURE, format!("{url}: HTTP {status}: {}", said.trim_end())),
        Err(problem) => fail(
            FAILURE,
            format!(
                "{url}: {problem}; `--admin` takes the address of the operator's listener (`admin.address`) of a gateway that runs"
            ),
        ),
    }
}

/// Status and body of a page, of which no more than about `most` bytes are read.
fn ask(
    (mut stream, authority): (TcpStream, &str),
    verb: &str,
    page: &str,
    limit: Duration,
    most: usize,
) -> Result<(u16, String)> {
    let until = Instant::now() + limit;
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Error::from(ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    stream.set_write_timeout(left()?)?;
    let request =
        format!("{verb} {page} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    while answer.len() < most {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
            // What the system calls it depends on the system, and says nothing of time.
            Err(problem) if problem.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(problem) => return Err(problem),
        }
    }
    let strange = || Error::other(NO_GATEWAY);
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(strange)?;
    Ok((status, body.to_owned()))
}
