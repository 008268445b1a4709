//! What a link works on.

use std::sync::Arc;

use crate::config::limits::Limits;
use crate::fanout::sender::Sender;
use crate::router::dispatch::Dispatch;

/// What the links of a child work on.
#[derive(Debug)]
pub(crate) struct LinkContext {
    /// Where commands go that concern the router, and the clients of this child.
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) limits: Limits,
    /// Sends to clients.
    pub(crate) sender: Sender,
}
