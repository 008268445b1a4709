//! A new version of the program's binary: the master replaces itself, and keeps its pid, its lock, its listeners, its
//! statistics and its children. The new binary then reloads, so that the children are of it as well.
//!
//! The new binary is asked first whether it accepts the configuration. One that does not is refused, as a reload is.

use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, execve};

use super::exec_state::{VARIABLE, VERSION};
use crate::process::control::CallerId;
use crate::process::master::Supervisor;
use crate::process::pid_fd::PidFd;

/// How long a new binary may take to check its configuration.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// The text that a process has left in a pipe. It is bounded, and bytes that are no text are left out.
fn text_of(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(4096).read_to_string(&mut text);
    }
    text
}

impl Supervisor<'_> {
    /// Becomes the new binary. This only returns if that is not possible, with the reason.
    pub(in crate::process::master) fn upgrade(&mut self, callers: &[CallerId]) -> String {
        match self.check_binary().and_then(|()| self.become_binary(callers)) {
            Err(reason) => format!("{}: {reason}", self.binary.path().display()),
            Ok(never) => match never {},
        }
    }

    /// Has the new binary check the configuration, and say that it can read the state of this one.
    fn check_binary(&self) -> Result<(), String> {
        let mut check = Command::new(self.binary.path());
        check.args(self.binary.prefix()).args(["check", "--exec-state"]);
        if let Some(file) = &self.options.config {
            check.arg("-c").arg(file);
        } else {
            check.current_dir(&self.options.base);
        }
        for name in &self.options.only {
            check.args(["--only", name]);
        }
        check.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().map_err(|error| error.to_string())?;
        let process = PidFd::open(Pid::from_raw(check.id().cast_signed())).map_err(|error| error.to_string())?;
        let in_time = process.wait(CHECK_TIME);
        if !in_time {
            // Nobody has waited for the process, so the pid is still its own.
            let _ = check.kill();
        }
        let status = check.wait().map_err(|error| error.to_string())?;
        let (said, answer) = (text_of(check.stderr.take()), text_of(check.stdout.take()));
        match (in_time, status.success()) {
            (true, true) if answer == VERSION => Ok(()),
            (true, true) => Err("cannot take over from this version, only a restart can".into()),
            (false, _) => Err("did not check the configuration in time".into()),
            (true, false) => Err(format!("does not accept the configuration ({status}): {}", said.trim())),
        }
    }

    fn become_binary(&mut self, callers: &[CallerId]) -> Result<std::convert::Infallible, String> {
        let (state, descriptors) = self.exec_state(callers);
        let memory = memfd_create(c"meepo-exec-state", MFdFlags::empty()).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
        let mut file = std::fs::File::from(memory);
        file.write_all(&text).map_err(|error| error.to_string())?;

        let words = |words: Vec<OsString>| -> Result<Vec<CString>, String> {
            words
                .into_iter()
                .map(|word| CString::new(word.into_vec()).map_err(|error| error.to_string()))
                .collect()
        };
        let args = words(std::env::args_os().collect())?;
        let mut environment: Vec<OsString> = std::env::vars_os()
            .map(|(name, value)| [name.as_os_str(), value.as_os_str()].join(OsStr::new("=")))
            .collect();
        environment.push(format!("{VARIABLE}={}", file.as_raw_fd()).into());
        let environment = words(environment)?;
        let path = CString::new(self.binary.path().as_os_str().as_bytes()).map_err(|error| error.to_string())?;

        tracing::info!(binary = %self.binary.path().display(), "replacing the binary");
        for fd in &descriptors {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| error.to_string())?;
        }
        let error = match execve(&path, &args, &environment) {
            Err(error) => error,
            Ok(never) => match never {},
        };
        for fd in &descriptors {
            let _ = fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
        Err(error.to_string())
    }
}
