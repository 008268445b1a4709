//! The example `web`, which is made of its own `meepo.toml`.

use std::fs;

use super::node::Node;
use crate::machine::binaries;

/// Starts it as its own `meepo.toml` has it, at a place of this test's own.
///
/// # Panics
///
/// When it does not start.
pub async fn start() -> Node {
    let mut node = Node::build("web").prepare();
    let folder = binaries::workspace().join("examples/web");
    let file = fs::read_to_string(folder.join("meepo.toml")).expect("the example has a file");
    let file = file
        .replace("127.0.0.1", &node.host().ip().to_string())
        .replace("\"sites/", &format!("\"{}/sites/", folder.display()));
    let text = fs::read_to_string(node.config()).expect("the node has a file");
    let (head, _) = text.split_once("[[gateway.listen]]").expect("the node has listeners");
    fs::write(node.config(), head.to_owned() + &file).expect("the folder is writable");
    node.start().await;
    node
}
