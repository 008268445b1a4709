//! A node among others: which nodes there are, names that one node holds at a time, and connections between nodes.
//!
//! Instances call it inside their children. It must not know what the nodes say to each other over these connections.

pub mod advertise;
pub mod claim;
pub mod clock;
pub mod election_lock;
pub mod lease;
pub mod local;
pub mod membership;
pub(crate) mod node_view;
pub mod rpc;
pub mod secret;
