//! The handshake of a WebSocket: what is accepted, what is refused and how, and how long it may take.

use meepo_tests::http::{get, request};
use meepo_tests::{DEADLINE, Host, Incoming, Node, Ws, in_time, processes, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "sec-websocket-version: 13\r\n";

/// The head of the answer to an upgrade request with these headers.
async fn answer(host: &Host, headers: &str) -> String {
    let address = host.ws();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("the connection stands");
    let mut head = Vec::new();
    in_time("an answer", async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8_lossy(&head).into_owned()
}

#[tokio::test]
async fn all_spellings_of_an_upgrade_are_understood() {
    let node = Node::test().start().await;
    for headers in [
        format!("connection: keep-alive, UPGRADE\r\nupgrade: WebSocket\r\n{VERSION}{KEY}"),
        format!("CONNECTION:Upgrade\r\nUpGrAdE:   websocket   \r\n{VERSION}{KEY}"),
        "Connection:   upgrade  \r\nUPGRADE: WEBSOCKET\r\nSEC-WebSocket-Version:  13 \r\n\
         Sec-WebSocket-KEY:   dGhlIHNhbXBsZSBub25jZQ==   \r\n"
            .into(),
    ] {
        let head = answer(node.host(), &headers).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{headers}: {head}");
        let accept = head.to_ascii_lowercase();
        assert!(
            accept.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
            "{head}"
        );
    }
}

#[tokio::test]
async fn what_is_no_upgrade_gets_an_http_error() {
    let node = Node::test().start().await;
    for (headers, statuses) in [
        (
            format!("connection: upgrade\r\nupgrade: websocket\r\n{KEY}"),
            &[400, 426][..],
        ),
        (
            format!("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\n{KEY}"),
            &[426],
        ),
        (
            format!("connection: upgrade\r\nupgrade: websocket\r\n{VERSION}"),
            &[400],
        ),
        (format!("connection: upgrade\r\n{VERSION}{KEY}"), &[426, 400]),
        (
            format!("connection: upgrade\r\nupgrade: h2c\r\n{VERSION}{KEY}"),
            &[426, 400],
        ),
    ] {
        let head = answer(node.host(), &headers).await;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        assert!(statuses.contains(&status), "{headers}: {head:?}");
    }
    assert!(node.events().of("connect").is_empty());
}

#[tokio::test]
async fn a_worker_may_reject_with_any_error_status() {
    let node = Node::test().start().await;
    for status in [400, 401, 403, 404, 429, 503] {
        let refused = Ws::try_connect(node.host().ws(), &format!("/?reject={status}")).await;
        assert_eq!(refused.err(), Some(status));
    }
    let panicked = Ws::try_connect(node.host().ws(), "/?panic").await;
    assert!(
        panicked.is_err_and(|status| status >= 500),
        "a handler that panics lets nobody in"
    );
    let mut fine = Ws::connect_to(node.host().ws(), "/ws?a=b%20c").await;
    assert_eq!(fine.ask("x").await, "x");
    let connect = node.events().of("connect").pop().expect("an event");
    assert_eq!((connect.path.as_str(), connect.query.as_str()), ("/ws", "a=b%20c"));
    assert_eq!(connect.protocol, "ws");
    assert!(connect.peer.starts_with("127.0.0.1:"), "{}", connect.peer);
    assert!(
        node.events().of("close").is_empty(),
        "who was rejected has no close event"
    );
}

#[tokio::test]
async fn files_are_served_beside_the_websocket() {
    let mut node = Node::test()
        .set_listen("ws", "static_dir = \"site\"\npaths = [\"/ws\"]")
        .prepare();
    let site = node.folder().join("site");
    std::fs::create_dir_all(site.join("sub")).expect("the folder is writable");
    std::fs::write(site.join("index.html"), "<p>hello").expect("the folder is writable");
    std::fs::write(site.join("sub/code.js"), "1").expect("the folder is writable");
    std::fs::write(node.folder().join("secret"), "secret").expect("the folder is writable");
    node.start().await;
    let address = node.host().ws();

    let page = get(address, "/").await;
    assert_eq!((page.status, page.body.as_str()), (200, "<p>hello"));
    assert!(
        page.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/html"))
    );
    let code = get(address, "/sub/code.js").await;
    assert_eq!(code.status, 200);
    assert!(
        code.header("content-type")
            .is_some_and(|kind| kind.contains("javascript"))
    );
    assert_eq!(get(address, "/nothing").await.status, 404);
    assert_eq!(get(address, "/ws").await.status, 426);
    for path in ["/../secret", "/%2e%2e/secret", "/sub/../../secret", "//etc/passwd"] {
        let answer = get(address, path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    let post =
        format!("POST /index.html HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let post = request(address, &post).await.expect("an answer");
    assert!(matches!(post.status, 404 | 405), "{post:?}");
    let mut client = Ws::connect_to(address, "/ws").await;
    assert_eq!(client.ask("x").await, "x");
    assert_eq!(Ws::try_connect(address, "/other").await.err(), Some(404));
}

#[tokio::test]
async fn endless_headers_are_cut_off_and_disturb_nobody() {
    let node = Node::test().start().await;
    let address = node.host().ws();
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(Ws::connect(address).await);
    }
    let pids = node.pids("gateway").await;
    let used = || pids.iter().map(|pid| processes::memory(*pid)).sum::<u64>();
    let before = used();

    let mut big = TcpStream::connect(address).await.expect("a connection");
    let _ = big.write_all(b"GET / HTTP/1.1\r\nx-big: ").await;
    let chunk = vec![b'x'; 1 << 20];
    in_time("the end of the endless header", async {
        while big.write_all(&chunk).await.is_ok() {}
    })
    .await;
    let mut rest = Vec::new();

    let mut many = TcpStream::connect(address).await.expect("a connection");
    let _ = many.write_all(b"GET / HTTP/1.1\r\n").await;
    for number in 0..5000 {
        if many.write_all(format!("x-{number}: y\r\n").as_bytes()).await.is_err() {
            break;
        }
    }
    let _ = in_time("the end", many.read_to_end(&mut rest)).await;

    for client in &mut clients {
        assert_eq!(client.ask("hello").await, "hello");
    }
    assert!(
        used() < before + (16 << 20),
        "memory follows the header: {before} to {}",
        used()
    );
    assert_eq!(node.events().of("connect").len(), 10);
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_is_dropped() {
    let node = Node::test().set("gateway", "handshake_timeout = \"5s\"").start().await;
    let address = node.host().ws();
    let mut idlers = Vec::new();
    for number in 0..400 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // Half of them send a byte now and then.
        if number % 2 == 0 {
            stream.write_all(b"G").await.expect("the connection stands");
        }
        idlers.push(stream);
    }
    // Others are served meanwhile.
    for _ in 0..10 {
        let mut client = Ws::connect(address).await;
        assert_eq!(client.ask("hello").await, "hello");
        assert_eq!(client.close(1000, "").await.map(|(code, _)| code), Some(1000));
    }

    wait_until("the idlers are dropped", DEADLINE, async || {
        for stream in idlers.iter_mut().step_by(2) {
            let _ = stream.try_write(b"E");
        }
        idlers.retain(|stream| !ended(stream));
        idlers.is_empty()
    })
    .await;
    node.status_when("no connection is left", |status| {
        status.instance("gateway").sum(|child| child.connections) == 0
    })
    .await;
    assert_eq!(node.events().of("connect").len(), 10);
}

/// Whether the other side has ended the connection.
fn ended(stream: &TcpStream) -> bool {
    let mut buffer = [0; 256];
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test]
async fn without_a_worker_a_client_gets_503() {
    let node = Node::test()
        .set("gateway", "connect_timeout = \"1s\"")
        .only("gateway")
        .start()
        .await;
    assert_eq!(Ws::try_connect(node.host().ws(), "/").await.err(), Some(503));
    let mut line = meepo_tests::Line::connect(node.host().line()).await;
    line.rest().await;
}

#[tokio::test]
async fn pings_are_answered_and_binary_stays_binary() {
    let node = Node::test().start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    client.ping(b"are you there").await;
    assert_eq!(client.next().await, Incoming::Pong(b"are you there".to_vec()));
    client.send_binary(vec![0, 159, 146, 150]).await;
    assert_eq!(client.next().await, Incoming::Binary(vec![0, 159, 146, 150]));
    assert_eq!(client.ask("").await, "");
}
