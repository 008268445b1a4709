//! Static sites of several host names, with pages for errors.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use meepo_tests::http::Response;
use meepo_tests::{Builder, Http, Node};

const SITES: &str = r#"
static_dir = "main"
not_found = "404.html"
requests = ["/api/"]
[[gateway.listen.site]]
hosts = ["shop.test", "WWW.Shop.test"]
dir = "shop"
not_found = "none.html"
error = "amiss.html"
"#;

fn sites(settings: &str) -> Builder {
    Node::build("meepo-test-node")
        .set_listen("ws", settings)
        .set("gateway", "connect_timeout = \"200ms\"")
        .only("registry")
        .only("gateway")
}

/// Puts the files of both sites, and what is to be reached through neither, into a folder.
fn lay_out(folder: &Path) {
    for (path, text) in [
        ("main/index.html", "the main page"),
        ("main/404.html", "main has no such page"),
        ("main/numbers.txt", "0123456789"),
        ("main/sub/index.html", "below"),
        ("main/a b.txt", "spaced"),
        ("shop/index.html", "the shop"),
        ("shop/none.html", "the shop has no such page"),
        ("shop/amiss.html", "the shop is closed"),
        ("secret.txt", "a secret"),
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("the folder is writable");
        fs::write(path, text).expect("the folder is writable");
    }
    symlink(folder.join("shop/index.html"), folder.join("main/link.html")).expect("the folder is writable");
    symlink(folder.join("nothing"), folder.join("main/broken.html")).expect("the folder is writable");
}

async fn start(settings: &str) -> Node {
    let mut node = sites(settings).prepare();
    lay_out(node.folder());
    node.start().await;
    node
}

async fn ask(http: &mut Http, line: &str, headers: &str) -> Response {
    http.send(format!("{line} HTTP/1.1\r\n{headers}\r\n")).await;
    let answer = if line.starts_with("HEAD ") {
        http.head().await
    } else {
        http.answer().await
    };
    answer.unwrap_or_else(|| panic!("no answer to {line}"))
}

#[tokio::test]
async fn each_host_has_its_files_and_its_pages_for_errors() {
    let node = start(SITES).await;
    let mut http = Http::connect(node.host().ws()).await;
    for (host, path, status, body) in [
        ("shop.test", "/", 200, "the shop"),
        ("SHOP.test:1234", "/index.html", 200, "the shop"),
        ("www.shop.test.", "/", 200, "the shop"),
        ("shop.test", "/numbers.txt", 404, "the shop has no such page"),
        ("other.test", "/", 200, "the main page"),
        ("127.0.0.1", "/numbers.txt", 200, "0123456789"),
        ("", "/none", 404, "main has no such page"),
        ("other.test", "/a%20b.txt", 200, "spaced"),
        // Nobody is there to answer: the shop has a page for that, the main site has none.
        ("shop.test", "/api/", 503, "the shop is closed"),
        ("other.test", "/api/", 503, "No worker is there.\n"),
    ] {
        let answer = ask(&mut http, &format!("GET {path}"), &format!("host: {host}\r\n")).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{host} {path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
        if status != 200 && body != "No worker is there.\n" {
            assert_eq!(answer.header("content-type"), Some("text/html"), "{host} {path}");
        }
    }
    let absolute = ask(&mut http, "GET http://shop.test/", "host: other.test\r\n").await;
    assert_eq!(absolute.body, "the shop");
    // Of an error, too, HEAD gets the head alone: the next answer follows it.
    let head = ask(&mut http, "HEAD /none", "host: shop.test\r\n").await;
    assert_eq!((head.status, head.header("content-length")), (404, Some("25")));
    assert_eq!(ask(&mut http, "GET /", "host: shop.test\r\n").await.body, "the shop");
    assert_eq!(ask(&mut http, "POST /", "host: shop.test\r\n").await.status, 405);
    // What has gone since the start is done without.
    fs::remove_file(node.folder().join("shop/none.html")).expect("it is there");
    let bare = ask(&mut http, "GET /none", "host: shop.test\r\n").await;
    assert_eq!((bare.status, &*bare.body), (404, ""));
}

#[tokio::test]
async fn a_host_without_a_site_is_told_so_where_there_is_no_other() {
    let only_named = "paths = [\"/ws\"]\n[[gateway.listen.site]]\nhosts = [\"shop.test\"]\ndir = \"shop\"";
    let node = start(only_named).await;
    let mut http = Http::connect(node.host().ws()).await;
    assert_eq!(ask(&mut http, "GET /", "host: shop.test\r\n").await.body, "the shop");
    assert_eq!(ask(&mut http, "GET /", "host: other.test\r\n").await.status, 421);
    assert_eq!(ask(&mut http, "GET /ws", "host: shop.test\r\n").await.status, 426);
}

#[tokio::test]
async fn nothing_outside_of_a_folder_is_served() {
    let node = start(SITES).await;
    let mut http = Http::connect(node.host().ws()).await;
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/sub/../../secret.txt",
        "/sub/..%5c..%5csecret.txt",
        "//../secret.txt",
        "/./../secret.txt",
        "/%252e%252e/secret.txt",
        "/secret.txt",
        "/numbers.txt%00.html",
        "/numbers.txt/",
        "/broken.html",
        "/%ff",
        "/sub%2findex.html%2f..",
    ] {
        let answer = ask(&mut http, &format!("GET {path}"), "host: a\r\n").await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{path}: {answer:?}");
    }
    let absolute = format!("GET /{}", node.folder().join("secret.txt").display());
    assert_eq!(ask(&mut http, &absolute, "host: a\r\n").await.status, 404);
    // Whoever may write into the folder says what is served: links are followed.
    assert_eq!(ask(&mut http, "GET /link.html", "host: a\r\n").await.body, "the shop");
}

#[tokio::test]
async fn parts_and_what_has_not_changed() {
    let node = start(SITES).await;
    let mut http = Http::connect(node.host().ws()).await;
    let whole = ask(&mut http, "GET /numbers.txt", "host: a\r\n").await;
    let modified = whole.header("last-modified").expect("it has a time").to_owned();
    for (header, status, body) in [
        ("range: bytes=2-4".into(), 206, "234"),
        ("range: bytes=-3".into(), 206, "789"),
        ("range: bytes=50-".into(), 416, ""),
        (format!("if-modified-since: {modified}"), 304, ""),
        (
            "if-modified-since: Thu, 01 Jan 1970 00:00:00 GMT".into(),
            200,
            "0123456789",
        ),
    ] {
        let headers = format!("host: a\r\n{header}\r\n");
        http.send(format!("GET /numbers.txt HTTP/1.1\r\n{headers}\r\n")).await;
        let answer = if status == 304 {
            http.head().await
        } else {
            http.answer().await
        };
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (status, body), "{header}");
    }
    let head = ask(&mut http, "HEAD /numbers.txt", "host: a\r\n").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    let moved = ask(&mut http, "GET /sub", "host: a\r\n").await;
    assert_eq!((moved.status, moved.header("location")), (307, Some("/sub/")));
    assert_eq!(ask(&mut http, "GET /sub/", "host: a\r\n").await.body, "below");
}

#[tokio::test]
async fn what_is_configured_wrongly_is_told_with_its_key() {
    let site = |text: &str| format!("[[gateway.listen.site]]\n{text}");
    for (settings, named) in [
        (site("hosts = [\"a.test\"]\ndir = \"nowhere\""), "site[0].dir"),
        (site("hosts = [\"a.test\"]\ndir = \"secret.txt\""), "is not a folder"),
        (site("hosts = []\ndir = \"shop\""), "site[0].hosts"),
        (site("hosts = [\"a.test:80\"]\ndir = \"shop\""), "`a.test:80`"),
        (site("hosts = [\"*.test\"]\ndir = \"shop\""), "`*.test`"),
        (site("hosts = [\"bücher.test\"]\ndir = \"shop\""), "xn--"),
        (site("hosts = [\"\"]\ndir = \"shop\""), "site[0].hosts"),
        (
            site("hosts = [\"a.test\", \"b.test\", \"A.test.\"]\ndir = \"shop\""),
            "`A.test.` is there twice",
        ),
        (
            site("hosts = [\"a.test\"]\ndir = \"shop\"\n") + &site("hosts = [\"a.test\"]\ndir = \"main\""),
            "site[1].hosts",
        ),
        (
            site("hosts = [\"a.test\"]\ndir = \"shop\"\nnot_found = \"gone.html\""),
            "site[0].not_found",
        ),
        (
            site("hosts = [\"a.test\"]\ndir = \"shop\"\nerror = \"..\""),
            "site[0].error",
        ),
        (site("hosts = [\"a.test\"]\ndri = \"shop\""), "dri"),
        ("not_found = \"404.html\"".into(), "listen[0].not_found"),
        ("error = \"404.html\"".into(), "listen[0].error"),
        ("static_dir = \"main\"\nerror = \"no.html\"".into(), "listen[0].error"),
        ("requests = [\"api/\"]".into(), "listen[0].requests"),
        ("requests = [\"/api/*\"]".into(), "listen[0].requests"),
    ] {
        let node = sites(&settings).prepare();
        lay_out(node.folder());
        for command in ["check", "start"] {
            let finished = node.command(&[command]).await;
            assert_eq!(finished.code, Some(64), "{settings}: {finished:?}");
            assert!(finished.stderr.contains(named), "{settings}: {finished:?}");
            assert!(finished.stderr.contains("meepo.toml:"), "{settings}: {finished:?}");
        }
    }
    let line = Node::test()
        .set_listen("line", "requests = [\"/api/\"]")
        .prepare()
        .command(&["check"])
        .await;
    assert!(
        line.code == Some(64) && line.stderr.contains("listen[1].requests"),
        "{line:?}"
    );
    let small = Node::test()
        .set("gateway", "request_memory = \"1KiB\"")
        .prepare()
        .command(&["check"])
        .await;
    assert!(
        small.code == Some(64) && small.stderr.contains("gateway.request_memory"),
        "{small:?}"
    );
}
