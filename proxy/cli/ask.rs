//! Commands that ask a gateway that runs, by its operator's listener: an image need hold nothing to ask with but this binary.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{FAILURE, fail, print};

/// How long connecting may take, and an answer that is there at once.
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long an upgrade may take, and a little more: the gateway gives up on it before.
const UPGRADE: Duration = Duration::from_secs(75);
/// How much of an answer is read; those that are expected are some lines.
const MOST: usize = 16 * 1024;

/// `health`: prints what the gateway whose operator's listener is at `admin` says of itself: whether it takes calls, or only
/// whether it is `alive`. [`super::OK`] if so.
pub fn health(admin: SocketAddr, alive: bool) -> u8 {
    tell(admin, "GET", if alive { "/livez" } else { "/readyz" }, AT_ONCE)
}

/// `upgrade`: has the gateway whose operator's listener is at `admin` start the binary that is now where its own was, and hand
/// over to it. [`super::OK`] once that one serves.
pub fn upgrade(admin: SocketAddr) -> u8 {
    tell(admin, "POST", "/upgrade", UPGRADE)
}

/// Prints the answer; one that is no success goes to standard error.
fn tell(admin: SocketAddr, verb: &str, page: &str, limit: Duration) -> u8 {
    match ask(admin, verb, page, limit) {
        Ok((200, said)) => print(&said),
        Ok((status, said)) => fail(FAILURE, format!("http://{admin}{page}: HTTP {status}: {}", said.trim_end())),
        Err(problem) => fail(FAILURE, format!("http://{admin}{page}: {problem}")),
    }
}

/// Status and body of a page.
fn ask(admin: SocketAddr, verb: &str, page: &str, limit: Duration) -> Result<(u16, String)> {
    let until = Instant::now() + limit;
    let left = || match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Error::from(ErrorKind::TimedOut)),
        left => Ok(Some(left)),
    };
    let mut stream = TcpStream::connect_timeout(&admin, AT_ONCE)?;
    stream.set_write_timeout(left()?)?;
    let request = format!("{verb} {page} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < MOST {
        stream.set_read_timeout(left()?)?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
            // What the system calls it depends on the system, and says nothing of time.
            Err(problem) if problem.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
            Err(problem) => return Err(problem),
        }
    }
    let strange = || Error::other("what answers there is no gateway");
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(strange)?;
    Ok((status, body.to_owned()))
}
