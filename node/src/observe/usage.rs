//! The processor time and memory of a process.

use rustix::param::{clock_ticks_per_second, page_size};

/// Seconds on a processor, and bytes in memory. Zeroes if the system does not say.
pub(crate) fn usage(pid: u32) -> (f64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, in parentheses, may hold anything: the fields begin after the last parenthesis.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or_default()
    };
    let pages: u64 = read("statm")
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .unwrap_or_default();
    (
        (ticks(11) + ticks(12)) / clock_ticks_per_second() as f64,
        pages * page_size() as u64,
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_memory() {
        let (cpu, memory) = super::usage(std::process::id());
        assert!(cpu >= 0.0);
        assert!(memory > 100_000);
        assert_eq!(super::usage(u32::MAX), (0.0, 0));
    }
}
