//! Meepo gateway.
