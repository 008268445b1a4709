//! The link: the stream between a gateway child and a worker child, as both ends use it.
//!
//! An event or a command passes these modules in this order:
//!
//! - [`channel`]: the queue of messages that the stream has still to send.
//! - [`Outgoing`]: the sending half. It takes messages from the queue and cuts large ones into [`parts`], so that small ones
//!   of other clients pass them.
//! - [`Incoming`]: the receiving half. It puts parts together again.
//!
//! The crate knows the encoding of events and commands ([`meepo_proto`]), and neither gateways nor workers: they hand a
//! [`Source`] in.

pub mod channel;
mod incoming;
mod outgoing;
pub mod parts;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use incoming::Incoming;
pub use outgoing::{Next, Outgoing, Source};
pub use parts::{Order, PART};
