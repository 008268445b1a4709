//! A new version of the program's binary: the master replaces itself, and keeps its pid, its lock, its listeners, its
//! statistics and its children. The new binary then reloads, so that the children are of it as well.
//!
//! The new one is asked first whether it can run with the configuration; one that cannot is refused as a reload is.

use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Pid, execve};

use super::Supervisor;
use super::exec_state::{TAKEOVER, VARIABLE};
use crate::process::control::CallerId;
use crate::process::program::Master;
use crate::sys::PidFd;

/// How long a new binary may take to check its configuration.
const CHECK_TIME: Duration = Duration::from_secs(10);

/// The program's file.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    /// Where the program was started from; a link there may lead elsewhere later.
    path: PathBuf,
    running: Option<Identity>,
    /// The process's arguments, without those that `Master` has read.
    prefix: Vec<OsString>,
}

/// Device, inode, size and time of a file: all the same, it is the same file.
type Identity = (u64, u64, u64, i64, i64);

impl Binary {
    /// The file that this process runs.
    pub(crate) fn running(program: &Master) -> Self {
        let running = identity(Path::new("/proc/self/exe"));
        let mut prefix: Vec<OsString> = std::env::args_os().collect();
        prefix.truncate(prefix.len().saturating_sub(program.args.len()));
        let named = prefix.first().map(PathBuf::from).and_then(|name| find(&name));
        let path = named.filter(|path| identity(path) == running).or_else(replaced_exe);
        Self {
            path: path.unwrap_or_default(),
            running,
            prefix,
        }
    }

    /// The file of a process that was replaced, at the place where that was.
    pub(super) fn at(path: PathBuf, program: &Master) -> Self {
        Self {
            path,
            ..Self::running(program)
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another file is in its place now.
    pub(super) fn is_replaced(&self) -> bool {
        identity(&self.path).is_some_and(|now| Some(now) != self.running)
    }
}

/// What a process that has ended said. What is not text is not shown; a pipe's content is bounded.
fn text_of(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(4096).read_to_string(&mut text);
    }
    text
}

fn identity(path: &Path) -> Option<Identity> {
    let about = std::fs::metadata(path).ok()?;
    Some((
        about.dev(),
        about.ino(),
        about.size(),
        about.mtime(),
        about.mtime_nsec(),
    ))
}

/// The running file by the name that the kernel has for it, which says so if another one has taken its place already.
fn replaced_exe() -> Option<PathBuf> {
    let exe = std::env::current_exe().ok()?;
    let before = exe
        .as_os_str()
        .as_bytes()
        .strip_suffix(b" (deleted)")
        .map(|path| PathBuf::from(OsStr::from_bytes(path)));
    before.filter(|path| path.exists()).or(Some(exe))
}

/// The file that a shell means by a name.
fn find(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

impl Supervisor<'_> {
    /// Becomes the new binary. This only returns if that is not possible, with the reason.
    pub(super) fn upgrade(&mut self, callers: &[CallerId]) -> String {
        match self.check_binary().and_then(|()| self.become_binary(callers)) {
            Err(reason) => format!("{}: {reason}", self.binary.path.display()),
            Ok(never) => match never {},
        }
    }

    /// Has the new binary check the configuration, and say that it can read what this one leaves to it.
    fn check_binary(&self) -> Result<(), String> {
        let mut check = Command::new(&self.binary.path);
        check
            .args(self.binary.prefix.iter().skip(1))
            .args(["check", "--takeover"]);
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
            // It has not been waited for, so the pid is still its own.
            let _ = check.kill();
        }
        let status = check.wait().map_err(|error| error.to_string())?;
        let (said, answer) = (text_of(check.stderr.take()), text_of(check.stdout.take()));
        match (in_time, status.success()) {
            (true, true) if answer == TAKEOVER => Ok(()),
            (true, true) => Err("cannot take over from this version, only a restart can".into()),
            (false, _) => Err("did not check the configuration in time".into()),
            (true, false) => Err(format!("does not accept the configuration ({status}): {}", said.trim())),
        }
    }

    fn become_binary(&mut self, callers: &[CallerId]) -> Result<std::convert::Infallible, String> {
        let (state, descriptors) = self.legacy(callers);
        let memory = memfd_create(c"meepo-takeover", MFdFlags::empty()).map_err(|error| error.to_string())?;
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
        let path = CString::new(self.binary.path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;

        tracing::info!(binary = %self.binary.path.display(), "replacing the binary");
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
