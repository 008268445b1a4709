//! From paths to arrows: which file's names a file uses, through all re-exports.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::modules::{Mention, Modules, Name, Place};

/// One file uses a name that another file defines.
#[derive(Debug)]
pub(crate) struct Arrow {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    /// The import or path as it is written.
    pub(crate) text: String,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Module(Place),
    /// Something that is defined in this module, or that this module has from another crate.
    In(Place),
}

/// Names that are being looked up: `use a::a` must not lead round in circles.
type Seen = BTreeSet<(Place, String)>;

impl Modules {
    /// All arrows between files.
    pub(crate) fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (place, module) in &self.by_place {
            for mention in &module.mentions {
                for target in self.targets(place, mention) {
                    let (Target::Module(to) | Target::In(to)) = target;
                    let to = self.by_place[&to].owner.clone();
                    if to != module.owner {
                        let path = mention.path.join("::");
                        arrows.push(Arrow {
                            from: module.owner.clone(),
                            to,
                            file: module.file.clone(),
                            line: mention.line,
                            text: if mention.by_use { format!("use {path}") } else { path },
                        });
                    }
                }
            }
        }
        arrows
    }

    fn targets(&self, place: &Place, mention: &Mention) -> BTreeSet<Target> {
        let module = &self.by_place[place];
        let lone = !mention.by_use && mention.path.len() == 1;
        // A lone word that was imported by its name counts where it was imported.
        if lone && (module.names.contains_key(&mention.path[0]) || is_keyword(&mention.path[0])) {
            return BTreeSet::new();
        }
        self.resolve(place, &mention.path, &mut Seen::new())
    }

    /// Nothing, if the path leads out of the crate.
    fn resolve(&self, place: &Place, path: &[String], seen: &mut Seen) -> BTreeSet<Target> {
        let mut start = place.clone();
        let mut rest = path;
        let mut rooted = false;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => start.clear(),
                "self" => {}
                "super" => {
                    start.pop();
                }
                _ => break,
            }
            (rest, rooted) = (others, true);
        }
        self.walk(&start, rest, rooted, seen)
    }

    /// Follows a path from a module. `certain` says that the module has the name, whether we find it or not.
    fn walk(&self, module: &Place, path: &[String], certain: bool, seen: &mut Seen) -> BTreeSet<Target> {
        let Some((first, rest)) = path.split_first() else {
            return [Target::Module(module.clone())].into();
        };
        let mut targets = BTreeSet::new();
        for target in self.look_up(module, first, seen) {
            match target {
                Target::Module(inner) => targets.extend(self.walk(&inner, rest, true, seen)),
                // The rest is an associated item or a variant.
                Target::In(_) => {
                    targets.insert(target);
                }
            }
        }
        if targets.is_empty() && certain {
            // A macro has made it.
            targets.insert(Target::In(module.clone()));
        }
        targets
    }

    fn look_up(&self, place: &Place, name: &str, seen: &mut Seen) -> BTreeSet<Target> {
        let Some(module) = self.by_place.get(place) else {
            return BTreeSet::new();
        };
        if !seen.insert((place.clone(), name.into())) {
            return BTreeSet::new();
        }
        let mut targets = BTreeSet::new();
        for name in module.names.get(name).into_iter().flatten() {
            match name {
                // One that is for tests only was not read.
                Name::Module(inner) if !self.by_place.contains_key(inner) => {}
                Name::Module(inner) => {
                    targets.insert(Target::Module(inner.clone()));
                }
                Name::Item => {
                    targets.insert(Target::In(place.clone()));
                }
                Name::Import(path) => {
                    let found = self.resolve(place, path, seen);
                    match found.is_empty() {
                        true => targets.insert(Target::In(place.clone())),
                        false => {
                            targets.extend(found);
                            true
                        }
                    };
                }
            }
        }
        if targets.is_empty() {
            for glob in &module.globs {
                for target in self.resolve(place, glob, seen) {
                    if let Target::Module(inner) = target {
                        targets.extend(self.look_up(&inner, name, seen));
                    }
                }
            }
        }
        seen.remove(&(place.clone(), name.into()));
        targets
    }
}

fn is_keyword(word: &str) -> bool {
    ["crate", "self", "super", "Self"].contains(&word)
}
