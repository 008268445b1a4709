//! A gateway that is frozen, and workers that are reloaded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meepo_proto::push as api;
use meepo_tests::http::{self, Response};
use meepo_tests::{Cluster, Http, Node, Ws, processes, wait_for};
use meepo_worker::ClientId;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use super::{SETTINGS, body_of, done, grpc, guest, post, to};

#[tokio::test]
async fn a_gateway_that_is_frozen_is_named_and_its_queue_is_bounded() {
    let settings = format!("query_timeout = \"1s\"\nsend_queue = \"512KiB\"\n{SETTINGS}");
    let cluster = Cluster::with_workers(&settings).await;
    let (_ann, ann_id) = guest(cluster.clients()[0]).await;
    let (mut bob, bob_id) = guest(cluster.clients()[1]).await;
    let push = cluster.workers[0].host().push();
    let frozen = ann_id.parse::<ClientId>().expect("an id").gateway.to_string();
    let pids = cluster.gateways[0].pids("gateway").await;
    for pid in &pids {
        processes::signal(*pid, Signal::SIGSTOP);
    }
    let missing = |answer: &Value| -> bool {
        let list = answer["missing"].as_array().expect("a list");
        list.contains(&json!(frozen)) && list.len() == 2
    };

    let count = done(push, "/api/query/count", json!({})).await;
    assert!(count["count"] == 1 && missing(&count), "{count}");
    let sent = done(push, "/api/send", json!({"to": {"all": true}, "text": "hello"})).await;
    assert!(missing(&sent), "{sent}");
    assert_eq!(bob.text().await, "hello");
    let both = json!({"to": {"clients": [ann_id, bob_id]}, "text": "both"});
    assert_eq!(
        done(push, "/api/send", both).await,
        json!({"gone": [], "missing": [frozen]})
    );
    assert_eq!(bob.text().await, "both");
    let (status, problem) = post(push, "/api/send", &json!({"to": {"clients": [ann_id]}, "text": "x"})).await;
    assert_eq!(
        (status, &problem["code"], &problem["missing"]),
        (503, &json!("unanswered"), &json!([frozen]))
    );
    let only_ann = api::Target {
        clients: vec![ann_id.clone()],
        ..api::Target::default()
    };
    let refused = grpc(push)
        .await
        .send(to(only_ann, "x"))
        .await
        .expect_err("it does not answer");
    assert!(
        refused.code() == Code::Unavailable && refused.message().contains(&frozen),
        "{refused:?}"
    );

    // What it does not take is queued, but only so much.
    let flood = json!({"to": {"clients": [ann_id]}, "text": "x".repeat(200_000)}).to_string();
    wait_for("the queue is full", async || {
        let mut sends = JoinSet::new();
        for _ in 0..16 {
            let flood = flood.clone();
            sends.spawn(async move { http::post(push, "/api/send", "first", &flood).await });
        }
        let full = |response: &Response| body_of(response)["code"] == "queue_full";
        let responses = sends.join_all().await;
        let full = responses.into_iter().find(full)?;
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
        Some(())
    })
    .await;
    // Others are served.
    let sent = done(push, "/api/send", json!({"to": {"clients": [bob_id]}, "text": "on"})).await;
    assert_eq!(sent, json!({"gone": [], "missing": []}));
    assert_eq!(bob.text().await, "on");
    for pid in pids {
        processes::signal(pid, Signal::SIGCONT);
    }
}

#[tokio::test]
async fn a_reload_under_pushes_loses_none_and_repeats_none() {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let mut guests = Vec::new();
    for gateway in cluster.clients() {
        let mut guest = Ws::connect_to(gateway, "/?join=all").await;
        guest.ask("ready").await;
        guests.push(guest);
    }
    let answered = Arc::new(Mutex::new(Vec::<String>::new()));
    let end = Arc::new(AtomicBool::new(false));
    let mut pushers = JoinSet::new();
    for (number, worker) in cluster.workers.iter().chain(&cluster.workers).enumerate() {
        let (push, answered, end) = (worker.host().push(), answered.clone(), end.clone());
        pushers.spawn(async move {
            for count in 0.. {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let text = format!("{number}-{count}");
                let body = json!({"to": {"groups": ["all"]}, "text": text});
                // Each has a connection of its own, and each is answered.
                let answer = done(push, "/api/send", body).await;
                assert_eq!(answer, json!({"gone": [], "missing": []}));
                answered.lock().expect("nobody panics").push(text);
            }
        });
    }
    let so_many = |more: usize| {
        let before = answered.lock().expect("nobody panics").len();
        let answered = answered.clone();
        async move {
            let more_came = async || (answered.lock().expect("nobody panics").len() >= before + more).then_some(());
            wait_for("pushes are answered", more_came).await;
        }
    };
    so_many(50).await;
    for worker in &cluster.workers {
        let old = worker.pids("worker").await;
        worker.command(&["reload"]).await.fine();
        wait_for("old children are gone", async || {
            let left = worker.processes();
            old.iter().all(|pid| !left.contains(pid)).then_some(())
        })
        .await;
        so_many(50).await;
    }
    end.store(true, Ordering::Relaxed);
    while let Some(pusher) = pushers.join_next().await {
        pusher.expect("every push was answered with 200");
    }
    let mut answered = answered.lock().expect("nobody panics").clone();
    answered.sort();
    for guest in &mut guests {
        guest.send("the end").await;
        let mut got = Vec::new();
        loop {
            match guest.text().await {
                text if text == "the end" => break,
                text => got.push(text),
            }
        }
        got.sort();
        assert_eq!(got, answered, "each that was answered comes once");
    }
}

#[tokio::test]
async fn a_connection_that_waits_between_requests_is_kept() {
    let node = Node::test()
        .set("worker", "push = { address = \"{ip}:19908\" }")
        .start()
        .await;
    let mut connection = Http::connect(node.host().push()).await;
    let count =
        "POST /api/query/count HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    connection.send(count).await;
    assert_eq!(connection.answer().await.expect("an answer").status, 200);
    // Longer than the head of a first request may take: whoever has asked may think for longer.
    let waits = timeout(Duration::from_secs(11), connection.answer()).await;
    assert!(waits.is_err(), "it was closed: {waits:?}");
    connection.send(count).await;
    assert_eq!(connection.answer().await.expect("an answer").status, 200);
}
