//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::process::master::exec::{exec_state, resume::resume};
use crate::process::program::Master;
use crate::process::setup::Options;
use crate::process::{commands, terminal};

impl Master {
    /// Does what the command line says, and returns the program's exit code: 0 done, 1 failed, 3 not running (`status`), 4 not
    /// serving (`status`), 64 wrong arguments or configuration.
    pub fn run(self) -> ExitCode {
        run(&self)
    }
}

fn run(program: &Master) -> ExitCode {
    if let Some(state) = exec_state::left_behind() {
        return resume(program, state);
    }
    let args = std::iter::once(program.name.clone().into()).chain(program.args.iter().cloned());
    let matches = match command(program).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // A reader that is gone is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(terminal::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let (name, matches) = matches.subcommand().expect("clap asks for a subcommand");
    let options = options(matches);
    match name {
        "start" => commands::start(program, options),
        "stop" => commands::stop(program, &options),
        "restart" => commands::restart(program, options),
        "reload" => commands::reload(program, &options),
        "status" => commands::status(program, &options, matches.get_flag("json"), matches.get_flag("watch")),
        "kill" => commands::kill(program, &options),
        _ => commands::check(program, &options, matches.get_flag("exec-state")),
    }
}

fn command(program: &Master) -> Command {
    let config = Arg::new("config")
        .short('c')
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("The configuration file; $MEEPO_CONFIG if it is not given, else none");
    let names: Vec<&'static str> = program.instances.iter().map(|instance| instance.name()).collect();
    let only = Arg::new("only")
        .long("only")
        .value_name("INSTANCE")
        .value_delimiter(',')
        .action(ArgAction::Append)
        .value_parser(move |name: &str| {
            let known = names.contains(&name);
            known
                .then(|| name.to_owned())
                .ok_or_else(|| format!("this program has {}", names.join(", ")))
        })
        .help("Run only these instances");
    let daemon = Arg::new("daemon")
        .short('d')
        .long("daemon")
        .action(ArgAction::SetTrue)
        .help("Run in the background; returns once all children serve");
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print JSON");
    let watch = Arg::new("watch")
        .long("watch")
        .action(ArgAction::SetTrue)
        .help("Print it each second, until ^C");
    // A master asks another binary so before it becomes that binary.
    let exec_state = Arg::new("exec-state")
        .long("exec-state")
        .action(ArgAction::SetTrue)
        .hide(true);
    Command::new(program.name.clone())
        .version(program.version.clone())
        .about(program.about.clone())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .arg(config)
        .subcommand(Command::new("start").about("Start the node").args([&daemon, &only]))
        .subcommand(Command::new("stop").about("Stop it gracefully, and by force when that takes too long"))
        .subcommand(
            Command::new("restart")
                .about("Stop it, and start it with the same options, or with those that are given")
                .args([&daemon, &only]),
        )
        .subcommand(Command::new("reload").about("Read the configuration again and replace the children one by one"))
        .subcommand(
            Command::new("status")
                .about("Show how it does; exits with 3 if it does not run, with 4 if not all instances serve")
                .args([json, watch]),
        )
        .subcommand(Command::new("kill").about("End master and children at once"))
        .subcommand(
            Command::new("check")
                .about("Check the configuration and print the settings in force")
                .args([&only, &exec_state]),
        )
        .after_help(
            "Exit codes: 0 done, 1 failed, 3 not running (status),\n\
             4 runs, but not all instances serve (status), 64 wrong arguments or configuration.\n\
             Signals to the master: TERM, INT, QUIT stop (a second INT: within a second), HUP reload,\n\
             USR1 reopen the log file, USR2 replace the program's binary.",
        )
}

fn options(matches: &ArgMatches) -> Options {
    let given = matches.get_one::<PathBuf>("config").cloned();
    let config = given.or_else(|| {
        std::env::var_os("MEEPO_CONFIG")
            .filter(|file| !file.is_empty())
            .map(Into::into)
    });
    let only = matches.try_get_many::<String>("only").ok().flatten();
    Options {
        // A daemon leaves its working directory.
        config: config.map(|file| std::path::absolute(&file).unwrap_or(file)),
        base: std::env::current_dir().unwrap_or_default(),
        only: only.map(|names| names.cloned().collect()).unwrap_or_default(),
        daemon: matches
            .try_get_one::<bool>("daemon")
            .ok()
            .flatten()
            .copied()
            .unwrap_or_default(),
    }
}
