//! What business logic can do: whom it reaches, what it is told, and that all gateways and workers agree about it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use meepo_tests::{Cluster, Incoming, Ws, wait_for};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

/// A client, its id, and what it is called here.
struct Guest {
    name: &'static str,
    id: String,
    socket: Ws,
}

impl Guest {
    async fn come(cluster: &Cluster, name: &'static str) -> Self {
        let gateways = cluster.clients();
        let gateway = gateways[name.len() % gateways.len()];
        let mut socket = Ws::connect(gateway).await;
        let id = socket.ask("id").await;
        Self { name, id, socket }
    }

    /// Has its worker do something about itself, and waits until that is done.
    async fn act(&mut self, command: &str) {
        self.socket.send(command).await;
        assert_eq!(self.socket.ask("done").await, "done");
    }

    async fn ask<T: DeserializeOwned>(&mut self, question: &str) -> T {
        let answer = self.socket.ask(question).await;
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{question}: {answer}: {error}"))
    }
}

/// "a" and "cc" are at the second gateway, "bb" and "dddd" at the first. Ann has a and bb, Bob has cc; a, cc and dddd are
/// red, bb and cc are blue.
async fn company(cluster: &Cluster) -> Vec<Guest> {
    let mut guests = Vec::new();
    for (name, uid, groups) in [
        ("a", "ann", &["red"][..]),
        ("bb", "ann", &["blue"]),
        ("ccc", "bob", &["red", "blue"]),
        ("dddd", "", &["red"]),
    ] {
        let mut guest = Guest::come(cluster, name).await;
        if !uid.is_empty() {
            guest.act(&format!("bind {uid}")).await;
        }
        for group in groups {
            guest.act(&format!("join {group}")).await;
        }
        guests.push(guest);
    }
    guests
}

/// Who got a message that the first of them sent: all that was sent before is there when all gateways have answered.
async fn who_got(guests: &mut [Guest], command: &str, text: &str) -> Vec<&'static str> {
    let sender = &mut guests[0].socket;
    sender.send(&format!("{command} {text}")).await;
    sender.send("online").await;
    let mut got = Vec::new();
    for (index, guest) in guests.iter_mut().enumerate() {
        let marker = if index == 0 {
            "4"
        } else {
            guest.socket.send("marker").await;
            "marker"
        };
        let mut count = 0;
        loop {
            match guest.socket.text().await {
                last if last == marker => break,
                other => assert_eq!(other, text),
            }
            count += 1;
        }
        // The sender's question is answered before other clients are asked.
        assert!(count <= 1, "{} got it {count} times", guest.name);
        got.extend((count == 1).then_some(guest.name));
    }
    got
}

#[tokio::test]
async fn a_message_reaches_exactly_those_who_are_meant() {
    let cluster = Cluster::start().await;
    let mut guests = company(&cluster).await;
    let ids: Vec<_> = guests.iter().map(|guest| guest.id.clone()).collect();
    for (command, expected) in [
        ("send-uid ann".to_owned(), &["a", "bb"][..]),
        ("send-uid nobody".to_owned(), &[]),
        ("send-uids ann,bob".to_owned(), &["a", "bb", "ccc"]),
        ("send-group red".to_owned(), &["a", "ccc", "dddd"]),
        ("send-groups red,blue".to_owned(), &["a", "bb", "ccc", "dddd"]),
        ("send-others red".to_owned(), &["ccc", "dddd"]),
        ("send-but red bob".to_owned(), &["a", "dddd"]),
        (format!("send-clients {},{}", ids[1], ids[3]), &["bb", "dddd"]),
        (format!("send-to {}", ids[2]), &["ccc"]),
        ("send-all now".to_owned(), &["a", "bb", "ccc", "dddd"]),
    ] {
        assert_eq!(who_got(&mut guests, &command, "hello").await, expected, "{command}");
    }
    // One who goes is no longer reached, and its name is not another's.
    let gone = guests.remove(2);
    gone.socket.close(1000, "").await;
    wait_for("bob is offline", async || {
        let online: bool = guests[0].ask("is-uid-online bob").await;
        (!online).then_some(())
    })
    .await;
    guests.push(Guest::come(&cluster, "ccc").await);
    assert_eq!(
        who_got(&mut guests, &format!("send-to {}", gone.id), "hello").await,
        [""; 0]
    );
    assert_eq!(
        who_got(&mut guests, "send-groups red,blue", "hello").await,
        ["a", "bb", "dddd"]
    );
}

#[tokio::test]
async fn every_question_is_answered_by_all_gateways() {
    let cluster = Cluster::start().await;
    let mut guests = company(&cluster).await;
    let ids: Vec<_> = guests.iter().map(|guest| guest.id.clone()).collect();
    guests[0].act("update mood=good,room=one").await;
    guests[2].act("update mood=good,room=two").await;
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    // Each of them asks: they are at different workers.
    for guest in &mut guests {
        assert_eq!(guest.ask::<u64>("online").await, 4);
        assert_eq!(guest.ask::<BTreeSet<String>>("uids").await, set(&["ann", "bob"]));
        assert_eq!(
            guest.ask::<BTreeSet<String>>("clients").await,
            ids.iter().cloned().collect()
        );
        let sizes = BTreeMap::from([("red".to_owned(), 3), ("blue".to_owned(), 2)]);
        assert_eq!(guest.ask::<BTreeMap<String, u64>>("groups").await, sizes);
        let clients_of: BTreeSet<String> = guest.ask("clients-of ann").await;
        assert_eq!(clients_of, ids[..2].iter().cloned().collect());
        assert_eq!(guest.ask::<BTreeSet<String>>("uids-in red").await, set(&["ann", "bob"]));
        assert!(guest.ask::<bool>("is-uid-online bob").await);
        assert!(!guest.ask::<bool>("is-uid-online eve").await);
        assert!(guest.ask::<bool>(&format!("is-online {}", ids[3])).await);
        let uid = |id: &str| format!("uid-of {id}");
        assert_eq!(guest.ask::<Option<String>>(&uid(&ids[2])).await.as_deref(), Some("bob"));
        assert_eq!(guest.ask::<Option<String>>(&uid(&ids[3])).await, None);
        let groups: Option<BTreeSet<String>> = guest.ask(&format!("groups-of {}", ids[2])).await;
        assert_eq!(groups, Some(set(&["red", "blue"])));
        let selected = |what: &str| format!("select {what}");
        assert_eq!(
            guest.ask::<BTreeSet<String>>(&selected("red,blue mood=good")).await,
            set(&["ann", "bob"])
        );
        assert_eq!(
            guest.ask::<BTreeSet<String>>(&selected("red mood=good,room=two")).await,
            set(&["bob"])
        );
    }
    // What is replaced is gone.
    guests[2].act("replace mood=bad").await;
    let session: Option<BTreeMap<String, String>> = guests[0].ask(&format!("session-of {}", ids[2])).await;
    assert_eq!(session, Some(BTreeMap::from([("mood".to_owned(), "bad".to_owned())])));
}

#[tokio::test]
async fn clients_are_closed_with_a_word_or_without() {
    let cluster = Cluster::start().await;
    let mut guests = company(&cluster).await;
    guests[3].act("dissolve red").await;
    wait_for("the group has gone", async || {
        let sizes: BTreeMap<String, u64> = guests[3].ask("groups").await;
        (sizes == BTreeMap::from([("blue".to_owned(), 2)])).then_some(())
    })
    .await;
    // All clients of a user, on both gateways.
    guests[3].socket.send("close-uid ann enough").await;
    for _ in 0..2 {
        let mut closed = guests.remove(0);
        assert_eq!(closed.socket.closed().await, (4009, "enough".to_owned()));
    }
    // What is destroyed gets no close frame, and not what it was sent before either.
    let mut destroyed = guests.remove(0);
    destroyed.socket.send("destroy").await;
    assert!(matches!(destroyed.socket.next().await, Incoming::End));
    let events = cluster.events();
    events
        .wait("the close", |event| {
            event.event == "close" && event.client == destroyed.id
        })
        .await;
    assert_eq!(guests[0].ask::<u64>("online").await, 1);
}

#[tokio::test]
async fn what_became_of_a_message_is_known() {
    let cluster = Cluster::start().await;
    let mut asker = Guest::come(&cluster, "a").await;
    let mut reader = Guest::come(&cluster, "bb").await;
    assert_eq!(
        asker.socket.ask(&format!("confirm {} hello", reader.id)).await,
        "Delivered"
    );
    assert_eq!(reader.socket.text().await, "hello");
    // The sockets of one that does not read fill, then its send buffer.
    let mut silent = Ws::connect_narrow(cluster.clients()[0], "/").await;
    let id = silent.ask("id").await;
    let full = wait_for("the buffer is full", async || {
        asker.socket.send(&format!("flood {id} 1000000")).await;
        match asker.socket.text().await {
            full if full == "Full" => Some(full),
            other => {
                assert!(["Delivered", "Unknown"].contains(&other.as_str()), "{other}");
                None
            }
        }
    })
    .await;
    assert_eq!(full, "Full");
    drop(silent);
    let gone = reader.id.clone();
    reader.socket.close(1000, "").await;
    wait_for("it is known to be gone", async || {
        let delivery = asker.socket.ask(&format!("confirm {gone} hello")).await;
        (delivery == "Gone").then_some(())
    })
    .await;
}

/// What a client did, and what has to be known of it.
/// A thousand rounds in which two workers change one session at once: 50 for each of 20 clients.
#[tokio::test]
async fn two_workers_that_change_one_session_at_once_lose_nothing() {
    let cluster = Cluster::start().await;
    join_all((0..20).map(|_| race(&cluster, 50))).await;
}

async fn race(cluster: &Cluster, rounds: u32) {
    let mut subject = Guest::come(cluster, "a").await;
    let mut first = Guest::come(cluster, "bb").await;
    let pid: u32 = first.ask("pid").await;
    let mut second = loop {
        let mut other = Guest::come(cluster, "dddd").await;
        if other.ask::<u32>("pid").await != pid {
            break other;
        }
    };
    let question = format!("session-of {}", subject.id);
    for round in 0..rounds {
        let set = |key| format!("update-of {} {key}={round}", subject.id);
        let (one, two) = (set("one"), set("two"));
        tokio::join!(first.act(&one), second.act(&two));
        // Each worker reads what it has written itself, at once, and what the other one has.
        let expected = ["one", "two"].map(|key| (key.to_owned(), round.to_string()));
        let asker = if round % 2 == 0 { &mut first } else { &mut second };
        let seen: Option<BTreeMap<String, String>> = asker.ask(&question).await;
        assert_eq!(seen, Some(BTreeMap::from(expected)), "round {round}");
    }
    // And the worker that serves the client, whose copy is brought up to date.
    let last = (rounds - 1).to_string();
    wait_for("the copy has both", async || {
        let (one, two) = (subject.socket.ask("get one").await, subject.socket.ask("get two").await);
        (one == last && two == last).then_some(())
    })
    .await;
}

#[derive(Default)]
struct Model {
    uid: Option<String>,
    groups: BTreeSet<String>,
    session: BTreeMap<String, String>,
}

impl Model {
    /// Draws what the client does next.
    fn draw(&mut self, random: &mut fastrand::Rng) -> String {
        let name = |random: &mut fastrand::Rng| random.u8(0..4).to_string();
        match random.u8(0..7) {
            0 => {
                let uid = format!("u{}", name(random));
                self.uid = Some(uid.clone());
                format!("bind {uid}")
            }
            1 => {
                self.uid = None;
                "unbind".into()
            }
            2 | 3 => {
                let group = format!("g{}", name(random));
                self.groups.insert(group.clone());
                format!("join {group}")
            }
            4 => {
                let group = format!("g{}", name(random));
                self.groups.remove(&group);
                format!("leave {group}")
            }
            5 => {
                let (key, value) = (format!("k{}", name(random)), name(random));
                self.session.insert(key.clone(), value.clone());
                format!("update {key}={value}")
            }
            _ => {
                self.session = BTreeMap::from([("k".to_owned(), name(random))]);
                format!("replace k={}", self.session["k"])
            }
        }
    }
}

#[tokio::test]
async fn all_workers_agree_about_what_many_clients_did_at_random() {
    let cluster = Cluster::start().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut clients = JoinSet::new();
    for number in 0..16 {
        let gateways = cluster.clients();
        clients.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
            let mut guest = Ws::connect(gateways[number as usize % gateways.len()]).await;
            let mut model = Model::default();
            for _ in 0..60 {
                // Some go, and come as somebody new.
                if random.u8(0..20) == 0 {
                    guest.close(1000, "").await;
                    guest = Ws::connect(gateways[random.usize(..gateways.len())]).await;
                    model = Model::default();
                }
                guest.send(&model.draw(&mut random)).await;
            }
            let id = guest.ask("id").await;
            (id, guest, model)
        });
    }
    let all = clients.join_all().await;
    let mut sizes = BTreeMap::<String, u64>::new();
    let mut clients_of = BTreeMap::<String, BTreeSet<String>>::new();
    for (id, _, model) in &all {
        for group in &model.groups {
            *sizes.entry(group.clone()).or_default() += 1;
        }
        if let Some(uid) = &model.uid {
            clients_of.entry(uid.clone()).or_default().insert(id.clone());
        }
    }
    // Those who asked are served by different workers.
    let mut askers = Vec::new();
    for gateway in cluster.clients() {
        for _ in 0..2 {
            let mut socket = Ws::connect(gateway).await;
            let id = socket.ask("id").await;
            askers.push(Guest { name: "", id, socket });
        }
    }
    for asker in &mut askers {
        wait_for("those who went are gone", async || {
            (asker.ask::<u64>("online").await == 16 + 4).then_some(())
        })
        .await;
        assert_eq!(asker.ask::<BTreeMap<String, u64>>("groups").await, sizes);
        let uids: BTreeSet<String> = asker.ask("uids").await;
        assert_eq!(uids, clients_of.keys().cloned().collect());
        for (uid, clients) in &clients_of {
            assert_eq!(
                &asker.ask::<BTreeSet<String>>(&format!("clients-of {uid}")).await,
                clients
            );
        }
        for group in sizes.keys() {
            let members = all.iter().filter(|(_, _, model)| model.groups.contains(group));
            let uids: BTreeSet<String> = members.filter_map(|(_, _, model)| model.uid.clone()).collect();
            assert_eq!(asker.ask::<BTreeSet<String>>(&format!("uids-in {group}")).await, uids);
        }
        for (id, _, model) in &all {
            let session: Option<BTreeMap<String, String>> = asker.ask(&format!("session-of {id}")).await;
            assert_eq!(session.as_ref(), Some(&model.session));
            let groups: Option<BTreeSet<String>> = asker.ask(&format!("groups-of {id}")).await;
            assert_eq!(groups.as_ref(), Some(&model.groups));
        }
    }
    // Nothing is left of those who go.
    for (_, guest, _) in all {
        guest.close(1000, "").await;
    }
    for asker in &mut askers {
        wait_for("all are gone", async || {
            (asker.ask::<u64>("online").await == 4).then_some(())
        })
        .await;
        assert_eq!(asker.ask::<BTreeMap<String, u64>>("groups").await, BTreeMap::new());
        assert_eq!(asker.ask::<BTreeSet<String>>("uids").await, BTreeSet::new());
    }
}
