//! The Meepo gateway: it holds client sockets and hands what clients send to workers. It knows no business logic.
//!
//! # The way of a message
//!
//! From a client to a worker:
//!
//! 1. `listen` accepts a connection and gives it to the `protocol` of its listener. That is HTTP for a WebSocket, and lines of
//!    text for telnet. HTTP also serves files, and forwards requests to workers.
//! 2. The protocol asks a worker, by way of the router, whether the client may come in.
//! 3. `client`: from then on a task of its own reads the client. The protocol's decoder turns bytes into messages, the
//!    heartbeat closes a client that is silent for too long.
//! 4. `router`: each message is an event in the queue of its client. Pure rules decide which worker's link gets it, and when.
//!    `router::dispatch` is the one way to change that state and to carry out what the rules decide.
//! 5. `worker_link` sends the event over the stream to the worker.
//!
//! From a worker to clients:
//!
//! 6. `worker_link` carries out the worker's commands and answers its queries.
//! 7. `fanout` finds the clients of a target, puts messages for one target together in a batch, and encodes each batch once
//!    for each client protocol.
//! 8. `client`: the frames go to the outbox of each client, and from there to its socket, at once if that takes them.
//!
//! At the end `drain` lets handlers send their last words, closes all clients, and waits for the workers.
//!
//! `instance` is what a master runs, `child` the life of one child, `config` the section `[gateway]`, `figures` what a child
//! counts. `bench` has doors to
//! inner parts for `benches/`, if the feature of that name is on.
//!
//! # Rules
//!
//! - Locks are taken in this order: dispatch, client registry, a client's session, a client's state. None is held over an
//!   await.
//! - Folders depend on each other in one direction: `config`, `client`, `fanout`, `router`, then `protocol`, `worker_link`
//!   and `drain`, then `listen`, then `child`, then `instance`.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod child;
mod client;
mod config;
mod drain;
mod fanout;
mod figures;
mod instance;
mod listen;
mod protocol;
pub mod router;
mod worker_link;

pub use config::limits::SlowClient;
pub use config::listen::{ListenSettings, Protocol, SiteSettings};
pub use config::settings::GatewaySettings;
pub use instance::{GatewayInstance, instance};
