//! What the job of the test worker wrote down.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use meepo_node::clock::since_boot;

use crate::wait::wait_for;

/// A line: what the job did, under which term, in which process, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The term of its lease.
    pub term: u64,
    /// `start`, `tick`, `end` when it was dropped or returned in time, `late` when it was dropped after its lease.
    pub what: String,
    /// The worker's process.
    pub pid: u32,
    /// By the machine's clock, before the job looked at its lease.
    pub at: Duration,
}

/// The file that the job writes to. Other programs than the test worker can be told by a file beside it what to do.
#[derive(Debug, Clone)]
pub struct Jobs {
    path: PathBuf,
}

impl Jobs {
    /// The steps in this file.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// All steps so far, in the order of writing.
    ///
    /// # Panics
    ///
    /// When a line is broken.
    pub fn all(&self) -> Vec<Step> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let step = |line: &str| {
            let mut words = line.split(' ');
            Some(Step {
                term: words.next()?.parse().ok()?,
                what: words.next()?.into(),
                pid: words.next()?.parse().ok()?,
                at: Duration::from_nanos(words.next()?.parse().ok()?),
            })
        };
        let steps = complete.lines();
        steps
            .map(|line| step(line).unwrap_or_else(|| panic!("not a step: {line:?}")))
            .collect()
    }

    /// Has the job do something at its next tick: `fail`, `panic`, `return`.
    ///
    /// # Panics
    ///
    /// When the folder cannot be written.
    pub fn ask(&self, what: &str) {
        fs::write(self.path.with_extension("ask"), what).expect("the folder is writable");
    }

    /// Waits until the job has started under a larger term.
    pub async fn start_after(&self, term: u64) -> Step {
        let what = format!("the job starts under a larger term than {term}");
        wait_for(&what, async || {
            let later = |step: &Step| step.what == "start" && step.term > term;
            self.all().into_iter().find(later)
        })
        .await
    }

    /// Waits until the job ticks so long from now. Gives the tick.
    pub async fn tick_after(&self, time: Duration) -> Step {
        let begin = since_boot() + time;
        let tick = |step: &Step| step.what == "tick" && step.at > begin;
        wait_for("the job ticks on", async || self.all().into_iter().find(tick)).await
    }

    /// Waits until the run of a term has come to its end by itself.
    pub async fn end_of(&self, term: u64) -> Step {
        let end = |step: &Step| step.term == term && matches!(&*step.what, "end" | "late");
        wait_for("the job ends", async || self.all().into_iter().find(end)).await
    }

    /// Checks that the job never ran twice at a time, and that terms grew. Gives how many terms there were.
    ///
    /// # Panics
    ///
    /// When it is not so.
    #[track_caller]
    pub fn check(&self) -> usize {
        let mut terms: BTreeMap<u64, (Duration, Duration, u32)> = BTreeMap::new();
        // What is late was said by nobody who had a lease.
        for step in self.all().iter().filter(|step| step.what != "late") {
            let (first, last, pid) = terms.entry(step.term).or_insert((step.at, step.at, step.pid));
            assert_eq!(*pid, step.pid, "two processes have the term {}", step.term);
            assert!(
                step.what != "start" || step.at == *first,
                "two runs have the term {}",
                step.term
            );
            *first = step.at.min(*first);
            *last = step.at.max(*last);
        }
        for ((term, before), (next, after)) in terms.iter().zip(terms.iter().skip(1)) {
            assert!(
                before.1 < after.0,
                "term {term} was at work until {:?}, and term {next} from {:?}",
                before.1,
                after.0
            );
        }
        terms.len()
    }
}
