//! The receiving half of a link.

use tonic::{Status, Streaming};

use crate::parts::{Assembly, InParts};

/// The messages that come over a link, each of them whole.
#[derive(Debug)]
pub struct Incoming<M> {
    stream: Streaming<M>,
    assembly: Assembly<M>,
}

impl<M: InParts> Incoming<M> {
    /// Puts messages together that come in parts, up to `limit` bytes each.
    pub fn new(stream: Streaming<M>, limit: usize) -> Self {
        Self {
            stream,
            assembly: Assembly::new(limit),
        }
    }

    /// The next message; none once the stream has ended. An error ends the link. Cancel safe.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        while let Some(message) = self.stream.message().await? {
            if let Some(whole) = self.assembly.take(message)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }
}
