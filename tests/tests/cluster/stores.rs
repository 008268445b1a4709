//! What each store of a registry has to do, on all of them: memory, and a real etcd.

use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use meepo_proto::registry::change::Change;
use meepo_proto::registry::{HolderId, Node, Snapshot, State, Term};
use meepo_registry::{EtcdSection, EtcdStore, MemoryStore, Store, StoreError};
use meepo_tests::{Etcd, in_time, wait_for};

/// Runs a test on each store.
macro_rules! on_each_store {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(super::memory()).await })*
        }
        mod etcd {
            $(#[tokio::test] async fn $test() {
                let Some(etcd) = super::Etcd::start().await else { return };
                super::$test(super::store(&etcd)).await
            })*
        }
    };
}

on_each_store! {
    a_watcher_gets_a_snapshot_and_then_changes
    the_later_node_has_the_address
    workers_have_no_address_and_live_side_by_side
    a_node_that_registers_again_outlives_its_old_registration
    a_node_may_move_and_change
    only_the_last_sixteen_that_lost_an_address_are_remembered
    one_that_was_done_is_remembered_and_its_address_is_free
    a_name_has_one_holder_at_a_time
}

fn memory() -> MemoryStore {
    let store = MemoryStore::new();
    store.begin_to_grant();
    store
}

fn store(etcd: &Etcd) -> EtcdStore {
    let settings = EtcdSection {
        endpoints: etcd.endpoints(),
        ..EtcdSection::default()
    };
    EtcdStore::start(&settings, Duration::from_secs(8)).expect("the addresses are fine")
}

fn node(id: u64, address: &str) -> Node {
    Node {
        id,
        address: (!address.is_empty()).then(|| address.into()),
        ..Node::default()
    }
}

async fn ids(store: &impl Store) -> Vec<u64> {
    let nodes = store.list().await.expect("the store is there");
    nodes.iter().map(|node| node.id).collect()
}

async fn next(changes: &mut BoxStream<'static, Change>) -> Change {
    in_time("a change", changes.next()).await.expect("the watch goes on")
}

async fn a_watcher_gets_a_snapshot_and_then_changes(store: impl Store) {
    let first = store.join(node(1, "")).await.unwrap();
    let mut changes = store.watch().await.unwrap();
    store.join(node(2, "a:1")).await.unwrap();
    store.renew(first, node(1, "")).await.unwrap();
    store.leave(first).await;
    let expected = [
        Change::Snapshot(Snapshot {
            nodes: vec![node(1, "")],
        }),
        Change::Joined(node(2, "a:1")),
        Change::Left(1),
    ];
    for change in expected {
        assert_eq!(next(&mut changes).await, change);
    }
}

async fn the_later_node_has_the_address(store: impl Store) {
    let old = store.join(node(1, "a:1")).await.unwrap();
    let mut changes = store.watch().await.unwrap();
    next(&mut changes).await;
    let new = store.join(node(2, "a:1")).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Left(1));
    assert_eq!(next(&mut changes).await, Change::Joined(node(2, "a:1")));

    // The older one wakes up: it neither comes back nor takes the other along.
    let superseded = |result| matches!(result, Err(StoreError::Superseded));
    assert!(superseded(store.renew(old, node(1, "a:1")).await));
    assert!(superseded(store.join(node(1, "a:1")).await.map(drop)));
    store.leave(old).await;
    assert_eq!(ids(&store).await, [2]);
    store.renew(new, node(2, "a:1")).await.unwrap();

    // When the address is free again, it may.
    store.leave(new).await;
    store.join(node(1, "a:1")).await.unwrap();
    assert_eq!(ids(&store).await, [1]);
}

async fn workers_have_no_address_and_live_side_by_side(store: impl Store) {
    for id in 1..=3 {
        store.join(node(id, "")).await.unwrap();
    }
    assert_eq!(ids(&store).await, [1, 2, 3]);
}

async fn a_node_that_registers_again_outlives_its_old_registration(store: impl Store) {
    let old = store.join(node(1, "a:1")).await.unwrap();
    let new = store.join(node(1, "a:1")).await.unwrap();
    assert!(matches!(
        store.renew(old, node(1, "a:1")).await,
        Err(StoreError::Replaced)
    ));
    store.leave(old).await;
    assert_eq!(ids(&store).await, [1]);
    store.leave(new).await;
    assert_eq!(ids(&store).await, [0u64; 0]);
}

async fn a_node_may_move_and_change(store: impl Store) {
    let lease = store.join(node(1, "a:1")).await.unwrap();
    let mut changes = store.watch().await.unwrap();
    next(&mut changes).await;
    store.renew(lease, node(1, "b:1")).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Joined(node(1, "b:1")));
    store.join(node(2, "a:1")).await.unwrap();
    assert_eq!(ids(&store).await, [1, 2]);
    let renamed = Node {
        name: "other".into(),
        ..node(1, "b:1")
    };
    store.renew(lease, renamed.clone()).await.unwrap();
    assert_eq!(store.list().await.unwrap(), [renamed, node(2, "a:1")]);
    store.leave(lease).await;
    assert_eq!(ids(&store).await, [2]);
}

async fn only_the_last_sixteen_that_lost_an_address_are_remembered(store: impl Store) {
    for id in 1..=18 {
        store.join(node(id, "a:1")).await.unwrap();
    }
    assert_eq!(ids(&store).await, [18]);
    assert!(matches!(store.join(node(2, "a:1")).await, Err(StoreError::Superseded)));
    store.join(node(1, "a:1")).await.unwrap();
    assert_eq!(ids(&store).await, [1]);
}

async fn one_that_was_done_is_remembered_and_its_address_is_free(store: impl Store) {
    let done = Node {
        state: State::Drained.into(),
        ..node(1, "a:1")
    };
    let lease = store.join(node(1, "a:1")).await.unwrap();
    let mut changes = store.watch().await.unwrap();
    next(&mut changes).await;
    store.renew(lease, done.clone()).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Joined(done.clone()));
    store.leave(lease).await;
    assert_eq!(ids(&store).await, [0u64; 0], "it is no node any more");
    store.join(node(2, "a:1")).await.unwrap();
    assert_eq!(
        next(&mut changes).await,
        Change::Joined(node(2, "a:1")),
        "nobody has left"
    );
    assert_eq!(ids(&store).await, [2]);
    // Those who come later are told as well.
    let mut later = store.watch().await.unwrap();
    let Change::Snapshot(snapshot) = next(&mut later).await else {
        panic!("a snapshot comes first")
    };
    assert_eq!(snapshot.nodes.into_iter().find(|node| node.id == 1), Some(done));
}

async fn a_name_has_one_holder_at_a_time(store: impl Store) {
    let hold =
        async |name: &str, holder: u64, term: Option<Term>| store.hold(name, HolderId(holder), term).await.unwrap();
    let release = async |name: &str, holder: u64| store.release(name, HolderId(holder)).await.unwrap();
    let first = wait_for("a holder has the name", async || hold("a/b", 1, None).await).await;
    assert_eq!(hold("a/b", 1, Some(first)).await, Some(first), "it keeps it");
    assert_eq!(hold("a/b", 2, None).await, None);
    assert!(hold("a", 2, None).await.is_some(), "it is another name");
    release("a/b", 2).await;
    assert_eq!(hold("a/b", 2, None).await, None, "it was not its own to give back");
    release("a/b", 1).await;
    let second = hold("a/b", 2, None).await.expect("the name is free");
    assert!(second > first, "{second:?} after {first:?}");
    // It dies, and the next one gets the name when its time is over.
    hold("a/b", 2, Some(second)).await;
    let third = wait_for("the name is free again", async || hold("a/b", 3, None).await).await;
    assert!(third > second, "{third:?} after {second:?}");
}

/// Waits until a store has exactly these nodes.
async fn has(store: &impl Store, expected: &[u64]) {
    let what = format!("the store has {expected:?}");
    wait_for(&what, async || (ids(store).await == expected).then_some(())).await;
}

#[tokio::test]
async fn two_registries_have_the_same_nodes() {
    let Some(etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    let at_one = one.join(node(1, "a:1")).await.unwrap();
    has(&two, &[1]).await;
    // It comes to the other one as well, and stays as long as it is at either.
    let at_two = two.join(node(1, "a:1")).await.unwrap();
    two.join(node(2, "")).await.unwrap();
    has(&one, &[1, 2]).await;
    let mut changes = two.watch().await.unwrap();
    next(&mut changes).await;
    one.renew(at_one, node(1, "a:1")).await.unwrap();
    one.leave(at_one).await;
    one.join(node(3, "")).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Joined(node(3, "")));
    two.leave(at_two).await;
    has(&one, &[2, 3]).await;
}

#[tokio::test]
async fn the_later_node_has_the_address_at_all_registries() {
    let Some(etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    let old = one.join(node(1, "a:1")).await.unwrap();
    has(&two, &[1]).await;
    let new = two.join(node(2, "a:1")).await.unwrap();
    has(&one, &[2]).await;
    let superseded = |result| matches!(result, Err(StoreError::Superseded));
    assert!(superseded(one.renew(old, node(1, "a:1")).await));
    assert!(superseded(one.join(node(1, "a:1")).await.map(drop)));
    // Many at once: one has it in the end, and everybody agrees on which.
    let joined = stream::iter(10..30).map(|id| if id % 2 == 0 { &one } else { &two }.join(node(id, "a:1")));
    let joined: Vec<_> = joined.buffer_unordered(20).collect().await;
    assert!(joined.iter().any(Result::is_ok), "{joined:?}");
    let agreed = async || {
        let (at_one, at_two) = (ids(&one).await, ids(&two).await);
        (at_one == at_two && at_one.len() == 1).then(|| at_one[0])
    };
    let winner = wait_for("both have the same one", agreed).await;
    assert!(winner >= 10, "{winner}");
    two.leave(new).await;
    assert_eq!(ids(&two).await, [winner]);
}

#[tokio::test]
async fn a_holder_may_ask_any_registry_and_one_that_has_lost_its_name_does_not_get_it_back() {
    let Some(etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    let first = one.hold("a", HolderId(1), None).await.unwrap();
    assert!(first.is_some() && EtcdStore::SHARES_LEASES);
    assert_eq!(two.hold("a", HolderId(1), first).await.unwrap(), first);
    assert_eq!(two.hold("a", HolderId(2), None).await.unwrap(), None);
    etcd.revoke_all().await;
    assert_eq!(one.hold("a", HolderId(1), first).await.unwrap(), None);
    // Many at once: one has it.
    let asked = stream::iter(10..20).map(|id| if id % 2 == 0 { &one } else { &two }.hold("a", HolderId(id), None));
    let asked: Vec<_> = asked.buffer_unordered(20).collect().await;
    let granted = asked.iter().filter(|granted| matches!(granted, Ok(Some(_))));
    assert_eq!(granted.count(), 1, "{asked:?}");
}

#[tokio::test]
async fn the_nodes_of_a_registry_that_died_are_forgotten() {
    let Some(etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    one.join(node(1, "a:1")).await.unwrap();
    one.join(node(2, "")).await.unwrap();
    two.join(node(2, "")).await.unwrap();
    has(&two, &[1, 2]).await;
    drop(one);
    has(&two, &[2]).await;
}

#[tokio::test]
async fn what_was_lost_in_etcd_is_put_there_again_and_nobody_notices() {
    let Some(etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    let first = one.join(node(1, "a:1")).await.unwrap();
    one.join(node(2, "")).await.unwrap();
    let mut changes = one.watch().await.unwrap();
    next(&mut changes).await;
    has(&two, &[1, 2]).await;
    for _ in 0..2 {
        // Another registry sees that they go and come back.
        let mut elsewhere = two.watch().await.unwrap();
        etcd.revoke_all().await;
        while !matches!(next(&mut elsewhere).await, Change::Joined(node) if node.id == 2) {}
        has(&two, &[1, 2]).await;
    }
    one.renew(first, node(1, "a:1")).await.unwrap();
    one.join(node(3, "")).await.unwrap();
    assert_eq!(next(&mut changes).await, Change::Joined(node(3, "")));
}

#[tokio::test]
async fn without_etcd_what_is_known_stays_and_what_has_gone_is_not_forgotten() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    let first = one.join(node(1, "a:1")).await.unwrap();
    let second = one.join(node(2, "")).await.unwrap();
    has(&two, &[1, 2]).await;
    let mut changes = one.watch().await.unwrap();
    next(&mut changes).await;
    for which in 0..etcd.size() {
        etcd.kill(which).await;
    }
    let away = |result| matches!(result, Err(StoreError::Unavailable(_)));
    assert!(away(one.join(node(3, "")).await.map(drop)));
    one.renew(first, node(1, "a:1")).await.unwrap();
    let renamed = Node {
        name: "other".into(),
        ..node(1, "a:1")
    };
    assert!(away(one.renew(first, renamed.clone()).await));
    one.leave(second).await;
    assert_eq!(ids(&one).await, [1]);
    assert_eq!(ids(&two).await, [1, 2], "it cannot know");
    // A registry that starts now has nothing to say.
    let late = store(&etcd);
    assert!(away(late.list().await.map(drop)) && away(late.watch().await.map(drop)));

    for which in 0..etcd.size() {
        etcd.begin(which);
    }
    for store in [&one, &two, &late] {
        let right = async || (store.list().await.ok()? == [renamed.clone()]).then_some(());
        wait_for("what has happened meanwhile is known", right).await;
    }
    assert_eq!(next(&mut changes).await, Change::Left(2));
    late.join(node(4, "")).await.unwrap();
    has(&one, &[1, 4]).await;
}

#[tokio::test]
async fn a_watch_of_what_etcd_has_forgotten_begins_again() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let (one, two) = (store(&etcd), store(&etcd));
    one.join(node(1, "")).await.unwrap();
    has(&two, &[1]).await;
    let mut changes = two.watch().await.unwrap();
    next(&mut changes).await;
    // Whichever member it watches: it is frozen while the others go on and forget.
    for which in 0..etcd.size() {
        etcd.freeze(which);
        let id = 10 + which as u64;
        wait_for("the others go on", async || one.join(node(id, "")).await.ok()).await;
        etcd.compact().await;
        assert_eq!(next(&mut changes).await, Change::Joined(node(id, "")));
        etcd.thaw(which);
        etcd.agree().await;
    }
}
