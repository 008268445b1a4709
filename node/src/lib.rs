//! What every Meepo node shares.
//!
//! # Layout
//!
//! - [`instance`]: what a node type (registry, gateway, worker) tells its master, and what a child is given.
//! - [`config`]: `meepo.toml`, environment variables, and errors that say where.
//! - [`stats`]: figures of all children in memory that the master shares with them.
//! - [`stop`]: how a child learns that it is to drain.
//! - [`membership`]: how a node makes itself known to the registries, and learns who else is there.
//! - [`advertise`]: the address that a node tells others.
//! - [`rpc`] and [`secret`]: gRPC between nodes, and the secret that they share.
//! - [`quota`]: a bound on log lines that a stranger can cause.

pub mod advertise;
pub mod config;
pub mod instance;
pub mod membership;
pub mod quota;
mod roster;
pub mod rpc;
pub mod secret;
pub mod stats;
pub mod stop;

pub use config::{Config, ConfigError};
pub use instance::{BoxError, Child, Instance, Listen, Plan};
pub use membership::Membership;
pub use stop::{Stop, StopReason};
