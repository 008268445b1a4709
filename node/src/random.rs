//! Numbers from the system's generator.

use rustix::rand::{GetRandomFlags, getrandom};

/// A number that nobody can guess, and that no other process has drawn.
pub(crate) fn number() -> u64 {
    let mut bytes = [0; 8];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        // The kernel's generator is ready before any program of ours runs; this is for completeness.
        _ => u64::from(std::process::id()) ^ (&raw const bytes as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ() {
        assert_ne!(number(), number());
    }
}
