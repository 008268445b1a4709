//! The section `[gateway]` of the configuration.
//!
//! Read by every other folder. It must not know any of them.

pub mod settings;
