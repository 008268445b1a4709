//! The end-to-end tests' harness: real masters as processes, and clients with deadlines.
//!
//! # Layout
//!
//! - [`binaries`]: finds the programs under test, and builds them once.
//! - [`host`]: a loopback address of a test's own, so that every port is free.
//! - [`node`]: a master with its own folder and `meepo.toml`.
//! - [`processes`]: the processes of a node, and signals to them.
//! - [`status`]: `status --json` as types.
//! - [`events`]: what the test worker wrote down; [`jobs`]: what its job did.
//! - [`ws`], [`raw`], [`mod@line`]: clients; `raw` can break the protocol.
//! - [`browser`]: a real browser.
//! - [`http`]: plain requests; [`scrape`]: metrics, read strictly.
//! - [`network`]: a network of a test's own, whose packets can be dropped; [`disk`]: a small disk.
//! - [`etcd`]: a cluster of etcd of a test's own.
//! - [`endpoint`]: an HTTP endpoint for the webhook worker; [`hooked`]: a cluster with such a worker.
//! - [`played`]: a gateway, and workers that the test plays.
//! - [`web`]: the example of that name, from its own file.
//! - [`wait`]: conditions with a deadline.
//! - [`cluster`]: a cluster under test, [`load`]: clients that number what they send, and [`checker`]: what was lost,
//!   repeated or reordered.
//!
//! A test fails by panicking; the nodes that are dropped then print their logs.

pub mod binaries;
pub mod browser;
pub mod checker;
pub mod cluster;
pub mod disk;
pub mod endpoint;
pub mod etcd;
pub mod events;
pub mod hooked;
pub mod host;
pub mod http;
pub mod jobs;
pub mod line;
pub mod load;
pub mod network;
pub mod node;
pub mod played;
pub mod processes;
pub mod raw;
pub mod scrape;
pub mod status;
pub mod wait;
pub mod web;
pub mod ws;

pub use checker::Verdict;
pub use cluster::Cluster;
pub use disk::Disk;
pub use endpoint::{Endpoint, Post, Reply};
pub use etcd::Etcd;
pub use events::{Events, Record};
pub use hooked::Hooked;
pub use host::Host;
pub use http::Http;
pub use jobs::{Jobs, Step};
pub use line::Line;
pub use load::{Life, Load};
pub use network::Network;
pub use node::{Builder, Finished, Node};
pub use raw::{Frame, Raw};
pub use scrape::Scrape;
pub use status::Status;
pub use wait::{DEADLINE, in_time, wait_for, wait_until};
pub use ws::{Incoming, Ws};
