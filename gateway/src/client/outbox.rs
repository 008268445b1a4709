//! The outbox of a client: frames that wait for its socket, written many at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Frames that wait for a client's socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The first frame is written in part.
    started: bool,
    /// Boxed: few clients are sent messages with a receipt.
    receipts: Option<Box<Receipts>>,
}

/// Receipts of messages, keyed by the offset of each message's last byte.
#[derive(Debug, Default)]
struct Receipts {
    /// Bytes that were written since the first of these receipts was added.
    written: u64,
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Every frame is written.
    All,
    /// The socket is full.
    Blocked,
}

/// Frames that are written with one system call; the kernel takes at most 1,024.
const BATCH: usize = 64;

impl Outbox {
    /// Bytes that wait to be written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether another frame of `len` bytes would exceed the limit. A single frame never does.
    pub(crate) fn would_exceed(&self, limit: usize, len: usize) -> bool {
        self.bytes > 0 && self.bytes + len > limit
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Has a receipt sent when every frame that is here now is written.
    pub(crate) fn add_receipt(&mut self, receipt: oneshot::Sender<()>) {
        let receipts = self.receipts.get_or_insert_default();
        receipts
            .waiting
            .push_back((receipts.written + self.bytes as u64, receipt));
    }

    /// Drops every frame of which no byte is written.
    pub(crate) fn clear_unsent(&mut self) {
        let first = if self.started { self.frames.pop_front() } else { None };
        self.frames = VecDeque::new();
        self.receipts = None;
        self.bytes = 0;
        if let Some(first) = first {
            self.push(first);
        }
    }

    /// Writes the frames that wait and one more, which joins the queue only if the socket does not take all of it.
    pub(crate) fn write(&mut self, frame: Bytes, socket: &TcpStream) -> io::Result<Flushed> {
        let written = match self.frames.is_empty() {
            true => match socket.try_write(&frame) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) if written == frame.len() => return Ok(Flushed::All),
                Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    return Err(error);
                }
                written => written.unwrap_or(0),
            },
            false => 0,
        };
        self.push(frame);
        if written > 0 {
            self.advance(written);
        }
        self.flush(socket)
    }

    /// Writes until every frame is written or the socket is full. It never waits.
    pub(crate) fn flush(&mut self, socket: &TcpStream) -> io::Result<Flushed> {
        while !self.frames.is_empty() {
            let written = if self.frames.len() == 1 {
                socket.try_write(&self.frames[0])
            } else {
                let mut slices = [IoSlice::new(&[]); BATCH];
                let count = self.frames.len().min(BATCH);
                for (slice, frame) in slices.iter_mut().zip(&self.frames) {
                    *slice = IoSlice::new(frame);
                }
                socket.try_write_vectored(&slices[..count])
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An idle client keeps no queue.
        self.frames = VecDeque::new();
        Ok(Flushed::All)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        if let Some(receipts) = &mut self.receipts
            && receipts.advance(written)
        {
            self.receipts = None;
        }
        self.started = false;
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                self.started = self.started || written > 0;
                first.advance(written);
                return;
            }
            written -= first.len();
            self.frames.pop_front();
        }
    }
}

impl Receipts {
    /// Sends the receipts whose bytes are written. True if none is left.
    fn advance(&mut self, written: usize) -> bool {
        self.written += written as u64;
        while self.waiting.front().is_some_and(|(at, _)| *at <= self.written) {
            if let Some((_, receipt)) = self.waiting.pop_front() {
                let _ = receipt.send(());
            }
        }
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_comes_with_the_last_byte() {
        let mut outbox = Outbox::default();
        let (receipts, mut notes): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel()).unzip();
        for receipt in receipts {
            outbox.push(Bytes::from_static(b"hello"));
            outbox.add_receipt(receipt);
        }
        outbox.advance(9);
        assert_eq!(notes[0].try_recv(), Ok(()));
        assert_eq!(notes[1].try_recv(), Err(oneshot::error::TryRecvError::Empty));
        outbox.advance(1);
        assert_eq!(notes[1].try_recv(), Ok(()));
        outbox.clear_unsent();
        assert_eq!(notes[2].try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test]
    async fn frames_that_the_socket_does_not_take_wait_in_their_order() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (socket, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (socket, mut other) = (socket.expect("a connection"), accepted.expect("a connection").0);
        socket.writable().await.expect("a new socket has room");
        let frame = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.write(frame(b'a', 10), &socket).expect("it is open"),
            Flushed::All
        );
        assert_eq!(outbox.bytes(), 0);
        const LARGE: usize = 64 << 20;
        assert_eq!(
            outbox.write(frame(b'b', LARGE), &socket).expect("it is open"),
            Flushed::Blocked
        );
        assert!((1..LARGE).contains(&outbox.bytes()));
        assert_eq!(
            outbox.write(frame(b'c', 10), &socket).expect("it is open"),
            Flushed::Blocked
        );
        // A frame that is written in part is not dropped, one that waits is.
        outbox.clear_unsent();
        let rest = outbox.bytes();
        assert!(rest > 10);
        outbox.push(frame(b'd', 10));
        let reading = async {
            let mut came = vec![0; 10 + LARGE + 10];
            tokio::io::AsyncReadExt::read_exact(&mut other, &mut came)
                .await
                .expect("every byte");
            came
        };
        let writing = async {
            while outbox.flush(&socket).expect("it is open") == Flushed::Blocked {
                socket.writable().await.expect("it is open");
            }
        };
        let (came, ()) = tokio::join!(reading, writing);
        let counts = [b'a', b'b', b'd'].map(|byte| came.iter().filter(|&&other| other == byte).count());
        assert_eq!(counts, [10, LARGE, 10]);
        assert!(came.is_sorted());
    }

    #[test]
    fn a_frame_that_is_partly_sent_survives_clearing() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"hello"));
        outbox.push(Bytes::from_static(b"world"));
        outbox.advance(2);
        outbox.clear_unsent();
        assert_eq!(
            (outbox.bytes(), outbox.frames.front().map(|f| &f[..])),
            (3, Some(&b"llo"[..]))
        );
        outbox.advance(3);
        outbox.push(Bytes::from_static(b"x"));
        outbox.clear_unsent();
        assert_eq!(outbox.bytes(), 0);
    }
}
