//! Peers that do not belong to the cluster: without its secret, or without HTTP/2.

use meepo_node::rpc;
use meepo_proto::SECRET_HEADER;
use meepo_proto::registry::ListRequest;
use meepo_proto::registry::registry_client::RegistryClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::harness::*;

const SECRET: &str = "correct horse";

/// Asks for the list of nodes from a local address, with a secret if one is given. Returns how many nodes there are.
async fn list(server: &Server, from: &str, secret: Option<&str>) -> Result<usize, Status> {
    let endpoint = rpc::endpoint(&server.address.to_string()).unwrap();
    let endpoint = endpoint.local_address(Some(from.parse().unwrap()));
    let mut request = Request::new(ListRequest {});
    if let Some(secret) = secret {
        request.metadata_mut().insert(SECRET_HEADER, secret.parse().unwrap());
    }
    let mut client = RegistryClient::new(endpoint.connect().await.unwrap());
    Ok(client.list(request).await?.into_inner().nodes.len())
}

/// Sends bytes from a local address, and waits until the registry ends the connection.
async fn send(server: &Server, from: &str, bytes: &[u8]) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut socket: TcpStream = socket.connect(server.address).await.unwrap();
    // An error means that the registry has ended the connection before all was sent.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, socket.read_to_end(&mut answer))
        .await
        .expect("still open");
}

#[tokio::test]
async fn strangers_are_refused_and_logged_and_members_do_not_notice() {
    log();
    let server = Server::start(brisk(), SECRET).await;
    let members = membership(&[server.address.to_string()], SECRET);
    let member = Member::announce(&members, worker(1));
    let mut nodes = members.watch(tokio_util::sync::CancellationToken::new());
    wait_for(&mut nodes, &[1]).await;
    nodes.mark_unchanged();

    for (from, shown) in [
        ("127.0.1.1", None),
        ("127.0.1.2", Some("")),
        ("127.0.1.3", Some("wrong hyena")),
        ("127.0.1.4", Some("correct horses")),
    ] {
        let refused = list(&server, from, shown).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        logged(&["WARN", "refused a peer", "secret", from]).await;
    }
    let noise: Vec<u8> = (0..1 << 20)
        .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for (from, bytes) in [
        ("127.0.1.5", &noise[..]),
        ("127.0.1.6", b"GET / HTTP/1.1\r\nhost: registry\r\n\r\n"),
        ("127.0.1.7", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"),
        ("127.0.1.8", b"PRI * "),
    ] {
        send(&server, from, bytes).await;
        logged(&["WARN", "refused a peer", "HTTP/2", from]).await;
    }

    assert_eq!(list(&server, "127.0.0.1", Some(SECRET)).await.unwrap(), 1);
    assert!(!nodes.has_changed().unwrap(), "{:?}", nodes.borrow());
    assert_eq!(server.stats.connections_total.get(), 1, "the member was never away");
    member.leave().await;
    let log = log_text();
    for secret in [SECRET, "wrong hyena"] {
        assert!(!log.contains(secret), "the log has a secret");
    }
}

#[tokio::test]
async fn a_node_with_the_wrong_secret_says_so_and_comes_in_once_it_is_right() {
    log();
    let server = Server::start(patient(), SECRET).await;
    let address = server.address.to_string();
    for secret in ["", "wrong"] {
        let outsiders = membership(std::slice::from_ref(&address), secret);
        let nodes = outsiders.watch(tokio_util::sync::CancellationToken::new());
        let outsider = Member::announce(&outsiders, worker(1));
        logged(&["ERROR", "the registry refused the secret", &address]).await;
        assert!(nodes.borrow().is_empty());
        outsider.leave().await;
    }
    let member = Member::announce(&membership(&[address], SECRET), worker(1));
    timeout(DEADLINE, async {
        while list(&server, "127.0.0.1", Some(SECRET)).await.unwrap() == 0 {}
    })
    .await
    .unwrap();
    member.leave().await;
}

#[tokio::test]
async fn without_a_secret_all_are_let_in() {
    let server = Server::start(patient(), "").await;
    for shown in [None, Some(""), Some("any")] {
        assert_eq!(list(&server, "127.0.0.1", shown).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_registry_that_stays_away_is_logged_once_and_again_when_it_is_back() {
    log();
    let address = Server::start(patient(), "").await.kill();
    let name = address.to_string();
    let members = membership(std::slice::from_ref(&name), "");
    let _nodes = members.watch(tokio_util::sync::CancellationToken::new());
    let member = Member::announce(&members, worker(1));
    logged(&["WARN", "cannot reach the registry", "refused", &name]).await;
    let server = Server::start_at(address, patient(), "").await;
    logged(&["INFO", "the registry is back", &name]).await;
    server.wait_for(&[1]).await;
    member.leave().await;
    let log = log_text();
    for line in ["cannot reach the registry", "the registry is back"] {
        let times = log.lines().filter(|l| l.contains(line) && l.contains(&name)).count();
        assert_eq!(times, 1, "{line}");
    }
}

#[tokio::test]
async fn an_open_door_is_warned_of() {
    log();
    for (address, secret) in [("127.9.9.9:1", ""), ("[::1]:9991", ""), ("192.0.2.98:1", "s")] {
        meepo_node::secret::warn_if_open("registry", address.parse().unwrap(), secret);
    }
    for address in ["192.0.2.99:1", "0.0.0.0:9990", "[::]:9990"] {
        meepo_node::secret::warn_if_open("registry", address.parse().unwrap(), "");
        logged(&["WARN", "set a secret", address]).await;
    }
    for address in ["127.9.9.9:1", "[::1]:9991", "192.0.2.98:1"] {
        assert!(!log_text().contains(address));
    }
}
