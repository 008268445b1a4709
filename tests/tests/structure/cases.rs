//! The reader itself, on small crates that are made up.

use std::path::Path;

use crate::circles;
use crate::modules::{Files, Modules};

struct Texts<'a>(&'a [(&'a str, &'a str)]);

impl Files for Texts<'_> {
    fn read(&self, file: &Path) -> Option<String> {
        let file = file.strip_prefix("src").ok()?;
        let found = self.0.iter().find(|(name, _)| Path::new(name) == file);
        found.map(|(_, text)| (*text).to_owned())
    }
}

/// The circles of a crate, as they are printed.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let arrows = Modules::read(&Texts(files), Path::new("src/lib.rs")).arrows();
    let levels = circles::levels(&arrows);
    circles::circles(&levels).iter().map(ToString::to_string).collect()
}

/// The arrows of a crate: `a -> b::c` for each pair of modules.
fn arrows_of(files: &[(&str, &str)]) -> Vec<String> {
    let arrows = Modules::read(&Texts(files), Path::new("src/lib.rs")).arrows();
    let mut texts: Vec<String> = arrows
        .iter()
        .map(|arrow| format!("{} -> {}", arrow.from.join("::"), arrow.to.join("::")))
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

#[test]
fn a_circle_is_told_with_its_places() {
    let found = circles_of(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;"),
        (
            "a.rs",
            "use crate::b::{Beta,\n    Other};\nuse crate::b;\npub struct A;\nfn f() { b::more() }",
        ),
        (
            "b.rs",
            "pub struct Beta; pub struct Other; pub fn more() {}\n\nuse super::c::C;",
        ),
        ("c.rs", "pub struct C(crate::a::A);"),
    ]);
    assert_eq!(
        found,
        ["src: a -> b -> c -> a\
          \n    a -> b: src/a.rs:1: use crate::b::Beta\
          \n    a -> b: src/a.rs:2: use crate::b::Other\
          \n    a -> b: src/a.rs:3: use crate::b (and 1 more)\
          \n    b -> c: src/b.rs:3: use super::c::C\
          \n    c -> a: src/c.rs:1: crate::a::A"]
    );
}

#[test]
fn the_shortest_of_many_circles_is_told() {
    let found = circles_of(&[
        ("lib.rs", "mod a;\nmod b;\nmod c; mod d;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "use crate::c::C; pub struct B;"),
        ("c.rs", "use crate::a::A; use crate::b::B; pub struct C;"),
        ("d.rs", "use crate::a::A;"),
    ]);
    assert_eq!(found.len(), 1);
    let head: Vec<&str> = found[0].lines().take(2).collect();
    assert_eq!(
        head,
        [
            "src: b -> c -> b",
            "    one circle among 3 that lead to each other: a, b, c"
        ]
    );
}

#[test]
fn a_tree_has_no_circle() {
    let found = circles_of(&[
        (
            "lib.rs",
            "//! Words.\npub mod a;\nmod b;\npub use b::B;\npub struct Root;",
        ),
        // Comments and texts are no imports.
        (
            "a.rs",
            "//! use crate::b::B;\nuse crate::Root;\npub struct A;\nconst TEXT: &str = \"crate::b::B\"; // crate::b::B",
        ),
        (
            "b/mod.rs",
            "mod inner; mod other;\nuse crate::a::A;\npub use inner::I;\npub struct B;",
        ),
        // Its own parent, and its parent's parent, as far as they define what is named.
        (
            "b/inner.rs",
            "use super::B;\nuse crate::Root;\nuse super::other::O;\npub struct I;",
        ),
        ("b/other.rs", "pub struct O;"),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_circle_leads_through_re_exports() {
    // The parent only passes on what a sibling defines.
    let found = circles_of(&[
        ("lib.rs", "mod hub;"),
        (
            "hub/mod.rs",
            "mod one;\nmod two;\npub(crate) use one::One;\npub use self::two::*;",
        ),
        ("hub/one.rs", "use super::Two;\npub struct One;"),
        ("hub/two.rs", "pub struct Two(super::One);"),
    ]);
    assert_eq!(
        found,
        ["src/hub: one -> two -> one\
          \n    one -> two: src/hub/one.rs:1: use super::Two\
          \n    two -> one: src/hub/two.rs:1: super::One"]
    );
    // The same over the crate's root, in a chain, and under another name.
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b;\npub use a::First as Renamed;\npub use b::*;"),
        ("a/mod.rs", "mod inner;\npub use inner::First;"),
        ("a/inner.rs", "pub struct First(crate::Second);"),
        ("b.rs", "use crate::Renamed;\npub struct Second;"),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src: a -> b -> a\n"), "{found:?}");
}

#[test]
fn folders_are_lifted_to_the_level_that_they_share() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "pub mod x; pub mod y;"),
        ("a/x.rs", "use crate::b::deep::Deep; pub struct X;"),
        ("a/y.rs", "pub struct Y;"),
        ("b/mod.rs", "pub mod deep; pub mod flat;"),
        ("b/deep.rs", "pub struct Deep;"),
        ("b/flat.rs", "use crate::a::y::Y;"),
    ];
    // No two files are in a circle, but the folders are.
    let found = circles_of(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src: a -> b -> a\n"), "{found:?}");
    assert_eq!(arrows_of(&files), ["a::x -> b::deep", "b::flat -> a::y"]);
}

#[test]
fn what_is_for_tests_does_not_count() {
    let files = [
        ("lib.rs", "mod a; mod b;\n#[cfg(test)] mod tests;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        (
            "b.rs",
            "pub struct B { #[cfg(test)] a: crate::a::A }
             #[cfg(test)] use crate::a::A;
             #[cfg(all(test, unix))] mod tests { use crate::a::A; }
             impl B { #[cfg(test)] fn f() -> crate::a::A { todo!() } }
             #[test] fn t() { crate::a::A; }",
        ),
    ];
    assert_eq!(arrows_of(&files), ["a -> b"]);
    // What is there without tests as well counts.
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub struct A;"),
        (
            "b.rs",
            "#[cfg(any(test, feature = \"x\"))] use crate::a::A; #[cfg(not(test))] use crate::a::A as B;",
        ),
    ];
    assert_eq!(arrows_of(&files), ["b -> a"]);
}

#[test]
fn paths_count_wherever_they_are_written() {
    let files = |text| {
        [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; pub fn f() {}"),
            ("b.rs", text),
        ]
    };
    for text in [
        "use crate::a::A;",
        "use super::a::*; struct B(A);",
        "use super::*; fn g() { a::f() }",
        "fn g(a: Vec<Option<crate::a::A>>) {}",
        "fn g() { use crate::a; a::f() }",
        "impl From<crate::a::A> for () { }",
        "fn g() { println!(\"{}\", crate::a::f()) }",
        "macro_rules! m { () => { $crate::a::f() } }",
        "use super::a as other; fn g() { select! { _ = other::f() => {} } }",
        "mod inner { fn g() { super::super::a::f() } }",
        "pub(super) use self::inner::A; mod inner { pub use crate::a::A; }",
        "use crate::{a::{self, A as _}};",
    ] {
        assert_eq!(arrows_of(&files(text)), ["b -> a"], "{text}");
    }
    for text in [
        "use a::A;",
        "use ::a::A; fn g() { ::a::f() }",
        "fn g(a: B) { a.f(); self.a; println!(\"{}\", x.a) }",
        "use super::b; struct B;",
        "use std::fmt::{self, Debug}; fn g() { fmt::f() }",
        "use super::a::*;",
    ] {
        assert_eq!(arrows_of(&files(text)), [""; 0], "{text}");
    }
}

#[test]
fn names_that_nobody_writes_belong_to_where_they_are_looked_for() {
    // Made by a macro, or from another crate.
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "pub mod generated { include!(\"x\"); }\npub use bytes::Bytes;"),
        ("b.rs", "use crate::a::generated::Thing; use crate::a::Bytes;"),
    ];
    assert_eq!(arrows_of(&files), ["b -> a"]);
}

#[test]
fn both_styles_of_module_files_are_read() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c { mod d; }"),
        ("a.rs", "mod inner;"),
        ("a/inner.rs", "use crate::b::B;"),
        ("b/mod.rs", "pub struct B;"),
        ("c/d.rs", "use crate::b::B;"),
    ];
    assert_eq!(arrows_of(&files), ["a::inner -> b", "c::d -> b"]);
}
