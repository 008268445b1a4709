//! Resources that are exhausted, or were, in words for `status`.

use crate::observe::stats::Figures;

/// The resources that are exhausted now, by the figures of a process.
pub(crate) fn present(process: &str, figures: &Figures) -> Vec<String> {
    let mut problems = Vec::new();
    if figures.blocked_listeners > 0 {
        problems.push("no free file descriptors, new connections wait".to_owned());
    }
    if figures.full_queues > 0 {
        problems.push(format!("a queue is full, clients held back: {}", figures.held_back));
    }
    if figures.log_fails > 0 {
        problems.push("log lines cannot be written".to_owned());
    }
    problems
        .into_iter()
        .map(|problem| format!("{process}: {problem}"))
        .collect()
}

/// The resources that were exhausted since the start, with their numbers, by the figures of the master and of instances.
pub(crate) fn past<'a>(all: impl IntoIterator<Item = (&'a str, &'a Figures)>) -> Vec<String> {
    all.into_iter()
        .filter_map(|(name, figures)| {
            let told: Vec<String> = [
                (figures.failed_accepts, "accepts failed"),
                (figures.slow_clients, "slow clients closed"),
                (figures.dropped_sends, "sends dropped at full send buffers"),
                (figures.given_up_events, "events given up"),
                (figures.lost_log_lines, "log lines lost"),
            ]
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
            (!told.is_empty()).then(|| format!("{name}: {}", told.join(", ")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_well_has_no_problem() {
        let busy = Figures {
            connections: 5,
            events_waiting: 3,
            held_back: 1,
            failed_accepts: 7,
            lost_log_lines: 7,
            ..Figures::default()
        };
        assert_eq!(present("gateway 0", &busy), [""; 0]);
    }

    #[test]
    fn each_thing_that_is_exhausted_is_told() {
        let figures = Figures {
            blocked_listeners: 2,
            full_queues: 1,
            held_back: 12,
            log_fails: 1,
            ..Figures::default()
        };
        assert_eq!(
            present("gateway 1", &figures),
            [
                "gateway 1: no free file descriptors, new connections wait",
                "gateway 1: a queue is full, clients held back: 12",
                "gateway 1: log lines cannot be written",
            ]
        );
    }
}
