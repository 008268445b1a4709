//! Meepo tests.
