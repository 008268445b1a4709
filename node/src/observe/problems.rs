//! Resources that are exhausted, or were, in words for `status`.

use crate::observe::stats::{Figures, InstanceTable, Reading};

/// The resources that are exhausted now, by the figures of a process.
pub(crate) fn present(process: &str, figures: &Reading, table: &InstanceTable) -> Vec<String> {
    let exhausted = table.figures().filter(|(index, _)| figures.at(*index) > 0);
    let problems = exhausted.filter_map(|(_, info)| info.problem);
    problems
        .map(|text| format!("{process}: {}", filled(text, figures, table)))
        .collect()
}

/// A text with the values of the figures that it names.
fn filled(text: &str, figures: &Reading, table: &InstanceTable) -> String {
    let mut text = text.to_owned();
    for (index, info) in table.figures() {
        text = text.replace(&format!("{{{}}}", info.name), &figures.at(index).to_string());
    }
    text
}

/// The resources of an instance that were exhausted since the start, with their numbers. `None` without any.
pub(crate) fn past(figures: &Figures, table: &InstanceTable) -> Option<String> {
    let told: Vec<String> = table
        .figures()
        .filter_map(|(_, info)| Some((info.past?, figures.get(info.name).filter(|count| *count > 0)?)))
        .map(|(text, count)| format!("{count} {text}"))
        .collect();
    (!told.is_empty()).then(|| format!("{}: {}", table.name, told.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::{FigureInfo, Slot};

    crate::figures! {
        /// Figures as a gateway has them.
        struct TestFigures {
            held_back: FigureInfo::gauge("test_held_back", "Held back."),
            full_queues: FigureInfo::gauge("test_full_queues", "Full.")
                .problem("a queue is full, clients held back: {held_back}"),
            slow_clients: FigureInfo::counter("test_slow_clients_total", "Closed.").past("slow clients closed"),
        }
    }

    const TABLE: InstanceTable = InstanceTable {
        name: "gateway",
        own: TestFigures::TABLE,
    };

    #[test]
    fn a_child_that_is_well_has_no_problem() {
        let slot = Slot::default();
        let busy: &TestFigures = slot.view();
        busy.held_back.add(1);
        busy.slow_clients.add(7);
        busy.common.failed_accepts.add(7);
        busy.common.lost_log_lines.add(7);
        assert_eq!(present("gateway 0", &slot.read(), &TABLE), [""; 0]);
        let past = past(&slot.read().named(&TABLE), &TABLE);
        assert_eq!(
            past.as_deref(),
            Some("gateway: 7 slow clients closed, 7 accepts failed, 7 log lines lost")
        );
    }

    #[test]
    fn each_thing_that_is_exhausted_is_told() {
        let slot = Slot::default();
        let exhausted: &TestFigures = slot.view();
        exhausted.common.blocked_listeners.add(2);
        exhausted.full_queues.add(1);
        exhausted.held_back.add(12);
        exhausted.common.log_fails.add(1);
        assert_eq!(
            present("gateway 1", &slot.read(), &TABLE),
            [
                "gateway 1: a queue is full, clients held back: 12",
                "gateway 1: no free file descriptors, new connections wait",
                "gateway 1: log lines cannot be written",
            ]
        );
        assert_eq!(past(&Figures::default(), &TABLE), None);
    }
}
