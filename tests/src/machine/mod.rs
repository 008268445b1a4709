//! What a test takes from the machine: the programs under test, addresses, networks, disks and processes of its own.
//!
//! Everything else of the harness builds on it. It knows nothing of nodes and clients.

pub mod binaries;
pub mod disk;
pub mod host;
pub mod network;
pub mod processes;
