//! Pauses between attempts: longer each time, and never the same for two nodes.

use std::time::Duration;

/// The part of a pause that is never left out, unless [`Backoff::never_below`] says otherwise.
const SHORTEST_PART: f64 = 0.5;

/// Pauses between attempts at something that fails: each is up to twice as long as the one before it, up to a longest. A random
/// part of each is left out, so that many that lost something at the same moment do not come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// From 0 to 1.
    shortest_part: f64,
    /// The next pause, before a part of it is left out.
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`. Half of each is left out at most.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            shortest_part: SHORTEST_PART,
            next: first,
        }
    }

    /// Pauses that do not grow. Half of each is left out at most.
    pub const fn steady(pause: Duration) -> Self {
        Self::new(pause, pause)
    }

    /// No pause is shorter than this part of its full length, from 0 (anything may be left out) to 1 (nothing is).
    #[must_use]
    pub const fn never_below(mut self, part: f64) -> Self {
        self.shortest_part = part;
        self
    }

    /// An attempt went well: the next pause is a first one.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = full.saturating_mul(2).min(self.longest);
        full.mul_f64(self.shortest_part + fastrand::f64() * (1.0 - self.shortest_part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(FIRST, LONGEST).never_below(0.25)
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_again() {
        for _ in 0..200 {
            let mut backoff = backoff();
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
    fn pauses_need_not_grow_nor_differ() {
        let mut steady = Backoff::steady(LONGEST);
        for _ in 0..200 {
            let pause = steady.pause();
            assert!(pause >= LONGEST / 2 && pause < LONGEST, "{pause:?}");
        }
        let mut exact = Backoff::new(FIRST, LONGEST).never_below(1.0);
        let pauses = [(); 4].map(|()| exact.pause().as_millis());
        assert_eq!(pauses, [200, 400, 800, 1000]);
    }

    #[test]
    fn nodes_that_lost_the_same_come_back_spread_over_the_whole_time() {
        const NODES: usize = 4000;
        let mut tenths = [0; 10];
        let away = Duration::from_secs(10);
        for _ in 0..NODES {
            let mut backoff = backoff();
            let mut now = Duration::ZERO;
            while now < away {
                now += backoff.pause();
            }
            let after = now - away;
            assert!(after < LONGEST, "{after:?} after the return");
            tenths[(after.as_millis() / (LONGEST.as_millis() / 10)) as usize] += 1;
        }
        // Even, but for the short pauses: nodes that wait long are fewer with each tenth after the first two.
        assert!(
            tenths.iter().all(|&tenth| tenth < NODES / 5),
            "no more than in an even fifth of the time at once: {tenths:?}"
        );
        assert!(tenths[7] > 0, "{tenths:?}");
    }
}
