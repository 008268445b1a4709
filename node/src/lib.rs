//! What every Meepo node shares: the command line, the configuration, a master and its children, and the cluster around them.
//!
//! A program's `main` gives a [`Master`] its instances and runs it; all else is behind the command line.
//!
//! # Layout, in the order of a node's life
//!
//! - `process`: the command line, the commands behind it, and the master, which forks children. [`program`] is what a program
//!   is made of, [`instance`] what an instance tells its master and what a child is given.
//! - [`config`]: `meepo.toml` and environment variables; sections that become checked values once.
//! - [`stop`]: how a child learns that it is to drain.
//! - `observe`: [`stats`] (figures of all children, in memory that the master shares with them), the log, [`quota`] (a bound on
//!   log lines that a stranger can cause), [`status`], and the metrics for Prometheus.
//! - `cluster`: [`membership`] (the registries, and the nodes that they know), [`advertise`] (the address that a node tells
//!   others), [`lease`] (a name that one holder in the cluster has at a time; [`claim`] has its rules, [`clock`] its time),
//!   [`election_lock`] (the same among the children of one listener), [`rpc`], [`secret`] and [`local`] (connections between
//!   nodes).
//! - [`Acceptor`]: accepts connections, also when descriptors run out. [`Backoff`]: pauses between attempts. [`error_text`]: an
//!   error with its causes.
//! - `sys`: all that is unsafe.
//!
//! # Invariants
//!
//! - The master has one thread, and no runtime, and opens everything before it forks.
//! - Only the lock of the pid file says whether a node runs; only the master's own list says what its children are.
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
pub use observe::stats::{Figure, Siblings, Slot};
pub use observe::{quota, stats, status};
pub use process::instance::{self, BoxError, Child, Instance, Listen, Plan};
pub use process::program::{self, Master};
pub use stop::{Stop, StopReason};
#[doc(hidden)]
pub use sys::RowOf;
