//! The master becomes another binary, and keeps all that it has open.
//!
//! A reload begins it when the program's file is another one; the command line goes on with it in the new binary. It must not
//! know what the reload that follows does.

pub(crate) mod binary;
pub(crate) mod exec_state;
pub(crate) mod resume;
mod upgrade;
