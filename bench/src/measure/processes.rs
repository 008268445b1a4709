//! Processor time and memory of processes and all their descendants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use crate::error::Error;

/// The unit of processor time in `/proc/PID/stat`: Linux shows user space a hundred ticks a second.
const TICK: Duration = Duration::from_millis(10);

/// Processes to watch.
#[derive(Debug, Clone)]
pub struct Processes {
    roots: Vec<u32>,
}

/// Processor time that each of the watched processes has used so far.
#[derive(Debug, Clone)]
pub struct Cpu(BTreeMap<u32, Duration>);

impl Cpu {
    /// Processor time used between an earlier reading and this one. A process that was started meanwhile counts from its start;
    /// one that ended meanwhile does not count.
    pub fn since(&self, earlier: &Cpu) -> Duration {
        self.0
            .iter()
            .map(|(pid, used)| used.saturating_sub(earlier.0.get(pid).copied().unwrap_or_default()))
            .sum()
    }
}

impl Processes {
    /// Watches these processes and their descendants. Error: one of them does not run.
    pub fn watch(pids: &[u32]) -> Result<Self, Error> {
        for pid in pids {
            if !fs::exists(format!("/proc/{pid}/stat"))? {
                return Err(Error::NoProcess(*pid));
            }
        }
        Ok(Self { roots: pids.to_vec() })
    }

    /// Whether there is nothing to watch.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Processor time that each process has used so far. Error: `/proc` cannot be read.
    pub fn cpu(&self) -> Result<Cpu, Error> {
        // A process that ends while it is read is left out.
        Ok(Cpu(self
            .all()?
            .into_iter()
            .filter_map(|pid| Some((pid, used(pid)?)))
            .collect()))
    }

    /// Memory in bytes: each page divided by the number of processes that share it (PSS). Error: the files of a process are
    /// another user's.
    pub fn memory(&self) -> Result<u64, Error> {
        let mut sum = 0;
        for pid in self.all()? {
            let file = "smaps_rollup";
            match fs::read_to_string(format!("/proc/{pid}/{file}")) {
                Ok(text) => sum += pss(&text).unwrap_or_default(),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(Error::Process {
                        pid,
                        file,
                        source: error,
                    });
                }
                Err(_) => {}
            }
        }
        Ok(sum)
    }

    fn all(&self) -> Result<BTreeSet<u32>, Error> {
        let mut found = BTreeSet::new();
        if self.is_empty() {
            return Ok(found);
        }
        let mut children = BTreeMap::<u32, Vec<u32>>::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(parent) = fs::read_to_string(format!("/proc/{pid}/stat"))
                .ok()
                .and_then(|stat| parent(&stat))
            {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut next = self.roots.clone();
        while let Some(pid) = next.pop() {
            if found.insert(pid) {
                next.extend(children.get(&pid).into_iter().flatten());
            }
        }
        Ok(found)
    }
}

/// Processor time of a process: the scheduler's sum in nanoseconds if there is one, else the count of ticks.
pub(crate) fn used(pid: u32) -> Option<Duration> {
    match scheduled(pid) {
        Some(used) if !used.is_zero() => Some(used),
        _ => ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?),
    }
}

fn scheduled(pid: u32) -> Option<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else {
            continue;
        };
        sum += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}

/// The fields after the name, which can contain anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace().collect())
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat)?.get(1)?.parse().ok()
}

fn ticks(stat: &str) -> Option<Duration> {
    let fields = fields(stat)?;
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some(TICK * ticks)
}

fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b) S 5 7 7 0 -1 4194304 123 80 2 0 47 3 0 0 20 0 1 0";

    #[test]
    fn the_kernels_texts() {
        assert_eq!(parent(STAT), Some(5));
        assert_eq!(ticks(STAT), Some(TICK * 50));
        assert_eq!(
            pss("1-2 ---p [rollup]\nRss:   17 kB\nPss:    3 kB\nPss_Dirty: 1 kB\n"),
            Some(3072)
        );
        assert_eq!(pss("Rss: 17 kB\n"), None);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let processes = Processes::watch(&[std::process::id()]).unwrap();
        let earlier = processes.cpu().unwrap();
        while processes.cpu().unwrap().since(&earlier).is_zero() {}
        assert!(processes.memory().unwrap() > 100 << 10);
    }

    #[test]
    fn a_process_that_does_not_run_is_an_error() {
        assert_eq!(
            Processes::watch(&[u32::MAX]).unwrap_err().to_string(),
            "process 4294967295 is not running"
        );
    }
}
