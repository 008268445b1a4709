//! Which worker gets which event: the rules, as pure state, and `dispatch`, the one way to change that state and to carry
//! out what the rules decide.
//!
//! Called by all who have an event, a command or a request. It must not know sockets, HTTP, or the stream of a link.

mod clients;
pub(crate) mod dispatch;
pub(crate) mod effects;
mod last_words;
mod links;
pub(crate) mod request_budget;
pub(crate) mod requests;
mod rules;

pub use rules::{Bounds, Ending, Flow, LinkId, Output, Router};
pub(crate) use rules::{head_bytes, only_once};
