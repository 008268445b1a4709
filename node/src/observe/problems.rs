//! What is exhausted, or was, in words for `status`.

use crate::observe::stats::Figures;
use crate::observe::status::{InstanceStatus, NodeStatus};

/// What is exhausted now at a process.
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

/// What was exhausted since the start, each thing with its number.
pub(crate) fn past(status: &NodeStatus) -> Vec<String> {
    let of_master = Figures {
        lost_log_lines: status.lost_log_lines,
        ..Figures::default()
    };
    let of_instances = status
        .instances
        .iter()
        .map(|InstanceStatus { name, totals, .. }| (&**name, totals));
    let all = [("master", &of_master)].into_iter().chain(of_instances);
    all.filter_map(|(who, figures)| {
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
        (!told.is_empty()).then(|| format!("{who}: {}", told.join(", ")))
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
