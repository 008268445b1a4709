//! The pid file: its lock says whether a node runs, and which process is its master. The text in it is for people only.
//!
//! The lock is one of POSIX: it ends with the process, a fork does not inherit it, and the kernel tells the holder's pid.
//! A user who can read a file can lock it against writers. So other users may not read this one, and a lock for reading is not
//! believed.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::Pid;

/// Read and written by its owner.
const MODE: u32 = 0o600;

/// A lock that this process holds until it ends or removes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: File,
    /// The file was there already: the master before this one did not clean up.
    pub(crate) stale: bool,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("it runs already, with pid {0}")]
    Held(Pid),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

impl PidFile {
    /// Takes the lock, whatever text is in the file.
    pub(crate) fn take(path: &Path) -> Result<Self, Refused> {
        let failed = |error: io::Error| Refused::Io(path.into(), error);
        loop {
            let stale = path.exists();
            let mut file = open(path, true).map_err(failed)?;
            file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
            match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => match holder_of(&file).map_err(failed)? {
                    Some(pid) => return Err(Refused::Held(pid)),
                    None => continue,
                },
                Err(error) => return Err(failed(error.into())),
            }
            // Its former holder may have removed it between the opening and the locking.
            let ours = file.metadata().map_err(failed)?;
            match std::fs::metadata(path) {
                Ok(named) if (named.ino(), named.dev()) == (ours.ino(), ours.dev()) => {}
                _ => continue,
            }
            file.set_len(0)
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(failed)?;
            return Ok(Self {
                path: path.into(),
                file,
                stale,
            });
        }
    }

    /// Takes up a lock that this process holds already, after it has replaced its binary.
    pub(crate) fn adopt(path: &Path, file: OwnedFd) -> Self {
        Self {
            path: path.into(),
            file: file.into(),
            stale: false,
        }
    }

    /// The locked file. As long as it is open, and is not opened and closed a second time, the lock stays.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the file, and gives up the lock.
    pub(crate) fn remove(self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the pid file");
        }
    }
}

/// The master of a node, if it runs.
pub(crate) fn holder(path: &Path) -> io::Result<Option<Pid>> {
    match open(path, false) {
        Ok(file) => holder_of(&file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// Makes the run directory, and refuses a directory into which other users could have put files.
pub(crate) fn make_run_dir(dir: &Path) -> Result<(), String> {
    let fail = |why: &dyn std::fmt::Display| format!("the run directory {}: {why}", dir.display());
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Ok(()) => {}
        Err(error) => return Err(fail(&error)),
    }
    let about = std::fs::symlink_metadata(dir).map_err(|error| fail(&error))?;
    let user = nix::unistd::geteuid().as_raw();
    if !about.is_dir() {
        return Err(fail(&"is not a directory"));
    }
    if about.uid() != user {
        return Err(fail(&format!(
            "belongs to another user ({}), and not to {user}",
            about.uid()
        )));
    }
    if about.mode() & 0o022 != 0 {
        return Err(fail(&"can be written by others"));
    }
    Ok(())
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(create)
        .create(create)
        .mode(MODE)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

fn holder_of(file: &File) -> io::Result<Option<Pid>> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    match lock.l_type as libc::c_int {
        libc::F_UNLCK => Ok(None),
        // The lock of a master is for writing.
        libc::F_RDLCK => Err(io::Error::other(format!(
            "it is locked by a process that is no master, with pid {}",
            lock.l_pid
        ))),
        _ if lock.l_pid > 0 => Ok(Some(Pid::from_raw(lock.l_pid))),
        _ => Err(io::Error::other(
            "its lock is held by a process that cannot be seen from here",
        )),
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_the_file_is_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        assert_eq!(holder(&path).unwrap(), None);
        let own = std::process::id().to_string();
        for text in ["1", own.as_str(), "", "text", "99999999999999999999"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(holder(&path).unwrap(), None);
            let taken = PidFile::take(&path).unwrap();
            assert!(taken.stale);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{own}\n"));
            taken.remove();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_stranger_that_can_read_the_file_is_no_master() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pid");
        std::fs::write(&path, "1").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let strange = File::open(&path).unwrap();
        let mut lock = whole_file();
        lock.l_type = libc::F_RDLCK as libc::c_short;
        fcntl(&strange, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        assert!(holder(&path).unwrap_err().to_string().contains("is no master"));
        let refused = PidFile::take(&path).unwrap_err();
        assert!(matches!(refused, Refused::Io(..)), "{refused}");
        drop(strange);
        let taken = PidFile::take(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        taken.remove();
    }

    #[test]
    fn a_run_directory_must_be_ours() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/b");
        make_run_dir(&run).unwrap();
        assert_eq!(std::fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
        make_run_dir(&run).unwrap();
        std::os::unix::fs::symlink(&run, dir.path().join("link")).unwrap();
        assert!(
            make_run_dir(&dir.path().join("link"))
                .unwrap_err()
                .contains("not a directory")
        );
        std::fs::set_permissions(&run, Permissions::from_mode(0o777)).unwrap();
        assert!(make_run_dir(&run).unwrap_err().contains("by others"));
    }
}
