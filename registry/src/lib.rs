//! Meepo registry.
