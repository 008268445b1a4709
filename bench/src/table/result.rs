//! The figures of runs, and how the table shows them.

use std::fs;

use serde::Deserialize;

use super::server::{Peer, Server};
use crate::args;
use crate::connections::pool;
use crate::error::Error;

/// The figures of one run, from its report.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    pub(super) rate: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    errors: u64,
    pub(super) server_cpu_us_per_message: Option<f64>,
    client_bottleneck: bool,
    pub(super) server_bytes_per_connection: Option<f64>,
    pub(super) server_bytes_per_connection_after_large: Option<f64>,
    pub(super) mib_per_s: Option<f64>,
    pub(super) small_quiet_p99_ms: Option<f64>,
    pub(super) small_p99_ms: Option<f64>,
    pub(super) small_p99_times: Option<f64>,
}

/// All runs of a workload on a server.
#[derive(Debug, Default)]
pub(super) struct Results {
    runs: Vec<Run>,
    /// Runs without a report.
    pub(super) failed: usize,
    /// The server cannot take the load.
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

    /// Reasons to doubt the figures.
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

    /// The median, and the range if there were several runs, as the table shows them.
    pub(super) fn shown(&self, figure: impl Fn(&Run) -> Option<f64>) -> String {
        let Some(median) = self.median(&figure) else {
            return "–".into();
        };
        match &self.sorted(figure)[..] {
            [first, .., last] => format!("{} ({}–{})", short(median), short(*first), short(*last)),
            _ => short(median),
        }
    }

    /// The median divided by that of the limit server.
    pub(super) fn ratio(&self, limit: &Self, figure: impl Fn(&Run) -> Option<f64>) -> String {
        match (self.median(&figure), limit.median(&figure)) {
            (Some(ours), Some(limit)) if limit > 0.0 => format!("{:.2}", ours / limit),
            _ => "–".into(),
        }
    }
}

/// Three significant digits, and commas between thousands.
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

/// The head of the table: the machine, the command line and the servers.
pub(super) fn header(args: &args::Table, servers: &[Server], absent: &[Peer]) -> Result<String, Error> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut text = format!(
        "Machine: {cores} cores ({model}), {memory:.0} GiB, Linux {kernel} {arch}; at most {files} open files a process.\n\
         Load and servers side by side on loopback; median of {rounds} rounds (lowest–highest) of {secs} s if the load does not say \
         another time; a fresh server for each run, one gateway and one worker process where there are two. CPU is that of all \
         processes of a server.\n\n    {command}\n",
        memory = total_memory()? / f64::from(1 << 30),
        kernel = kernel.trim(),
        arch = std::env::consts::ARCH,
        files = pool::files()?,
        rounds = args.rounds,
        secs = args.secs.as_secs_f64(),
        command = command(),
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

/// The machine's memory in bytes.
fn total_memory() -> Result<f64, Error> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.unwrap_or_default() * 1024.0)
}

/// The command line of this run, without the program's folder.
fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        *program = "meepo-bench".into();
    }
    words.join(" ")
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
                p99_ms: Some(*p99),
                ..Run::default()
            };
            Results {
                runs: figures.iter().map(run).collect(),
                failed: 0,
                cannot: false,
            }
        };
        let (ours, limit) = (results(&[9.0, 3.0, 6.0]), results(&[2.0, 1.0]));
        assert_eq!(ours.shown(|run| run.p99_ms), "6.00 (3.00–9.00)");
        assert_eq!(limit.shown(|run| run.p99_ms), "1.50 (1.00–2.00)");
        assert_eq!(results(&[4.0]).shown(|run| run.p99_ms), "4.00");
        assert_eq!(ours.ratio(&limit, |run| run.p99_ms), "4.00");
        let cpu = |run: &Run| run.server_cpu_us_per_message;
        assert_eq!((ours.shown(cpu), ours.ratio(&limit, cpu)), ("–".into(), "–".into()));
    }
}
