//! From the bytes that a client sends to events: the part of a client protocol that the read loop drives.

use std::io;

use meepo_proto::link::Message;

use crate::client::close::ClientClose;
use crate::client::handle::Client;

/// Turns the bytes that a client sends into messages.
pub(crate) trait Decoder: Send + 'static {
    /// Whether a client that has ended its sending may still read: then it is kept until its messages are answered.
    const READS_AFTER_EOF: bool = false;

    /// Decodes the next event, from the socket if need be. Never waits.
    fn next(&mut self, client: &Client) -> Decoded;

    /// Decodes the next event from bytes that were read before.
    fn ready(&mut self, client: &Client) -> Option<Decoded>;

    /// Reads from the socket without waiting, and hands on the bytes: how many there were.
    fn read(client: &Client, take: impl FnOnce(&[u8])) -> io::Result<usize>
    where
        Self: Sized,
    {
        client.try_read(take)
    }
}

/// What came of reading.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// A whole message.
    Message(Message),
    /// A sign of life, no message.
    Heard,
    /// There is nothing more to read now.
    Blocked {
        /// Whether any bytes came.
        heard: bool,
    },
    /// Nothing more can come of this client.
    Close(ClientClose),
}
