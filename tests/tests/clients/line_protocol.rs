//! The `line` protocol: messages do not depend on how bytes are cut, and what cannot be a line gets an answer.

use meepo_tests::{Line, Node, Ws};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test]
async fn lines_are_the_same_however_they_are_cut() {
    let node = Node::test().start().await;
    let mut client = Line::connect(node.host().line()).await;
    client.write(b"a\r\nb\n\nc\n").await;
    client.write(b"1\n2\n3\n").await;
    for piece in ["p", "i", "e", "ces", "\r\n"] {
        client.write(piece.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    client.write("ü€\r\r\n".as_bytes()).await;
    // The last line has no end.
    client.write(b"last").await;
    client.finish().await;
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!(close.cause, "eof");
    // An empty line is no message.
    let seen = node.events().messages();
    assert_eq!(seen, ["a", "b", "c", "1", "2", "3", "pieces", "ü€\r", "last"]);
    assert_eq!(node.events().of("connect")[0].protocol, "line");
}

#[tokio::test]
async fn an_endless_line_is_cut_off() {
    let node = Node::test().set("gateway", "max_message = \"64KiB\"").start().await;
    let full = "f".repeat(64 * 1024);
    let mut exact = Line::connect(node.host().line()).await;
    assert_eq!(exact.ask(&full).await, full);
    exact.write(format!("{full}\r\n").as_bytes()).await;
    assert_eq!(exact.text().await, full);

    let mut stream = TcpStream::connect(node.host().line()).await.expect("a connection");
    let _ = stream.write_all(&vec![b'x'; 2 << 20]).await;
    let mut endless = Line::connect(node.host().line()).await;
    endless.write(format!("{full}ff").as_bytes()).await;
    let answer = endless.rest().await;
    assert!(!answer.trim().is_empty(), "the client is told why");
    let closes = node.events().wait_count("close", 2).await;
    assert!(closes.iter().all(|close| close.cause == "too big"), "{closes:?}");
    assert_eq!(node.events().messages().len(), 2);
    assert_eq!(exact.ask("still here").await, "still here");
}

#[tokio::test]
async fn text_that_is_not_utf8_gets_an_answer_and_a_close() {
    let node = Node::test().start().await;
    let mut client = Line::connect(node.host().line()).await;
    client.write(b"good\nbad \xff\xfe\nnever\n").await;
    client.until("UTF-8").await;
    assert_eq!(client.rest().await, "");
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!(close.cause, "invalid text");
    assert_eq!(node.events().messages(), ["good"]);
}

#[tokio::test]
async fn a_worker_closes_with_its_reason() {
    let node = Node::test().start().await;
    let mut client = Line::connect(node.host().line()).await;
    client.send("big-then-close 100000 go away").await;
    assert_eq!(client.text().await.len(), 100_000);
    let rest = client.rest().await;
    assert!(rest.contains("go away"), "{rest:?}");
}

#[tokio::test]
async fn both_protocols_meet_in_a_group() {
    let node = Node::test().start().await;
    let mut line = Line::connect(node.host().line()).await;
    let mut ws = Ws::connect(node.host().ws()).await;
    ws.send("join room").await;
    assert_eq!(ws.ask("hello").await, "hello");
    line.send("join room").await;
    line.send("send-others room from the line").await;
    assert_eq!(ws.text().await, "from the line");
    ws.send("send-others room from the socket").await;
    assert_eq!(line.text().await, "from the socket");
}

#[tokio::test]
async fn who_is_kicked_while_pasting_is_told() {
    let node = Node::test().start().await;
    let mut other = Ws::connect(node.host().ws()).await;
    let mut client = Line::connect(node.host().line()).await;
    let id = client.ask("id").await;
    // 2 MiB without a newline. The first part fits into a message, the rest comes after the kick.
    client.write(&vec![b'x'; 512 << 10]).await;
    other.send(&format!("close-of {id} no pasting")).await;
    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!(close.cause, "kicked");
    for _ in 0..24 {
        let _ = client.try_write(&vec![b'x'; 64 << 10]).await;
    }
    assert_eq!(client.rest().await, "closed: no pasting\n");
}
