//! Strangers at the gateway's inner port: without the cluster's secret nobody gets in, and nobody is disturbed.

use futures_util::stream;
use meepo_node::rpc;
use meepo_proto::SECRET_HEADER;
use meepo_proto::link::link_client::LinkClient;
use meepo_proto::link::{Command, command};
use meepo_tests::{Node, Ws, in_time, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request, Status};

/// Opens a link as a worker does, and gives the refusal.
async fn refusal(address: std::net::SocketAddr, secret: Option<&str>) -> Status {
    let endpoint = rpc::endpoint(&address.to_string()).expect("an address");
    let channel = in_time("a connection", endpoint.connect()).await.expect("a connection");
    let hello = Command {
        body: Some(command::Body::Hello(Box::default())),
    };
    let mut request = Request::new(stream::iter([hello]));
    if let Some(secret) = secret {
        let secret = secret.parse().expect("a header's value");
        request.metadata_mut().insert(SECRET_HEADER, secret);
    }
    let opened = in_time("an answer", LinkClient::new(channel).open(request)).await;
    opened.map(drop).expect_err("a stranger is refused")
}

#[tokio::test]
async fn strangers_at_the_inner_port_are_refused_and_disturb_nobody() {
    let node = Node::test().set("node", "secret = \"hush-hush\"").start().await;
    let inner = node.host().port(19912);
    let mut client = Ws::connect(node.host().ws()).await;
    assert_eq!(client.ask("x").await, "x");
    node.status_when("all links are up", |status| {
        status.instance("worker").sum(|child| child.links) == 4
    })
    .await;

    for secret in [None, Some("not-the-one"), Some(""), Some("hush-hus")] {
        assert_eq!(refusal(inner, secret).await.code(), Code::Unauthenticated, "{secret:?}");
    }
    let mut stream = TcpStream::connect(inner).await.expect("a connection");
    let peer = stream.local_addr().expect("it is connected").to_string();
    let noise: Vec<u8> = (0..1 << 20).map(|_| fastrand::u8(..)).collect();
    in_time("the end of the noise", async {
        let _ = stream.write_all(&noise).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;

    let log = wait_for("each refusal is logged", async || {
        let log = node.output();
        (log.matches("refused a peer").count() >= 5).then_some(log)
    })
    .await;
    assert!(log.contains(&peer), "the peer {peer} is told:\n{log}");
    let refusals = log.lines().filter(|line| line.contains("refused a peer"));
    assert!(refusals.clone().all(|line| line.contains("127.0.0.1:")), "{log}");
    for secret in ["hush-hus", "not-the-one"] {
        assert!(!log.contains(secret), "a secret is logged:\n{log}");
    }

    assert_eq!(client.ask("still here").await, "still here");
    let status = node.status().await;
    assert_eq!(status.instance("worker").sum(|child| child.links), 4);
    assert!(status.instances.iter().all(|instance| instance.restarts == 0));
    assert!(node.events().of("close").is_empty());
}
