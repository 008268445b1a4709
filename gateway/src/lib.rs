//! The Meepo gateway: it holds client sockets and hands what they send to workers. It knows no business logic.
//!
//! # Layout
//!
//! - [`settings`]: the section `[gateway]`; `listeners`: what listeners offer, checked.
//! - [`instance()`]: what the master runs; `child`: the life of one child; `parting`, `farewell`: workers' last words,
//!   and the end of its clients.
//! - `accept`, `http` (over `patience`), `connection` (with its `heart`), `ws` (over `frames`), `line`: from a listener to
//!   a client that is read.
//! - `sites` (over `assets`): files by host name; `requests` (within an `allowance`): what workers answer over HTTP.
//! - `client`, `outbox`, `encode`, `end`, `bell`: one client, what it is sent, and how it ends.
//! - `roster` (over `index`): which clients, groups and uids there are.
//! - [`router`]: which worker gets which event (pure state); `dispatch` carries that out.
//! - `hub`: what one child knows, as the others use it; `changes`: sessions, and who is read;
//!   `ending`: what is left to do when it is to end.
//! - `bench`: doors for `benches/`, if the feature of that name is on.
//! - `link`, `outgoing`, `commands`, `queries`: the stream to a worker, what goes out over it, what workers ask for, and what
//!   they want to know.
//!
//! # Locks
//!
//! In this order: dispatch (`hub`), roster, a client's session, a client's state. None is held over an await.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod child;
mod client;
mod config;
mod drain;
mod fanout;
mod instance;
mod listen;
mod protocol;
pub mod router;
mod worker_link;

pub use config::limits::SlowClient;
pub use config::listen::{ListenSettings, Protocol, SiteSettings};
pub use config::settings::GatewaySettings;
pub use instance::{GatewayInstance, instance};
