//! The harness of the end-to-end tests: real masters as processes, and clients with deadlines.
//!
//! # Layout
//!
//! - [`machine`]: the programs under test; addresses, networks, disks and processes of a test's own.
//! - [`wait`]: conditions with a deadline.
//! - [`clients`]: WebSocket, lines, HTTP, and a load of clients that number their messages.
//! - [`checking`]: events, status, metrics; what was lost, repeated or reordered.
//! - [`nodes`]: masters, and clusters of them.
//! - [`servers`]: programs beside the nodes: etcd, an endpoint, a browser.
//!
//! A test fails by panicking; the nodes that are dropped then print their logs.

pub mod checking;
pub mod clients;
pub mod machine;
pub mod nodes;
pub mod servers;
pub mod wait;

pub use checking::checker::Verdict;
pub use checking::events::{Events, Record};
pub use checking::jobs::{Jobs, Step};
pub use checking::scrape::Scrape;
pub use checking::status::{self, Status};
pub use clients::http::{self, Http};
pub use clients::line::Line;
pub use clients::load::{Life, Load};
pub use clients::raw::{self, Frame, Raw};
pub use clients::ws::{Incoming, Ws};
pub use machine::disk::Disk;
pub use machine::host::Host;
pub use machine::network::{self, Network};
pub use machine::{binaries, processes};
pub use nodes::cluster::Cluster;
pub use nodes::node::{Builder, Finished, Node};
pub use nodes::webhook_cluster::WebhookCluster;
pub use nodes::{played, web};
pub use servers::browser;
pub use servers::endpoint::{Endpoint, Post, Reply};
pub use servers::etcd::Etcd;
pub use wait::{DEADLINE, in_time, wait_for, wait_until};
