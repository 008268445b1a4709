//! What a process uses, as the system says.

use crate::sys;

/// Seconds on a processor and bytes in memory; zeroes if the system does not say.
pub(crate) fn usage(pid: u32) -> (f64, u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // The name, in parentheses, may hold anything: what counts begins after the last one.
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
        (ticks(11) + ticks(12)) / sys::ticks_per_second(),
        pages * sys::page_size(),
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
