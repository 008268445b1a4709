//! One connection to the server.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::rc::Rc;

use mio::net::TcpStream;

use super::nats::{self, Operation};
use super::wire::{MAX_MESSAGE, Protocol, Received, Target};
use crate::error::Failure;

/// The life of a connection, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Connecting,
    Upgrading,
    /// Inside the WebSocket, before the first message.
    Greeting,
    Open,
    Ended,
}

/// A connection that never blocks. The pool calls `advance` when its socket is ready.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    state: State,
    /// The beginning of a frame or line that is not complete yet.
    partial: Vec<u8>,
    /// The same for NATS operations, which frames may cut.
    inner: Vec<u8>,
    outbox: Outbox,
}

/// Bytes that wait for the socket. It grows while the server does not read: at an open loop's rate, for as long as the run.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The connection's number.
    number: usize,
    target: Rc<Target>,
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, payload: &[u8]) {
        self.target.encode(self.number, payload, &mut self.bytes);
    }

    fn command(&mut self, command: &[u8]) {
        self.target.binary(command, &mut self.bytes);
    }

    fn flush(&mut self, stream: &mut TcpStream) -> Result<(), Failure> {
        while self.written < self.bytes.len() {
            match stream.write(&self.bytes[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }
}

impl Connection {
    /// Takes a socket whose connect has begun.
    pub(crate) fn new(number: usize, stream: TcpStream, target: Rc<Target>) -> Self {
        Self {
            stream,
            state: State::Connecting,
            partial: Vec::new(),
            inner: Vec::new(),
            outbox: Outbox {
                number,
                target,
                bytes: Vec::new(),
                written: 0,
            },
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// From now on nothing is read or written.
    pub(crate) fn end(&mut self) {
        self.state = State::Ended;
    }

    /// Frees the spare room of the buffers after a large message.
    pub(crate) fn shrink(&mut self) {
        self.partial.shrink_to_fit();
        self.inner.shrink_to_fit();
        self.outbox.bytes.shrink_to_fit();
    }

    /// Sends a message now, or as soon as the socket takes it.
    pub(crate) fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.outbox.push(payload);
        self.outbox.flush(&mut self.stream)
    }

    /// Reads what has come, and writes what waits. `ending` says that the server has sent its last byte.
    pub(crate) fn advance(
        &mut self,
        scratch: &mut [u8],
        ending: bool,
        mut on: impl FnMut(&[u8], &mut Outbox),
    ) -> Result<(), Failure> {
        if self.state == State::Ended || (self.state == State::Connecting && !self.connected()?) {
            return Ok(());
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Err(Failure::Eof),
                Ok(length) => {
                    self.take(&scratch[..length], &mut on)?;
                    // A read that does not fill the buffer has emptied the socket; what comes later wakes again.
                    if length < scratch.len() && !ending {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.outbox.flush(&mut self.stream)
    }

    fn connected(&mut self) -> Result<bool, Failure> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        match self.stream.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            other => other?,
        };
        self.stream.set_nodelay(true)?;
        self.state = match self.outbox.target.protocol {
            Protocol::Line => State::Open,
            Protocol::Ws | Protocol::Nats | Protocol::Nchan => {
                self.outbox.bytes.extend_from_slice(&self.outbox.target.request);
                self.outbox.flush(&mut self.stream)?;
                State::Upgrading
            }
        };
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8], on: &mut impl FnMut(&[u8], &mut Outbox)) -> Result<(), Failure> {
        if self.partial.is_empty() {
            let used = self.understand(bytes, on)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = mem::take(&mut self.partial);
            input.extend_from_slice(bytes);
            let used = self.understand(&input, on)?;
            input.drain(..used);
            self.partial = input;
        }
        if self.partial.len() > MAX_MESSAGE {
            return Err(Failure::Unsupported("a message above 64 MiB"));
        }
        Ok(())
    }

    /// Takes all complete frames or lines of the input, and returns how many bytes they had.
    fn understand(&mut self, input: &[u8], on: &mut impl FnMut(&[u8], &mut Outbox)) -> Result<usize, Failure> {
        let mut used = 0;
        if self.state == State::Upgrading {
            match self.outbox.target.upgraded(input)? {
                Some(length) => used = length,
                None => return Ok(0),
            }
            self.state = match self.outbox.target.protocol {
                Protocol::Nats => State::Greeting,
                _ => State::Open,
            };
        }
        let nats = self.outbox.target.protocol == Protocol::Nats;
        while let Some((received, length)) = self.outbox.target.decode(&input[used..])? {
            used += length;
            match received {
                Received::Message(payload) if nats => self.nats(payload, on)?,
                Received::Message(payload) => on(payload, &mut self.outbox),
                Received::Ping(payload) => {
                    let target = Rc::clone(&self.outbox.target);
                    target.pong(payload, &mut self.outbox.bytes);
                }
                Received::Pong => {}
                Received::Close(why) => return Err(Failure::Closed(why)),
            }
        }
        Ok(used)
    }

    /// Takes a frame of a NATS server.
    fn nats(&mut self, bytes: &[u8], on: &mut impl FnMut(&[u8], &mut Outbox)) -> Result<(), Failure> {
        let mut input = mem::take(&mut self.inner);
        input.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((operation, length)) = nats::decode(&input[used..])? {
            used += length;
            match operation {
                Operation::Message(payload) => on(payload, &mut self.outbox),
                Operation::Info if self.state == State::Greeting => {
                    self.outbox.command(&nats::greeting(self.outbox.number));
                }
                Operation::Ping => self.outbox.command(nats::PONG),
                Operation::Pong => self.state = State::Open,
                Operation::Info | Operation::Ok => {}
            }
        }
        input.drain(..used);
        self.inner = input;
        Ok(())
    }
}
