//! The figures: what runs have measured, and how it is told.

use std::fs;

use serde::Deserialize;

use super::server::{Peer, Server};
use crate::args;
use crate::error::Error;

/// What one run has measured.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Run {
    rate: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    errors: u64,
    server_cpu_us_per_message: Option<f64>,
    client_bottleneck: bool,
    server_bytes_per_connection: Option<f64>,
}

/// All runs of a workload on a server.
#[derive(Debug, Default)]
pub(super) struct Results {
    runs: Vec<Run>,
    /// Runs that could not be made.
    pub(super) failed: usize,
    /// The server has no such thing.
    pub(super) cannot: bool,
}

impl Run {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

impl Results {
    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    pub(super) fn rate(&self) -> String {
        self.told(|run| Some(run.rate))
    }

    pub(super) fn p50(&self) -> String {
        self.told(|run| run.p50_ms)
    }

    pub(super) fn p99(&self) -> String {
        self.told(|run| run.p99_ms)
    }

    pub(super) fn cpu(&self) -> String {
        self.told(|run| run.server_cpu_us_per_message)
    }

    pub(super) fn bytes(&self) -> String {
        self.told(|run| run.server_bytes_per_connection)
    }

    pub(super) fn cpu_to(&self, limit: &Self) -> String {
        self.ratio(limit, |run| run.server_cpu_us_per_message)
    }

    pub(super) fn p99_to(&self, limit: &Self) -> String {
        self.ratio(limit, |run| run.p99_ms)
    }

    /// What keeps the figures from being taken at their word.
    pub(super) fn notes(&self) -> String {
        let errors: u64 = self.runs.iter().map(|run| run.errors).sum();
        let busy = self.runs.iter().filter(|run| run.client_bottleneck).count();
        let mut notes = Vec::new();
        if errors > 0 {
            notes.push(format!("{errors} errors"));
        }
        if busy > 0 {
            notes.push(format!("generator busy in {busy} of {}", self.runs.len()));
        }
        if self.cannot {
            notes.push("it cannot do this".into());
        }
        if self.failed > 0 {
            notes.push(format!("{} runs failed", self.failed));
        }
        notes.join(", ")
    }

    fn sorted(&self, figure: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        let mut figures: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }

    fn median(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let figures = self.sorted(figure);
        let middle = figures.len() / 2;
        match figures.len() {
            0 => None,
            length if length % 2 == 1 => Some(figures[middle]),
            _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
        }
    }

    /// The median, and the range if there were several runs.
    fn told(&self, figure: impl Fn(&Run) -> Option<f64>) -> String {
        let Some(median) = self.median(&figure) else {
            return "–".into();
        };
        match &self.sorted(figure)[..] {
            [first, .., last] => format!("{} ({}–{})", short(median), short(*first), short(*last)),
            _ => short(median),
        }
    }

    /// Medians, compared.
    fn ratio(&self, limit: &Self, figure: impl Fn(&Run) -> Option<f64>) -> String {
        match (self.median(&figure), limit.median(&figure)) {
            (Some(ours), Some(limit)) if limit > 0.0 => format!("{:.2}", ours / limit),
            _ => "–".into(),
        }
    }
}

/// Three digits that count, and thousands told apart.
fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{figure:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits = whole.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = digits.filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",") + rest
}

/// Where and how it was measured.
pub(super) fn header(args: &args::Table, servers: &[Server], absent: &[Peer]) -> Result<String, Error> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut text = format!(
        "Machine: {cores} cores ({model}), Linux {}. Load and servers side by side on loopback; median of {} rounds of {} s \
         (lowest–highest); a fresh server for each run, one gateway and one worker process where there are two. CPU is that of all \
         processes of a server.\n",
        kernel.trim(),
        args.rounds,
        args.secs.as_secs_f64(),
    );
    for server in servers {
        text += &format!("\n- {}: {}", server.name(), server.about());
    }
    for peer in absent {
        text += &format!("\n- {}: not installed", peer.name());
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (figure, text) in [
            (0.0, "0.00"),
            (9.126, "9.13"),
            (52.71, "52.7"),
            (123.4, "123"),
            (1_350_966.2, "1,350,966"),
        ] {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn medians_and_ratios() {
        let results = |figures: &[f64]| {
            let run = |p99: &f64| Run {
                rate: 0.0,
                p50_ms: None,
                p99_ms: Some(*p99),
                errors: 0,
                server_cpu_us_per_message: None,
                client_bottleneck: false,
                server_bytes_per_connection: None,
            };
            Results {
                runs: figures.iter().map(run).collect(),
                failed: 0,
                cannot: false,
            }
        };
        let (ours, limit) = (results(&[9.0, 3.0, 6.0]), results(&[2.0, 1.0]));
        assert_eq!(ours.p99(), "6.00 (3.00–9.00)");
        assert_eq!(limit.p99(), "1.50 (1.00–2.00)");
        assert_eq!(results(&[4.0]).p99(), "4.00");
        assert_eq!(ours.p99_to(&limit), "4.00");
        assert_eq!((ours.cpu(), ours.cpu_to(&limit)), ("–".into(), "–".into()));
    }
}
