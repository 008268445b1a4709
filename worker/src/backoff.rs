//! Pauses between attempts.

use std::time::Duration;

/// Pauses that are twice as long each time, up to a longest one.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let next = first;
        Self { first, longest, next }
    }

    /// An attempt went well: the next pause is a first one.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause, of which a random part of up to a half is left out: so that those who failed together do not try
    /// again together.
    pub(crate) fn pause(&mut self) -> Duration {
        self.whole_pause().mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The next pause.
    pub(crate) fn whole_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for seconds in [1, 2, 4, 5, 5] {
            assert_eq!(backoff.clone().whole_pause(), Duration::from_secs(seconds));
            let pause = backoff.pause();
            assert!(pause <= Duration::from_secs(seconds) && pause >= Duration::from_secs(seconds) / 2);
        }
        backoff.reset();
        assert_eq!(backoff.whole_pause(), Duration::from_secs(1));
    }
}
