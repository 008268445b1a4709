//! A small disk of a test's own, which can be full.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use tempfile::TempDir;

use super::network::enter;

/// A file system in memory, which only this thread and the processes that it starts see.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts a disk of 256 KiB. To be called before any process is started.
    ///
    /// None, with a line that says so, when this user may not; unless `MEEPO_TEST_NAMESPACES` asks for it.
    ///
    /// # Panics
    ///
    /// When it has to be possible and is not.
    pub fn small() -> Option<Self> {
        enter(CloneFlags::CLONE_NEWNS)?;
        let folder = tempfile::Builder::new().prefix("meepo-disk-").tempdir();
        let folder = folder.expect("a folder for temporary files");
        let none = None::<&str>;
        // What is mounted here is not to be seen elsewhere.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts can be private");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=256k"),
        )
        .expect("a disk in memory can be mounted");
        Some(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes until it is full.
    ///
    /// # Panics
    ///
    /// When it cannot be written to at all.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the disk can be written to");
        while file.write(&[0; 4096]).is_ok() {}
    }

    /// Makes room again.
    ///
    /// # Panics
    ///
    /// When it was not filled.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).expect("the disk was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
