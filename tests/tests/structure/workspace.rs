//! The members of the workspace: their manifests, and the files of their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use meepo_tests::binaries;

use crate::modules::Files;

/// A member of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder below the root, such as `examples/chat`.
    pub(crate) folder: String,
    /// Those that are needed to build it.
    pub(crate) dependencies: BTreeSet<String>,
    /// Those that its tests and benches need beyond them.
    pub(crate) dev_dependencies: BTreeSet<String>,
}

/// Files below a folder.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) root: PathBuf,
}

impl Files for Disk {
    fn read(&self, file: &Path) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok()
    }
}

impl Disk {
    /// The workspace of this test, or the one that `MEEPO_TEST_ROOT` names.
    pub(crate) fn workspace() -> Self {
        let root = env::var_os("MEEPO_TEST_ROOT").map_or_else(|| binaries::workspace().to_path_buf(), PathBuf::from);
        Self { root }
    }

    /// All members, or the one whose folder `MEEPO_TEST_MEMBER` names.
    pub(crate) fn packages(&self) -> Vec<Package> {
        let manifest = self.manifest("");
        let list = |key: &str| -> Vec<&str> {
            let list = manifest["workspace"].get(key).and_then(toml::Value::as_array);
            list.into_iter().flatten().filter_map(toml::Value::as_str).collect()
        };
        let excluded = list("exclude");
        let mut folders = Vec::new();
        for member in list("members") {
            match member.strip_suffix("/*") {
                None => folders.push(member.to_owned()),
                Some(above) => folders.extend(self.folders(above)),
            }
        }
        folders.retain(|folder| !excluded.contains(&folder.as_str()));
        if let Ok(only) = env::var("MEEPO_TEST_MEMBER") {
            folders.retain(|folder| *folder == only);
            assert!(!folders.is_empty(), "the workspace has no member {only}");
        }
        folders.into_iter().map(|folder| self.package(folder)).collect()
    }

    fn package(&self, folder: String) -> Package {
        let manifest = self.manifest(&folder);
        let keys = |section: &str| -> BTreeSet<String> {
            let table = manifest.get(section).and_then(toml::Value::as_table);
            table.into_iter().flat_map(|table| table.keys().cloned()).collect()
        };
        let mut dependencies = keys("dependencies");
        dependencies.extend(keys("build-dependencies"));
        Package {
            name: manifest["package"]["name"]
                .as_str()
                .expect("a package has a name")
                .into(),
            dependencies,
            dev_dependencies: keys("dev-dependencies"),
            folder,
        }
    }

    fn manifest(&self, folder: &str) -> toml::Value {
        let path = Path::new(folder).join("Cargo.toml");
        let text = self
            .read(&path)
            .unwrap_or_else(|| panic!("{} cannot be read", path.display()));
        let table: toml::Table = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        table.into()
    }

    /// The folders in a folder that hold a manifest.
    fn folders(&self, above: &str) -> Vec<String> {
        let mut folders: Vec<String> = names(&self.root.join(above))
            .into_iter()
            .map(|name| format!("{above}/{name}"))
            .filter(|folder| self.root.join(folder).join("Cargo.toml").is_file())
            .collect();
        folders.sort();
        folders
    }

    /// The roots of a package's library and programs.
    pub(crate) fn roots(&self, package: &Package) -> Vec<PathBuf> {
        let source = Path::new(&package.folder).join("src");
        let mut roots: Vec<PathBuf> = ["lib.rs", "main.rs"].iter().map(|name| source.join(name)).collect();
        let programs = source.join("bin");
        roots.extend(names(&self.root.join(&programs)).iter().map(|name| programs.join(name)));
        roots.retain(|root| self.root.join(root).is_file());
        roots
    }

    /// The Rust files below a package's `src`, by folder; generated ones are left out.
    pub(crate) fn sources(&self, package: &Package) -> BTreeMap<PathBuf, BTreeSet<String>> {
        let mut sources = BTreeMap::new();
        let mut open = vec![Path::new(&package.folder).join("src")];
        while let Some(folder) = open.pop() {
            let mut files = BTreeSet::new();
            for name in names(&self.root.join(&folder)) {
                let path = folder.join(&name);
                if self.root.join(&path).is_dir() {
                    if name != "generated" {
                        open.push(path);
                    }
                } else if name.ends_with(".rs") {
                    files.insert(name);
                }
            }
            if !files.is_empty() {
                sources.insert(folder, files);
            }
        }
        sources
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
