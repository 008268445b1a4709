//! Meepo bench.
