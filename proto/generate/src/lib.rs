//! Generates the code of the `.proto` files, with a compiler written in Rust, so that no `protoc` has to be installed.
//!
//! The code is part of the repository: nobody who builds Meepo has to build the compiler. Run
//! `cargo run -p meepo-proto-generate` after a change of a `.proto` file.

use std::error::Error;
use std::path::{Path, PathBuf};

use tonic_prost_build::Builder;

mod json;

/// The folder of the `.proto` files.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The folder of the generated code.
pub fn generated() -> PathBuf {
    sources().join("src/generated")
}

/// Writes the code of all packages to a folder that exists, one file each.
pub fn generate(to: &Path) -> Result<(), Box<dyn Error>> {
    let compile = |file: &str| protox::compile([file], [sources()]);
    // Payloads are handed on as they were received, without a copy.
    let builder = || -> Builder { tonic_prost_build::configure().out_dir(to).bytes(".") };
    builder()
        .btree_map(".")
        .codec_path("crate::codec::Roomy")
        // A request is much larger than the other events.
        .boxed(".meepo.link.v2.Event.body.request")
        // Events and commands are moved several times on their way, so rare large fields are boxed.
        .boxed(".meepo.link.v2.Event.attach")
        .boxed(".meepo.link.v2.Command.body.hello")
        .boxed(".meepo.link.v2.Command.body.close")
        .boxed(".meepo.link.v2.Command.body.query")
        .boxed(".meepo.link.v2.Send.to.target")
        .compile_fds(compile("meepo/link.proto")?)?;
    builder().btree_map(".").compile_fds(compile("meepo/registry.proto")?)?;
    let files = compile("meepo/push.proto")?;
    let push = files.file.iter().find(|file| file.package() == "meepo.push.v1");
    let push = push.ok_or("there is no package meepo.push.v1")?;
    json::describe(builder().btree_map("."), push).compile_fds(files.clone())?;
    builder().build_server(false).compile_fds(compile("etcd/rpc.proto")?)?;
    Ok(())
}
