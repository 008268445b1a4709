//! How nodes announce themselves and find each other, and who holds which lease: the messages of `registry.proto`, and types
//! for the numbers in them.

use std::fmt;

pub use generated::*;

#[allow(clippy::all, missing_debug_implementations, unreachable_pub)]
mod generated {
    include!("generated/meepo.registry.v2.rs");
}

/// A node, as registries know it: one run of a child of a gateway or worker. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// One attempt of a node to get a lease, and to keep it. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub u64);

/// The number of a lease: larger than that of every earlier lease of the same name. It fits into a signed 64-bit column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(pub u64);

impl Node {
    /// The node's id as a type of its own.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id)
    }
}

macro_rules! hexadecimal {
    ($($id:ident)*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

hexadecimal! { NodeId HolderId }
