//! One client: its socket, its session, and what it has still to be sent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use meepo_proto::link::Handshake;
use parking_lot::Mutex;
use prost::Message as _;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::outbox::{Flushed, Outbox};
use crate::client::waker::Waker;
use crate::config::settings::Protocol;

/// A client of this gateway child. Sent to from any link's loop, read by a task of its own.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its number; with the gateway's id it is the client's id.
    pub number: u64,
    pub protocol: Protocol,
    /// What workers know of it.
    pub profile: Arc<Profile>,
    /// Bytes that may wait for it when it does not read.
    send_buffer: usize,
    /// Wakes the client's own task when `state` changed in a way that concerns it.
    pub wake: Waker,
    /// Absent until a WebSocket handshake is through.
    socket: OnceLock<TcpStream>,
    state: Mutex<State>,
}

/// What workers know of a client. It outlives the client until the last worker has heard of its end.
#[derive(Debug)]
pub(crate) struct Profile {
    /// How it came, encoded: in one piece, for workers have to be told only when one begins to serve it.
    handshake: Box<[u8]>,
    pub session: Mutex<BTreeMap<String, String>>,
    /// A worker does not want it to be read.
    pub paused: AtomicBool,
}

#[derive(Debug)]
struct State {
    outbox: Outbox,
    /// The socket was full: the client's own task goes on writing.
    blocked: bool,
    /// The socket has failed.
    broken: bool,
    /// It is in some flush's list of clients to flush.
    dirty: bool,
    /// It is not read because too much of it waits for a worker.
    held_back: bool,
    /// The send buffer has filled, and has not been empty since.
    full: bool,
    /// What workers were told of that.
    told_full: bool,
    /// It is closed: nothing is added to the outbox any more.
    ending: bool,
    /// It is not seen off.
    cut: bool,
    /// When the socket took something last, or had nothing to take; kept only while something waits.
    progress: Instant,
    verdict: Option<oneshot::Sender<Verdict>>,
}

/// A worker's answer to `opened`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Reject { status: u16, reason: String },
}

thread_local! {
    /// All clients of a thread read into the same bytes, and copy them out at once.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// A client that the socket has taken nothing for in this time does not read.
pub(crate) const STUCK: Duration = Duration::from_secs(1);
/// How many send buffers may wait for a client that reads.
const BURST: usize = 4;

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Queued,
    /// The client is closed already.
    Gone,
    /// Its send buffer is full.
    Full,
}

/// What the client's own task has to look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Condition {
    pub blocked: bool,
    pub broken: bool,
    /// It is not to be read, be it that too much of it waits or that a worker wants it so.
    pub paused: bool,
    pub ending: bool,
    pub cut: bool,
    /// The send buffer has filled or emptied, and workers are to be told.
    pub news: bool,
    /// More waits for it than may: since when it has taken nothing.
    pub choked: Option<Instant>,
}

/// The clients that were sent something since the last flush.
#[derive(Debug, Default)]
pub(crate) struct FlushBatch {
    dirty: Vec<Arc<Client>>,
    /// Nothing more is sent before the flush: whoever is sent something now need not wait for it.
    pub nothing_follows: bool,
    /// Those whose send buffer is full.
    pub slow: Vec<Arc<Client>>,
}

impl Profile {
    fn new(handshake: &Handshake) -> Self {
        Self {
            handshake: handshake.encode_to_vec().into(),
            session: Mutex::default(),
            paused: AtomicBool::new(false),
        }
    }

    /// How it came.
    pub(crate) fn handshake(&self) -> Handshake {
        Handshake::decode(&*self.handshake).expect("it was encoded here")
    }
}

impl Client {
    /// A client that waits for a worker's verdict.
    pub(crate) fn new(
        number: u64,
        protocol: Protocol,
        handshake: &Handshake,
        socket: Option<TcpStream>,
        send_buffer: usize,
    ) -> (Arc<Self>, oneshot::Receiver<Verdict>) {
        let (verdict, answer) = oneshot::channel();
        let client = Self {
            number,
            protocol,
            profile: Arc::new(Profile::new(handshake)),
            send_buffer,
            wake: Waker::default(),
            socket: socket.map_or_else(OnceLock::new, OnceLock::from),
            state: Mutex::new(State {
                outbox: Outbox::default(),
                blocked: false,
                broken: false,
                dirty: false,
                held_back: false,
                full: false,
                told_full: false,
                ending: false,
                cut: false,
                progress: Instant::now(),
                verdict: Some(verdict),
            }),
        };
        (Arc::new(client), answer)
    }

    /// The socket, once there is one.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        self.socket.get()
    }

    /// The handshake is through: what was sent in the meantime can go out.
    pub(crate) fn set_socket(&self, socket: TcpStream) {
        let _ = self.socket.set(socket);
        self.flush();
    }

    /// Passes a worker's verdict on; what it was sent in the meantime can go out. False if there was one already.
    pub(crate) fn decide(&self, verdict: Verdict) -> bool {
        let mut state = self.state.lock();
        let Some(sender) = state.verdict.take() else {
            return false;
        };
        if verdict == Verdict::Accept {
            self.flush_locked(&mut state);
        }
        sender.send(verdict).is_ok()
    }

    /// Whether a worker has yet to let the client in.
    pub(crate) fn is_pending(&self) -> bool {
        self.state.lock().verdict.is_some()
    }

    pub(crate) fn condition(&self) -> Condition {
        let state = self.state.lock();
        let choked = state.blocked && state.outbox.bytes() > self.send_buffer;
        Condition {
            blocked: state.blocked,
            broken: state.broken,
            paused: state.held_back || self.profile.paused.load(Ordering::Relaxed),
            ending: state.ending,
            cut: state.cut,
            news: state.full != state.told_full,
            choked: choked.then_some(state.progress),
        }
    }

    /// Too much of it waits for a worker.
    pub(crate) fn hold_back(&self) {
        self.state.lock().held_back = true;
    }

    /// No more than may waits for a worker.
    pub(crate) fn let_go(&self) {
        self.state.lock().held_back = false;
        self.wake.ring();
    }

    /// A worker wants it not to be read, or to be read again. False if that was so already.
    pub(crate) fn pause(&self, paused: bool) -> bool {
        let changed = self.profile.paused.swap(paused, Ordering::Relaxed) != paused;
        if changed {
            self.wake.ring();
        }
        changed
    }

    /// What workers have to be told of the send buffer, if anything: whether it is full. It counts as told.
    pub(crate) fn take_news(&self) -> Option<bool> {
        let mut state = self.state.lock();
        if state.ending || state.full == state.told_full {
            return None;
        }
        state.told_full = state.full;
        Some(state.full)
    }

    /// Adds an encoded message, which goes out with the flush's flush, or at once if nothing follows in the flush.
    ///
    /// A client that reads may have several times its send buffer waiting, so that no burst makes it slow; one that has
    /// taken nothing for a while may not.
    /// The receipt hears when the client's system has it.
    pub(crate) fn send(
        self: &Arc<Self>,
        frame: Bytes,
        receipt: Option<oneshot::Sender<()>>,
        flush: &mut FlushBatch,
    ) -> Sent {
        let mut state = self.state.lock();
        if state.ending || state.broken {
            return Sent::Gone;
        }
        if state.outbox.bytes() == 0 && !self.is_through(&state) {
            state.progress = Instant::now();
        }
        if self.is_over(&state, frame.len()) && !state.blocked {
            self.flush_locked(&mut state);
        }
        if self.is_over(&state, frame.len()) {
            self.fill(&mut state);
            return Sent::Full;
        }
        if !state.blocked && receipt.is_none() && flush.nothing_follows {
            self.write_locked(&mut state, Some(frame));
            return Sent::Queued;
        }
        state.outbox.push(frame);
        if let Some(receipt) = receipt {
            state.outbox.note(receipt);
        }
        if !state.dirty && !state.blocked {
            state.dirty = true;
            flush.dirty.push(Arc::clone(self));
        }
        self.check_full(&mut state);
        Sent::Queued
    }

    /// The send buffer is full if the socket takes no more and all of the buffer is used.
    fn check_full(&self, state: &mut State) {
        if state.blocked && state.outbox.bytes() >= self.send_buffer {
            self.fill(state);
        }
    }

    /// Its own task tells workers: whoever sends holds locks.
    fn fill(&self, state: &mut State) {
        if !std::mem::replace(&mut state.full, true) {
            self.wake.ring();
        }
    }

    fn is_over(&self, state: &State, len: usize) -> bool {
        // The clock is not read for a client that keeps up.
        if !state.outbox.over(self.send_buffer, len) {
            return false;
        }
        let reads = state.progress.elapsed() < STUCK;
        !reads || state.outbox.over(self.send_buffer.saturating_mul(BURST), len)
    }

    /// Adds bytes of the protocol itself: pongs, close frames, error lines. The caller flushes.
    pub(crate) fn push_raw(&self, bytes: Bytes) {
        let mut state = self.state.lock();
        if !state.ending {
            state.outbox.push(bytes);
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.state.lock().outbox.bytes()
    }

    /// Does not wait for anything once the client ends.
    pub(crate) fn cut(&self) {
        self.state.lock().cut = true;
    }

    /// Ends the client after what it was sent before, or without that. False if it was ended already.
    pub(crate) fn end(&self, last: Option<Bytes>, clear: bool) -> bool {
        let mut state = self.state.lock();
        if state.ending {
            return false;
        }
        state.ending = true;
        state.verdict = None;
        if clear {
            state.outbox.clear_unsent();
        }
        if let Some(last) = last {
            state.outbox.push(last);
        }
        if !state.blocked {
            self.flush_locked(&mut state);
        }
        drop(state);
        self.wake.ring();
        true
    }

    /// Writes as much as the socket takes.
    pub(crate) fn flush(&self) {
        self.flush_locked(&mut self.state.lock());
    }

    /// Whether it can be written to: who is not let in yet hears nothing, but why he is not.
    fn is_through(&self, state: &State) -> bool {
        self.socket.get().is_some() && state.verdict.is_none()
    }

    fn flush_locked(&self, state: &mut State) {
        self.write_locked(state, None);
    }

    /// Writes as much as the socket takes of what waits, and of one more frame.
    fn write_locked(&self, state: &mut State, last: Option<Bytes>) {
        state.dirty = false;
        let Some(socket) = self.socket.get().filter(|_| self.is_through(state)) else {
            if let Some(last) = last {
                state.outbox.push(last);
            }
            return;
        };
        let before = state.outbox.bytes();
        let was_blocked = std::mem::replace(&mut state.blocked, false);
        let flushed = match last {
            Some(last) => state.outbox.write(last, socket),
            None => state.outbox.flush(socket),
        };
        if state.outbox.bytes() > 0 && (!was_blocked || state.outbox.bytes() < before) {
            state.progress = Instant::now();
        }
        match flushed {
            Ok(Flushed::All) => {
                if std::mem::replace(&mut state.full, false) {
                    self.wake.ring();
                }
            }
            Ok(Flushed::Blocked) => {
                state.blocked = true;
                self.check_full(state);
                if !was_blocked {
                    self.wake.ring();
                }
            }
            Err(_) => {
                state.broken = true;
                state.outbox = Outbox::default();
                self.wake.ring();
            }
        }
    }

    /// Reads without waiting, and hands on what was read: how many bytes that were.
    pub(crate) fn try_read(&self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let socket = self.socket.get().ok_or(io::ErrorKind::NotConnected)?;
        READ.with_borrow_mut(|buffer| {
            if self.protocol == Protocol::Line {
                // telnet marks places in its stream with urgent data, at which a read ends.
                let read = socket.try_read(&mut buffer[..4096])?;
                take(&buffer[..read]);
                return Ok(read);
            }
            let mut last = None;
            let read = socket.try_io(Interest::READABLE, || {
                let read = (&*SockRef::from(socket)).read(&mut buffer[..])?;
                // A read that leaves room has taken all: the system is not asked again before there is more.
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
}

impl FlushBatch {
    /// Writes to every client that was sent something.
    pub(crate) fn flush(&mut self) {
        self.nothing_follows = false;
        for client in self.dirty.drain(..) {
            client.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        println!(
            "Client {} State {} Profile {} Outbox {}",
            size_of::<Client>(),
            size_of::<State>(),
            size_of::<Profile>(),
            size_of::<Outbox>()
        );
    }
}
