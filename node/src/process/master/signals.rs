//! The signals that the master answers: one table.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::sys;

/// What the master does now, as far as signals are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MasterState {
    /// Children of the first generation are not all ready.
    Starting,
    Serving,
    Reloading,
    Stopping,
}

/// What a signal makes the master do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Collect children that have ended.
    Reap,
    Stop,
    /// Shorten the stop: a person does not want to wait for it.
    HurryStop,
    Reload,
    /// Reload when the start or reload that is under way is over.
    ReloadLater,
    /// Replace the binary of the master, and reload.
    Upgrade,
    ReopenLogs,
    Nothing,
}

/// The signals that the master answers. Children have most of them ignored: a terminal sends them to all.
const ANSWERED: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The action for a signal in a state: the table.
pub(crate) fn action(signal: Signal, state: MasterState) -> Action {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    match (signal, state) {
        (SIGCHLD, _) => Action::Reap,
        (SIGINT, MasterState::Stopping) => Action::HurryStop,
        (SIGTERM | SIGQUIT, MasterState::Stopping) => Action::Nothing,
        (SIGTERM | SIGINT | SIGQUIT, _) => Action::Stop,
        (SIGHUP, MasterState::Serving) => Action::Reload,
        (SIGHUP, MasterState::Starting | MasterState::Reloading) => Action::ReloadLater,
        (SIGHUP, MasterState::Stopping) => Action::Nothing,
        (SIGUSR1, _) => Action::ReopenLogs,
        (SIGUSR2, MasterState::Stopping) => Action::Nothing,
        (SIGUSR2, _) => Action::Upgrade,
        _ => Action::Nothing,
    }
}

/// From now on the signals are read from a descriptor.
pub(crate) fn listen() -> io::Result<SignalFd> {
    let set: SigSet = ANSWERED.into_iter().collect();
    set.thread_block()?;
    // A parent that ignores the ends of its children, as some containers' first processes do, hands that on.
    sys::dispose(Signal::SIGCHLD, false);
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_int_makes_haste() {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
            assert_eq!(action(signal, MasterState::Serving), Action::Stop);
        }
        assert_eq!(action(Signal::SIGINT, MasterState::Stopping), Action::HurryStop);
        assert_eq!(action(Signal::SIGTERM, MasterState::Stopping), Action::Nothing);
        assert_eq!(action(Signal::SIGQUIT, MasterState::Stopping), Action::Nothing);
    }

    #[test]
    fn reloads_wait_for_what_is_under_way() {
        assert_eq!(action(Signal::SIGHUP, MasterState::Serving), Action::Reload);
        assert_eq!(action(Signal::SIGHUP, MasterState::Starting), Action::ReloadLater);
        assert_eq!(action(Signal::SIGHUP, MasterState::Reloading), Action::ReloadLater);
        assert_eq!(action(Signal::SIGHUP, MasterState::Stopping), Action::Nothing);
    }
}
