//! From messages and closes to lines.

use bytes::{BufMut, Bytes};

/// The line of a message.
pub(crate) fn message(payload: &[u8], _binary: bool) -> Bytes {
    line(payload)
}

/// The last line of a client that the gateway closes: the reason, if there is one. Lines carry no close code.
pub(crate) fn last(_code: Option<u16>, reason: &str) -> Option<Bytes> {
    (!reason.is_empty()).then(|| line(format!("closed: {reason}").as_bytes()))
}

/// The last line of a client that has broken the protocol.
pub(crate) fn error(reason: &str) -> Bytes {
    line(format!("error: {reason}").as_bytes())
}

/// A payload and the end of its line.
fn line(payload: &[u8]) -> Bytes {
    let mut buffer = Vec::with_capacity(payload.len() + 1);
    buffer.put_slice(payload);
    buffer.put_u8(b'\n');
    buffer.into()
}
