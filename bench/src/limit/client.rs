//! One client of the limit server.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// The handshake is done.
    open: bool,
    /// The beginning of a frame that is not complete yet.
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    /// It is on the list of clients to be written to.
    pub(super) listed: bool,
}

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            open: false,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
            listed: false,
        }
    }

    /// Reads all messages that are there. An error ends the client.
    pub(super) fn read(&mut self, scratch: &mut [u8], mut on: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            let length = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.partial.is_empty() {
                let used = self.take(&mut scratch[..length], &mut on)?;
                self.partial.extend_from_slice(&scratch[used..length]);
            } else {
                let mut input = std::mem::take(&mut self.partial);
                input.extend_from_slice(&scratch[..length]);
                let used = self.take(&mut input, &mut on)?;
                input.drain(..used);
                if !input.is_empty() {
                    self.partial = input;
                }
            }
            // A read that does not fill the buffer has emptied the socket; what comes later wakes again.
            if length < scratch.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, input: &mut [u8], on: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        if !self.open {
            let Some(end) = input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(0);
            };
            let head = String::from_utf8_lossy(&input[..end]);
            let key = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
                .map(|(_, key)| derive_accept_key(key.trim().as_bytes()))
                .ok_or(ErrorKind::InvalidData)?;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {key}\r\n\r\n"
            );
            self.open = true;
            self.stream.write_all(answer.as_bytes())?;
            return Ok(end + 4 + self.take(&mut input[end + 4..], on)?);
        }
        let mut used = 0;
        while let Some((payload, length)) = unmask(&mut input[used..]) {
            on(payload);
            used += length;
        }
        Ok(used)
    }

    /// Appends a frame to those that are to be written.
    pub(super) fn push(&mut self, frame: &[u8]) {
        self.out.extend_from_slice(frame);
    }

    /// Writes a frame now, unless others wait before it.
    pub(super) fn write(&mut self, frame: &[u8]) {
        if self.out.is_empty() {
            let written = self.stream.write(frame).unwrap_or(0);
            self.out.extend_from_slice(&frame[written..]);
        } else {
            self.push(frame);
        }
    }

    /// Writes as much as the socket takes. A broken socket is noticed when it is read.
    pub(super) fn flush(&mut self) {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(_) => return,
            }
        }
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > 4096 {
            self.out = Vec::new();
        }
    }
}

/// Appends a server's text frame.
pub(super) fn frame(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match payload.len() {
        length @ ..126 => out.push(length as u8),
        length @ ..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The payload of the frame at the beginning, and the frame's length, if the frame is complete. It has to be a masked data
/// frame.
fn unmask(input: &mut [u8]) -> Option<(&[u8], usize)> {
    let (length, start) = match *input.get(1)? & 0x7f {
        126 => (u16::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize, 4),
        127 => (u64::from_be_bytes(*input.get(2..)?.first_chunk()?) as usize, 10),
        length => (length as usize, 2),
    };
    let (mask, payload) = input.get_mut(start..start + 4 + length)?.split_first_chunk_mut::<4>()?;
    let mask = *mask;
    let mut words = payload.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
    Some((payload, start + 4 + length))
}
