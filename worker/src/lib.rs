//! Meepo worker.
