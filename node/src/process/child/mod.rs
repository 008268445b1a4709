//! A child's life from the fork on: it becomes a process of its own, serves, drains and ends.
//!
//! The master calls it, on the child's side of the fork. The end of the socket between them means that the master is gone.
//! A thread of its own listens there, so that a child whose runtime is stuck ends as well when no master is left to end it.
//! It must not know of other children.

mod heap;
mod listening;

use std::io;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SignalFd;
use tokio_util::task::AbortOnDropHandle;

use crate::config::NodeSection;
use crate::observe::exporter::Exporter;
use crate::observe::logs;
use crate::observe::stats::{Siblings, Slot};
use crate::process::dialogue::Report;
use crate::process::instance::{Child, Plan};
use crate::process::to_master;
use crate::stop::Stop;
use crate::{error_text, random, sys};
use listening::Listening;

/// Everything that a child takes over from its master.
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
    /// The descriptors that are the master's alone.
    pub(crate) close: Vec<RawFd>,
    pub(crate) master: UnixStream,
}

/// Lives the child's life, right after the fork.
pub(crate) fn run(start: Start) -> ! {
    let code = match serve(start) {
        Ok(()) => 0,
        Err(reason) => {
            tracing::error!(error = reason, "the child cannot serve");
            to_master::report(&Report::Failed(reason));
            1
        }
    };
    // The descriptors of the master's structures are closed already: nothing may be dropped.
    sys::exit_now(code)
}

fn serve(start: Start) -> Result<(), String> {
    let label = format!("{}/{}", start.instance, start.index);
    let master = start.master.try_clone().map_err(|error| error.to_string())?;
    to_master::connect(master)?;
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
    // A panic has been logged by its hook.
    let served = runtime.block_on(AssertUnwindSafe(serving).catch_unwind());
    runtime.shutdown_timeout(Duration::from_millis(100));
    match served {
        Err(panic) => Err(format!(
            "panicked: {}",
            error_text::of_panic(&*panic).unwrap_or("no text")
        )),
        Ok(Err(error)) => Err(error_text::with_causes(&*error)),
        Ok(Ok(())) if stop.reason().is_none() => Err("ended without an order to stop".into()),
        Ok(Ok(())) => Ok(()),
    }
}

/// Lets go of the master's descriptors and signals, and sets up the child's.
fn become_child(start: &Start, label: &str) -> io::Result<SignalFd> {
    // A terminal sends these to the whole group; it is the master that answers them.
    for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR2] {
        sys::dispose(signal, true);
    }
    let own: SigSet = [Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&own), None)?;
    sys::close(&start.close);
    fastrand::seed(random::number());
    logs::name_process(label, start.stats.common());
    if start.new_logs {
        logs::change(&start.node)?;
    }
    // Names are cut at 15 bytes; that this one is only for people makes a failure harmless.
    if let Ok(name) = std::ffi::CString::new(label) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    Ok(SignalFd::new(&own)?)
}
