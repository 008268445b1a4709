//! The generated code in the repository is that of the `.proto` files beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

#[test]
fn the_generated_code_is_up_to_date() {
    let fresh = tempfile::tempdir().expect("a folder");
    meepo_proto_generate::generate(fresh.path()).expect("the .proto files are valid");
    let (fresh, kept) = (files(fresh.path()), files(&meepo_proto_generate::generated()));
    assert_eq!(fresh.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, code) in fresh {
        assert!(
            code == kept[&name],
            "proto/src/generated/{name} is not up to date: run `cargo run -p meepo-proto-generate`"
        );
    }
}
