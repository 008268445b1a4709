//! The section `[gateway]` of the configuration: each setting is declared, documented and checked here, once.
//!
//! Read by every other folder, as checked `Limits`. It must not know any of them.

pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod settings;
