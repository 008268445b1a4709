//! What the master does at a signal: one table.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the master is about, as far as signals are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Children of the first generation are not all ready.
    Starting,
    Serving,
    Reloading,
    Stopping,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Collect children that have ended.
    Reap,
    Stop,
    /// A person does not want to wait for the stop.
    HurryStop,
    Reload,
    /// Reload when what is under way is over.
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

/// The table.
pub(crate) fn action(signal: Signal, state: State) -> Action {
    use Signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    match (signal, state) {
        (SIGCHLD, _) => Action::Reap,
        (SIGINT, State::Stopping) => Action::HurryStop,
        (SIGTERM | SIGQUIT, State::Stopping) => Action::Nothing,
        (SIGTERM | SIGINT | SIGQUIT, _) => Action::Stop,
        (SIGHUP, State::Serving) => Action::Reload,
        (SIGHUP, State::Starting | State::Reloading) => Action::ReloadLater,
        (SIGHUP, State::Stopping) => Action::Nothing,
        (SIGUSR1, _) => Action::ReopenLogs,
        (SIGUSR2, State::Stopping) => Action::Nothing,
        (SIGUSR2, _) => Action::Upgrade,
        _ => Action::Nothing,
    }
}

/// From now on the signals are read from a descriptor.
pub(crate) fn listen() -> io::Result<SignalFd> {
    let set: SigSet = ANSWERED.into_iter().collect();
    set.thread_block()?;
    // A parent that ignores the ends of its children, as some containers' first processes do, hands that on.
    crate::sys::dispose(Signal::SIGCHLD, false);
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
            assert_eq!(action(signal, State::Serving), Action::Stop);
        }
        assert_eq!(action(Signal::SIGINT, State::Stopping), Action::HurryStop);
        assert_eq!(action(Signal::SIGTERM, State::Stopping), Action::Nothing);
        assert_eq!(action(Signal::SIGQUIT, State::Stopping), Action::Nothing);
    }

    #[test]
    fn reloads_wait_for_what_is_under_way() {
        assert_eq!(action(Signal::SIGHUP, State::Serving), Action::Reload);
        assert_eq!(action(Signal::SIGHUP, State::Starting), Action::ReloadLater);
        assert_eq!(action(Signal::SIGHUP, State::Reloading), Action::ReloadLater);
        assert_eq!(action(Signal::SIGHUP, State::Stopping), Action::Nothing);
    }
}
