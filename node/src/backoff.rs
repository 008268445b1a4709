//! Pauses between attempts: longer each time, and never the same for two nodes.

use std::time::Duration;

/// The first pause is at most this.
const FIRST: Duration = Duration::from_millis(200);
/// No pause is longer, however often an attempt has failed.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);
/// The shortest part of a pause: far apart, so that many nodes that lost something together do not come back together.
const SHORTEST_PART: f64 = 0.25;

/// Pauses that are up to twice as long each time. A random part of each is left out.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// It went well: the next pause is a first one.
    pub(crate) fn reset(&mut self) {
        self.0 = FIRST;
    }

    /// How long to wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(LONGEST);
        longest.mul_f64(SHORTEST_PART + fastrand::f64() * (1.0 - SHORTEST_PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_again() {
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            for longest in [200, 400, 800, 1000, 1000, 1000] {
                let longest = Duration::from_millis(longest);
                let pause = backoff.pause();
                assert!(pause >= longest / 4 && pause < longest, "{pause:?} of {longest:?}");
            }
            backoff.reset();
            assert!(backoff.pause() < FIRST);
        }
    }

    #[test]
    fn nodes_that_lost_the_same_come_back_spread_over_the_whole_time() {
        const NODES: usize = 4000;
        let mut tenths = [0; 10];
        let away = Duration::from_secs(10);
        for _ in 0..NODES {
            let mut backoff = Backoff::new();
            let mut now = Duration::ZERO;
            while now < away {
                now += backoff.pause();
            }
            let after = now - away;
            assert!(after < LONGEST, "{after:?} after the return");
            tenths[(after.as_millis() / (LONGEST.as_millis() / 10)) as usize] += 1;
        }
        // Even, but for the short pauses: those who wait long are fewer with each tenth after the first two.
        assert!(
            tenths.iter().all(|&tenth| tenth < NODES / 5),
            "no more than in an even fifth of the time at once: {tenths:?}"
        );
        assert!(tenths[7] > 0, "{tenths:?}");
    }
}
