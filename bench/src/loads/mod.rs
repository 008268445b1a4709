//! The loads, one file for each command, and what they share: rooms, holders of further connections, disturbances.
//!
//! `main` runs one of them and prints its report. The table runs them as commands of their own and is unknown here.

mod disturbance;
pub mod echo;
pub mod fanout;
pub mod hold;
mod holders;
pub mod idle;
mod joining;
pub mod large;
mod rooms;
