//! Connections between nodes of one host, past its network: over abstract Unix sockets that bear the nodes' ids.
//!
//! Such a name is seen in one network namespace, and by nobody on other hosts: who does not find it there takes TCP.

use std::io;

use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

/// Listens for nodes of this host.
pub fn listen(node: u64) -> io::Result<UnixListener> {
    UnixListener::bind(name(node))
}

/// Connects to a node, if it is one of this host and runs as the same user, or as root: no other is shown the secret.
/// It waits for nobody: a listener whose queue is full counts as none.
pub async fn connect(node: u64) -> Option<UnixStream> {
    let stream = UnixStream::connect(name(node)).await.ok()?;
    let owner = stream.peer_cred().ok()?.uid();
    (owner == 0 || owner == Uid::effective().as_raw()).then_some(stream)
}

/// A leading zero makes it abstract.
fn name(node: u64) -> String {
    format!("\0meepo/{node:016x}")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_node_is_reached_by_its_id() {
        let node = fastrand::u64(..);
        assert!(connect(node).await.is_none());
        let listener = listen(node).expect("the name is free");
        let mut ours = connect(node).await.expect("it listens");
        let (mut theirs, _) = listener.accept().await.expect("a connection");
        ours.write_all(b"hello").await.expect("it is read");
        drop(ours);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.expect("text");
        assert_eq!(heard, "hello");
        drop(listener);
        assert!(connect(node).await.is_none());
    }
}
