//! Accepting clients on the listeners that all children share.

use std::sync::Arc;
use std::time::Duration;

use meepo_node::Acceptor;
use meepo_node::stats::{Siblings, Slot};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::protocol::entrance::Entrance;
use crate::protocol::service::Service;

/// How long a child that holds more clients than its siblings leaves a connection to them.
const LET_OTHERS: Duration = Duration::from_millis(3);
/// A client that does not acknowledge bytes for this time has vanished.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);
/// After this time of silence the kernel asks whether a client is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Accepts until `until` is cancelled; each connection is a task of the tracker.
pub(crate) async fn accept(
    entrance: Arc<Entrance>,
    listener: TcpListener,
    service: Service,
    siblings: Siblings,
    tasks: TaskTracker,
    until: CancellationToken,
) {
    let mut acceptor = Acceptor::new(listener, "clients", entrance.stats);
    loop {
        if holds_more_than_others(entrance.stats, &siblings) {
            tokio::time::sleep(LET_OTHERS).await;
        }
        let (stream, peer) = tokio::select! {
            biased;
            () = until.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        set_up(&stream);
        service.begin(&entrance, stream, peer, &tasks);
    }
}

/// Has messages go out at once, and has the kernel notice a client that vanished, whether it was silent or sent to.
fn set_up(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4);
    // An error here means that the connection has ended already.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Whether this child holds clearly more clients than the one that holds the fewest.
fn holds_more_than_others(own: &Slot, siblings: &Siblings) -> bool {
    let fewest = siblings.iter().map(|slot| slot.connections.get()).min().unwrap_or(0);
    own.connections.get() > fewest + 8 + fewest / 8
}
