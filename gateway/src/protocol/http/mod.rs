//! HTTP, with which a connection of a `ws` listener begins: files, sites, requests that workers answer, and the upgrade.
//!
//! Called by `listen`. It must not know what a WebSocket carries.

pub(crate) mod files;
pub(crate) mod forward;
pub(crate) mod serve;
pub(crate) mod sites;
mod write_timeout;
