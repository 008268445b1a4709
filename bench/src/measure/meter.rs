//! The measured time window: the messages in it, their latencies, and the processor time that they cost.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::processes::{self, Cpu, Processes};
use crate::error::Error;

/// Larger latencies count as this one.
const MAX_LATENCY: Duration = Duration::from_secs(600);

/// Latencies, in nanoseconds with three digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY.as_nanos() as u64, 3);
        Self(histogram.expect("the bounds and digits are constants that fit"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// In milliseconds; none without a message.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(percent / 100.0) as f64 / 1e6)
    }

    /// In milliseconds.
    pub(crate) fn max(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64 / 1e6)
    }
}

/// Processor time of servers and generator at one instant.
#[derive(Debug)]
pub(crate) struct Reading {
    at: Instant,
    server: Cpu,
    client: Duration,
}

/// Time between two readings: on the clock, and of the processors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) server: Duration,
    pub(crate) client: Duration,
}

impl Reading {
    pub(crate) fn take(processes: &Processes) -> Result<Self, Error> {
        Ok(Self {
            server: processes.cpu()?,
            client: processes::used(std::process::id()).unwrap_or_default(),
            at: Instant::now(),
        })
    }

    pub(crate) fn until(&self, later: &Reading) -> Usage {
        Usage {
            wall: later.at - self.at,
            server: later.server.since(&self.server),
            client: later.client.saturating_sub(self.client),
        }
    }
}

/// The phases of a run: before the measured window, in it, after it.
#[derive(Debug)]
enum Phase {
    Warmup,
    Measuring(Reading),
    Done(Usage),
}

/// Counts what is received in the measured window.
#[derive(Debug)]
pub(crate) struct Meter {
    processes: Processes,
    phase: Phase,
    /// When the phase ends.
    until: Instant,
    secs: Duration,
    latencies: Latencies,
    messages: u64,
}

/// The count of a meter whose window has ended.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) usage: Usage,
    pub(crate) latencies: Latencies,
    pub(crate) messages: u64,
}

impl Meter {
    pub(crate) fn new(processes: Processes, warmup: Duration, secs: Duration) -> Self {
        Self {
            processes,
            phase: Phase::Warmup,
            until: Instant::now() + warmup,
            secs,
            latencies: Latencies::new(),
            messages: 0,
        }
    }

    /// Begins or ends the window when its time has come. Returns whether the load goes on.
    pub(crate) fn goes_on(&mut self) -> Result<bool, Error> {
        if Instant::now() >= self.until {
            match &self.phase {
                Phase::Warmup => {
                    self.phase = Phase::Measuring(Reading::take(&self.processes)?);
                    self.until = Instant::now() + self.secs;
                }
                Phase::Measuring(began) => {
                    self.phase = Phase::Done(began.until(&Reading::take(&self.processes)?));
                }
                Phase::Done(_) => {}
            }
        }
        Ok(!matches!(self.phase, Phase::Done(_)))
    }

    /// Whether messages that are received now count.
    pub(crate) fn in_window(&self) -> bool {
        matches!(self.phase, Phase::Measuring(_))
    }

    /// Whether half of the window is over.
    pub(crate) fn is_halfway(&self) -> bool {
        self.in_window() && Instant::now() + self.secs / 2 >= self.until
    }

    /// When the phase ends.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// Counts a message, if the window is open.
    pub(crate) fn record(&mut self, latency: Duration) {
        if self.in_window() {
            self.latencies.record(latency);
            self.messages += 1;
        }
    }

    /// The count; none before the window has ended.
    pub(crate) fn measured(self) -> Option<Measured> {
        match self.phase {
            Phase::Done(usage) => Some(Measured {
                usage,
                latencies: self.latencies,
                messages: self.messages,
            }),
            _ => None,
        }
    }
}

/// The times at which an open loop sends.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Duration,
    per_second: f64,
    sent: u64,
}

impl Pace {
    pub(crate) fn new(start: Duration, per_second: f64) -> Self {
        Self {
            start,
            per_second,
            sent: 0,
        }
    }

    /// When the next message is due.
    pub(crate) fn next(&self) -> Duration {
        self.start + Duration::from_secs_f64(self.sent as f64 / self.per_second)
    }

    /// When the next message was due, if that time has come; the message then counts as sent.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Duration> {
        let next = self.next();
        (next <= now).then(|| {
            self.sent += 1;
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let mut latencies = Latencies::new();
        assert_eq!((latencies.percentile(50.0), latencies.max()), (None, None));
        for millis in 1..=100 {
            latencies.record(Duration::from_millis(millis));
        }
        for percent in [50.0, 90.0, 99.0] {
            let value = latencies.percentile(percent).unwrap();
            assert!((value - percent).abs() < percent * 0.002, "p{percent} {value}");
        }
        assert!((latencies.max().unwrap() - 100.0).abs() < 0.2);
        latencies.record(MAX_LATENCY * 2);
        assert!(latencies.max().unwrap() < 601e3);
    }

    #[test]
    fn a_pace_keeps_its_schedule_when_it_is_late() {
        let mut pace = Pace::new(Duration::from_secs(1), 4.0);
        assert_eq!(pace.due(Duration::from_millis(999)), None);
        let late = Duration::from_millis(1600);
        let sent: Vec<_> = std::iter::from_fn(|| pace.due(late)).collect();
        assert_eq!(sent, [1000, 1250, 1500].map(Duration::from_millis));
        assert_eq!(pace.next(), Duration::from_millis(1750));
    }

    #[test]
    fn only_the_window_counts() {
        let processes = Processes::watch(&[]).unwrap();
        let mut meter = Meter::new(processes, Duration::ZERO, Duration::ZERO);
        meter.record(Duration::from_millis(1));
        assert!(meter.goes_on().unwrap());
        meter.record(Duration::from_millis(2));
        assert!(!meter.goes_on().unwrap());
        meter.record(Duration::from_millis(4));
        let measured = meter.measured().unwrap();
        assert_eq!(measured.messages, 1);
        assert!((measured.latencies.max().unwrap() - 2.0).abs() < 0.01);
    }
}
