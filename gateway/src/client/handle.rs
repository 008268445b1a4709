//! A client as all tasks share it: its socket, its profile, and the frames that it has still to be sent.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use meepo_proto::id::ClientNumber;
use meepo_proto::link::Handshake;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::close::{ClientClose, WaitingFrames};
use crate::client::codec::Codec;
use crate::client::outbox::{Flushed, Outbox};
use crate::client::profile::Profile;
use crate::client::states::{Phase, Reading, SendBuffer, Writing};
use crate::client::waker::Waker;

/// A client of this gateway child. Every link's task sends to it; a task of its own reads it.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its number; with the gateway's id it is the client's id.
    pub(crate) number: ClientNumber,
    /// The protocol that it speaks.
    pub(crate) codec: &'static Codec,
    /// The facts that workers know of it.
    pub(crate) profile: Arc<Profile>,
    /// The send buffer: bytes that may wait for the client when it does not read.
    send_buffer: usize,
    /// Wakes the client's own task when `state` changed in a way that concerns it.
    pub(crate) wake: Waker,
    /// Absent until a WebSocket handshake is complete.
    socket: OnceLock<TcpStream>,
    state: Mutex<ClientState>,
}

#[derive(Debug)]
struct ClientState {
    outbox: Outbox,
    admission: Admission,
    phase: Phase,
    writing: Writing,
    send_buffer: SendBuffer,
    reading: Reading,
    /// When the socket took bytes last, or had none to take; kept only while some wait.
    progress: Instant,
}

/// Whether a worker has decided if the client is let in.
#[derive(Debug)]
enum Admission {
    /// A worker is asked; the task that waits for the verdict listens here.
    Asked(oneshot::Sender<Verdict>),
    /// A worker has answered, or the client was closed.
    Over,
}

/// A worker's answer to the event that a client has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client is let in.
    Accept,
    /// The client is rejected.
    Reject {
        /// The HTTP status, for protocols that begin with HTTP.
        status: u16,
        /// Why, for the client to read.
        reason: String,
    },
}

thread_local! {
    /// All clients of a thread read into the same bytes, and copy them out at once.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// A client whose socket took nothing for this time, while frames wait, does not read.
pub(crate) const STUCK: Duration = Duration::from_secs(1);
/// How many send buffers may wait for a client that reads.
const BURST: usize = 4;
/// How many bytes a read takes that has to respect urgent data.
const MARKED_READ: usize = 4096;

/// The fate of a frame for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is written, or in the outbox.
    Queued,
    /// It is dropped: the client is closed.
    Gone,
    /// It is dropped: the client's send buffer is full.
    Full,
}

/// The condition of a client, for its own task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    /// Whether the client is open, or how its end stands.
    pub(crate) phase: Phase,
    /// The socket is full: the client's own task writes on.
    pub(crate) blocked: bool,
    /// The client is not to be read, be it that it is held back or that a worker has paused it.
    pub(crate) paused: bool,
    /// The send buffer has filled or emptied, and workers are to be told.
    pub(crate) has_news: bool,
    /// More waits for the client than its send buffer: since when its socket has taken nothing.
    pub(crate) choked: Option<Instant>,
}

/// Clients to write to, each once, however many frames it was sent.
#[derive(Debug, Default)]
pub(crate) struct FlushBatch {
    /// Clients whose outbox has frames that wait for the flush.
    clients: Vec<Arc<Client>>,
    /// Clients whose send buffer is full.
    pub(crate) slow: Vec<Arc<Client>>,
    /// Nothing more is sent before the flush: a frame that is sent now need not wait for it.
    pub(crate) is_last: bool,
}

impl Client {
    /// A client that waits for a worker's verdict.
    pub(crate) fn new(
        number: ClientNumber,
        codec: &'static Codec,
        handshake: &Handshake,
        socket: Option<TcpStream>,
        send_buffer: usize,
    ) -> (Arc<Self>, oneshot::Receiver<Verdict>) {
        let (verdict, answer) = oneshot::channel();
        let client = Self {
            number,
            codec,
            profile: Arc::new(Profile::new(handshake)),
            send_buffer,
            wake: Waker::default(),
            socket: socket.map_or_else(OnceLock::new, OnceLock::from),
            state: Mutex::new(ClientState {
                outbox: Outbox::default(),
                admission: Admission::Asked(verdict),
                phase: Phase::Open,
                writing: Writing::Idle,
                send_buffer: SendBuffer::Empty,
                reading: Reading::Free,
                progress: Instant::now(),
            }),
        };
        (Arc::new(client), answer)
    }

    /// The socket, once there is one.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.socket.get()
    }

    /// The handshake is complete: frames that came in the meantime can go out.
    pub(crate) fn set_socket(&self, socket: TcpStream) {
        let _ = self.socket.set(socket);
        self.flush();
    }

    /// Passes a worker's verdict on; once the client is let in, frames that came in the meantime can go out. False if
    /// there was a verdict before, or the client is closed.
    pub(crate) fn decide(&self, verdict: Verdict) -> bool {
        let mut state = self.state.lock();
        let Some(answer) = state.admission.end() else {
            return false;
        };
        if verdict == Verdict::Accept {
            self.flush_locked(&mut state);
        }
        answer.send(verdict).is_ok()
    }

    /// Whether a worker has yet to let the client in.
    pub(crate) fn is_pending(&self) -> bool {
        self.state.lock().admission.is_asked()
    }

    /// Whether the client is closed. Of a closed client only the end is queued for workers.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().phase.is_closed()
    }

    /// The condition of the client, for its own task.
    pub(crate) fn condition(&self) -> Condition {
        let state = self.state.lock();
        let blocked = state.writing.is_blocked();
        let choked = blocked && state.outbox.bytes() > self.send_buffer;
        Condition {
            phase: state.phase,
            blocked,
            paused: state.reading == Reading::HeldBack || self.profile.is_paused(),
            has_news: state.send_buffer.is_untold(),
            choked: choked.then_some(state.progress),
        }
    }

    /// Holds the client back: too much waits for a worker.
    pub(crate) fn hold_back(&self) {
        self.state.lock().reading = Reading::HeldBack;
    }

    /// Lets the client be read again: enough of what waited for a worker has gone.
    pub(crate) fn resume(&self) {
        self.state.lock().reading = Reading::Free;
        self.wake.wake();
    }

    /// A worker pauses or resumes the client. False if it was so before.
    pub(crate) fn set_paused(&self, paused: bool) -> bool {
        let changed = self.profile.set_paused(paused);
        if changed {
            self.wake.wake();
        }
        changed
    }

    /// Whether the send buffer is full, if workers have to be told. They count as told.
    pub(crate) fn tell_send_buffer(&self) -> Option<bool> {
        let mut state = self.state.lock();
        if state.phase.is_closed() {
            return None;
        }
        state.send_buffer.tell()
    }

    /// Adds a frame, which goes out with the batch's flush, or at once if nothing is sent before that.
    ///
    /// A client that reads may have several times its send buffer waiting, so that no burst makes it slow; a client whose
    /// socket has taken nothing for a while may not. The receipt is told when the client's system has the frame.
    pub(crate) fn send(
        self: &Arc<Self>,
        frame: Bytes,
        receipt: Option<oneshot::Sender<()>>,
        batch: &mut FlushBatch,
    ) -> Sent {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Sent::Gone;
        }
        if state.outbox.bytes() == 0 && !self.may_write(&state) {
            state.progress = Instant::now();
        }
        if self.is_over(&state, frame.len()) && !state.writing.is_blocked() {
            self.flush_locked(&mut state);
        }
        if self.is_over(&state, frame.len()) {
            self.fill(&mut state);
            return Sent::Full;
        }
        if !state.writing.is_blocked() && receipt.is_none() && batch.is_last {
            self.write_locked(&mut state, Some(frame));
            return Sent::Queued;
        }
        state.outbox.push(frame);
        if let Some(receipt) = receipt {
            state.outbox.add_receipt(receipt);
        }
        if state.writing.batch() {
            batch.add(self);
        }
        self.check_full(&mut state);
        Sent::Queued
    }

    /// The send buffer is full if the socket takes no more and all of the buffer is used.
    fn check_full(&self, state: &mut ClientState) {
        if state.writing.is_blocked() && state.outbox.bytes() >= self.send_buffer {
            self.fill(state);
        }
    }

    /// The client's own task tells workers: whoever sends to it holds locks.
    fn fill(&self, state: &mut ClientState) {
        if state.send_buffer.fill() {
            self.wake.wake();
        }
    }

    fn is_over(&self, state: &ClientState, len: usize) -> bool {
        // The clock is not read for a client that keeps up.
        if !state.outbox.would_exceed(self.send_buffer, len) {
            return false;
        }
        let reads = state.progress.elapsed() < STUCK;
        !reads || state.outbox.would_exceed(self.send_buffer.saturating_mul(BURST), len)
    }

    /// Adds a frame of the protocol itself: a ping, a pong. The caller flushes.
    pub(crate) fn push_control(&self, frame: Bytes) {
        let mut state = self.state.lock();
        if !state.phase.is_closed() {
            state.outbox.push(frame);
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.state.lock().outbox.bytes()
    }

    /// Closes the client. `None` if it was closed before; otherwise whether it still waited for a verdict.
    pub(crate) fn close(&self, close: &mut ClientClose) -> Option<bool> {
        let mut state = self.state.lock();
        let first = match close.waiting {
            WaitingFrames::Cut => state.phase.cut(),
            WaitingFrames::Sent | WaitingFrames::Dropped => state.phase.close(),
        };
        if !first {
            return None;
        }
        let was_pending = state.admission.end().is_some();
        if close.waiting != WaitingFrames::Sent {
            state.outbox.clear_unsent();
        }
        if let Some(last) = close.last.take() {
            state.outbox.push(last);
        }
        if !state.writing.is_blocked() {
            self.flush_locked(&mut state);
        }
        drop(state);
        self.wake.wake();
        Some(was_pending)
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&self) {
        self.flush_locked(&mut self.state.lock());
    }

    /// Whether the client can be written to: a client that is not let in is written nothing but why.
    fn may_write(&self, state: &ClientState) -> bool {
        self.socket.get().is_some() && !state.admission.is_asked()
    }

    fn flush_locked(&self, state: &mut ClientState) {
        self.write_locked(state, None);
    }

    /// Writes as much as the socket takes of the frames that wait, and of one more.
    fn write_locked(&self, state: &mut ClientState, last: Option<Bytes>) {
        let was_blocked = state.writing.begin();
        let Some(socket) = self.socket.get().filter(|_| self.may_write(state)) else {
            if let Some(last) = last {
                state.outbox.push(last);
            }
            return;
        };
        let before = state.outbox.bytes();
        let flushed = match last {
            Some(last) => state.outbox.write(last, socket),
            None => state.outbox.flush(socket),
        };
        if state.outbox.bytes() > 0 && (!was_blocked || state.outbox.bytes() < before) {
            state.progress = Instant::now();
        }
        match flushed {
            Ok(Flushed::All) => {
                if state.send_buffer.empty() {
                    self.wake.wake();
                }
            }
            Ok(Flushed::Blocked) => {
                state.writing.block();
                self.check_full(state);
                if !was_blocked {
                    self.wake.wake();
                }
            }
            Err(_) => {
                state.phase.fail();
                state.outbox = Outbox::default();
                self.wake.wake();
            }
        }
    }

    /// Reads without waiting, and hands on the bytes: how many there were.
    pub(crate) fn try_read(&self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let socket = self.socket.get().ok_or(io::ErrorKind::NotConnected)?;
        READ.with_borrow_mut(|buffer| {
            let mut last = None;
            let read = socket.try_io(Interest::READABLE, || {
                let read = (&*SockRef::from(socket)).read(&mut buffer[..])?;
                // A read that leaves room has taken everything: the system is not asked again before there is more.
                if (1..buffer.len()).contains(&read) {
                    last = Some(read);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(read)
            });
            let read = last.map_or(read, Ok)?;
            take(&buffer[..read]);
            Ok(read)
        })
    }

    /// As [`Client::try_read`], for protocols whose clients mark places in their stream with urgent data: a read ends at
    /// such a mark, so that one that leaves room does not mean that there is nothing more.
    pub(crate) fn try_read_marked(&self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let socket = self.socket.get().ok_or(io::ErrorKind::NotConnected)?;
        READ.with_borrow_mut(|buffer| {
            let read = socket.try_read(&mut buffer[..MARKED_READ])?;
            take(&buffer[..read]);
            Ok(read)
        })
    }
}

impl Admission {
    fn is_asked(&self) -> bool {
        matches!(self, Self::Asked(_))
    }

    /// There is a verdict, or none is needed any more. Gives who waits for it.
    fn end(&mut self) -> Option<oneshot::Sender<Verdict>> {
        match std::mem::replace(self, Self::Over) {
            Self::Asked(answer) => Some(answer),
            Self::Over => None,
        }
    }
}

impl FlushBatch {
    /// Adds a client whose outbox has a frame that waits.
    pub(crate) fn add(&mut self, client: &Arc<Client>) {
        self.clients.push(Arc::clone(client));
    }

    /// Writes to every client that was sent something.
    pub(crate) fn flush(&mut self) {
        self.is_last = false;
        for client in self.clients.drain(..) {
            client.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_client_takes_no_more_than_it_did() {
        assert_eq!((size_of::<ClientState>(), size_of::<Client>()), (96, 216));
        assert_eq!((size_of::<Profile>(), size_of::<Outbox>()), (56, 56));
    }
}
