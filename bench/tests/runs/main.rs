//! Runs of the real program: its loads on servers that behave well or badly, its cluster, and its table.

mod cluster;
mod loads;
mod table;
