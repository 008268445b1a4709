//! Requests over HTTP that workers answer, also while workers die and are replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use meepo_tests::http::{self, Response};
use meepo_tests::{Builder, Cluster, Http, Node, Record, Ws, in_time, processes, wait_for};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What the test worker tells of the request that it answers.
fn told(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// One node whose worker answers what is below `/api/`.
fn node() -> Builder {
    Node::test().set_listen("ws", "requests = [\"/api/\"]")
}

async fn http(node: &Node) -> Http {
    Http::connect(node.host().ws()).await
}

#[tokio::test]
async fn a_request_comes_whole_and_so_does_its_answer() {
    let cluster = Cluster::start().await;
    let gateway = cluster.clients()[0];
    let _guests = (
        Ws::connect(cluster.clients()[0]).await,
        Ws::connect(cluster.clients()[1]).await,
    );
    let mut http = Http::connect(gateway).await;
    let local = "POST /api/a%2Fb?x=1&y=%20 HTTP/1.1\r\nHost: a.test\r\nX-Test: yes\r\nCookie: a=1; b=2\r\n";
    http.send(format!("{local}Transfer-Encoding: chunked\r\n\r\n3\r\n\x01\x02"))
        .await;
    http.send(b"\xff\r\n1\r\n\x00\r\n0\r\n\r\n").await;
    let answer = http.answer().await.expect("an answer");
    let request = told(&answer);
    for (key, value) in [
        ("method", json!("POST")),
        ("path", json!("/api/a%2Fb")),
        ("query", json!("x=1&y=%20")),
        ("test", json!("yes")),
        ("cookie", json!("2")),
        ("body", json!("0102ff00")),
        ("redelivered", json!(false)),
        ("online", json!(2)),
    ] {
        assert_eq!(request[key], value, "{key}: {request}");
    }
    assert!(request["headers"].to_string().contains("host"), "{request}");
    assert!(request["peer"].to_string().contains("127."), "{request}");
    let head = answer.head.to_lowercase();
    assert!(
        head.contains("set-cookie: a=1") && head.contains("set-cookie: b=2"),
        "{head}"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(!head.contains("x-private"), "what is about the connection: {head}");

    // The connection goes on, with other methods, statuses, paths, and what is no request for a worker.
    assert_eq!(http.ask("DELETE", "/api/x?status=299", "").await.status, 299);
    assert_eq!(told(&http.ask("GET", "/exact", "").await)["path"], "/exact");
    assert_eq!(http.ask("GET", "/exact/", "").await.status, 404);
    assert_eq!(http.ask("GET", "/api", "").await.status, 404);
    assert_eq!(http.ask("GET", "/", "").await.status, 426);
    let moved = http.ask("GET", "/api/?status=303&header=Location&value=/b", "").await;
    assert_eq!((moved.status, moved.header("location")), (303, Some("/b")));
    http.request("GET", "/api/?status=204", "").await;
    let empty = http.head().await.expect("an answer");
    assert_eq!((empty.status, empty.header("content-length")), (204, None));
    let head = http.ask("HEAD", "/api/?big=1000", "").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")));

    // Several at once are answered in their order.
    let pipelined = |sleep| format!("GET /api/?sleep={sleep} HTTP/1.1\r\nhost: a.test\r\n\r\n");
    http.send(pipelined(100) + &pipelined(0) + &pipelined(1)).await;
    for sleep in [100, 0, 1] {
        let answer = told(&http.answer().await.expect("an answer"));
        assert_eq!(answer["query"], format!("sleep={sleep}"));
    }

    // A client that asks first is told to go on, and only if its body is wanted.
    let expecting = |length| {
        format!("PUT /api/ HTTP/1.1\r\nhost: a.test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n")
    };
    http.send(expecting(4)).await;
    assert_eq!(http.head().await.expect("an answer").status, 100);
    http.send("four").await;
    assert_eq!(told(&http.answer().await.expect("an answer"))["length"], 4);
    http.send(expecting(1 << 30)).await;
    assert_eq!(http.answer().await.expect("an answer").status, 413);

    // Nothing is left of all that.
    for gateway in &cluster.gateways {
        gateway
            .status_when("nothing is in flight", |status| {
                status.children().all(|child| child.events_in_flight == 0)
            })
            .await;
    }
    let asked = cluster.gateways[0]
        .status()
        .await
        .instance("gateway")
        .sum(|child| child.requests);
    assert_eq!(asked, 11);
}

#[tokio::test]
async fn a_worker_that_is_killed_has_its_request_done_by_another_if_that_may_be() {
    let cluster = Cluster::start().await;
    let address = cluster.clients()[0];
    for (method, repeated) in [("GET", true), ("PUT", true), ("POST", false), ("PATCH", false)] {
        let mut http = Http::connect(address).await;
        http.request(method, &format!("/api/?hang&{method}"), "body").await;
        let begun = |record: &Record| record.event == "request" && record.text == method;
        let first = cluster.events().wait("a worker has it", begun).await;
        processes::signal(first.pid, Signal::SIGKILL);
        let answer = http.answer().await.expect("an answer");
        let seen = cluster.events().all().into_iter().filter(begun).count();
        if !repeated {
            assert_eq!((answer.status, seen), (502, 1), "{method}");
            // The connection goes on.
            assert_eq!(told(&http.ask("GET", "/api/", "").await)["redelivered"], false);
        } else {
            let request = told(&answer);
            assert_eq!(
                (&request["redelivered"], &request["length"]),
                (&json!(true), &json!(4)),
                "{method}"
            );
            assert_ne!(request["pid"], first.pid, "{method}");
            assert_eq!(seen, 2, "{method}");
        }
        cluster.linked().await;
    }
}

#[tokio::test]
async fn no_request_is_lost_while_workers_are_replaced() {
    let cluster = Cluster::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for client in 0..8 {
        let address = cluster.clients()[client % 2];
        let (stop, sent) = (stop.clone(), sent.clone());
        clients.spawn(async move {
            let mut http = Http::connect(address).await;
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let method = ["GET", "POST"][number % 2];
                let answer = http.ask(method, &format!("/api/?n{number}&sleep=5"), "").await;
                assert_eq!(told(&answer)["redelivered"], false);
            }
        });
    }
    for worker in &cluster.workers {
        let old = worker.pids("worker").await;
        worker.command(&["reload"]).await.fine();
        worker
            .status_when("its children are new", |status| {
                status.all_serve() && status.instance("worker").pids().iter().all(|pid| !old.contains(pid))
            })
            .await;
    }
    cluster.linked().await;
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.expect("every request was answered");
    }
    let mut handled = BTreeMap::<String, usize>::new();
    for record in cluster.events().of("answered") {
        *handled.entry(record.query).or_default() += 1;
    }
    assert_eq!(handled.len(), sent.load(Ordering::Relaxed));
    assert!(handled.values().all(|times| *times == 1), "each once: {handled:?}");
    let answered = cluster.events().of("answered");
    let pids: BTreeSet<_> = answered.iter().map(|record| record.pid).collect();
    assert!(pids.len() >= 6, "old and new workers took part: {pids:?}");
}

#[tokio::test]
async fn what_cannot_be_answered_says_so_by_its_status() {
    let limits = "max_message = \"64KiB\"\nrequest_timeout = \"1s\"\nhandshake_timeout = \"1s\"";
    let node = node()
        .set("gateway", limits)
        .set("node", "log_level = \"info\"")
        .start()
        .await;
    let address = node.host().ws();
    let mut http = http(&node).await;
    for (target, status, logged) in [
        ("/api/?fail", 500, "asked to fail a request"),
        ("/api/?panic", 500, "asked to panic in a request"),
        ("/api/?header=a%20b", 500, "`a b` is not the name of a header"),
        (
            "/api/?header=location&value=a%0d%0aset-cookie:%20x",
            500,
            "header `location` has a value",
        ),
        ("/api/?status=101", 500, "status 101 is not one of 200 to 599"),
        ("/api/?big=200000", 500, "larger than the gateway's `max_message`"),
        ("/api/?hang-always", 504, ""),
    ] {
        let answer = http.ask("POST", target, "").await;
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(logged.is_empty() || !answer.body.contains(logged), "{answer:?}");
        wait_for("it is logged", async || node.output().contains(logged).then_some(())).await;
    }
    let errors = node.status().await.instance("worker").sum(|child| child.handler_errors);
    assert_eq!(errors, 6);
    // The limits hold, and what is within them passes.
    let exact = "x".repeat(64 << 10);
    assert_eq!(told(&http.ask("POST", "/api/", &exact).await)["length"], exact.len());
    assert_eq!(http.ask("GET", "/api/?big=65536", "").await.body, exact);
    let over = http.ask("POST", "/api/", &format!("{exact}x")).await;
    assert_eq!((over.status, over.header("connection")), (413, Some("close")));
    assert_eq!(http.rest().await.expect("no reset"), "");
    let mut chunked = Http::connect(address).await;
    chunked
        .send("POST /api/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    chunked.send(format!("10001\r\n{exact}x\r\n0\r\n\r\n")).await;
    assert_eq!(chunked.answer().await.expect("an answer").status, 413);
    // Its answer gets through although the client goes on sending.
    let mut huge = Http::connect(address).await;
    huge.request("POST", "/api/", &"x".repeat(900_000)).await;
    assert_eq!(huge.answer().await.expect("an answer").status, 413);
    assert_eq!(huge.rest().await.expect("no reset"), "");
    for (target, status) in [("/elsewhere", 404), ("/", 426)] {
        let mut unwanted = Http::connect(address).await;
        unwanted.request("POST", target, &"x".repeat(900_000)).await;
        assert_eq!(unwanted.answer().await.expect("an answer").status, status);
        assert_eq!(unwanted.rest().await.expect("no reset"), "");
    }
    let mut slow = Http::connect(address).await;
    slow.send("POST /api/ HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nfive.")
        .await;
    assert_eq!(slow.answer().await.expect("an answer").status, 408);
    let twice = http::request(address, "GET /api/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").await;
    assert_eq!(twice.expect("an answer").status, 400);
    let seen = node.events().of("request").len();
    assert_eq!(seen, 9, "no worker was given what was refused");
}

#[tokio::test]
async fn an_application_without_an_api_says_404() {
    let node = Node::build("chat_robot")
        .set_listen("ws", "requests = [\"/\"]")
        .start()
        .await;
    let answer = http::get(node.host().ws(), "/style.css").await;
    assert_eq!((answer.status, &*answer.body), (404, ""));
    let page = Ws::connect_to(node.host().ws(), "/ws").await;
    drop(page);
}

#[tokio::test]
async fn requests_wait_for_a_worker_within_bounds() {
    let bounds = "children = 1\nmax_requests = 3\nrequest_memory = \"1MiB\"\nmax_message = \"512KiB\"";
    let host = meepo_tests::Host::new();
    let servers = node()
        .host(&host)
        .only("registry")
        .only("gateway")
        .set("gateway", bounds)
        .set("gateway", "connect_timeout = \"20s\"")
        .start()
        .await;
    let mut waiting = Vec::new();
    for number in 0..3 {
        let mut http = http(&servers).await;
        http.request("POST", &format!("/api/?{number}"), "abc").await;
        waiting.push(http);
    }
    servers
        .status_when("they wait", |status| {
            status.children().any(|child| child.events_waiting == 3)
        })
        .await;
    let mut more = http(&servers).await;
    let refused = more.ask("GET", "/api/", "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    // One who goes makes room.
    drop(waiting.pop());
    servers
        .status_when("it is not waited for", |status| {
            status.children().any(|child| child.events_waiting == 2)
        })
        .await;
    more.request("POST", "/api/?last", &"x".repeat(512 << 10)).await;
    servers
        .status_when("it waits as well", |status| {
            status.children().any(|child| child.events_waiting == 3)
        })
        .await;
    let mut big = http(&servers).await;
    assert_eq!(big.ask("POST", "/api/", &"x".repeat(512 << 10)).await.status, 503);
    assert_eq!(big.rest().await.expect("no reset"), "");
    let _worker = node().registry(&host).only("worker").start().await;
    for http in waiting.iter_mut().chain([&mut more]) {
        told(&http.answer().await.expect("an answer"));
    }
    let status = servers.status().await;
    let child = status.instance("gateway");
    assert_eq!(
        child.sum(|child| child.failed_requests),
        2,
        "what was refused is counted"
    );
}

#[tokio::test]
async fn without_a_worker_the_wait_ends() {
    let servers = node()
        .only("registry")
        .only("gateway")
        .set("gateway", "connect_timeout = \"300ms\"")
        .start()
        .await;
    let mut http = http(&servers).await;
    let answer = http.ask("GET", "/api/", "").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(http.ask("GET", "/", "").await.status, 426, "the connection goes on");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_cut_off_and_not_run_again() {
    let node = node().set("worker", "handler_timeout = \"300ms\"").start().await;
    let mut http = http(&node).await;
    for method in ["GET", "POST"] {
        assert_eq!(http.ask(method, "/api/?hang-always", "").await.status, 504);
    }
    let seen = node.events().of("request");
    assert!(seen.len() == 2 && seen.iter().all(|record| !record.redelivered));
    let errors = node.status().await.instance("worker").sum(|child| child.handler_errors);
    assert_eq!(errors, 2);
}

/// A node with a client that has been answered 16 MB, of which it reads the head.
async fn stuck(patience: &str) -> (Node, Http) {
    let limits = "children = 1\nmax_message = \"16MiB\"\nrequest_memory = \"24MiB\"\nhandshake_timeout = ";
    let limits = format!("{limits}\"{patience}\"");
    let node = node().set("gateway", &limits).start().await;
    let mut stuck = http(&node).await;
    stuck.request("GET", "/api/?big=16000000", "").await;
    assert_eq!(stuck.head().await.expect("an answer").status, 200);
    (node, stuck)
}

#[tokio::test]
async fn what_a_client_does_not_read_is_held_until_it_is_given_up() {
    let body = "x".repeat(15_000_000);
    let (node, mut reads) = stuck("60s").await;
    assert_eq!(http(&node).await.ask("POST", "/api/", &body).await.status, 503);
    for (method, status) in [("GET", 503), ("POST", 502)] {
        let answer = http(&node).await.ask(method, "/api/?big=15000000", "").await;
        assert_eq!(answer.status, status, "there is no room for the answer to {method}");
    }
    assert_eq!(reads.rest_of(16_000_000).await, 16_000_000);

    let (node, mut stuck) = stuck("1s").await;
    wait_for("it is given up", async || {
        let answer = http(&node).await.ask("POST", "/api/", &body).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(stuck.rest_of(16_000_000).await < 16_000_000, "it was cut off");
}

#[tokio::test]
async fn the_handler_goes_on_when_its_client_has_gone() {
    let node = node().start().await;
    let mut http = http(&node).await;
    http.request("POST", "/api/?sleep=300", "").await;
    node.events().wait_count("request", 1).await;
    drop(http);
    node.events().wait_count("answered", 1).await;
    node.status_when("it is done", |status| {
        status.children().all(|child| child.events_in_flight == 0)
    })
    .await;
    assert_eq!(node.events().of("request").len(), 1);
}

#[tokio::test]
async fn gateways_and_workers_that_stop_answer_what_they_have() {
    // Shorter than the requests take: it is not for them.
    let mut node = node().set("gateway", "close_timeout = \"200ms\"").start().await;
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        let address = node.host().ws();
        requests.spawn(async move {
            let mut http = Http::connect(address).await;
            let answer = http.ask("POST", "/api/?sleep=1500", "").await;
            (told(&answer), http.rest().await.expect("no reset"))
        });
    }
    node.events().wait_count("request", 8).await;
    node.signal(Signal::SIGTERM);
    while let Some(answered) = requests.join_next().await {
        let (answer, rest) = in_time("an answer", async { answered.expect("it was answered") }).await;
        assert_eq!((&answer["redelivered"], &*rest), (&json!(false), ""));
    }
    assert_eq!(node.ended().await, Some(0));
}
