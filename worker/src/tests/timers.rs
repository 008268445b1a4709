//! Timers: in their client's queue, and gone with it.

use std::future::pending;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::link::event::Body as Event;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::gateway::{Gateway, Link, attach, message, text_to};
use super::{Running, eventually, soon};
use crate::WorkerSection;
use crate::{Client, Timer};

const SOON: Duration = Duration::from_millis(2);
const HOUR: Duration = Duration::from_secs(3600);

/// A client that is let in.
async fn come(worker: &mut Running, link: &mut Link, number: u64) -> Client {
    link.open(number).await;
    worker.expect(&format!("{number} connect")).await;
    worker.client(number).await
}

/// A timer that tells of each run.
fn ticking(client: &Client) -> (Timer, UnboundedReceiver<()>) {
    let (tell, ticks) = unbounded_channel();
    let timer = client.every(SOON, move |_| {
        let _ = tell.send(());
        async {}
    });
    (timer, ticks)
}

#[tokio::test]
async fn a_timer_runs_in_its_turn_and_never_beside_a_handler() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let client = come(&mut worker, &mut link, 1).await;
    link.message(1, "hold");
    worker.expect("1 hold").await;
    let timer = client.after(SOON, async |client| client.send("time is up"));
    let stats = worker.stats;
    eventually("the timer waits for its turn", || stats.events_in_flight.get() == 2).await;
    let last = link.message(1, "x");
    // Another client does not wait.
    link.open(2).await;
    worker.expect("2 connect").await;
    worker.expect_no_more();
    assert!(!timer.is_over());
    worker.let_pass(1);
    worker.expect("1 held").await;
    assert_eq!(link.until_done(last).await, [text_to(1, "time is up"), text_to(1, "x")]);
    eventually("the timer has run", || timer.is_over()).await;
    eventually("the end of all events", || stats.events_in_flight.get() == 0).await;
    assert_eq!(stats.handler_errors.get(), 0);
}

#[tokio::test]
async fn runs_that_are_late_do_not_pile_up() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let client = come(&mut worker, &mut link, 1).await;
    link.message(1, "hold");
    worker.expect("1 hold").await;
    let (_timer, mut late) = ticking(&client);
    let other = come(&mut worker, &mut link, 2).await;
    let (other, mut ticks) = ticking(&other);
    for _ in 0..20 {
        soon("a tick", ticks.recv()).await;
    }
    other.cancel();
    let stats = worker.stats;
    eventually("one run waits", || stats.events_in_flight.get() == 2).await;
    assert!(late.try_recv().is_err());
    worker.let_pass(1);
    soon("the run that waited", late.recv()).await;
    soon("the next one", late.recv()).await;
}

#[tokio::test]
async fn a_timer_that_is_cancelled_does_not_run() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let client = come(&mut worker, &mut link, 1).await;
    let early = client.after(HOUR, async |client| client.send("never"));
    early.cancel();
    link.message(1, "hold");
    worker.expect("1 hold").await;
    let late = client.after(SOON, async |client| client.send("never"));
    let stats = worker.stats;
    eventually("it waits for its turn", || stats.events_in_flight.get() == 2).await;
    late.cancel();
    let last = link.message(1, "x");
    worker.let_pass(1);
    assert_eq!(link.until_done(last).await, [text_to(1, "x")]);
    assert!(early.is_over() && late.is_over());

    // One that runs again and again, by hand and by itself.
    let (timer, mut ticks) = ticking(&client);
    soon("a tick", ticks.recv()).await;
    timer.cancel();
    soon("the end", async { while ticks.recv().await.is_some() {} }).await;
    let (tell, mut left) = unbounded_channel();
    let mut count = 3;
    client.every(SOON, move |_| {
        count -= 1;
        let _ = tell.send(count);
        async move {
            match count {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    });
    for expected in [Some(2), Some(1), Some(0), None] {
        assert_eq!(soon("a count", left.recv()).await, expected);
    }
}

#[tokio::test]
async fn a_run_that_fails_panics_or_takes_too_long_is_counted_and_the_next_one_comes() {
    let mut worker = Running::with(WorkerSection {
        handler_timeout: Duration::from_millis(50),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    let client = come(&mut worker, &mut link, 1).await;
    let stats = worker.stats;
    for cluster in [false, true] {
        let before = stats.handler_errors.get();
        let (tell, mut runs) = unbounded_channel();
        let mut run = 0;
        let mut trouble = move || {
            run += 1;
            let _ = tell.send(run);
            assert_ne!(run, 1, "a panic before the first await");
            async move {
                match run {
                    2 => panic!("asked to"),
                    3 => Err("asked to".into()),
                    4 => pending().await,
                    _ => Ok(()),
                }
            }
        };
        let timer = match cluster {
            false => client.every(SOON, move |_| trouble()),
            true => worker.cluster().every(SOON, move |_| trouble()),
        };
        for expected in 1..=6 {
            assert_eq!(soon("a run", runs.recv()).await, Some(expected));
        }
        timer.cancel();
        assert_eq!(stats.handler_errors.get() - before, 4);
    }
    // One that runs once does so also when it fails.
    let once = client.after(SOON, async |_| Err::<(), _>("asked to".into()));
    let other = worker
        .cluster()
        .after(SOON, async |_| assert!(SOON.is_zero(), "a panic"));
    eventually("both have run", || once.is_over() && other.is_over()).await;
    assert_eq!(stats.handler_errors.get(), 10);
    // The client is served on.
    let seq = link.message(1, "x");
    assert!(link.until_done(seq).await.contains(&text_to(1, "x")));
}

#[tokio::test]
async fn timers_end_when_their_client_is_no_longer_served_here() {
    let (mut worker, mut gateway, mut link) = Running::linked().await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        clients.push(come(&mut worker, &mut link, number).await);
    }
    let timers: Vec<_> = clients.iter().map(|client| client.every(HOUR, async |_| {})).collect();
    // As soon as the client has gone, though a handler is in front of its end.
    link.message(1, "hold");
    worker.expect("1 hold").await;
    let (_, mut ticks) = ticking(&clients[0]);
    let closed = link.closed(1);
    eventually("the end of one that closed", || timers[0].is_over()).await;
    worker.let_pass(1);
    link.until_done(closed).await;
    assert!(ticks.recv().await.is_none(), "the run that waited is dropped");
    assert!(!timers[1].is_over());

    let detached = link.event(2, Event::Detached(wire::Detached {}));
    link.until_done(detached).await;
    assert!(timers[1].is_over() && !timers[2].is_over());

    link.end();
    link.ended().await;
    eventually("the end of one whose link ended", || timers[2].is_over()).await;
    // It comes back, and is another one for what was kept.
    let mut again = gateway.link().await;
    let seq = again.attached(3, Some(attach(&[])), message("x"));
    again.until_done(seq).await;
    assert!(clients[2].every(HOUR, async |_| {}).is_over());
    assert!(!worker.client(3).await.every(HOUR, async |_| {}).is_over());
    assert_eq!(worker.stats.handler_errors.get(), 0);
}

#[tokio::test]
async fn timers_of_a_client_whose_handler_was_cut_off_end() {
    let mut worker = Running::with(WorkerSection {
        handler_timeout: Duration::from_millis(50),
        ..WorkerSection::default()
    });
    let mut gateway = Gateway::start(1).await;
    worker.name(&gateway);
    let mut link = gateway.link().await;
    worker.expect("start, 0 gateways").await;
    let client = come(&mut worker, &mut link, 1).await;
    let timer = client.every(HOUR, async |_| {});
    link.message(1, "hold");
    eventually("the end", || timer.is_over()).await;
}

#[tokio::test]
async fn one_timer_too_many_is_refused() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let client = come(&mut worker, &mut link, 1).await;
    let timers: Vec<_> = (0..64).map(|_| client.after(HOUR, async |_| {})).collect();
    assert!(timers.iter().all(|timer| !timer.is_over()));
    assert_eq!(worker.stats.handler_errors.get(), 0);
    assert!(client.after(HOUR, async |_| {}).is_over());
    assert_eq!(worker.stats.handler_errors.get(), 1);
    // Others have their own, and there is room again once one has ended.
    let other = come(&mut worker, &mut link, 2).await;
    assert!(!other.after(HOUR, async |_| {}).is_over());
    timers[0].cancel();
    eventually("room", || !client.after(HOUR, async |_| {}).is_over()).await;
}

#[tokio::test]
async fn any_time_will_do() {
    let (mut worker, _gateway, mut link) = Running::linked().await;
    let client = come(&mut worker, &mut link, 1).await;
    for timer in [
        client.after(Duration::MAX, async |_| {}),
        client.every(Duration::MAX, async |_| {}),
        worker.cluster().after(Duration::MAX, async |_| {}),
    ] {
        assert!(!timer.is_over());
    }
    let at_once = client.after(Duration::ZERO, async |_| {});
    eventually("it has run", || at_once.is_over()).await;
    let (tell, mut ticks) = unbounded_channel();
    worker.cluster().every(Duration::ZERO, move |_| {
        let _ = tell.send(());
        async {}
    });
    for _ in 0..3 {
        soon("a tick", ticks.recv()).await;
    }
}

#[tokio::test]
async fn nothing_stays_behind_of_clients_that_have_gone() {
    const CLIENTS: u64 = 10_000;
    let (worker, _gateway, mut link) = Running::linked().await;
    link.open(u64::MAX).await;
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for round in 0..2 {
        let mut kept = Vec::new();
        let numbers = 1 + round * CLIENTS..=(round + 1) * CLIENTS;
        for number in numbers.clone() {
            link.hand_over(number, &[]);
        }
        eventually("all clients", || worker.stats.connections.get() == 1 + CLIENTS).await;
        for number in numbers.clone() {
            let client = worker.client(number).await;
            kept.push(Arc::downgrade(client.served()));
            // What it captures goes with it.
            let captured = client.clone();
            client.after(HOUR, async move |_| captured.send("never"));
        }
        eventually("all timers", || alive() >= before + 10_000).await;
        for number in numbers {
            match number % 2 {
                0 => link.closed(number),
                _ => link.event(number, Event::Detached(wire::Detached {})),
            };
        }
        eventually("the end of all clients", || worker.stats.connections.get() == 1).await;
        eventually("the end of all tasks", || alive() <= before).await;
        assert!(kept.iter().all(|served| served.upgrade().is_none()));
    }
    assert_eq!(worker.cluster().served_clients().map(|all| all.len()), Some(1));
}

#[tokio::test]
async fn timers_without_a_client_end_with_the_child_and_hold_no_drain_up() {
    let (worker, _gateway, mut link) = Running::linked().await;
    eventually("the link", || worker.stats.links.get() == 1).await;
    let cluster = worker.cluster().clone();
    cluster.every(SOON, async |cluster| cluster.all().send("tick"));
    for _ in 0..2 {
        assert!(matches!(link.next().await, wire::command::Body::Send(send) if &send.payload[..] == b"tick"));
    }
    let idle = cluster.every(HOUR, async |_| {});
    let (tell, mut runs) = unbounded_channel();
    let endless = cluster.every(SOON, move |_| {
        let _ = tell.send(());
        pending::<()>()
    });
    soon("its run", runs.recv()).await;
    worker.request_stop();
    while !matches!(link.next().await, wire::command::Body::Draining(_)) {}
    link.push(wire::Event {
        body: Some(Event::Drained(wire::Drained {})),
        ..wire::Event::default()
    });
    link.ended().await;
    link.end();
    worker.stopped().await;
    assert!(idle.is_over() && endless.is_over());
    assert!(cluster.after(HOUR, async |_| {}).is_over());
}
