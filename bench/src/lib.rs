//! The load generator, and the worker that it is pointed at.
//!
//! One thread and one poll drive all connections, so that the generator costs little beside the servers that it measures
//! on the same machine.
//!
//! # Layout
//!
//! - [`args`]: the command line.
//! - [`echo`], [`fanout`], [`idle`], [`large`]: the loads. [`hold`]: more connections than one process may have. `disturbance`: what is done to the servers meanwhile.
//! - `rooms`: who is to get what. `stamp`: what a payload carries. `wire`: its frames. `nats`: what is inside them. `client`: one connection. `pool`: all of them.
//! - `stats`: the measured window. [`procs`]: what the server's processes use. [`report`]: what is printed.
//! - [`cluster`], [`handler`]: servers to put load on, and their business logic. [`limit`]: what they are compared with.
//! - [`table`]: all loads on several servers side by side.
//! - [`error`]: why a run could not be made.

pub mod args;
mod client;
pub mod cluster;
mod disturbance;
pub mod echo;
pub mod error;
pub mod fanout;
pub mod handler;
pub mod hold;
pub mod idle;
pub mod large;
pub mod limit;
mod nats;
mod pool;
pub mod procs;
pub mod report;
mod rooms;
mod stamp;
mod stats;
pub mod table;
mod wire;
