//! Memory that the allocator keeps for later goes back to the system while the child is quiet.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::time::{MissedTickBehavior, interval};

use crate::sys;

/// How often a child looks whether it is quiet.
const LOOK: Duration = Duration::from_secs(1);
/// The processor time after which there may be something to give back again.
const WORK: Duration = Duration::from_millis(10);

/// Gives the memory that a burst of large messages, or of new clients, has left behind back to the system once the child is
/// quiet: a busy child is about to use it again.
pub(crate) async fn give_back() {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = (looks.tick().await, used());
    let mut given_back = Duration::ZERO;
    loop {
        let now = (looks.tick().await, used());
        let quiet = is_quiet(now.0 - last.0, now.1.saturating_sub(last.1));
        if quiet && now.1.saturating_sub(given_back) >= WORK {
            sys::give_memory_back();
            given_back = used();
        }
        last = now;
    }
}

/// Whether less than a twentieth of a core was used.
fn is_quiet(passed: Duration, used: Duration) -> bool {
    used * 20 < passed
}

/// Processor time that this process has used.
fn used() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Duration::ZERO;
    };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_of_a_core_is_not_quiet() {
        let passed = Duration::from_secs(10);
        assert!(is_quiet(passed, Duration::from_millis(499)));
        assert!(!is_quiet(passed, Duration::from_millis(500)));
    }

    #[test]
    fn the_time_of_this_process_grows() {
        let before = used();
        while used() == before {}
        assert!(used() > before);
    }
}
