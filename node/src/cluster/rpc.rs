//! gRPC between nodes: the settings of both ends.
//!
//! Both ends find out by HTTP/2 keep-alive that the other has silently gone, and send small messages at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, stream};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::Sleep;
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::transport::{Channel, Endpoint, Server};

use crate::acceptor::Acceptor;
use crate::cluster::local::LocalStream;
use crate::observe::quota::REFUSALS;
use crate::observe::stats::CommonFigures;

/// How often a quiet connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// How long the answer to a server's probe may take.
const SERVER_ANSWER_TIME: Duration = Duration::from_secs(5);
/// The server may have given up a client that did nothing for this long, and no other: a little less than the server's limit.
pub const UNHEARD: Duration = Duration::from_millis(4500);
const _: () = assert!(UNHEARD.as_millis() < SERVER_ANSWER_TIME.as_millis());
/// How long the answer to a client's probe may take. Longer than the server's limit: the server is to notice a network that is
/// cut by silence, not by a connection that the client has ended, which looks as if the client had died.
const CLIENT_ANSWER_TIME: Duration = Duration::from_secs(10);
/// The largest HTTP/2 frame that is accepted, in bytes: one write of a stream, small messages and one part of a large one, is
/// not cut, and one read of a connection takes no more memory.
const FRAME: u32 = 128 << 10;
/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may take to show that it speaks HTTP/2.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first bytes that a client of HTTP/2 sends.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The client's end: a node at `host:port`. A host name is resolved at each `connect`.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(CLIENT_ANSWER_TIME)
        .keep_alive_while_idle(true))
}

/// The client's end over a connection that is open already, and over no other.
pub fn over(endpoint: &Endpoint, connection: LocalStream) -> Channel {
    let mut connection = Some(connection);
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let connection = connection.take().ok_or(io::ErrorKind::NotConnected);
        async { connection.map(TokioIo::new).map_err(io::Error::from) }
    }))
}

/// The server's end, to be served on [`incoming`].
pub fn server() -> Server {
    Server::builder()
        .max_frame_size(FRAME)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(SERVER_ANSWER_TIME))
}

/// Accepts connections for [`server`].
///
/// A shortage of descriptors does not end the stream. Connections that do not begin to speak HTTP/2 in time are ended.
pub fn incoming(
    listener: TcpListener,
    stats: &'static CommonFigures,
) -> impl Stream<Item = io::Result<Inbound>> + Send {
    stream::unfold(Acceptor::new(listener, "nodes", stats), async |mut acceptor| {
        let (socket, peer) = acceptor.accept().await;
        // Only a hint: a connection that has ended already fails when it is read.
        let _ = socket.set_nodelay(true);
        Some((Ok(Inbound::new(Either::Left(socket), Some(peer))), acceptor))
    })
}

/// Accepts connections from within this host, for [`server`].
pub fn incoming_local(
    listener: UnixListener,
    stats: &'static CommonFigures,
) -> impl Stream<Item = io::Result<Inbound>> + Send {
    stream::unfold(Acceptor::new(listener, "nodes", stats), async |mut acceptor| {
        loop {
            let (socket, _) = acceptor.accept().await;
            // There is no descriptor or memory. The peer connects again, over TCP.
            match LocalStream::new(socket) {
                Ok(socket) => return Some((Ok(Inbound::new(Either::Right(socket), None)), acceptor)),
                Err(error) => tracing::warn!(%error, "cannot take a connection of this host"),
            }
        }
    })
}

/// A connection that [`incoming`] or [`incoming_local`] accepted.
#[derive(Debug)]
pub struct Inbound {
    socket: Either<TcpStream, LocalStream>,
    /// None for a connection from within this host.
    peer: Option<SocketAddr>,
    /// There until the whole preface has come.
    preface: Option<Preface>,
}

#[derive(Debug)]
struct Preface {
    seen: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Inbound {
    fn new(socket: Either<TcpStream, LocalStream>, peer: Option<SocketAddr>) -> Self {
        let preface = Preface {
            seen: 0,
            deadline: Box::pin(tokio::time::sleep(PREFACE_TIMEOUT)),
        };
        Self {
            socket,
            peer,
            preface: Some(preface),
        }
    }

    /// Ends the connection of a peer that is no node.
    fn refuse(&self, why: &'static str) -> Poll<io::Result<()>> {
        if let Some(unlogged) = REFUSALS.take() {
            let peer = self
                .peer
                .map_or_else(|| "this host".to_owned(), |peer| peer.to_string());
            tracing::warn!(peer, why, unlogged, "refused a peer");
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)))
    }
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        let Some(preface) = &mut this.preface else {
            return read;
        };
        if read.is_pending() {
            ready!(preface.deadline.as_mut().poll(cx));
            return this.refuse("it did not begin to speak HTTP/2 in time");
        }
        let came = &buf.filled()[before..];
        let expected = &PREFACE[preface.seen..];
        let both = came.len().min(expected.len());
        if came[..both] != expected[..both] {
            return this.refuse("it does not speak HTTP/2");
        }
        preface.seen += both;
        if preface.seen == PREFACE.len() {
            this.preface = None;
        }
        read
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl Connected for Inbound {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.socket {
            Either::Left(socket) => socket.connect_info(),
            Either::Right(_) => TcpConnectInfo {
                local_addr: None,
                remote_addr: None,
            },
        }
    }
}
