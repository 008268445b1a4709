//! The wire protocols of Meepo: the code generated from the `.proto` files, identifiers and close codes.
//!
//! # Layout
//!
//! - [`link`]: events and commands between a gateway child and a worker child.
//! - [`registry`]: how nodes announce themselves and find each other.
//! - [`etcd`]: the part of etcd's API that the registry uses.
//! - [`push`]: what any program can ask a worker's push API.
//! - [`id`]: identifiers of clients, gateways and workers.
//! - [`codec`]: how messages are encoded into streams.
//! - [`codes`]: the table of close codes.
//! - [`SECRET_HEADER`]: the metadata that carries the shared secret.

pub mod codec;
pub mod codes;
pub mod id;
pub mod push;

pub use id::{ClientId, ClientNumber, EventNumber, GatewayId, QueryId, RequestNumber, Seq, WorkerId};

/// Events and commands between a gateway child and a worker child.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod link {
    tonic::include_proto!("meepo.link.v1");
}

/// How nodes announce themselves and find each other.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod registry {
    tonic::include_proto!("meepo.registry.v1");
}

/// The part of etcd's API that the registry uses.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The gRPC metadata in which a node shows the shared secret.
pub const SECRET_HEADER: &str = "x-meepo-secret";
