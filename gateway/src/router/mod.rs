//! Which worker gets which event: the rules, as pure state, and what carries out their decisions.
//!
//! Called by all who have an event or an answer for the other side. It must not know sockets, HTTP and the stream of a link.

pub(crate) mod dispatch;
pub(crate) mod request_budget;
mod rules;

pub use rules::*;
pub(crate) use rules::{head_bytes, header_bytes, only_once};
