//! The clock by which leases are counted.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the machine started, that in which it slept included.
///
/// # Panics
///
/// On a kernel without this clock, which Linux has had since 2.6.39.
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has this clock");
    // Neither is ever negative.
    Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_nsec()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(since_boot() >= before + Duration::from_millis(2));
    }
}
