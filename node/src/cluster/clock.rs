//! Clocks: one that goes on while the machine sleeps, and one that costs next to nothing to read.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time since the machine started, that in which it slept included.
///
/// # Panics
///
/// On a kernel without this clock, which Linux has had since 2.6.39.
pub fn since_boot() -> Duration {
    read(ClockId::CLOCK_BOOTTIME)
}

/// The time since the machine started, sleep left out, as the kernel saw it at its last tick: some milliseconds ago. For
/// code that reads the time for each message.
///
/// # Panics
///
/// On a kernel without this clock, which Linux has had since 2.6.32.
pub fn at_last_tick() -> Duration {
    read(ClockId::CLOCK_MONOTONIC_COARSE)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock).expect("Linux has this clock");
    // Neither clock is ever negative.
    Duration::new(time.tv_sec().unsigned_abs(), u32::try_from(time.tv_nsec()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_on() {
        let before = since_boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(since_boot() >= before + Duration::from_millis(2));
        let before = at_last_tick();
        while at_last_tick() == before {
            std::thread::yield_now();
        }
        assert!(at_last_tick() > before);
    }
}
