//! WebSocket: from bytes to messages. Frames to the client are written elsewhere, encoded once for all.

use std::io::{self, Read, Write};

use bytes::Bytes;
use meepo_proto::codes::{self, CloseCode};
use meepo_proto::link::CloseCause;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding};

use crate::client::Client;
use crate::connection::{Decoder, Step};
use crate::hub::End;
use crate::settings::Protocol;

/// The reason with which tungstenite answers a close code that must not be sent.
const SUBSTITUTED: &str = "Protocol violation";

/// Reads the frames of one client.
pub(crate) struct WsDecoder {
    context: WebSocketContext,
}

/// Small, because every idle client has one; it grows for a large message.
const READ_BUFFER: usize = 2048;
/// Reads of one client before others have their turn.
const READS: usize = 16;
/// A received payload below this is copied, so that it does not keep the read buffer.
const COPY_BELOW: usize = 1024;

impl WsDecoder {
    /// A decoder that begins with the bytes that came along with the handshake.
    pub(crate) fn new(read: &[u8], max_message: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        Self {
            context: WebSocketContext::from_partially_read(read.to_vec(), Role::Server, Some(config)),
        }
    }
}

impl Decoder for WsDecoder {
    fn next(&mut self, client: &Client) -> Step {
        let mut wire = Wire { client, reads: 0 };
        match self.context.read(&mut wire) {
            Ok(Message::Text(text)) => Step::Message {
                payload: unpinned(text.into()),
                binary: false,
            },
            Ok(Message::Binary(payload)) => Step::Message {
                payload: unpinned(payload),
                binary: true,
            },
            Ok(Message::Close(frame)) => {
                // The reply waits in the context until it is flushed.
                let _ = self.context.flush(&mut wire);
                Step::End(match frame {
                    // What was received cannot be sent: the reply says so.
                    Some(frame) if frame.code == coding::CloseCode::Protocol && frame.reason == SUBSTITUTED => {
                        End::by_client(CloseCause::Protocol, codes::PROTOCOL_ERROR.code, "invalid close code")
                    }
                    Some(frame) => End::by_client(CloseCause::Client, frame.code.into(), frame.reason.as_str()),
                    None => End::by_client(CloseCause::Client, 0, ""),
                })
            }
            Ok(Message::Ping(_)) => {
                // The pong goes out now, also between two fragments.
                let _ = self.context.flush(&mut wire);
                Step::Heard
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => Step::Heard,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => match wire.reads {
                READS => Step::Heard,
                reads => Step::Blocked { heard: reads > 0 },
            },
            Err(error) => Step::End(end_of(&error)),
        }
    }
}

fn end_of(error: &Error) -> End {
    let tell = |cause, code: CloseCode| End::by_gateway(Protocol::Ws, cause, code);
    match error {
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            End::by_client(CloseCause::Eof, 0, "connection ended without a close frame")
        }
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            let reason = format!("message of {size} bytes is over the limit of {max_size}");
            End {
                reason,
                ..tell(CloseCause::TooBig, codes::TOO_BIG)
            }
        }
        Error::Capacity(_) => tell(CloseCause::TooBig, codes::TOO_BIG),
        Error::Utf8(_) => tell(CloseCause::InvalidText, codes::INVALID_TEXT),
        Error::Io(error) => End::by_client(CloseCause::Reset, 0, error.to_string()),
        error => End {
            reason: error.to_string(),
            ..tell(CloseCause::Protocol, codes::PROTOCOL_ERROR)
        },
    }
}

fn unpinned(payload: Bytes) -> Bytes {
    if payload.len() < COPY_BELOW {
        Bytes::copy_from_slice(&payload)
    } else {
        payload
    }
}

/// The client's socket for reading, its outbox for writing.
struct Wire<'a> {
    client: &'a Client,
    /// How often it was read; then others have their turn.
    reads: usize,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.reads == READS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.client.try_read(buffer)?;
        self.reads += 1;
        Ok(read)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.client.push_raw(Bytes::copy_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for WsDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WsDecoder").finish_non_exhaustive()
    }
}
