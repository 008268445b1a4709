//! Each call over HTTP.

use meepo_tests::{Cluster, Incoming, wait_for};
use serde_json::{Value, json};

use super::{SETTINGS, clean, done, guest};

#[tokio::test]
async fn every_call_works_over_http() {
    let cluster = Cluster::with_workers(SETTINGS).await;
    let (mut ann, ann_id) = guest(cluster.clients()[0]).await;
    let (mut bob, bob_id) = guest(cluster.clients()[1]).await;
    // Each call comes to another worker.
    let pushes: Vec<_> = cluster.workers.iter().map(|worker| worker.host().push()).collect();
    let (here, there) = (pushes[0], pushes[1]);

    clean(here, "/api/join", json!({"clients": [ann_id, bob_id], "group": "red"})).await;
    clean(there, "/api/bind", json!({"clients": [ann_id], "uid": "ann"})).await;
    clean(
        here,
        "/api/session/update",
        json!({"client": ann_id, "set": {"a": "1", "b": "2"}}),
    )
    .await;
    clean(
        there,
        "/api/session/update",
        json!({"client": ann_id, "set": {"c": "3"}, "remove": ["b"]}),
    )
    .await;
    let session = done(here, "/api/session/get", json!({"client": ann_id})).await;
    assert_eq!(session, json!({"online": true, "session": {"a": "1", "c": "3"}}));
    clean(
        here,
        "/api/session/replace",
        json!({"client": ann_id, "session": {"d": "4"}}),
    )
    .await;

    for (path, body, answer) in [
        ("/api/query/count", json!({}), json!({"count": 2, "missing": []})),
        (
            "/api/query/count",
            json!({"filter": {"groups": ["red"], "uids": ["ann"]}}),
            json!({"count": 1, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"uid": "ann"}),
            json!({"online": true, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"uid": "bob"}),
            json!({"online": false, "missing": []}),
        ),
        (
            "/api/query/online",
            json!({"client": bob_id}),
            json!({"online": true, "missing": []}),
        ),
        (
            "/api/query/groups",
            json!({}),
            json!({"groups": {"red": 2}, "missing": []}),
        ),
        (
            "/api/query/uids",
            json!({"filter": {"groups": ["red"]}}),
            json!({"uids": ["ann"], "missing": []}),
        ),
        (
            "/api/query/select",
            json!({"filter": {"session": {"d": "4"}}, "uid": true, "groups": true, "session": true}),
            json!({"clients": [{"id": ann_id, "uid": "ann", "groups": ["red"], "session": {"d": "4"}}], "missing": []}),
        ),
        (
            "/api/query/select",
            json!({"filter": {"clients": [bob_id]}}),
            json!({"clients": [{"id": bob_id, "uid": null, "groups": [], "session": {}}], "missing": []}),
        ),
    ] {
        assert_eq!(done(there, path, body.clone()).await, answer, "{path} {body}");
    }

    let sent = json!({"gone": [], "missing": []});
    for (target, to_ann, to_bob) in [
        (json!({"all": true}), true, true),
        (json!({"clients": [ann_id]}), true, false),
        (json!({"uids": ["ann", "nobody"]}), true, false),
        (json!({"groups": ["red"], "except": [ann_id]}), false, true),
        (json!({"groups": ["red"], "except_uids": ["ann"]}), false, true),
    ] {
        let text = target.to_string();
        let send = json!({"to": target, "text": text});
        assert_eq!(done(here, "/api/send", send).await, sent);
        for (socket, gets) in [(&mut ann, to_ann), (&mut bob, to_bob)] {
            // What it is asked comes after what it is sent.
            socket.send("marker").await;
            if gets {
                assert_eq!(socket.text().await, text);
            }
            assert_eq!(socket.text().await, "marker", "{text}");
        }
    }
    done(here, "/api/send", json!({"to": {"uids": ["ann"]}, "binary": "AP8="})).await;
    assert_eq!(ann.next().await, Incoming::Binary(vec![0, 255]));
    let confirmed = done(
        there,
        "/api/send",
        json!({"to": {"clients": [bob_id]}, "text": "sure", "confirm": true}),
    )
    .await;
    assert_eq!(confirmed, json!({"gone": [], "missing": [], "receipt": "delivered"}));
    assert_eq!(bob.text().await, "sure");

    clean(here, "/api/leave", json!({"clients": [ann_id], "group": "red"})).await;
    clean(there, "/api/unbind", json!({"clients": [ann_id]})).await;
    clean(here, "/api/dissolve", json!({"group": "red"})).await;
    let bare = done(there, "/api/query/select", json!({"uid": true, "groups": true})).await;
    for client in bare["clients"].as_array().expect("a list") {
        assert_eq!(
            (&client["uid"], &client["groups"]),
            (&Value::Null, &json!([])),
            "{bare}"
        );
    }

    clean(
        here,
        "/api/close",
        json!({"to": {"clients": [ann_id]}, "code": 4001, "reason": "bye"}),
    )
    .await;
    assert_eq!(ann.closed().await, (4001, "bye".into()));
    clean(there, "/api/close", json!({"to": {"all": true}, "at_once": true})).await;
    assert_eq!(bob.next().await, Incoming::End);

    // Those who have gone are named, whatever is asked of them.
    wait_for("both are gone", async || {
        let count = done(here, "/api/query/count", json!({})).await;
        (count["count"] == 0).then_some(())
    })
    .await;
    let gone = json!([ann_id]);
    for (path, body) in [
        ("/api/send", json!({"to": {"clients": [ann_id]}, "text": "x"})),
        (
            "/api/send",
            json!({"to": {"clients": [ann_id]}, "text": "x", "confirm": true}),
        ),
        ("/api/close", json!({"to": {"clients": [ann_id]}})),
        ("/api/join", json!({"clients": [ann_id], "group": "red"})),
        ("/api/session/update", json!({"client": ann_id, "set": {"a": "1"}})),
    ] {
        assert_eq!(done(here, path, body).await["gone"], gone, "{path}");
    }
    let session = done(here, "/api/session/get", json!({"client": ann_id})).await;
    assert_eq!(session, json!({"online": false, "session": {}}));
}
