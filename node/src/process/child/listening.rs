//! The thread of a child that hears its master and the signals, also while the child's runtime is stuck.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::observe::logs;
use crate::process::dialogue::Order;
use crate::stop::{Stop, StopReason};
use crate::sys;

/// The thread's sources, and the signal that it gives.
pub(super) struct Listening {
    pub(super) master: UnixStream,
    pub(super) signals: SignalFd,
    /// Becomes readable when a log line is lost.
    pub(super) log_alarm: Option<&'static EventFd>,
    pub(super) stop: Stop,
}

impl Listening {
    /// Listens until the master is gone, and ends this process when the time for the drain is over then.
    pub(super) fn run(self) {
        let mut master = BufReader::new(&self.master);
        loop {
            let mut ready = vec![
                PollFd::new(self.master.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            ready.extend(
                self.log_alarm
                    .map(|alarm| PollFd::new(alarm.as_fd(), PollFlags::POLLIN)),
            );
            let timeout = match logs::fails() {
                true => PollTimeout::try_from(logs::MEND_EVERY).unwrap_or(PollTimeout::MAX),
                false => PollTimeout::NONE,
            };
            if poll(&mut ready, timeout).is_err() {
                continue;
            }
            let is_ready = |at: usize| ready[at].any().unwrap_or(true);
            let (master_ready, signal_ready) = (is_ready(0), is_ready(1));
            // Read only to lower the alarm: how often it was raised does not matter.
            let _ = self.log_alarm.map(EventFd::read);
            if logs::fails() {
                logs::mend();
            }
            if signal_ready && let Ok(Some(signal)) = self.signals.read_signal() {
                match Signal::try_from(signal.ssi_signo.cast_signed()) {
                    Ok(Signal::SIGTERM) => self.stop.request(StopReason::Stop),
                    _ => logs::reopen(),
                }
            }
            if master_ready && !self.hear(&mut master) {
                return self.outlive_master();
            }
        }
    }

    /// Reads all orders that the master has sent. `false` if the master is gone.
    fn hear(&self, master: &mut BufReader<&UnixStream>) -> bool {
        loop {
            let mut line = String::new();
            match master.read_line(&mut line) {
                Ok(1..) => self.obey(line.trim_end()),
                Ok(0) | Err(_) => return false,
            }
            if master.buffer().is_empty() {
                return true;
            }
        }
    }

    fn obey(&self, line: &str) {
        match Order::parse(line) {
            Some(Order::DrainForReload { left }) => self.stop.request_within(StopReason::Reload, left),
            Some(Order::DrainForStop { left }) => self.stop.request_within(StopReason::Stop, left),
            Some(Order::ReopenLogs) => logs::reopen(),
            None => tracing::warn!(order = line, "the master gave an unknown order"),
        }
    }

    /// Drains without a master: a drain that was under way goes on. In any case this process ends in time by itself.
    fn outlive_master(&self) {
        if self.stop.reason().is_none() {
            tracing::warn!("the master is gone, draining");
        }
        self.stop.request(StopReason::MasterGone);
        std::thread::sleep(self.stop.timeout());
        tracing::error!("the time for draining is over");
        sys::exit_now(1)
    }
}
