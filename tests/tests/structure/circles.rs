//! Circles among the children of a folder.
//!
//! A child is a file or a sub-folder with all that is in it. A folder's own file (`mod.rs`, `lib.rs`) names its children and
//! is named by them; those arrows do not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Write};

use crate::imports::Arrow;

/// The children of one folder, and the arrows between them.
#[derive(Debug, Default)]
pub(crate) struct Level<'a> {
    arrows: BTreeMap<(&'a str, &'a str), Vec<&'a Arrow>>,
}

/// Children of a folder of which each leads to each.
#[derive(Debug)]
pub(crate) struct Circle<'a> {
    folder: &'a [String],
    children: BTreeSet<&'a str>,
    /// A shortest way round, without its first child again.
    round: Vec<&'a str>,
    level: &'a Level<'a>,
}

/// The arrows of a crate by the folder whose children they join.
pub(crate) fn levels(arrows: &[Arrow]) -> BTreeMap<&[String], Level<'_>> {
    let mut levels: BTreeMap<&[String], Level<'_>> = BTreeMap::new();
    for arrow in arrows {
        let common = arrow.from.iter().zip(&arrow.to).take_while(|(from, to)| from == to);
        let common = common.count();
        if let (Some(from), Some(to)) = (arrow.from.get(common), arrow.to.get(common)) {
            let level = levels.entry(&arrow.from[..common]).or_default();
            level.arrows.entry((from, to)).or_default().push(arrow);
        }
    }
    levels
}

/// All circles of these folders.
pub(crate) fn circles<'a>(levels: &'a BTreeMap<&'a [String], Level<'a>>) -> Vec<Circle<'a>> {
    let mut circles = Vec::new();
    for (folder, level) in levels {
        let children: BTreeSet<&str> = level.arrows.keys().map(|(from, _)| *from).collect();
        let ways: BTreeMap<&str, Vec<&str>> = children
            .iter()
            .filter_map(|child| Some((*child, level.round(child)?)))
            .collect();
        let mut left: BTreeSet<&str> = ways.keys().copied().collect();
        while let Some(first) = left.first().copied() {
            let (there, back) = (level.reached(first, false), level.reached(first, true));
            let mut group: BTreeSet<&str> = there.intersection(&back).copied().collect();
            group.insert(first);
            left.retain(|child| !group.contains(child));
            let rounds = group.iter().filter_map(|child| ways.get(child));
            let round = rounds.min_by_key(|round| round.len()).expect("it is a circle");
            circles.push(Circle {
                folder,
                round: round.clone(),
                children: group,
                level,
            });
        }
    }
    circles
}

impl<'a> Level<'a> {
    fn next(&self, child: &str, back: bool) -> impl Iterator<Item = &'a str> {
        self.arrows.keys().filter_map(move |(from, to)| match back {
            false => (*from == child).then_some(*to),
            true => (*to == child).then_some(*from),
        })
    }

    fn reached(&self, from: &'a str, back: bool) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(child) = open.pop() {
            open.extend(self.next(child, back).filter(|next| reached.insert(*next)));
        }
        reached
    }

    /// A shortest way from a child back to itself.
    fn round(&self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut ways = VecDeque::from([vec![start]]);
        let mut reached = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            for next in self.next(way[way.len() - 1], false) {
                if next == start {
                    return Some(way);
                }
                if reached.insert(next) {
                    let mut longer = way.clone();
                    longer.push(next);
                    ways.push_back(longer);
                }
            }
        }
        None
    }

    /// A line for each child: those that it leads to.
    pub(crate) fn picture(&self) -> String {
        let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (from, to) in self.arrows.keys() {
            lines.entry(from).or_default().push(to);
        }
        lines.iter().fold(String::new(), |mut text, (from, to)| {
            let _ = writeln!(text, "    {from} -> {}", to.join(", "));
            text
        })
    }
}

/// The name of a folder, as a path below the crate's source.
pub(crate) fn name(folder: &[String]) -> String {
    let mut name = "src".to_owned();
    folder.iter().for_each(|part| {
        name.push('/');
        name.push_str(part);
    });
    name
}

impl fmt::Display for Circle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round: Vec<&str> = self.round.iter().chain(self.round.first()).copied().collect();
        write!(f, "{}: {}", name(self.folder), round.join(" -> "))?;
        if self.children.len() > self.round.len() {
            let children: Vec<&str> = self.children.iter().copied().collect();
            let count = children.len();
            write!(
                f,
                "\n    one circle among {count} that lead to each other: {}",
                children.join(", ")
            )?;
        }
        for pair in round.windows(2) {
            let arrows = &self.level.arrows[&(pair[0], pair[1])];
            for arrow in arrows.iter().take(3) {
                let place = format!("{}:{}", arrow.file.display(), arrow.line);
                write!(f, "\n    {} -> {}: {place}: {}", pair[0], pair[1], arrow.text)?;
            }
            if arrows.len() > 3 {
                write!(f, " (and {} more)", arrows.len() - 3)?;
            }
        }
        Ok(())
    }
}
