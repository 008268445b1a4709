//! A child from the fork on: it becomes a process of its own, serves, drains, ends.
//!
//! It has a socket to its master. Upwards go `ready` and `failed REASON`; downwards `drain stop MS` and
//! `drain reload MS`, with the time that is left, and `reopen`; its end means that the master is gone. A thread of its own listens there, so that a child whose runtime is
//! stuck goes as well when nobody is left to end it.

mod heap;

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SignalFd;
use tokio_util::task::AbortOnDropHandle;

use crate::config::NodeSection;
use crate::observe::exporter::Exporter;
use crate::observe::logs;
use crate::observe::stats::{Siblings, Slot};
use crate::process::instance::{Child, Plan};
use crate::stop::{Stop, StopReason};
use crate::sys;

/// The socket to the master; there is none in a process that is no child.
static MASTER: OnceLock<UnixStream> = OnceLock::new();

/// How often a log that fails is tried again.
const MEND_LOGS: u16 = 1000;

/// What a child takes over from its master.
pub(crate) struct Start {
    pub(crate) instance: &'static str,
    pub(crate) index: usize,
    pub(crate) plan: Rc<Plan>,
    pub(crate) shared: Vec<TcpListener>,
    pub(crate) own: Option<TcpListener>,
    pub(crate) stats: &'static Slot,
    pub(crate) siblings: Siblings,
    /// Serves the metrics of the whole node, if they are wanted.
    pub(crate) exporter: Option<Exporter>,
    pub(crate) node: Arc<NodeSection>,
    /// The master logs otherwise than the section says: it takes that up only when the reload is done.
    pub(crate) new_logs: bool,
    /// What is the master's alone.
    pub(crate) close: Vec<RawFd>,
    pub(crate) master: UnixStream,
}

/// Tells the master that this child serves.
pub(crate) fn ready() {
    tell("ready");
}

fn tell(line: &str) {
    if let Some(mut master) = MASTER.get() {
        // If the master is gone, the thread that listens to it learns so.
        let _ = master.write_all(format!("{line}\n").as_bytes());
    }
}

/// Is the child, right after the fork.
pub(crate) fn run(start: Start) -> ! {
    let code = match serve(start) {
        Ok(()) => 0,
        Err(reason) => {
            tracing::error!(error = reason, "the child cannot serve");
            tell(&format!("failed {}", reason.replace('\n', " ")));
            1
        }
    };
    // Whatever the master's structures owned is closed already: nothing may be dropped.
    sys::exit_now(code)
}

fn serve(start: Start) -> Result<(), String> {
    let label = format!("{}/{}", start.instance, start.index);
    let master = start.master.try_clone().map_err(|error| error.to_string())?;
    MASTER.set(master).map_err(|_| "a child has no children")?;
    let signals = become_child(&start, &label).map_err(|error| error.to_string())?;
    let stop = Stop::new(start.node.stop_timeout);
    let listening = Listening {
        master: start.master,
        signals,
        log_alarm: logs::alarm().map_err(|error| error.to_string())?,
        stop: stop.clone(),
    };
    std::thread::Builder::new()
        .name("master".into())
        .stack_size(256 * 1024)
        .spawn(move || listening.run())
        .map_err(|error| error.to_string())?;

    let mut runtime = match start.plan.threads {
        0 | 1 => {
            start.stats.own();
            tokio::runtime::Builder::new_current_thread()
        }
        threads => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(threads);
            runtime
        }
    };
    let runtime = runtime
        .enable_all()
        .thread_name(label)
        .build()
        .map_err(|error| error.to_string())?;
    let child = Child {
        index: start.index,
        shared: start.shared,
        own: start.own,
        stats: start.stats,
        siblings: start.siblings,
        node: start.node,
        stop: stop.clone(),
    };
    let serve = Rc::clone(&start.plan.serve);
    let exporter = start.exporter.map(|exporter| exporter.run(stop.clone()));
    let serving = async move {
        let _trimming = AbortOnDropHandle::new(tokio::spawn(heap::give_back()));
        let _exporting = exporter.map(|exporter| AbortOnDropHandle::new(tokio::spawn(exporter)));
        serve(child).await
    };
    // What panics has been logged by the hook.
    let served = runtime.block_on(AssertUnwindSafe(serving).catch_unwind());
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Err(panic) => Err(format!("panicked: {}", text_of(&*panic))),
        Ok(Err(error)) => Err(chain(&*error)),
        Ok(Ok(())) if stop.reason().is_none() => Err("ended though nobody stopped it".into()),
        Ok(Ok(())) => Ok(()),
    }
}

/// Lets go of what is the master's, and sets up what a child needs.
fn become_child(start: &Start, label: &str) -> io::Result<SignalFd> {
    // A terminal sends these to the whole group; it is the master that answers them.
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR2] {
        sys::dispose(signal, true);
    }
    let own: SigSet = [Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&own), None)?;
    sys::close(&start.close);
    fastrand::seed(sys::random());
    logs::name_process(label, start.stats);
    if start.new_logs {
        logs::change(&start.node)?;
    }
    // Names are cut at 15 bytes; that this one is only for people makes a failure harmless.
    if let Ok(name) = std::ffi::CString::new(label) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    Ok(SignalFd::new(&own)?)
}

/// The thread that hears the master and the signals.
struct Listening {
    master: UnixStream,
    signals: SignalFd,
    log_alarm: Option<&'static EventFd>,
    stop: Stop,
}

impl Listening {
    fn run(self) {
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
            let timeout = if logs::fails() {
                MEND_LOGS.into()
            } else {
                PollTimeout::NONE
            };
            if poll(&mut ready, timeout).is_err() {
                continue;
            }
            let is_ready = |at: usize| ready[at].any().unwrap_or(true);
            let (master_ready, signal_ready) = (is_ready(0), is_ready(1));
            // Only to be woken; that it was raised once more is no matter.
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
                return self.orphaned();
            }
        }
    }

    /// Reads all that the master has said; `false` if it is gone.
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

    fn obey(&self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        let time = |text: &str| text.parse().map_or(self.stop.timeout(), Duration::from_millis);
        match words[..] {
            ["drain", "reload", left] => self.stop.request_within(StopReason::Reload, time(left)),
            ["drain", "stop", left] => self.stop.request_within(StopReason::Stop, time(left)),
            ["reopen"] => logs::reopen(),
            _ => tracing::warn!(command, "the master said what this child does not know"),
        }
    }

    /// The master is gone. A stop that was under way goes on; in any case this process ends in time by itself.
    fn orphaned(&self) {
        if self.stop.reason().is_none() {
            tracing::warn!("the master is gone, draining");
        }
        self.stop.request(StopReason::MasterGone);
        std::thread::sleep(self.stop.timeout());
        tracing::error!("the time for draining is over");
        sys::exit_now(1)
    }
}

/// What a panic says.
pub(crate) fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
}

/// An error with its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
