//! Processor and memory of this host, from `/proc`.

use std::fs;
use std::io;

use crate::sample::{Sample, now};

/// Measures the host at each look.
#[derive(Debug)]
pub(crate) struct Measure {
    last: Ticks,
}

/// The time of all processors since the host started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl Measure {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { last: ticks()? })
    }

    /// A sample of the time since the last look.
    pub(crate) fn look(&mut self) -> io::Result<Sample> {
        let ticks = ticks()?;
        let (used, total) = memory(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| unread("/proc/meminfo"))?;
        let cpu = percent(std::mem::replace(&mut self.last, ticks), ticks);
        Ok(Sample {
            at: now(),
            cpu,
            used,
            total,
        })
    }
}

fn ticks() -> io::Result<Ticks> {
    parse_ticks(&fs::read_to_string("/proc/stat")?).ok_or_else(|| unread("/proc/stat"))
}

fn unread(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not understood"))
}

/// `cpu user nice system idle iowait irq softirq steal …`; the fields after these are part of user and nice already.
fn parse_ticks(stat: &str) -> Option<Ticks> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = fields
        .split_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let idle = fields.get(3)? + fields.get(4)?;
    let all = fields.iter().sum();
    Some(Ticks { busy: all - idle, all })
}

/// The busy part, in percent, with the one digit after the point that the ticks allow. A counter may go back a little.
fn percent(before: Ticks, after: Ticks) -> f64 {
    let all = after.all.saturating_sub(before.all);
    let busy = after.busy.saturating_sub(before.busy).min(all);
    if all == 0 {
        return 0.0;
    }
    (busy as f64 * 1000.0 / all as f64).round() / 10.0
}

/// Memory that is not available, and all memory, in bytes.
fn memory(meminfo: &str) -> Option<(i64, i64)> {
    let field = |name: &str| -> Option<i64> {
        let value = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<i64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal")?;
    Some((total - field("MemAvailable")?.clamp(0, total), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_understood() {
        let stat = "cpu  100 10 50 800 40 0 5 5 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse_ticks(stat), Some(Ticks { busy: 170, all: 1010 }));
        assert_eq!(parse_ticks("cpu  1 2 3\n"), None);
        assert_eq!(parse_ticks(""), None);
        let meminfo = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\n";
        assert_eq!(memory(meminfo), Some((600 * 1024, 1000 * 1024)));
        assert_eq!(memory("MemTotal: 1000 kB\n"), None);
    }

    #[test]
    fn what_was_between_two_looks_counts() {
        let ticks = |busy, all| Ticks { busy, all };
        assert_eq!(percent(ticks(100, 1000), ticks(133, 1200)), 16.5);
        assert_eq!(percent(ticks(100, 1000), ticks(100, 1000)), 0.0);
        assert_eq!(percent(ticks(100, 1000), ticks(90, 1100)), 0.0);
        assert_eq!(percent(ticks(100, 1000), ticks(300, 1100)), 100.0);
    }

    #[test]
    fn this_host_can_be_measured() {
        let sample = Measure::new().and_then(|mut measure| measure.look()).unwrap();
        assert!((0.0..=100.0).contains(&sample.cpu) && sample.total > 0, "{sample:?}");
        assert!((1..sample.total).contains(&sample.used), "{sample:?}");
    }
}
