//! How a line connection begins: it is a client at once, and is read once a worker has let it in.

use std::net::SocketAddr;
use std::sync::Arc;

use meepo_proto::link::{CloseCause, Handshake};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::client::close::ClientClose;
use crate::client::connection;
use crate::client::handle::Verdict;
use crate::protocol::entrance::Entrance;
use crate::protocol::line::CODEC;
use crate::protocol::line::decoder::LineDecoder;

/// Begins a client on a connection. It is read by a task of its own, once a worker has let it in.
pub(crate) async fn begin(entrance: Arc<Entrance>, stream: TcpStream, peer: SocketAddr, tasks: TaskTracker) {
    let handshake = Handshake {
        peer: peer.to_string(),
        protocol: CODEC.name.into(),
        ..Handshake::default()
    };
    let dispatch = &entrance.dispatch;
    let (client, answer) = dispatch.open(&CODEC, &handshake, Some(stream));
    let Some(socket) = client.socket() else { return };
    let verdict = tokio::select! {
        verdict = timeout(entrance.limits.connect_timeout, answer) => verdict,
        _ = socket.ready(Interest::ERROR) => {
            dispatch.close(&client, ClientClose::broken());
            return;
        }
    };
    match verdict {
        Ok(Ok(Verdict::Accept)) => {}
        Ok(Ok(Verdict::Reject { status: _, reason })) => {
            dispatch.remove_rejected(&client, (CODEC.close)(None, &reason));
        }
        // Closed while it waited.
        Ok(Err(_)) => {}
        Err(_) => {
            let close = ClientClose::with_reason(&CODEC, CloseCause::NoWorker, None, "no worker answered");
            dispatch.close(&client, close);
        }
    }
    let decoder = LineDecoder::new(entrance.limits.max_message);
    tasks.spawn(connection::run(entrance, client, decoder));
}
