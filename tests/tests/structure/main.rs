//! The rules of the house, read from the sources of the whole workspace: no circles of modules, one style of module files,
//! folders that say what they are, and dependencies that go one way.
//!
//! `MEEPO_TEST_ROOT` names another work tree to look at, `MEEPO_TEST_MEMBER` one member of it (`bench`, `examples/chat`).
//! `MEEPO_TEST_ARROWS=1` prints the arrows between the children of each folder, with `--nocapture`.

mod cases;
mod circles;
mod imports;
mod modules;
mod workspace;

use std::env;

use modules::{Files, Modules};
use workspace::{Disk, Package};

/// Of Rust files in one folder of a `src`.
const MOST_FILES: usize = 15;

#[test]
fn no_circle_of_modules() {
    let disk = Disk::workspace();
    let print = env::var("MEEPO_TEST_ARROWS").is_ok_and(|value| value == "1");
    let mut found = Vec::new();
    for package in disk.packages() {
        for root in disk.roots(&package) {
            let arrows = Modules::read(&disk, &root).arrows();
            let levels = circles::levels(&arrows);
            found.extend(
                circles::circles(&levels)
                    .iter()
                    .map(|circle| format!("{}/{circle}", package.folder)),
            );
            if print {
                println!("{}", root.display());
                for (folder, level) in &levels {
                    println!("  {}\n{}", circles::name(folder), level.picture());
                }
            }
        }
    }
    none("circles of modules", &found);
}

#[test]
fn each_folder_says_what_it_is() {
    let disk = Disk::workspace();
    let mut wrong = Vec::new();
    for package in disk.packages() {
        for (folder, files) in disk.sources(&package) {
            let top = folder.ends_with("src");
            let own: Vec<&str> = match folder.ends_with("src/bin") {
                true => files.iter().map(String::as_str).collect(),
                false if top => ["lib.rs", "main.rs"]
                    .into_iter()
                    .filter(|name| files.contains(*name))
                    .collect(),
                false => files.get("mod.rs").map(String::as_str).into_iter().collect(),
            };
            if own.is_empty() {
                wrong.push(format!(
                    "{} has no {}",
                    folder.display(),
                    if top { "lib.rs" } else { "mod.rs" }
                ));
            }
            for name in own {
                let file = folder.join(name);
                let text = disk.read(&file).expect("it was listed");
                if !text.starts_with("//!") {
                    wrong.push(format!("{} does not begin with //!", file.display()));
                }
            }
        }
    }
    none("folders that do not say what they are", &wrong);
}

#[test]
fn module_files_have_one_style() {
    let disk = Disk::workspace();
    let mut wrong = Vec::new();
    for package in disk.packages() {
        let sources = disk.sources(&package);
        for folder in sources.keys().filter(|folder| !folder.ends_with("src")) {
            let beside = folder.with_extension("rs");
            if disk.root.join(&beside).is_file() {
                wrong.push(format!("{} stands beside {}", beside.display(), folder.display()));
            }
        }
    }
    none("modules in both styles: only mod.rs is used", &wrong);
}

#[test]
fn no_folder_is_crowded() {
    let disk = Disk::workspace();
    let mut wrong = Vec::new();
    for package in disk.packages() {
        for (folder, files) in disk.sources(&package) {
            if files.len() > MOST_FILES {
                wrong.push(format!("{} has {} files", folder.display(), files.len()));
            }
        }
    }
    none(&format!("folders with more than {MOST_FILES} files"), &wrong);
}

#[test]
fn dependencies_go_one_way() {
    let disk = Disk::workspace();
    let packages = disk.packages();
    let mut wrong = Vec::new();
    for package in &packages {
        let own = rank(package);
        for other in &packages {
            let (needed, needed_by_tests) = (
                package.dependencies.contains(&other.name),
                package.dev_dependencies.contains(&other.name) && package.name != other.name,
            );
            let beside = rank(other) == own;
            // The link may use the node, or the other way round; Cargo forbids both.
            let needed_wrongly = needed && (rank(other) > own || beside && own != rank_of("node"));
            // What is on top may test with its like.
            let tested_wrongly = needed_by_tests && (rank(other) > own || beside && own != rank_of("tests"));
            if needed_wrongly || tested_wrongly {
                wrong.push(format!("{} needs {}", package.folder, other.folder));
            }
        }
    }
    none(
        "dependencies against proto <- link, node <- registry, gateway, worker <- all others",
        &wrong,
    );
}

fn rank(package: &Package) -> usize {
    rank_of(&package.folder)
}

fn rank_of(folder: &str) -> usize {
    match folder {
        "proto" => 0,
        "link" | "node" => 1,
        "registry" | "gateway" | "worker" => 2,
        _ => 3,
    }
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n\n{}\n", found.join("\n\n"));
}
