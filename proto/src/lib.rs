//! The wire protocols of Meepo: the code generated from the `.proto` files, identifiers and close codes.
//!
//! The generated code is in `src/generated`; `cargo run -p meepo-proto-generate` writes it anew.
//!
//! # Layout
//!
//! - [`link`]: events and commands between a gateway child and a worker child.
//! - [`registry`]: how nodes announce themselves and find each other.
//! - [`etcd`]: the part of etcd's API that the registry uses.
//! - `push` (with the feature of that name): what any program can ask a worker's push API.
//! - [`id`]: identifiers of clients, gateways and workers.
//! - [`PackedHandshake`]: a handshake in one allocation.
//! - [`codec`]: how messages are encoded into streams.
//! - [`codes`]: the table of close codes.
//! - [`SECRET_HEADER`]: the metadata that carries the shared secret.

pub mod codec;
pub mod codes;
mod handshake;
pub mod id;
#[cfg(feature = "push")]
pub mod push;
pub mod registry;

pub use handshake::PackedHandshake;
pub use id::{ClientId, ClientNumber, EventNumber, GatewayId, QueryId, RequestNumber, Seq, WorkerId};

/// Events and commands between a gateway child and a worker child.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod link {
    include!("generated/meepo.link.v2.rs");
}

/// The part of etcd's API that the registry uses.
#[allow(clippy::all, missing_docs, missing_debug_implementations, unreachable_pub)]
pub mod etcd {
    include!("generated/etcdserverpb.rs");
}

/// The gRPC metadata in which a node shows the shared secret.
pub const SECRET_HEADER: &str = "x-meepo-secret";
