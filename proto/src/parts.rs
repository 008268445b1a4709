//! Large events and commands travel in parts, so that small ones of others pass them.
//!
//! # Layout
//!
//! - [`InParts`]: what can travel in parts.
//! - [`Queue`]: the sender's side, before the stream: who passes whom.
//! - [`Assembly`]: the receiver's side; [`Incoming`] is a stream with one.

use std::mem;

use tonic::{Status, Streaming};

use crate::link::{Command, Event, Part, command, event};

mod assembly;
mod queue;
#[cfg(test)]
mod tests;

pub use assembly::Assembly;
pub use queue::{Order, Queue};

/// What takes more bytes than this is cut into parts of so many.
pub const PART: usize = 64 << 10;

/// What can travel in parts.
pub trait InParts: prost::Message + Default {
    /// What carries a part.
    fn carrying(part: Part) -> Self;

    /// The part that it carries.
    fn take_part(&mut self) -> Option<Part>;
}

impl InParts for Event {
    fn carrying(part: Part) -> Self {
        Self {
            body: Some(event::Body::Part(part)),
            ..Self::default()
        }
    }

    fn take_part(&mut self) -> Option<Part> {
        match &mut self.body {
            Some(event::Body::Part(part)) => Some(mem::take(part)),
            _ => None,
        }
    }
}

impl InParts for Command {
    fn carrying(part: Part) -> Self {
        Self {
            body: Some(command::Body::Part(part)),
        }
    }

    fn take_part(&mut self) -> Option<Part> {
        match &mut self.body {
            Some(command::Body::Part(part)) => Some(mem::take(part)),
            _ => None,
        }
    }
}

/// What comes over a link, in whole.
#[derive(Debug)]
pub struct Incoming<M> {
    stream: Streaming<M>,
    assembly: Assembly<M>,
}

impl<M: InParts> Incoming<M> {
    /// Puts together what comes in parts, up to this many bytes.
    pub fn new(stream: Streaming<M>, limit: usize) -> Self {
        Self {
            stream,
            assembly: Assembly::new(limit),
        }
    }

    /// The next one; none once the stream has ended. Cancel safe.
    pub async fn message(&mut self) -> Result<Option<M>, Status> {
        while let Some(message) = self.stream.message().await? {
            if let Some(whole) = self.assembly.take(message)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    }
}
