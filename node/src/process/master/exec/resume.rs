//! How a binary goes on as the master in the place of the former one.

use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::binary::Binary;
use super::exec_state::{ExecState, ListenerState, before};
use crate::config::Config;
use crate::observe::logs;
use crate::observe::stats::{ChildState, Stats};
use crate::process::control::ControlServer;
use crate::process::daemon::StartOutcome;
use crate::process::master::running_instance::RunningInstance;
use crate::process::master::{Phase, Supervisor, signals};
use crate::process::pid_file::PidFile;
use crate::process::program::Master;
use crate::process::setup::{Setup, read_config};
use crate::process::terminal::{FAILURE, complain};
use crate::stop::StopReason;
use crate::sys;

/// Goes on as the master, and begins with a reload.
pub(crate) fn resume(program: &Master, state: ExecState) -> ExitCode {
    match take_over(program, state) {
        Ok(supervisor) => supervisor.serve(),
        // The children notice that their master is gone, and drain.
        Err(reason) => {
            complain(&format!("{}: cannot go on with the new binary: {reason}", program.name));
            ExitCode::from(FAILURE)
        }
    }
}

fn take_over(program: &Master, state: ExecState) -> Result<Supervisor<'_>, String> {
    let text = |error: io::Error| error.to_string();
    let options = state.options;
    // First the settings that the children have: the reload that follows may be refused. If the new binary does not accept
    // those any more, the settings of the file, which it has checked.
    let file = options.config.as_deref();
    let setup = Config::over(
        &program.name,
        file,
        state.config_text,
        &program.defaults,
        std::env::vars_os(),
    )
    .and_then(|config| Setup::of(config.at(&options.base), program, &options))
    .or_else(|_| read_config(program, &options).and_then(|config| Setup::of(config, program, &options)))
    .map_err(|error| error.to_string())?;
    logs::start(&setup.node, options.daemon).map_err(text)?;
    let signals = signals::listen().map_err(text)?;
    let tables = setup.tables();
    let old_stats = sys::adopt(state.stats).map_err(text)?;
    let same_stats = Stats::layout(&tables) == state.stats_layout;
    let stats = if same_stats {
        Stats::map(old_stats, &tables)
    } else {
        Stats::new(&tables)
    }
    .map_err(text)?;
    logs::name_process("master", stats.master().common());
    let mut control = ControlServer::over(
        &setup.node.socket_path(),
        sys::adopt(state.control).map_err(text)?.into(),
    );
    let mut callers = Vec::new();
    for caller in state.callers {
        callers.push(control.adopt(sys::adopt(caller).map_err(text)?.into()));
    }
    let metrics = state.metrics.map(ListenerState::restore);
    let now = Instant::now();
    let mut supervisor = Supervisor {
        program,
        node: Arc::clone(&setup.node),
        instances: Vec::new(),
        metrics: metrics.transpose().map_err(text)?.map(Rc::new),
        stats,
        signals,
        control,
        pid_file: PidFile::adopt(&setup.node.pid_path(), sys::adopt(state.pid_file).map_err(text)?),
        outcome: StartOutcome::Told,
        phase: Phase::Serving,
        started: before(now, state.uptime),
        last_reload: state.last_reload.map(|(answer, age)| (answer, before(now, age))),
        reload_wanted: Some(callers),
        upgrade_wanted: false,
        binary: Binary::at(state.binary, program),
        config_text: setup.config.text().map(Into::into),
        options,
    };
    let mut left = state.instances;
    for (number, planned) in setup.plans.iter().enumerate() {
        let of = left
            .iter()
            .position(|instance| instance.name == planned.name)
            .map(|at| left.swap_remove(at));
        let mut instance = RunningInstance {
            name: planned.name,
            stop_order: planned.stop_order,
            plan: Rc::clone(&planned.plan),
            listeners: Vec::new(),
            slots: Vec::new(),
            former: Vec::new(),
            restarts: 0,
            last_exit: None,
        };
        if let Some(of) = of {
            of.fill(&mut instance).map_err(text)?;
        }
        supervisor.instances.push(instance);
        supervisor.account(number, same_stats)?;
    }
    // Instances that the program does not have any more.
    for gone in left {
        let processes = gone
            .slots
            .into_iter()
            .filter_map(|slot| slot.process)
            .chain(gone.former);
        for process in processes {
            let mut process = process.restore(now).map_err(text)?;
            process.drain(StopReason::Stop, supervisor.node.stop_timeout);
            supervisor.instances[0].former.push(process);
        }
    }
    supervisor.publish_start();
    supervisor.reap();
    Ok(supervisor)
}

impl Supervisor<'_> {
    /// Gives the children of a instance slots in statistics that are new.
    fn account(&mut self, instance: usize, same_stats: bool) -> Result<(), String> {
        if same_stats {
            return Ok(());
        }
        for process in self.instances[instance].processes_mut() {
            process.entry = self.stats.claim(instance, process.index).ok_or("too many children")?;
            self.stats.set_pid(process.entry, process.pid.as_raw().unsigned_abs());
            let serves = process.state == ChildState::Serving;
            self.stats.mark(
                process.entry,
                if serves {
                    ChildState::Serving
                } else {
                    ChildState::Draining
                },
            );
        }
        Ok(())
    }
}
