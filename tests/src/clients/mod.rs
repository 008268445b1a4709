//! Clients with deadlines: WebSocket, lines and HTTP, one that breaks the protocol, and a load of many that number their
//! messages.
//!
//! Tests use them directly. They know addresses only, not the nodes behind them.

pub mod http;
pub mod line;
pub mod load;
pub mod raw;
pub mod ws;
