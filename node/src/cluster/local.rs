//! Connections between nodes of one host, past its network: over abstract Unix sockets that bear the nodes' ids.
//!
//! Such a name is visible in one network namespace of one host only. A node that does not find another there takes TCP.

use std::io::{self, IoSlice, Write};
use std::mem;
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::unistd::Uid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

use crate::sys;

/// A connection within this host.
///
/// The task waits for room in the socket only while it is full: the system tells of room whenever the other end has read
/// something, which would be one more wake-up for each message.
#[derive(Debug)]
pub struct LocalStream {
    socket: AsyncFd<StdStream>,
    room: RoomWatch,
}

/// The second descriptor of a connection, on which its task waits for room. It is opened at the start: a connection that is
/// full must not break because no descriptor is free.
#[derive(Debug)]
enum RoomWatch {
    Free(StdStream),
    Awaited(AsyncFd<StdStream>),
    /// While it changes from one to the other.
    Between,
}

/// Listens for nodes of this host.
pub fn listen(node: u64) -> io::Result<UnixListener> {
    UnixListener::bind(name(node))
}

/// Connects to a node, if it is on this host and runs as the same user, or as root: no other process is shown the secret.
/// Returns at once: a listener whose queue is full counts as none.
pub async fn connect(node: u64) -> Option<LocalStream> {
    let stream = UnixStream::connect(name(node)).await.ok()?;
    let owner = stream.peer_cred().ok()?.uid();
    let ours = owner == 0 || owner == Uid::effective().as_raw();
    ours.then(|| LocalStream::new(stream)).and_then(Result::ok)
}

/// A leading zero makes it abstract.
fn name(node: u64) -> String {
    format!("\0meepo/{node:016x}")
}

impl LocalStream {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        let room = RoomWatch::Free(stream.try_clone()?);
        let socket = sys::watch(stream, Interest::READABLE)?;
        Ok(Self { socket, room })
    }

    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&StdStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = match &self.room {
                RoomWatch::Awaited(room) => Some(ready!(room.poll_write_ready(cx))?),
                RoomWatch::Free(_) | RoomWatch::Between => None,
            };
            match write(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match &mut ready {
                    Some(ready) => ready.clear_ready(),
                    None => self.room.wait()?,
                },
                written => {
                    self.room.free();
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl RoomWatch {
    fn wait(&mut self) -> io::Result<()> {
        if let Self::Free(socket) = mem::replace(self, Self::Between) {
            *self = Self::Awaited(sys::watch(socket, Interest::WRITABLE)?);
        }
        Ok(())
    }

    fn free(&mut self) {
        if matches!(self, Self::Awaited(_))
            && let Self::Awaited(socket) = mem::replace(self, Self::Between)
        {
            *self = Self::Free(socket.into_inner());
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            match sys::receive(ready.get_inner(), buffer) {
                Ok(read) => {
                    // A read that leaves room has taken all: the system is not asked again before there is more.
                    if read > 0 && buffer.remaining() > 0 {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Both ends of a connection.
    async fn connected() -> (LocalStream, LocalStream) {
        let node = fastrand::u64(..);
        let listener = listen(node).expect("the name is free");
        let ours = connect(node).await.expect("it listens");
        let (theirs, _) = listener.accept().await.expect("a connection");
        (ours, LocalStream::new(theirs).expect("it is open"))
    }

    #[tokio::test]
    async fn a_node_is_reached_by_its_id_as_long_as_it_listens() {
        let node = fastrand::u64(..);
        assert!(connect(node).await.is_none());
        let listener = listen(node).expect("the name is free");
        assert!(connect(node).await.is_some());
        drop(listener);
        assert!(connect(node).await.is_none());
    }

    #[tokio::test]
    async fn much_goes_through_both_ways_at_once_in_order() {
        let (ours, theirs) = connected().await;
        let sent: Arc<[u8]> = (0..8 << 20).map(|at: u32| (at / 7) as u8).collect();
        let copy = |stream: LocalStream| {
            let sent = Arc::clone(&sent);
            async move {
                let (mut from, mut to) = tokio::io::split(stream);
                let write = async {
                    to.write_all(&sent).await.expect("it is read");
                    to.shutdown().await.expect("it is open");
                };
                let mut heard = Vec::new();
                let (_, read) = tokio::join!(write, from.read_to_end(&mut heard));
                read.expect("it is written");
                assert!(heard == *sent);
            }
        };
        tokio::join!(copy(ours), copy(theirs));
    }

    #[tokio::test]
    async fn what_comes_bit_by_bit_is_all_read() {
        let (mut ours, mut theirs) = connected().await;
        let mut buffer = [0; 16];
        for message in ["a", "bc", "def"] {
            ours.write_all(message.as_bytes()).await.expect("it is read");
            let read = theirs.read(&mut buffer).await.expect("it is open");
            assert_eq!(&buffer[..read], message.as_bytes());
        }
        drop(ours);
        assert_eq!(theirs.read(&mut buffer).await.expect("it has ended"), 0);
    }
}
