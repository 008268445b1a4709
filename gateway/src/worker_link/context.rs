//! The parts of a child that its links work on.

use std::sync::Arc;

use crate::config::limits::Limits;
use crate::fanout::sender::Sender;
use crate::router::dispatch::Dispatch;

/// The parts of a child that its links work on.
#[derive(Debug)]
pub(crate) struct LinkContext {
    /// Where commands go that concern the router, and the clients of this child.
    pub(crate) dispatch: Arc<Dispatch>,
    /// The limits of this child.
    pub(crate) limits: Limits,
    /// Sends to clients.
    pub(crate) sender: Sender,
}
