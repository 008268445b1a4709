//! A cluster whose worker is `meepo-worker`.

use super::node::{Builder, Node};
use crate::clients::ws::Ws;
use crate::machine::host::Host;

/// A registry with a gateway and a webhook worker.
#[derive(Debug)]
pub struct WebhookCluster {
    /// The registry.
    pub registry: Node,
    /// The gateway, of one child.
    pub front: Node,
    /// The webhook worker, of one child.
    pub worker: Node,
}

impl WebhookCluster {
    /// Starts all on a host, with further settings of `[webhook]`. The endpoint is there too.
    pub async fn start(host: &Host, settings: &str) -> Self {
        Self::start_at(host, &format!("http://{}/hook?key=1", host.endpoint()), settings).await
    }

    /// The same with further settings of several sections.
    pub async fn start_with(host: &Host, sections: &[(&str, &str)]) -> Self {
        let url = format!("http://{}/hook?key=1", host.endpoint());
        Self::start_as(host, &url, sections).await
    }

    /// The same with an endpoint elsewhere.
    pub async fn start_at(host: &Host, url: &str, settings: &str) -> Self {
        Self::start_as(host, url, &[("webhook", settings)]).await
    }

    async fn start_as(host: &Host, url: &str, sections: &[(&str, &str)]) -> Self {
        // Each program passes over the sections of others.
        let set = |builder: Builder| {
            let sections = sections.iter();
            sections.fold(builder, |builder, (section, settings)| builder.set(section, settings))
        };
        let registry = Node::build("meepo-registry").host(host).start().await;
        let front = Node::build("meepo-gateway").host(host).set("gateway", "children = 1");
        let front = set(front).start().await;
        let worker = Node::build("meepo-worker")
            .host(host)
            .set("worker", "children = 1")
            .set(
                "webhook",
                &format!("url = \"{url}\"\nretry_min = \"20ms\"\nretry_max = \"100ms\""),
            );
        let worker = set(worker).start().await;
        let cluster = Self {
            registry,
            front,
            worker,
        };
        cluster
            .front
            .status_when("the worker is linked", |status| {
                status.children().any(|child| child.links > 0)
            })
            .await;
        cluster
    }

    /// A client that was let in.
    pub async fn client(&self, path: &str) -> Ws {
        Ws::connect_to(self.front.host().ws(), path).await
    }

    /// Waits until so many events have failed.
    pub async fn failed(&self, events: u64) {
        self.worker
            .status_when("the failures are counted", |status| {
                status.children().map(|child| child.handler_errors).sum::<u64>() == events
            })
            .await;
    }

    /// Waits until no event is left.
    pub async fn idle(&self) {
        self.front
            .status_when("nothing is left to do", |status| {
                status
                    .children()
                    .all(|child| child.events_in_flight + child.events_waiting == 0)
            })
            .await;
    }
}
