//! What every Meepo node shares.
//!
//! A program's `main` gives a [`Master`] its instances and runs it; all else is behind the command line.
//!
//! # Layout
//!
//! - [`program`]: [`Master`], what a program is made of; `cli` reads its arguments.
//! - [`instance`]: what a node type (registry, gateway, worker) tells its master, and what a child is given.
//! - [`config`]: `meepo.toml`, environment variables, and errors that say where; `setup` reads all of it.
//! - `master`: listeners, children, signals, reload, stop. `child`: the other side of the fork.
//! - `daemon`, `pidfile`, `control`: a start in the background, the lock that says who runs, the socket that answers.
//! - `commands`: what `stop`, `status`, `reload`, `restart` and `kill` do with a node that is `running`.
//! - [`stats`]: figures of all children in memory that the master shares with them; [`status`] shows them, with
//!   `problems` in words; `metrics` has them for Prometheus, `exporter` serves that.
//! - [`stop`]: how a child learns that it is to drain.
//! - [`membership`]: how a node makes itself known to the registries, and learns who else is there; `roster` puts their words
//!   together, `backoff` paces the attempts.
//! - [`lease`]: a name that one holder in the cluster has at a time, asked for at the registries; [`claim`] has its rules,
//!   [`clock`] what it is counted by. [`turn`]: what only one child of an address does at a time.
//! - [`advertise`]: the address that a node tells others.
//! - [`Acceptor`]: accepts connections, also when descriptors run out.
//! - [`rpc`] and [`secret`]: gRPC between nodes, and the secret that they share; [`local`]: between those of one host.
//! - [`quota`]: a bound on log lines that a stranger can cause.
//! - `logs`: one line an event. `heap`: memory that goes back to the system. `sys`: all that is unsafe.
//!
//! # Invariants
//!
//! - The master has one thread, and no runtime, and opens everything before it forks.
//! - Nothing but the lock of the pid file says whether a node runs; nothing but the master's own list says what its children
//!   are.
//! - A child ends when its master is gone.

mod acceptor;
mod backoff;
mod cluster;
pub mod config;
pub mod error_text;
mod observe;
mod process;
mod random;
pub mod stop;
mod sys;

pub use acceptor::Acceptor;

pub use backoff::Backoff;
pub use cluster::lease::{HeldLease, Lease};
pub use cluster::membership::Membership;
pub use cluster::{advertise, claim, clock, election_lock, lease, local, membership, rpc, secret};
pub use config::{Config, ConfigError, NodeSection};
/// An allocator that a program may choose as its global one: what it keeps goes back to the system while a child is quiet.
pub use mimalloc::MiMalloc as Allocator;
pub use observe::stats::{Figure, Figures, Siblings, Slot};
pub use observe::{quota, stats, status};
pub use process::instance::{self, BoxError, Child, Instance, Listen, Plan};
pub use process::program::{self, Master};
pub use stop::{Stop, StopReason};
