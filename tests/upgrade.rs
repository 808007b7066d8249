//! A binary that takes the place of another, while clients go on.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::support::backend::spoken;
use crate::support::modern_client::ModernClient;
use crate::support::process::{self, Process};
use crate::support::wire::Http2;
use crate::support::{Client, FakeBackend, Mood, Raw, Setup, eventually, eventually_for, within, within_for};

/// What the relieved process may take: it ends its streams over some seconds.
const RELIEVED: Duration = Duration::from_secs(30);

/// The new process waits 45 s for backends that the old one had listed.
const WELL_BEFORE_GIVEN_UP: Duration = Duration::from_secs(30);

/// A process that nobody has started but another: it does not outlive the test either.
struct Successor(String);

impl Successor {
    /// As `toolgate upgrade` tells of it.
    async fn by_command(of: &Process) -> Result<Self, String> {
        let told = process::run(&["upgrade", "--admin", &of.admin.to_string()]).await;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        if !told.status.success() {
            assert_eq!((told.status.code(), &*told.stdout), (Some(1), &b""[..]));
            return Err(text(&told.stderr));
        }
        let answer: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(answer["outcome"], "handed over", "{}", text(&told.stderr));
        Ok(Self(answer["pid"].to_string()))
    }

    /// As the log of the one before tells of it.
    async fn by_log(of: &Process) -> Self {
        let line = of.logged("handed over").await;
        Self(line.rsplit_once("successor=").unwrap().1.trim().to_owned())
    }

    async fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.0);
        within(spawn_blocking(move || std::process::Command::new("sh").arg("-c").arg(command).status()))
            .await
            .unwrap()
            .unwrap();
    }

    fn is_there(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = std::process::Command::new("kill").arg("-KILL").arg(&self.0).status();
    }
}

/// Calls that go on until they are told to stop; each must be answered.
struct Load {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn new() -> Self {
        Self { over: Arc::default(), done: Arc::default(), workers: Vec::new() }
    }

    fn add(&mut self, mut call: impl AsyncFnMut() + 'static, local: &tokio::task::LocalSet) {
        let (over, done) = (Arc::clone(&self.over), Arc::clone(&self.done));
        self.workers.push(local.spawn_local(async move {
            while !over.load(Ordering::Relaxed) {
                call().await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Waits for so many calls from now on.
    async fn more(&self, calls: usize) {
        let wanted = self.done.load(Ordering::Relaxed) + calls;
        eventually(async || self.done.load(Ordering::Relaxed) >= wanted).await;
    }

    async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for worker in self.workers {
            within(worker).await.unwrap();
        }
    }
}

/// A connection that is kept for as long as the gateway lets it be.
struct Kept {
    client: Client,
    raw: Option<Raw>,
    address: std::net::SocketAddr,
}

impl Kept {
    async fn call(&mut self) {
        let raw = match &mut self.raw {
            Some(raw) => raw,
            None => self.raw.insert(Raw::connect(self.address).await),
        };
        let body = self.client.message("tools/call", &json!({ "name": "a__x", "arguments": {} }));
        let session = self.client.session.as_deref().unwrap();
        raw.write(format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
             Mcp-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: {session}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.json()["result"].clone()), (200, spoken("x")));
        if answer.header("connection") == "close" {
            self.raw = None;
        }
    }
}

#[tokio::test]
async fn an_upgrade_loses_no_call_no_stream_and_no_session() {
    let backend = FakeBackend::named("a").tool("x").held("h").streams().start().await;
    // The secret of the sessions is the process's own.
    let mut old = Process::start(&Setup::fronting(&[&backend]).section("drain", "{ delay: 0s, timeout: 1m }")).await;
    let address = old.address;
    let client = old.client().await;
    let (running, held) = client.pending_call("a__h", &backend).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let client = old.client().await;
        streams.push((client.listen().await, client));
    }
    let local = tokio::task::LocalSet::new();
    let mut load = Load::new();
    for _ in 0..3 {
        let client = old.client().await;
        load.add(async move || assert_eq!(client.call("a__x").await.result(), spoken("x")), &local);
        let mut kept = Kept { client: old.client().await, raw: None, address };
        load.add(async move || kept.call().await, &local);
        let modern = ModernClient { http: Client::stranger(address), capabilities: json!({}), log_level: None };
        load.add(
            async move || assert_eq!(modern.call("a__x").await.result()["content"], spoken("x")["content"]),
            &local,
        );
        let client = old.client().await;
        load.add(async move || over_http2(&client, address).await, &local);
    }

    let successor = local
        .run_until(async {
            load.more(100).await;
            let successor = Successor::by_command(&old).await.unwrap();
            load.more(200).await;
            // Who listened is let go in order, and comes back with the same session.
            for (mut stream, client) in streams {
                while within_for(RELIEVED, stream.block()).await.is_some() {}
                assert_eq!(client.listen().await.status, 200);
            }
            // What was under way is answered by the one that began it.
            held.finish();
            assert_eq!(within(running).await.unwrap().result(), spoken("h"));
            assert!(within_for(RELIEVED, old.ended_within(RELIEVED)).await.success());
            load.more(200).await;
            load.stop().await;
            successor
        })
        .await;

    assert!(successor.is_there());
    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    successor.signal("TERM").await;
    eventually_for(RELIEVED, async || !successor.is_there()).await;
}

/// Three calls. Where the gateway says beforehand that it takes no more on a connection (GOAWAY), they go on by another, as any
/// client of HTTP/2 does.
async fn over_http2(client: &Client, address: std::net::SocketAddr) {
    let mut answered = 0;
    for _ in 0..4 {
        let connection = Http2::over(tokio::net::TcpStream::connect(address).await.unwrap()).await;
        while answered < 3 {
            let body = client.message("tools/call", &json!({ "name": "a__x", "arguments": {} }));
            let answer = connection.send_unless_gone(client.request(http::Method::POST, body)).await;
            let Some(answer) = answer else { break };
            assert_eq!(answer.result(), spoken("x"));
            answered += 1;
        }
    }
    assert_eq!(answered, 3);
}

#[tokio::test]
async fn tools_of_a_backend_that_is_slow_to_list_do_not_vanish() {
    let quick = FakeBackend::with_tool("a", "x").await;
    // Longer than the first clients of any process wait.
    let slow = FakeBackend::named("b").tool("y").slow_lists(Duration::from_secs(2)).start().await;
    // Clients are not used to finding anything here, so it is not waited for.
    let stalled = FakeBackend::named("c").mood(Mood::Stalled).start().await;
    let old = Process::start(&Setup::fronting(&[&quick, &slow, &stalled])).await;
    let client = old.client().await;
    eventually(async || client.tools().await == ["a__x", "b__y"]).await;

    let successor = within_for(WELL_BEFORE_GIVEN_UP, Successor::by_command(&old)).await.unwrap();

    assert_eq!(client.tools().await, ["a__x", "b__y"]);
    assert_eq!(client.call("b__y").await.result(), spoken("y"));
    successor.signal("TERM").await;
}

#[tokio::test]
async fn what_does_not_start_changes_nothing() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let old = Process::start(&Setup::fronting(&[&backend])).await;
    let client = old.client().await;
    old.rewrite("listeners: []\n");

    let problem = Successor::by_command(&old).await.err().unwrap();

    assert!(problem.contains("HTTP 500") && problem.contains("exit status: 78"), "{problem}");
    assert!(problem.contains("`toolgate check`"), "{problem}");
    old.logged("not upgraded").await;
    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    assert_eq!(&*old.page(http::Method::GET, "/readyz").await.body, b"ok\n");
}

#[tokio::test]
async fn a_signal_asks_for_an_upgrade_and_the_service_manager_hears_of_it() {
    let backend = FakeBackend::with_tool("a", "x").await;
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let manager = Arc::new(manager);
    let hear = || {
        let manager = Arc::clone(&manager);
        async move {
            let read = move || {
                let mut message = [0; 1024];
                let length = manager.recv(&mut message).unwrap();
                String::from_utf8(message[..length].to_vec()).unwrap()
            };
            spawn_blocking(read).await.unwrap()
        }
    };
    let setup = Setup::fronting(&[&backend]).section("drain", "{ delay: 0s }");
    let mut old = Process::start_with(&setup, "NOTIFY_SOCKET", &folder.path().join("notify")).await;
    assert_eq!(hear().await.trim_end(), format!("MAINPID={}\nREADY=1", old.id()));
    let client = old.client().await;

    old.signal("USR2").await;
    let successor = Successor::by_log(&old).await;

    assert_eq!(hear().await.trim_end(), format!("MAINPID={}\nREADY=1", successor.0));
    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    assert!(old.ended_within(RELIEVED).await.success());
    assert_eq!(client.call("a__x").await.result(), spoken("x"));
    // The first said nothing as it went: the service goes on.
    successor.signal("TERM").await;
    assert_eq!(hear().await.trim_end(), "STOPPING=1");
}

#[tokio::test]
async fn a_demo_is_not_upgraded_and_neither_is_nothing() {
    let nobody = process::run(&["upgrade", "--admin", "127.0.0.1:1"]).await;

    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("127.0.0.1:1/upgrade: Connection refused"));

    let backend = FakeBackend::with_tool("a", "x").await;
    let embedded = Setup::fronting(&[&backend]).start().await;
    let told = process::run(&["upgrade", "--admin", &embedded.admin_address().to_string()]).await;
    assert_eq!(told.status.code(), Some(1));
    assert!(
        String::from_utf8(told.stderr).unwrap().contains("HTTP 409"),
        "an embedded gateway has nothing to start again"
    );
}
