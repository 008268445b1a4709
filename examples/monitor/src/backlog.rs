//! Samples that have not been acknowledged.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sample::{MOST, Sample};

/// The number of samples that are kept while no gateway can be reached: an hour at one a second. After that the oldest are dropped.
const KEPT: usize = 3600;

/// Samples that one thread adds and another one sends.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    samples: Mutex<VecDeque<Sample>>,
    filled: Condvar,
}

impl Backlog {
    pub(crate) fn push(&self, sample: Sample) {
        let mut samples = self.lock();
        if samples.len() == KEPT {
            samples.pop_front();
        }
        samples.push_back(sample);
        self.filled.notify_one();
    }

    /// The oldest samples. Waits until there is one. The samples stay until they are acknowledged.
    pub(crate) fn oldest(&self) -> Vec<Sample> {
        let none = |samples: &mut VecDeque<Sample>| samples.is_empty();
        let samples = self.filled.wait_while(self.lock(), none);
        let samples = samples.unwrap_or_else(PoisonError::into_inner);
        samples.iter().take(MOST).copied().collect()
    }

    /// Drops samples that have arrived. Some of them may have been dropped meanwhile, as the oldest.
    pub(crate) fn acknowledge(&self, sent: &[Sample]) {
        let mut samples = self.lock();
        while samples.front().is_some_and(|sample| sent.contains(sample)) {
            samples.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: i64) -> Sample {
        Sample {
            at,
            cpu: 0.0,
            used: 0,
            total: 0,
        }
    }

    #[test]
    fn what_is_not_acknowledged_stays_and_the_oldest_make_room() {
        let backlog = Backlog::default();
        for at in 0..250 {
            backlog.push(sample(at));
        }
        let first = backlog.oldest();
        assert_eq!((first.len(), first[0].at), (MOST, 0));
        assert_eq!(backlog.oldest(), first);
        backlog.acknowledge(&first);
        let second = backlog.oldest();
        assert_eq!(second[0].at, 100);
        for at in 250..4000 {
            backlog.push(sample(at));
        }
        // All of these have been dropped meanwhile.
        backlog.acknowledge(&second);
        assert_eq!(backlog.oldest()[0].at, 400);
        assert_eq!(backlog.lock().len(), KEPT);
    }
}
