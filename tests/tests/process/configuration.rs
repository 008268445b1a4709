//! Settings: their defaults, where they come from, and what is said of those that are wrong.

use meepo_tests::{Node, Ws};

#[tokio::test]
async fn a_wrong_setting_is_told_with_file_line_and_key() {
    // Each: the settings of the section `[gateway]`, which begin on the same line, and what the error must name.
    let cases: [(&str, &[&str]); 6] = [
        ("chidlren = 4", &["chidlren", "children"]),
        ("children = \"many\"", &["children"]),
        ("children = 0", &["children"]),
        ("max_message = \"a lot\"", &["max_message"]),
        ("handshake_timeout = 3", &["handshake_timeout"]),
        ("children = = 3", &[]),
    ];
    for (settings, named) in cases {
        let node = Node::test().set("gateway", settings).prepare();
        let text = std::fs::read_to_string(node.config()).expect("the configuration is there");
        let line = 1 + text
            .lines()
            .position(|line| line == settings)
            .expect("the setting is there");
        for command in ["check", "start"] {
            let finished = node.command(&[command]).await;
            assert_eq!(finished.code, Some(64), "{settings}: {finished:?}");
            assert!(
                finished.stderr.contains(&format!("meepo.toml:{line}")),
                "{settings} is on line {line}: {finished:?}"
            );
            for name in named {
                assert!(finished.stderr.contains(name), "{settings}: {finished:?}");
            }
        }
        assert_eq!(node.processes(), [0u32; 0]);
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_a_section_that_nobody_knows_is_an_error() {
    let node = Node::test().prepare();
    let finished = node.command(&["check", "-c", "/nowhere/meepo.toml"]).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("/nowhere/meepo.toml"), "{finished:?}");

    node.edit(&[("[gateway]", "[gatewya]\n[gateway]")]);
    let finished = node.command(&["check"]).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("gatewya"), "{finished:?}");
}

#[tokio::test]
async fn the_environment_is_above_the_file() {
    let node = Node::test()
        .set("gateway", "children = 3")
        .env("MEEPO_GATEWAY__CHILDREN", "1")
        .env("MEEPO_WORKER__CHILDREN", "3")
        .start()
        .await;
    let status = node.status().await;
    assert_eq!(status.instance("gateway").children.len(), 1);
    assert_eq!(status.instance("worker").children.len(), 3);
    assert!(
        node.run_files().iter().any(|name| name.ends_with(".pid")),
        "MEEPO_NODE__RUN_DIR holds"
    );

    let wrong = Node::test().env("MEEPO_GATEWAY__CHIDLREN", "4").prepare();
    let finished = wrong.command(&["check"]).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("MEEPO_GATEWAY__CHIDLREN"), "{finished:?}");
}

#[tokio::test]
async fn check_shows_what_holds_and_no_secret() {
    let node = Node::test()
        .set("node", "secret = \"hush-hush\"")
        .set("gateway", "max_message = \"77KiB\"")
        .prepare();
    let finished = node.command(&["check"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for text in ["[node]", "[gateway]", "[worker]", "[registry]", "handshake_timeout"] {
        assert!(finished.stdout.contains(text), "{text} is missing: {finished:?}");
    }
    assert!(!finished.stdout.contains("hush-hush"), "{finished:?}");
    assert!(finished.stdout.contains("77"), "{finished:?}");
}

#[tokio::test]
async fn the_documented_file_is_valid_and_complete() {
    let file = meepo_tests::binaries::workspace().join("deploy/meepo.toml");
    for program in [
        "chat",
        "meepo-registry",
        "meepo-gateway",
        "meepo-worker",
        "meepo-test-node",
    ] {
        let node = Node::build(program).prepare();
        let finished = node
            .command(&["check", "-c", file.to_str().expect("a path of text")])
            .await;
        assert_eq!(finished.code, Some(0), "{program}: {finished:?}");
        // Every setting that holds is in the file, be it behind a `#`.
        let documented = std::fs::read_to_string(&file).expect("the file is there");
        for line in finished.stdout.lines() {
            if let Some((key, _)) = line.split_once(" = ") {
                assert!(
                    documented.contains(&format!("{} =", key.trim())),
                    "{key} is not in deploy/meepo.toml"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_file_of_the_containers_is_valid() {
    let workspace = meepo_tests::binaries::workspace();
    let file = std::fs::read_to_string(workspace.join("deploy/cluster.toml")).expect("the file is there");
    // The page is elsewhere in the image.
    let page = workspace.join("examples/chat/page");
    let file = file.replace("/usr/share/meepo/chat", page.to_str().expect("a path of text"));
    for program in ["chat", "meepo-registry", "meepo-gateway"] {
        let node = Node::build(program).prepare();
        std::fs::write(node.config(), &file).expect("the configuration can be written");
        let finished = node.command(&["check"]).await;
        assert_eq!(finished.code, Some(0), "{program}: {finished:?}");
    }
}

#[tokio::test]
async fn the_secret_can_come_from_a_file() {
    let mut node = Node::test().set("node", "secret_file = \"{folder}/secret\"").prepare();
    let finished = node.command(&["check"]).await;
    assert_eq!(finished.code, Some(64), "{finished:?}");
    assert!(finished.stderr.contains("secret_file"), "{finished:?}");
    std::fs::write(node.folder().join("secret"), "hush-hush\n").expect("the folder is writable");
    node.start().await;
    let mut client = Ws::connect(node.host().ws()).await;
    assert_eq!(client.ask("x").await, "x");
    assert!(!node.output().contains("hush-hush"));
}
