//! WebSocket clients that cut messages into frames, or break the protocol, get what the protocol says and harm no one.

use std::time::Duration;

use meepo_tests::raw::{self, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT};
use meepo_tests::{Node, Raw, Ws, processes};

const LIMIT: usize = 64 * 1024;
/// So many messages of 60,000 bytes that no socket holds them.
const BIG: usize = 200;

async fn node() -> Node {
    let limits = "max_message = \"64KiB\"\nsend_buffer = \"32MiB\"";
    Node::test().set("gateway", limits).start().await
}

#[tokio::test]
async fn a_character_cut_across_frames_arrives_and_a_broken_one_does_not() {
    let node = node().await;
    let mut other = Ws::connect(node.host().ws()).await;
    let mut client = Raw::connect(node.host().ws()).await;
    let euro = "€".as_bytes();
    client.frame(TEXT, &euro[..1]).await;
    client.frame(CONTINUATION, &euro[1..2]).await;
    client.frame(FIN | CONTINUATION, &euro[2..]).await;
    let echo = client.next().await.expect("an echo");
    assert_eq!((echo.head, echo.payload.as_slice()), (FIN | TEXT, euro));

    client.frame(TEXT, &euro[..1]).await;
    client.frame(CONTINUATION, &[0x41]).await;
    // The gateway may refuse the message before its last frame.
    let _ = client.try_write(&raw::frame(FIN | CONTINUATION, &euro[2..])).await;
    assert_eq!(client.closed().await, Some(1007));

    let close = node.events().wait("the close", |event| event.event == "close").await;
    assert_eq!((close.cause.as_str(), close.code), ("invalid text", Some(1007)));
    assert_eq!(other.ask("still here").await, "still here");
    assert_eq!(node.events().messages(), ["€", "still here"]);
    assert_eq!(node.events().of("close").len(), 1);
}

#[tokio::test]
async fn the_size_limit_is_exact_and_ends_with_1009() {
    let node = node().await;
    let address = node.host().ws();
    let mut client = Ws::connect(address).await;
    let full = "f".repeat(LIMIT);
    assert_eq!(client.ask(&full).await, full);

    let mut over = Raw::connect(address).await;
    let _ = over.try_write(&raw::frame(FIN | TEXT, &[b'o'; LIMIT + 1])).await;
    assert_eq!(over.closed().await, Some(1009));

    let mut pieces = Raw::connect(address).await;
    let _ = pieces.try_write(&raw::frame(TEXT, &[b'p'; 8192])).await;
    for _ in 0..8 {
        let _ = pieces.try_write(&raw::frame(CONTINUATION, &[b'p'; 8192])).await;
    }
    let _ = pieces.try_write(&raw::frame(FIN | CONTINUATION, &[b'p'; 8192])).await;
    assert_eq!(pieces.closed().await, Some(1009));

    let before: u64 = node
        .pids("gateway")
        .await
        .iter()
        .map(|pid| processes::memory(*pid))
        .sum();
    let mut huge = Raw::connect(address).await;
    huge.write(&raw::header(FIN | TEXT, 1 << 30)).await;
    assert_eq!(huge.closed().await, Some(1009));
    let after: u64 = node
        .pids("gateway")
        .await
        .iter()
        .map(|pid| processes::memory(*pid))
        .sum();
    assert!(
        after < before + (16 << 20),
        "memory follows the declared length: {before} to {after}"
    );

    let closes = node.events().wait_count("close", 3).await;
    for close in closes {
        assert_eq!((close.cause.as_str(), close.code), ("too big", Some(1009)));
    }
    assert_eq!(node.events().messages(), [full]);
    assert_eq!(client.ask("still here").await, "still here");
}

#[tokio::test]
async fn close_frames_are_answered_or_refused() {
    let node = node().await;
    let with_code = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    let cases: [(Vec<u8>, &[Option<u16>]); 9] = [
        (Vec::new(), &[None, Some(1000)]),
        (vec![3], &[Some(1002)]),
        (with_code(999, b""), &[Some(1002)]),
        (with_code(1005, b""), &[Some(1002)]),
        (with_code(1006, b""), &[Some(1002)]),
        (with_code(1015, b""), &[Some(1002)]),
        (with_code(3000, b""), &[Some(3000)]),
        (with_code(4999, b"bye"), &[Some(4999)]),
        (with_code(1000, b"\xff\xfe"), &[Some(1007), Some(1002)]),
    ];
    for (number, (payload, allowed)) in cases.into_iter().enumerate() {
        let mut client = Raw::connect(node.host().ws()).await;
        client.frame(FIN | CLOSE, &payload).await;
        let answer = client
            .next()
            .await
            .unwrap_or_else(|| panic!("an answer to the close {payload:?}"));
        let code = answer.close_code();
        assert!(allowed.contains(&code), "{payload:?} is answered with {code:?}");
        assert!(
            client.ends(Duration::from_secs(10)).await,
            "the server ends the connection"
        );
        let closes = node.events().wait_count("close", number + 1).await;
        assert_eq!(closes.len(), number + 1, "one close each");
        let close = &closes[number];
        if allowed.contains(&Some(1002)) {
            assert!(
                matches!(close.cause.as_str(), "protocol" | "invalid text"),
                "{payload:?}: {close:?}"
            );
        } else {
            assert_eq!(close.cause, "client", "{payload:?}");
            assert_eq!(close.code, allowed[0], "{payload:?}");
        }
    }
}

#[tokio::test]
async fn control_frames_are_checked_and_pings_answered_at_any_time() {
    let node = node().await;
    let address = node.host().ws();
    let mut long = Raw::connect(address).await;
    long.frame(FIN | PING, &[0; 126]).await;
    assert_eq!(long.closed().await, Some(1002));

    let mut cut = Raw::connect(address).await;
    cut.frame(PING, b"x").await;
    assert_eq!(cut.closed().await, Some(1002));

    // A ping between the fragments of a message, at a time when nothing more can be sent to the client.
    let (mut full, _) = Raw::connect_with(address, "", Some(4096)).await;
    for _ in 0..BIG {
        full.frame(FIN | TEXT, b"big 60000").await;
    }
    full.frame(TEXT, b"first ").await;
    full.frame(FIN | PING, b"between").await;
    full.frame(FIN | CONTINUATION, b"last").await;
    node.events()
        .wait("the whole message", |event| event.text == "first last")
        .await;
    let (mut pong, mut message, mut big) = (false, false, 0);
    while !(pong && message && big == BIG) {
        let frame = full.next().await.expect("the connection stands");
        match (frame.head, frame.payload.as_slice()) {
            (head, b"between") if head == FIN | PONG => pong = true,
            (head, b"first last") if head == FIN | TEXT => message = true,
            (_, payload) => {
                assert_eq!(payload.len(), 60000, "{:?}", String::from_utf8_lossy(payload));
                big += 1;
            }
        }
    }
}

#[tokio::test]
async fn other_breaches_end_with_1002() {
    let node = node().await;
    let address = node.host().ws();
    let breaches: [(&str, Vec<u8>); 6] = [
        ("a reserved bit", raw::frame(FIN | RSV1 | TEXT, b"x")),
        ("a reserved opcode", raw::frame(FIN | 3, b"x")),
        ("no mask", vec![FIN | TEXT, 1, b'x']),
        ("a continuation of nothing", raw::frame(FIN | CONTINUATION, b"x")),
        (
            "a message within a message",
            [raw::frame(TEXT, b"x"), raw::frame(FIN | TEXT, b"y")].concat(),
        ),
        ("a reserved control opcode", raw::frame(FIN | 11, b"x")),
    ];
    let count = breaches.len();
    for (what, bytes) in breaches {
        let mut client = Raw::connect(address).await;
        client.write(&bytes).await;
        assert_eq!(client.closed().await, Some(1002), "{what}");
    }
    let closes = node.events().wait_count("close", count).await;
    assert!(closes.iter().all(|close| close.cause == "protocol"), "{closes:?}");
    assert_eq!(node.events().messages(), [""; 0]);
}

#[tokio::test]
async fn an_offer_to_compress_is_left_out_of_the_answer() {
    let node = node().await;
    let offer = "sec-websocket-extensions: permessage-deflate; client_max_window_bits; server_no_context_takeover\r\n";
    let (mut client, head) = Raw::connect_with(node.host().ws(), offer, None).await;
    assert!(
        !head.to_ascii_lowercase().contains("sec-websocket-extensions"),
        "{head}"
    );
    client.frame(FIN | TEXT, b"plain").await;
    assert_eq!(client.next().await.expect("an echo").payload, b"plain");
}
