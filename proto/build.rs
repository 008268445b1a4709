//! Generates the code of the `.proto` files with a compiler written in Rust, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = ["meepo/link.proto", "meepo/registry.proto"];
    let theirs = ["etcd/rpc.proto"];
    for file in ours.iter().chain(&theirs) {
        println!("cargo:rerun-if-changed={file}");
    }
    tonic_prost_build::configure()
        // Payloads are handed on as they were received, without a copy.
        .bytes(".")
        .btree_map(".")
        .compile_fds(protox::compile(ours, ["."])?)?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(protox::compile(theirs, ["."])?)?;
    Ok(())
}
