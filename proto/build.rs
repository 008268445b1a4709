//! Generates the code of the `.proto` files with a compiler written in Rust, so that no `protoc` has to be installed.

mod json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = ["meepo/link.proto", "meepo/registry.proto", "meepo/push.proto"];
    let theirs = ["etcd/rpc.proto"];
    for file in ours.iter().chain(&theirs) {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=json.rs");
    let files = protox::compile(ours, ["."])?;
    let builder = tonic_prost_build::configure()
        // Payloads are handed on as they were received, without a copy.
        .bytes(".")
        .btree_map(".")
        // It is much larger than the other events.
        .boxed(".meepo.link.v1.Event.body.request")
        // Few events have it, and each is moved several times.
        .boxed(".meepo.link.v1.Event.attach");
    let push = files.file.iter().find(|file| file.package() == "meepo.push.v1");
    let push = push.ok_or("there is no package meepo.push.v1")?;
    json::describe(builder, push).compile_fds(files.clone())?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(protox::compile(theirs, ["."])?)?;
    Ok(())
}
