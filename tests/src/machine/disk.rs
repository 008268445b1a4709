//! A small disk that one test has for itself, and can fill.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use tempfile::TempDir;

use super::network::enter;

/// A file system in memory that only this thread and the processes that it starts see.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts a disk of 256 KiB. To be called before any process is started.
    ///
    /// None, with a line on the standard error, when this user may not mount.
    ///
    /// # Panics
    ///
    /// When `MEEPO_TEST_NAMESPACES` is 1 and this user may not.
    pub fn small() -> Option<Self> {
        enter(CloneFlags::CLONE_NEWNS)?;
        let folder = tempfile::Builder::new().prefix("meepo-disk-").tempdir();
        let folder = folder.expect("a folder for temporary files");
        let none = None::<&str>;
        // Mounts made from here on stay in this namespace.
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

    /// The folder that it is mounted on.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes until the disk is full.
    ///
    /// # Panics
    ///
    /// When the disk cannot be written to at all.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the disk can be written to");
        while file.write(&[0; 4096]).is_ok() {}
    }

    /// Makes room again, after `fill`.
    ///
    /// # Panics
    ///
    /// When the disk was not filled.
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
