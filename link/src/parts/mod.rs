//! Large events and commands travel in parts, so that small ones of other clients pass them.
//!
//! [`Queue`] is the sender's side, before the stream: it decides which message passes which. [`Assembly`] is the
//! receiver's side. Both halves of a link call them; they know no stream.

use std::mem;

use meepo_proto::link::{Command, Event, Part, command, event};

mod assembly;
mod queue;
#[cfg(test)]
mod tests;

pub use assembly::Assembly;
pub use queue::{Order, Queue};

/// A message of more bytes than this is cut into parts of this size.
pub const PART: usize = 64 << 10;

/// A message that can travel in parts.
pub trait InParts: prost::Message + Default {
    /// A message that carries a part.
    fn carrying(part: Part) -> Self;

    /// The part that this message carries, if it carries one.
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
