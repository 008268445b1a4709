//! Samples, which an agent measures and sends.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The beginning of each line that an agent sends.
pub(crate) const PREFIX: &str = "/samples ";
/// The answer to an agent whose samples are in the database.
pub(crate) const OK: &str = "ok";
/// The beginning of the answer to an agent whose samples will never be in the database.
pub(crate) const REFUSED: &str = "refused: ";
/// The beginning of the answer to an agent that is to send its samples again.
pub(crate) const LATER: &str = "later: ";
/// The most samples in one line.
pub(crate) const MOST: usize = 100;

/// One look at a host. In JSON a sample is `[at, cpu, used, total]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(i64, f64, i64, i64)", into = "(i64, f64, i64, i64)")]
pub(crate) struct Sample {
    /// Milliseconds since 1970 by the host's clock.
    pub(crate) at: i64,
    /// The part of the processors that was busy since the last look, in percent.
    pub(crate) cpu: f64,
    /// Memory in use, in bytes.
    pub(crate) used: i64,
    /// All memory, in bytes.
    pub(crate) total: i64,
}

/// Samples of one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) host: String,
    pub(crate) samples: Vec<Sample>,
}

impl From<(i64, f64, i64, i64)> for Sample {
    fn from((at, cpu, used, total): (i64, f64, i64, i64)) -> Self {
        Self { at, cpu, used, total }
    }
}

impl From<Sample> for (i64, f64, i64, i64) {
    fn from(Sample { at, cpu, used, total }: Sample) -> Self {
        (at, cpu, used, total)
    }
}

impl Samples {
    const MAX_HOST: usize = 40;
    /// How far a host's clock may be ahead, in milliseconds.
    const AHEAD: i64 = 60 * 1000;

    /// Reads and checks the samples that an agent sent. The error is for the agent's owner.
    pub(crate) fn read(json: &str, now: i64, oldest: i64) -> Result<Self, String> {
        let read: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let plain = !read.host.chars().any(char::is_control);
        if !plain || !(1..=Self::MAX_HOST).contains(&read.host.chars().count()) {
            return Err(format!("a host's name has 1 to {} characters", Self::MAX_HOST));
        }
        if !(1..=MOST).contains(&read.samples.len()) {
            return Err(format!("there are 1 to {MOST} samples in a line"));
        }
        for sample in &read.samples {
            if !(oldest..=now + Self::AHEAD).contains(&sample.at) {
                return Err(format!("the clock of {} is wrong: it says {} ms", read.host, sample.at));
            }
            if !(0.0..=100.0).contains(&sample.cpu) || !(0..=sample.total).contains(&sample.used) {
                return Err("a sample is [milliseconds, percent, bytes used, bytes in all]".into());
            }
        }
        Ok(read)
    }
}

/// The time now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_sense_is_taken() {
        let read = |json: &str| Samples::read(json, 1_000_000, 500_000).map_err(|error| error.to_string());
        let good = read(r#"{"host":"web-1","samples":[[1000000,12.5,1,2],[1060000,0,0,0]]}"#).unwrap();
        assert_eq!(
            (good.host.as_str(), good.samples.len(), good.samples[0].cpu),
            ("web-1", 2, 12.5)
        );
        for (host, samples, why) in [
            ("", "[[1000000,1,1,2]]", "1 to 40"),
            (&"x".repeat(41), "[[1000000,1,1,2]]", "1 to 40"),
            ("a\\nb", "[[1000000,1,1,2]]", "1 to 40"),
            ("a", "[]", "1 to 100"),
            (
                "a",
                &format!("[{}]", vec!["[1000000,1,1,2]"; 101].join(",")),
                "1 to 100",
            ),
            ("a", "[[1060001,1,1,2]]", "clock"),
            ("a", "[[499999,1,1,2]]", "clock"),
            ("a", "[[1000000,100.1,1,2]]", "percent"),
            ("a", "[[1000000,-1,1,2]]", "percent"),
            ("a", "[[1000000,1,3,2]]", "percent"),
            ("a", "[[1000000,1,1]]", "length"),
        ] {
            let error = read(&format!(r#"{{"host":"{host}","samples":{samples}}}"#)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        read("nonsense").unwrap_err();
    }
}
