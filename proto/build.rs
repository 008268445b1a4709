//! Generates the code of the `.proto` files with a compiler written in Rust, so that no `protoc` has to be installed.

mod json;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let link = ["meepo/link.proto"];
    let ours = ["meepo/registry.proto", "meepo/push.proto"];
    let theirs = ["etcd/rpc.proto"];
    for file in link.iter().chain(&ours).chain(&theirs) {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=json.rs");
    // Payloads are handed on as they were received, without a copy.
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::codec::Roomy")
        // A request is much larger than the other events.
        .boxed(".meepo.link.v1.Event.body.request")
        // Events and commands are moved several times on their way, so rare large fields are boxed.
        .boxed(".meepo.link.v1.Event.attach")
        .boxed(".meepo.link.v1.Command.body.hello")
        .boxed(".meepo.link.v1.Command.body.close")
        .boxed(".meepo.link.v1.Command.body.query")
        .boxed(".meepo.link.v1.Send.to.target")
        .compile_fds(protox::compile(link, ["."])?)?;
    let files = protox::compile(ours, ["."])?;
    let builder = tonic_prost_build::configure().bytes(".").btree_map(".");
    let push = files.file.iter().find(|file| file.package() == "meepo.push.v1");
    let push = push.ok_or("there is no package meepo.push.v1")?;
    json::describe(builder, push).compile_fds(files.clone())?;
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(protox::compile(theirs, ["."])?)?;
    Ok(())
}
