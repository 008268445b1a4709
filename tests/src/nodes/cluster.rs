//! A cluster of masters whose workers write into one file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::node::{Builder, Node};
use crate::checking::checker::{self, Verdict};
use crate::checking::events::Events;
use crate::checking::jobs::Jobs;
use crate::clients::load::Load;
use crate::machine::host::Host;
use crate::machine::network::Network;
use crate::wait::{DEADLINE, wait_for};

/// Registries, and gateways and workers of two children each.
#[derive(Debug)]
pub struct Cluster {
    /// The registries' masters; the nodes know all of them.
    pub registries: Vec<Node>,
    /// The gateways' masters.
    pub gateways: Vec<Node>,
    /// The workers' masters.
    pub workers: Vec<Node>,
    places: Vec<Host>,
    plan: Plan,
    folder: TempDir,
}

/// What the nodes are to be like.
#[derive(Debug, Default)]
struct Plan {
    /// Settings of the section `[gateway]`.
    gateway: String,
    /// Settings of the section `[worker]`.
    worker: String,
    /// The workers run a job.
    job: bool,
}

impl Cluster {
    /// Starts a registry, two gateways and two workers, and waits until they are linked.
    pub async fn start() -> Self {
        Self::start_with(&[""]).await
    }

    /// The same with a registry for each of these settings of the section `[registry]`.
    pub async fn start_with(registries: &[&str]) -> Self {
        Self::start_as(registries, Plan::default()).await
    }

    /// A cluster with these settings of the section `[gateway]`.
    pub async fn with_gateways(settings: &str) -> Self {
        let plan = Plan {
            gateway: settings.into(),
            ..Plan::default()
        };
        Self::start_as(&[""], plan).await
    }

    /// A cluster with these settings of the section `[worker]`.
    pub async fn with_workers(settings: &str) -> Self {
        let plan = Plan {
            worker: settings.into(),
            ..Plan::default()
        };
        Self::start_as(&[""], plan).await
    }

    /// The same as [`start_with`](Self::start_with), with workers that have a job, see [`jobs`](Self::jobs).
    pub async fn start_with_job(registries: &[&str]) -> Self {
        let plan = Plan {
            job: true,
            ..Plan::default()
        };
        Self::start_as(registries, plan).await
    }

    async fn start_as(registries: &[&str], plan: Plan) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("meepo-cluster-")
            .tempdir()
            .expect("a folder for temporary files");
        let mut cluster = Self {
            registries: Vec::new(),
            gateways: Vec::new(),
            workers: Vec::new(),
            places: Vec::new(),
            plan,
            folder,
        };
        for settings in registries {
            let registry = Node::build("meepo-registry").set("registry", settings).start().await;
            cluster.places.push(registry.host().clone());
            cluster.registries.push(registry);
        }
        for _ in 0..2 {
            cluster.grow().await;
        }
        cluster.linked().await;
        cluster
    }

    /// Starts a cluster and so many clients, and waits until their messages get through.
    pub async fn under_load(clients: usize) -> (Self, Load) {
        let cluster = Self::start().await;
        let load = cluster.load(clients).await;
        (cluster, load)
    }

    /// The same, with links that cross this network, although all nodes are on one host.
    pub async fn under_load_across(_network: &Network, clients: usize) -> (Self, Load) {
        let cluster = Self::with_gateways("local = false").await;
        let load = cluster.load(clients).await;
        (cluster, load)
    }

    /// Starts so many clients, and waits until their messages get through.
    pub async fn load(&self, clients: usize) -> Load {
        let load = Load::start(&self.clients(), clients);
        self.more(200).await;
        load
    }

    /// Starts one more worker and one more gateway.
    pub async fn grow(&mut self) {
        let worker = self.worker().start().await;
        self.workers.push(worker);
        let gateway = Node::build("meepo-gateway")
            .registries(&self.places)
            .set("gateway", &self.plan.gateway)
            .set_listen("ws", "requests = [\"/api/\", \"/exact\"]")
            .start()
            .await;
        self.gateways.push(gateway);
    }

    /// A further worker, which is not started.
    pub fn worker(&self) -> Builder {
        let events = self.events_file();
        let jobs = self.folder.path().join("jobs");
        let worker = Node::test();
        let worker = match self.plan.job {
            true => worker.env("MEEPO_TEST_JOBS", jobs.to_str().expect("the name of a temporary file")),
            false => worker,
        };
        worker
            .registries(&self.places)
            .only("worker")
            .set("worker", &self.plan.worker)
            .env(
                "MEEPO_TEST_EVENTS",
                events.to_str().expect("the name of a temporary file"),
            )
            // So that something is in flight when a fault comes.
            .env("MEEPO_TEST_SLOW", "20")
    }

    /// Waits until each child of each worker that serves is linked to each child of each gateway.
    pub async fn linked(&self) {
        for gateway in &self.gateways {
            let links = 2 * self.workers.len() as u64;
            gateway
                .status_when("all links are up", |status| {
                    status.all_serve() && status.children().all(|child| child.links == links)
                })
                .await;
        }
    }

    /// Waits until each of so many clients that are connected is known to one worker child, and nobody else is: what
    /// workers make of gateways that have gone is told.
    pub async fn settled(&self, clients: u64) {
        wait_for("each client is known to one worker", async || {
            let mut known = 0;
            for worker in &self.workers {
                known += worker.status().await.instance("worker").sum(|child| child.connections);
            }
            (known == clients).then_some(())
        })
        .await;
    }

    /// Waits until all nodes have come to each registry.
    pub async fn registered(&self) {
        let nodes = 2 * (self.gateways.len() + self.workers.len()) as u64;
        for registry in &self.registries {
            registry
                .status_when("all nodes are registered", |status| {
                    status.instance("registry").sum(|child| child.connections) == nodes
                })
                .await;
        }
    }

    /// Waits until handlers have seen so many more messages: the load gets through.
    pub async fn more(&self, messages: usize) {
        let events = self.events();
        let before = events.count("message").await;
        let through = async || (events.count("message").await >= before + messages).then_some(());
        wait_for("the load gets through", through).await;
    }

    /// Where clients come in.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(|gateway| gateway.host().ws()).collect()
    }

    /// What all workers wrote down.
    pub fn events(&self) -> Events {
        Events::at(self.events_file())
    }

    /// Ends a load, waits until the last close is handled, and checks all that was seen.
    ///
    /// The workers that are there have to serve.
    pub async fn verdict(&self, load: Load) -> Verdict {
        let lives = load.finish().await;
        let closes = async {
            loop {
                let closes = self.events().of("close");
                let closed: BTreeSet<_> = closes.into_iter().map(|record| record.client).collect();
                if closed.len() >= lives.len() {
                    break;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        // If one is missing, the checker says which.
        let _ = timeout(DEADLINE, closes).await;
        for gateway in &self.gateways {
            gateway
                .status_when("nothing is left to do", |status| {
                    status
                        .children()
                        .all(|child| child.events_in_flight + child.events_waiting == 0)
                })
                .await;
        }
        let verdict = checker::check(&lives, &self.events().all());
        println!(
            "{} connections ({} lost), {} messages sent, {} handled, {} events marked as redelivered, {} wrong",
            verdict.lives,
            verdict.lost_lives,
            verdict.sent,
            verdict.seen,
            verdict.marked,
            verdict.wrong.len()
        );
        verdict
    }

    /// What the workers' job wrote down.
    pub fn jobs(&self) -> Jobs {
        Jobs::at(self.folder.path().join("jobs"))
    }

    fn events_file(&self) -> PathBuf {
        self.folder.path().join("events")
    }
}
