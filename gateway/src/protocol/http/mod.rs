//! HTTP, with which the connections of a `ws` listener begin: files of sites, requests that workers answer, and the upgrade
//! to a WebSocket.
//!
//! Called by `service`. It must not know what a WebSocket carries.

mod answer;
pub(crate) mod files;
mod forward;
mod head;
pub(crate) mod offer;
mod respond;
pub(crate) mod serve;
mod sites;
mod write_timeout;
