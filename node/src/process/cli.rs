//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::ConfigError;
use crate::process::daemon::{self, Side, Terminal};
use crate::process::master::Binary;
use crate::process::program::Master;
use crate::process::setup::{Options, Setup};
use crate::process::{commands, master};
use crate::sys;

/// The exit code of what failed.
pub(crate) const FAILURE: u8 = 1;
/// The exit code of `status` when the node does not run.
pub(crate) const NOT_RUNNING: u8 = 3;
/// The exit code of `status` when the node runs, and an instance has no child that serves.
pub(crate) const NOT_SERVING: u8 = 4;
/// The exit code of a command line or a configuration that is wrong.
pub(crate) const USAGE: u8 = 64;

/// Does what the arguments say.
pub(crate) fn run(program: &Master) -> ExitCode {
    if let Some(state) = master::left_behind() {
        return master::resume(program, state);
    }
    let args = std::iter::once(program.name.clone().into()).chain(program.args.iter().cloned());
    let matches = match command(program).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // To a closed pipe it does not matter.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let (name, matches) = matches.subcommand().expect("clap asks for a subcommand");
    let options = options(matches);
    match name {
        "start" => start(program, options),
        "stop" => commands::stop(program, &options),
        "restart" => commands::restart(program, options),
        "reload" => commands::reload(program, &options),
        "status" => commands::status(program, &options, matches.get_flag("json"), matches.get_flag("watch")),
        "kill" => commands::kill(program, &options),
        _ => check(program, &options, matches.get_flag("takeover")),
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
    // A master asks so before it becomes another binary.
    let takeover = Arg::new("takeover")
        .long("takeover")
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
                .args([&only, &takeover]),
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

/// Starts the node; in the foreground this returns when it has stopped.
pub(crate) fn start(program: &Master, options: Options) -> ExitCode {
    let setup = match Setup::read(program, &options) {
        Ok(setup) => setup,
        Err(error) => return wrong_config(program, &error),
    };
    if setup.plans.is_empty() {
        complain(&format!("{}: there is nothing to run", program.name));
        return ExitCode::from(USAGE);
    }
    if sys::threads() > 1 {
        complain(&format!(
            "{}: cannot fork: the program has started threads before its master",
            program.name
        ));
        return ExitCode::from(FAILURE);
    }
    let binary = Binary::running(program);
    let terminal = if options.daemon {
        match daemon::split(&setup.node.name) {
            Ok(Side::Shell(code)) => return code,
            Ok(Side::Daemon(terminal)) => terminal,
            Err(error) => {
                complain(&format!("{}: cannot go to the background: {error}", program.name));
                return ExitCode::from(FAILURE);
            }
        }
    } else {
        Terminal::Foreground(false)
    };
    master::run(program, options, setup, terminal, binary)
}

fn check(program: &Master, options: &Options, takeover: bool) -> ExitCode {
    match Setup::read(program, options) {
        Ok(_) if takeover => {
            print(master::TAKEOVER);
            ExitCode::SUCCESS
        }
        Ok(setup) => {
            print(&setup.effective());
            ExitCode::SUCCESS
        }
        Err(error) => wrong_config(program, &error),
    }
}

/// Tells of a configuration that is wrong.
pub(crate) fn wrong_config(program: &Master, error: &ConfigError) -> ExitCode {
    complain(&format!("{}: {error}", program.name));
    ExitCode::from(USAGE)
}

/// Writes to the standard output. Whoever read it may be gone: that is no matter.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a line to the standard error output.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", text.trim_end()).as_bytes());
}
