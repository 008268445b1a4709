//! The load generator, and the servers that it is pointed at.
//!
//! One thread and one poll drive all connections, so that the generator costs little beside the servers that it measures
//! on the same machine.
//!
//! # Layout
//!
//! In the order in which a run passes:
//!
//! - [`args`]: the command line. [`error`]: why a run could not be made.
//! - [`loads`]: a file for each load: `echo`, `fanout`, `large`, `idle`; `hold`: more connections than one process may have.
//! - `connections`: the frames, one connection, all of them.
//! - [`measure`]: stamps in payloads, the measured time window, what the server's processes use.
//! - [`report`]: what is printed.
//! - [`cluster`]: Meepo as the server to put load on. [`limit`]: the server that others are compared with.
//! - [`table`]: all loads on several servers side by side.

pub mod args;
pub mod cluster;
mod connections;
pub mod error;
pub mod limit;
pub mod loads;
pub mod measure;
pub mod report;
pub mod table;
