//! Finds the programs under test, and builds them once.
//!
//! Cargo tells a test where the binaries of its own package are, but not those of others, and builds those only by chance.
//! So they are built here, into the same `target` folder and with the same profile: once per test process, or once per
//! run where nextest says which run it is. When all is fresh that takes a moment.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

/// The path of a program of this workspace.
///
/// # Panics
///
/// When it cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = profile_folder();
        build(&folder);
        folder
    });
    let path = folder.join(name);
    assert!(path.is_file(), "there is no program {}", path.display());
    path
}

/// `target/<profile>`: a test is in `target/<profile>/deps`.
fn profile_folder() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("a test is in target/<profile>/deps");
    folder.to_path_buf()
}

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a folder of the workspace")
}

fn build(folder: &Path) {
    let file = File::create(folder.join(".meepo-tests-lock")).expect("target is writable");
    let _lock = Flock::lock(file, FlockArg::LockExclusive).expect("a lock on a file in target");
    let stamp = folder.join(".meepo-tests-built");
    let run = env::var("NEXTEST_RUN_ID").ok();
    if run.is_some() && fs::read_to_string(&stamp).ok() == run {
        return;
    }
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    // `--examples` (there are none) has the same features of dependencies chosen as for tests: nothing is built twice.
    let targets = ["--workspace", "--bins", "--examples"];
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--profile", profile])
        .args(targets)
        .current_dir(workspace())
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the programs under test could not be built");
    fs::write(stamp, run.unwrap_or_default()).expect("target is writable");
}
