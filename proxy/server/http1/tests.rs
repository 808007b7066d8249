use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;

/// A client's end of a connection, and the gateway's.
fn connection() -> (DuplexStream, Http1) {
    let (client, stream) = duplex(1024 * 1024);
    (client, Http1::new(Box::new(stream), IpAddr::from([127, 0, 0, 1])))
}

/// What comes of a request head.
async fn read(head: &[u8]) -> Result<(), Unread> {
    let (mut client, mut http1) = connection();
    client.write_all(head).await.unwrap();
    drop(client);
    http1.next().await
}

#[tokio::test]
async fn what_is_no_request_is_told_from_what_is_none() {
    let long = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(MAX_HEAD));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
    for (head, told) in [
        ("", Unread::Closed),
        ("GET / HTTP/1.1\r\nhost: a\r\n", Unread::Malformed),
        ("GET / HTTP/1.1\r\n\r\n", Unread::Malformed),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", Unread::Malformed),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", Unread::Malformed),
        ("GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", Unread::Malformed),
        ("GET http://a/ HTTP/1.1\r\nhost: b\r\n\r\n", Unread::Malformed),
        ("GET http://u@a/ HTTP/1.1\r\n\r\n", Unread::Malformed),
        ("GET /\u{7f} HTTP/1.1\r\n\r\n", Unread::Malformed),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Unread::Malformed),
        ("GET / HTTP/3.0\r\n\r\n", Unread::Malformed),
        (&long, Unread::TooLarge),
        (&many, Unread::TooMany),
    ] {
        assert_eq!(read(head.as_bytes()).await, Err(told), "{head:.60}");
    }
    assert_eq!(read(b"GET http://a:1/b?c HTTP/1.1\r\nhost: a:1\r\n\r\n").await, Ok(()));
    assert_eq!(read(b"\r\nGET / HTTP/1.1\r\nhost: a\r\nx:\xff\n\n").await, Ok(()));
}

/// The reply to a request with this head, without its date.
async fn replied(head: &str, status: StatusCode, length: Option<usize>, pieces: &[&'static [u8]]) -> String {
    let (mut client, mut http1) = connection();
    client.write_all(head.as_bytes()).await.unwrap();
    http1.next().await.unwrap();
    let header = [(HeaderName::from_static("x"), HeaderValue::from_static("y"))];
    http1.begin(status, [&header, &[]], length);
    let (last, first) = pieces.split_last().unwrap();
    for piece in first {
        http1.send(&[Bytes::from_static(piece)], false).await.unwrap();
    }
    http1.send(&[Bytes::from_static(last), Bytes::new()], true).await.unwrap();
    drop(http1);
    let mut reply = String::new();
    client.read_to_string(&mut reply).await.unwrap();
    reply.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[tokio::test]
async fn replies_end_as_the_client_can_tell() {
    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let reply = replied(GET, StatusCode::OK, Some(4), &[b"a", b"bcd"]).await;
    assert_eq!(reply, "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 4\r\n\r\nabcd");
    let reply = replied(GET, StatusCode::OK, None, &[b"a", b"", b"bcd"]).await;
    assert_eq!(reply, "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n");
    let reply = replied(GET, StatusCode::NO_CONTENT, Some(0), &[b""]).await;
    assert_eq!(reply, "HTTP/1.1 204 No Content\r\nx: y\r\n\r\n");
    let reply = replied("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", StatusCode::OK, Some(4), &[b"abcd"]).await;
    assert_eq!(reply, "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 4\r\n\r\n");
    let reply = replied("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", StatusCode::OK, None, &[b"ab"]).await;
    assert_eq!(reply, "HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\n\r\nab");
    let reply = replied("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", StatusCode::OK, Some(2), &[b"ab"]).await;
    assert_eq!(reply, "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nab");
}

#[tokio::test]
async fn large_replies_are_written_from_where_they_are() {
    static LARGE: [u8; 3 * COPIED] = [b'x'; 3 * COPIED];
    let reply = replied("GET / HTTP/1.1\r\nhost: a\r\n\r\n", StatusCode::OK, None, &[&LARGE, &LARGE]).await;
    let (_, body) = reply.split_once("\r\n\r\n").unwrap();
    let mut read = BytesMut::from(body);
    let mut framing = Framing::Chunks(framing::Chunks::Size);
    let mut whole = Vec::new();
    while let Ok(piece) = framing.take(&mut read)
        && !piece.is_empty()
    {
        whole.extend_from_slice(&piece);
    }
    assert!(framing.is_over() && whole == [LARGE, LARGE].concat());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_on() {
    let (client, stream) = duplex(64);
    let mut http1 = Http1::new(Box::new(stream), IpAddr::from([127, 0, 0, 1]));
    http1.write_timeout = Duration::from_millis(20);
    http1.begin(StatusCode::OK, [&[], &[]], None);

    assert_eq!(http1.send(&[Bytes::from_static(&[0; 1024])], false).await, Err(Gone));
    drop(client);
}

proptest! {
    #[test]
    fn requests_are_the_same_however_they_arrive(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9_000), 1..4),
        chunked in any::<bool>(),
        most in 0_u64..9_000,
        cuts in prop::collection::vec(1_usize..3_000, 1..30),
    ) {
        let mut wire = Vec::new();
        for body in &bodies {
            wire.extend(b"POST /mcp HTTP/1.1\r\nHost: a\r\nX-Name:  some value \r\n");
            if chunked {
                wire.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(777) {
                    wire.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
                }
                wire.extend(b"0\r\n\r\n");
            } else {
                wire.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes().chain(body.iter().copied()));
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut http1) = connection();
            let writing = async {
                let mut rest = &wire[..];
                for cut in cuts.iter().cycle() {
                    let (now, later) = rest.split_at((*cut).min(rest.len()));
                    client.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
            };
            let reading = async {
                for body in &bodies {
                    assert!(http1.begun().await);
                    http1.next().await.unwrap();
                    assert_eq!(http1.request.uri.path(), "/mcp");
                    assert_eq!(http1.request.headers.get(HeaderName::from_static("x-name")).unwrap(), "some value");
                    let (mut whole, mut pieces) = (Vec::new(), 0);
                    while let Some(piece) = http1.body(most).await.unwrap() {
                        whole.extend_from_slice(&piece);
                        pieces += 1;
                    }
                    assert!(whole == *body && http1.is_body_done() && http1.keeps_alive);
                    assert!(chunked || body.len() as u64 > most || pieces <= 1, "{pieces}");
                }
            };
            tokio::join!(writing, reading);
            drop(client);
            assert!(!http1.begun().await);
        });
    }
}
