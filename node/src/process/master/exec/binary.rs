//! The program's file: where it is, and whether another file has taken its place.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::process::program::Master;

/// The program's file.
#[derive(Debug, Clone)]
pub(crate) struct Binary {
    /// Where the program was started from; a link there may lead elsewhere later.
    path: PathBuf,
    /// The file that this process runs, if the system says.
    running: Option<Identity>,
    /// The process's name and arguments, without the arguments that `Master` has read.
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
    pub(crate) fn at(path: PathBuf, program: &Master) -> Self {
        Self {
            path,
            ..Self::running(program)
        }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The arguments before those that `Master` reads, such as a subcommand.
    pub(crate) fn prefix(&self) -> impl Iterator<Item = &OsString> {
        self.prefix.iter().skip(1)
    }

    /// Whether another file is in its place now.
    pub(crate) fn is_replaced(&self) -> bool {
        identity(&self.path).is_some_and(|now| Some(now) != self.running)
    }
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
