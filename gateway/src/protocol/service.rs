//! What a listener serves: the client protocol with which its connections begin.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::config::listen::{ListenSettings, Protocol};
use crate::protocol::entrance::Entrance;
use crate::protocol::http::files::Asset;
use crate::protocol::http::offer::Offer;
use crate::protocol::http::serve;
use crate::protocol::line::begin;

/// What a listener serves.
#[derive(Debug, Clone)]
pub(crate) enum Service {
    /// HTTP: files, forwarded requests, and WebSockets.
    Http(Arc<Offer>),
    /// Lines of text.
    Line,
}

impl Service {
    /// What a listener serves that is configured so; `assets` where it has no folder of its own.
    pub(crate) fn new(listen: &ListenSettings, assets: &'static [Asset], base: &Path) -> Self {
        match listen.protocol {
            Protocol::Ws => Self::Http(Arc::new(Offer::new(listen, assets, base))),
            Protocol::Line => Self::Line,
        }
    }

    /// Serves a connection. It and its client are tasks of the tracker.
    pub(crate) fn begin(&self, entrance: &Arc<Entrance>, stream: TcpStream, peer: SocketAddr, tasks: &TaskTracker) {
        let (entrance, clients) = (Arc::clone(entrance), tasks.clone());
        match self {
            Self::Http(offer) => tasks.spawn(serve::serve(entrance, Arc::clone(offer), stream, peer, clients)),
            Self::Line => tasks.spawn(begin::begin(entrance, stream, peer, clients)),
        };
    }
}
