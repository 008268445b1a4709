//! Accepting clients on the listeners that all children share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meepo_node::Acceptor;
use meepo_node::stats::Siblings;
use meepo_proto::link::{CloseCause, Handshake};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::close::ClientClose;
use crate::client::connection;
use crate::client::handle::Verdict;
use crate::config::settings::Protocol;
use crate::hub::Hub;
use crate::protocol::http::serve::{self, Offer};
use crate::protocol::line::decoder::LineDecoder;

/// What a listener serves.
#[derive(Debug, Clone)]
pub(crate) enum Service {
    Ws(Arc<Offer>),
    Line,
}

/// How long a child with more clients than its siblings leaves a connection to them.
const LET_OTHERS: Duration = Duration::from_millis(3);
/// What was sent is acknowledged in this time, or the client has vanished.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);
/// A client that vanished is found after this time of silence.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Accepts until it is cancelled; each client is a task of the tracker.
pub(crate) async fn accept(
    hub: Arc<Hub>,
    listener: TcpListener,
    service: Service,
    siblings: Siblings,
    tasks: TaskTracker,
    until: CancellationToken,
) {
    let mut acceptor = Acceptor::new(listener, "clients", hub.stats);
    loop {
        if holds_more_than_others(&hub, &siblings) {
            tokio::time::sleep(LET_OTHERS).await;
        }
        let (stream, peer) = tokio::select! {
            biased;
            () = until.cancelled() => return,
            accepted = acceptor.accept() => accepted,
        };
        set_up(&stream);
        match &service {
            Service::Ws(offer) => {
                let (hub, offer, clients) = (Arc::clone(&hub), Arc::clone(offer), tasks.clone());
                tasks.spawn(serve::serve(hub, offer, stream, peer, clients))
            }
            Service::Line => tasks.spawn(line(Arc::clone(&hub), stream, peer, tasks.clone())),
        };
    }
}

/// Messages go out at once, and the kernel notices a client that vanished, be it silent or sent to.
fn set_up(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE / 4);
    // What fails here is a connection that has ended already.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keep_alive);
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED));
}

/// Whether this child holds clearly more clients than the one that holds the fewest.
fn holds_more_than_others(hub: &Hub, siblings: &Siblings) -> bool {
    let fewest = siblings.iter().map(|slot| slot.connections.get()).min().unwrap_or(0);
    hub.stats.connections.get() > fewest + 8 + fewest / 8
}

/// Opens one line client: it is read, by a task of its own, once a worker has let it in.
async fn line(hub: Arc<Hub>, stream: TcpStream, peer: SocketAddr, tasks: TaskTracker) {
    let handshake = Handshake {
        peer: peer.to_string(),
        protocol: Protocol::Line.name().into(),
        ..Handshake::default()
    };
    let (client, answer) = hub.open(Protocol::Line, handshake, Some(stream));
    let Some(socket) = client.socket() else { return };
    let verdict = tokio::select! {
        verdict = tokio::time::timeout(hub.settings.connect_timeout, answer) => verdict,
        _ = socket.ready(tokio::io::Interest::ERROR) => {
            hub.close(&client, ClientClose::by_client(CloseCause::Reset, 0, "connection broke"));
            return;
        }
    };
    match verdict {
        Ok(Ok(Verdict::Accept)) => {}
        Ok(Ok(Verdict::Reject { status: _, reason })) => {
            let last = ClientClose::with_reason(Protocol::Line, CloseCause::Kicked, 0, &reason).last;
            hub.rejected(&client, last);
        }
        Ok(Err(_)) => {}
        Err(_) => {
            hub.close(
                &client,
                ClientClose::with_reason(Protocol::Line, CloseCause::NoWorker, 0, "no worker answered"),
            );
        }
    }
    let max_line = usize::try_from(hub.settings.max_message.as_u64()).unwrap_or(usize::MAX);
    tasks.spawn(connection::run(hub, client, LineDecoder::new(max_line)));
}
