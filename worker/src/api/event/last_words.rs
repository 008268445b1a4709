//! Why a handler is asked for last words.

/// Why a gateway is about to close its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastWords {
    /// It stops. Over WebSocket the close code is 1001.
    Stop,
    /// It is reloaded: a successor serves already. Over WebSocket the close code is 1012.
    Reload,
}
