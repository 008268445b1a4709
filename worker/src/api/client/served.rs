//! A client that this worker child serves: what all handlers, timers and requests of the client share.

use std::sync::{Arc, Mutex, PoisonError};

use meepo_proto::ClientId;
use meepo_proto::link as wire;
use tokio_util::sync::CancellationToken;

use super::life::{Life, SharedLife, Step};
use super::open_requests::OpenRequests;
use crate::api::cluster::Cluster;
use crate::api::cluster::gateway_copy::{GatewayCopy, HasGatewayCopy};
use crate::api::cluster::timer_count::TimerCount;
use crate::api::event::hello::Hello;
use crate::link::Link;

/// A client that this worker child serves.
pub(crate) struct ServedClient {
    id: ClientId,
    hello: Hello,
    cluster: Cluster,
    /// The link that the client came through. What a handler sends once the link has ended is refused.
    link: Arc<Link>,
    copy: GatewayCopy,
    life: SharedLife,
    /// Cancelled once the client's [life](Life::is_over) here is over. Made for the first timer or request.
    over: Mutex<Option<CancellationToken>>,
    timers: TimerCount,
    requests: OpenRequests,
}

impl ServedClient {
    pub(crate) fn new(id: ClientId, cluster: Cluster, link: Arc<Link>, attach: wire::Attach, life: Life) -> Arc<Self> {
        Arc::new(Self {
            id,
            hello: attach.handshake.unwrap_or_default().into(),
            cluster,
            link,
            copy: GatewayCopy::new(attach.session, attach.paused),
            life: SharedLife::new(life),
            over: Mutex::default(),
            timers: TimerCount::default(),
            requests: OpenRequests::default(),
        })
    }

    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    pub(crate) fn hello(&self) -> &Hello {
        &self.hello
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn copy(&self) -> &GatewayCopy {
        &self.copy
    }

    pub(crate) fn timers(&self) -> &TimerCount {
        &self.timers
    }

    pub(crate) fn requests(&self) -> &OpenRequests {
        &self.requests
    }

    pub(crate) fn life(&self) -> Life {
        self.life.get()
    }

    /// `on_connect` has let the client in.
    pub(crate) fn let_in(&self) {
        self.life.step(Step::LetIn);
    }

    /// The client has closed, or its gateway has died: its timers and requests end.
    pub(crate) fn close(&self) {
        self.life.step(Step::Close);
        self.end_waits();
    }

    /// The handler that runs leaves its event, and the events behind it, to another worker.
    pub(crate) fn hand_back(&self) {
        self.life.step(Step::HandBack);
    }

    /// This child no longer serves the client. The caller holds the client's queue, and [ends its timers and
    /// requests](Self::end_waits) once it has let go of the queue.
    pub(crate) fn forget(&self) {
        self.life.step(Step::Forget);
    }

    /// Ends the timers of the client and the requests to it. Its life here is over.
    pub(crate) fn end_waits(&self) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Without the lock: tasks that wait are woken.
        if let Some(over) = over {
            over.cancel();
        }
    }

    /// Is cancelled once the client's life here is over, or its link has ended.
    pub(crate) fn over(&self) -> CancellationToken {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let over = over.get_or_insert_with(|| self.link.until_ended()).clone();
        // The state changes before `end_waits` takes the lock: either it finds the token, or this finds the state.
        if self.life().is_over() {
            over.cancel();
        }
        over
    }

    /// Asks the gateway for the session until the copy has not changed meanwhile. Once the link has ended, the client
    /// comes back with a new copy, if it does.
    pub(crate) async fn restore_session(&self) {
        while !self.link.has_ended() {
            let changes = self.copy.session().changes();
            let answer = self.cluster.session(self.id).await;
            let restored = match answer.value {
                Some(session) => self.copy.session().restore(session, changes),
                None => answer.missing.is_empty(),
            };
            if restored {
                return;
            }
        }
    }
}

impl HasGatewayCopy for ServedClient {
    fn gateway_copy(&self) -> &GatewayCopy {
        &self.copy
    }
}
