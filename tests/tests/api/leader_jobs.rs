//! A job that one worker child runs: it moves when it has to, and never runs twice at a time.

use std::time::Duration;

use meepo_tests::{Cluster, Etcd, Jobs, Node, Step, in_time, processes, wait_for};
use meepo_worker::{Lease, Outside};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

/// Longer than a lease lasts.
const TERM: Duration = Duration::from_secs(6);

/// Kills the child that runs the job, and waits for the next one.
async fn kill_holder(jobs: &Jobs, holder: &Step) -> Step {
    processes::signal(holder.pid, Signal::SIGKILL);
    let next = jobs.start_after(holder.term).await;
    assert_ne!(next.pid, holder.pid);
    next
}

/// The job still runs under the same term, longer than a lease lasts.
async fn goes_on(jobs: &Jobs, holder: &Step) {
    let tick = jobs.tick_after(TERM).await;
    assert_eq!((tick.term, tick.pid), (holder.term, holder.pid));
}

/// The master of a child.
async fn master_of(workers: &[Node], pid: u32) -> &Node {
    for worker in workers {
        if worker.pids("worker").await.contains(&pid) {
            return worker;
        }
    }
    panic!("no worker has the child {pid}");
}

/// Reloads the worker that runs the job, and waits until it is elsewhere.
async fn reload_holder(cluster: &Cluster, holder: &Step) -> Step {
    let jobs = cluster.jobs();
    let worker = master_of(&cluster.workers, holder.pid).await;
    worker.command(&["reload"]).await.fine();
    let end = jobs.end_of(holder.term).await;
    assert_eq!(end.what, "end", "it was given back before it was over");
    // Old children of the same worker may have it for a moment.
    jobs.start_after(holder.term).await;
    let old = async || {
        let running = jobs.all().last().cloned()?;
        let serves = cluster.workers.iter().map(|worker| worker.pids("worker"));
        for pids in serves {
            if pids.await.contains(&running.pid) && running.what == "tick" && running.pid != holder.pid {
                return Some(running);
            }
        }
        None
    };
    wait_for("a child that stays has the job", old).await
}

#[tokio::test]
async fn it_moves_when_its_holder_dies_or_drains() {
    let cluster = Cluster::start_with_job(&[""]).await;
    let jobs = cluster.jobs();
    let mut holder = jobs.start_after(0).await;
    for _ in 0..2 {
        holder = kill_holder(&jobs, &holder).await;
    }
    reload_holder(&cluster, &holder).await;
    assert!(jobs.check() >= 4);
}

#[tokio::test]
async fn it_moves_when_its_holder_is_frozen_and_pauses_while_the_registry_is_new() {
    let mut cluster = Cluster::start_with_job(&[""]).await;
    let jobs = cluster.jobs();
    let frozen = jobs.start_after(0).await;
    processes::signal(frozen.pid, Signal::SIGSTOP);
    let holder = jobs.start_after(frozen.term).await;
    assert_ne!(holder.pid, frozen.pid);
    processes::signal(frozen.pid, Signal::SIGCONT);
    assert_eq!(jobs.end_of(frozen.term).await.what, "late", "it has noticed");
    cluster.registries[0].kill_all().await;
    assert_eq!(jobs.end_of(holder.term).await.what, "late", "its lease has run out");
    cluster.registries[0].start().await;
    let holder = jobs.start_after(holder.term).await;
    assert_eq!(jobs.tick_after(Duration::ZERO).await.term, holder.term);
    assert!(jobs.check() >= 3);
}

#[tokio::test]
async fn one_of_three_registries_may_die() {
    let mut cluster = Cluster::start_with_job(&["", "", ""]).await;
    let jobs = cluster.jobs();
    let holder = jobs.start_after(0).await;
    cluster.registries[0].kill_all().await;
    goes_on(&jobs, &holder).await;
    // Without a majority nobody has it.
    cluster.registries[1].kill_all().await;
    assert_eq!(jobs.end_of(holder.term).await.what, "late");
    cluster.registries[0].start().await;
    let holder = jobs.start_after(holder.term).await;
    cluster.registries[1].start().await;
    reload_holder(&cluster, &holder).await;
    assert!(jobs.check() >= 3);
}

#[tokio::test]
async fn any_registry_over_etcd_and_any_member_may_die() {
    let Some(mut etcd) = Etcd::start().await else { return };
    let settings = format!("children = 2\n{}", etcd.settings());
    let mut cluster = Cluster::start_with_job(&[&settings, &settings]).await;
    let jobs = cluster.jobs();
    let holder = jobs.start_after(0).await;
    cluster.registries[0].kill_all().await;
    goes_on(&jobs, &holder).await;
    let holder = kill_holder(&jobs, &holder).await;
    cluster.registries[0].start().await;
    cluster.registries[1].kill_all().await;
    let leader = etcd.leader().await;
    etcd.kill(leader).await;
    etcd.agree().await;
    jobs.tick_after(TERM).await;
    let holder = jobs.all().last().cloned().unwrap_or(holder);
    let holder = reload_holder(&cluster, &holder).await;
    assert!(jobs.check() >= 3);
    // Who takes a lease away by hand takes it from a holder that does not know yet; it stops as soon as it does.
    etcd.revoke_all().await;
    jobs.end_of(holder.term).await;
    jobs.start_after(holder.term).await;
}

#[tokio::test]
async fn a_registry_grants_nothing_while_its_predecessor_is_frozen() {
    let registry = Node::build("meepo-registry")
        .set("node", "stop_timeout = \"9s\"")
        .start()
        .await;
    let worker = Node::test()
        .registry(registry.host())
        .only("worker")
        .env("MEEPO_TEST_JOBS", "jobs")
        .start()
        .await;
    let jobs = Jobs::at(worker.folder().join("jobs"));
    let holder = jobs.start_after(0).await;
    let old = registry.pids("registry").await[0];
    processes::signal(old, Signal::SIGSTOP);
    registry.command(&["reload"]).await.fine();
    // It may have granted something that it has not answered yet.
    jobs.start_after(holder.term).await;
    assert!(!processes::running(old), "the old child has to be gone");
    assert!(jobs.check() >= 2);
}

#[tokio::test]
async fn a_job_that_ends_fails_or_panics_is_started_again() {
    let node = Node::test().env("MEEPO_TEST_JOBS", "jobs").start().await;
    let jobs = Jobs::at(node.folder().join("jobs"));
    let mut holder = jobs.start_after(0).await;
    for ask in ["return", "fail", "panic"] {
        jobs.ask(ask);
        assert_eq!(jobs.end_of(holder.term).await.what, "end");
        holder = jobs.start_after(holder.term).await;
    }
    node.status_when("the failures are counted", |status| {
        status.instance("worker").sum(|child| child.handler_errors) == 2
    })
    .await;
    // A program that is no worker may have the other ones.
    let registry = node.host().registry().to_string();
    let outside = Outside::connect([registry], "").await.expect("the cluster is there");
    let (begun, mut begins) = mpsc::unbounded_channel();
    let job = move |_, lease: Lease| {
        let begun = begun.clone();
        async move {
            begun.send(lease.clone())?;
            lease.lost().await;
            Ok(())
        }
    };
    outside.cluster().job("outside", job).expect("the name is fine");
    let lease = in_time("the job outside begins", begins.recv()).await.expect("it runs");
    assert!(lease.is_held());
    drop(outside);
    in_time("its lease is given back", lease.lost()).await;
    for error in ["asked to fail", "panic: asked to panic"] {
        assert!(node.output().contains(error), "{}", node.output());
    }
    assert!(jobs.check() >= 4);
}
