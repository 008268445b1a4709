//! The router behind its lock, and the one way to change it: lock, change, carry out, unlock, and carry out the effects that
//! had to wait for that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use meepo_proto::codes;
use meepo_proto::link::event::Body;
use meepo_proto::link::{CloseCause, Closed};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::client::close::ClientClose;
use crate::client::handle::Client;
use crate::config::limits::Limits;
use crate::fanout::clients::Clients;
use crate::figures::GatewayFigures;
use crate::router::effects::{Deferred, Effects};
use crate::router::rules::{Bounds, Output, Router};

/// The router of this child, and the clients and links that its decisions reach.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// The clients of this child.
    pub(crate) clients: Clients,
    /// The send buffer of each client.
    pub(super) send_buffer: usize,
    pub(super) stats: &'static GatewayFigures,
    pub(super) last_link: AtomicU64,
    state: Mutex<RouterState>,
    /// Too much waits for workers: no client is read.
    full: AtomicBool,
    /// Somebody waits until every event is done.
    awaited: AtomicBool,
    /// Told when the last event is done; once somebody waits for that, after every transition.
    done: Notify,
    /// For effects that have to wait, if the child still runs then.
    this: Weak<Self>,
}

/// One lock for all of it, so that a link sees events in the order of their numbers.
#[derive(Debug)]
struct RouterState {
    router: Router,
    /// Decisions of the router that are not carried out yet. Empty between transitions; kept for its memory.
    outputs: Vec<Output>,
    effects: Effects,
}

/// Workers that may die with the same event in front before it is given up.
const MAX_DELIVERIES: u32 = 3;
/// Links that may end, for whatever reason, with the same event in front: far more than one cut of the network ends, but a
/// handler that blocks its whole process must not block every worker.
const MAX_RETURNS: u32 = 16;
/// How long at least, and at most twice as long, an event waits before the delivery that may be its last: workers that are
/// killed together, or with their machine, are all known to be dead by then.
const HOLD: Duration = Duration::from_secs(1);

impl Dispatch {
    /// A router without links, and without clients.
    pub(crate) fn new(limits: &Limits, stats: &'static GatewayFigures) -> Arc<Self> {
        let bounds = Bounds {
            client_in_flight: limits.client_in_flight,
            link_in_flight_bytes: limits.link_in_flight,
            client_waiting_bytes: limits.client_waiting,
            waiting_bytes: limits.waiting,
            max_deliveries: MAX_DELIVERIES,
            max_returns: MAX_RETURNS,
        };
        let state = RouterState {
            router: Router::new(bounds),
            outputs: Vec::new(),
            effects: Effects::default(),
        };
        Arc::new_cyclic(|this| Self {
            clients: Clients::new(stats),
            send_buffer: limits.send_buffer,
            stats,
            last_link: AtomicU64::new(0),
            state: Mutex::new(state),
            full: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            done: Notify::new(),
            this: this.clone(),
        })
    }

    /// The one way to change the router: locks it, lets `change` do so, and carries out what the router decided.
    pub(super) fn transition<R>(&self, change: impl FnOnce(&mut Router, &mut Vec<Output>, &mut Effects) -> R) -> R {
        let mut state = self.state.lock();
        let RouterState {
            router,
            outputs,
            effects,
        } = &mut *state;
        let result = change(router, outputs, effects);
        let deferred = effects.carry_out(outputs);
        self.full.store(router.is_full(), Ordering::Relaxed);
        self.stats.events_waiting.set(router.waiting() as u64);
        self.stats.events_in_flight.set(router.in_flight() as u64);
        self.stats.links.set(router.links() as u64);
        self.stats.held_back.set(router.held_back() as u64);
        self.stats.full_queues.set(router.is_full().into());
        if router.is_idle() || router.links() == 0 || self.awaited.load(Ordering::Relaxed) {
            self.done.notify_waiters();
        }
        drop(state);
        self.carry_out_deferred(deferred);
        result
    }

    /// Looks at the router, or sends an event over a link, without a change of the router.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Router, &Effects) -> R) -> R {
        let state = self.state.lock();
        look(&state.router, &state.effects)
    }

    /// Ends the streams of all links.
    pub(crate) fn end_links(&self) {
        self.state.lock().effects.links.clear();
    }

    /// Whether too much waits for workers: no client is read then.
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Waits for the next transition after which every event may be done.
    pub(crate) fn next_done(&self) -> Notified<'_> {
        self.awaited.store(true, Ordering::Relaxed);
        self.done.notified()
    }

    /// Closes a client. It leaves the registry at once, workers are told, and frames that were queued before still go out.
    /// False if it was closed before.
    pub(crate) fn close(&self, client: &Arc<Client>, mut close: ClientClose) -> bool {
        let Some(was_pending) = client.close(&mut close) else {
            return false;
        };
        self.clients.remove(client.number);
        self.transition(|router, outputs, _| {
            if was_pending && router.abandon(client.number, outputs) {
                return;
            }
            let closed = Closed {
                cause: close.cause.into(),
                code: close.code.map(u32::from),
                reason: close.reason,
            };
            router.push(client.number, Body::Closed(closed), outputs);
        });
        true
    }

    fn carry_out_deferred(&self, Deferred { given_up, held }: Deferred) {
        for client in held {
            let this = self.this.clone();
            tokio::spawn(async move {
                // At random: events of several gateways that were in front when a worker died are not to meet again.
                tokio::time::sleep(HOLD.mul_f64(1.0 + fastrand::f64())).await;
                if let Some(dispatch) = this.upgrade() {
                    dispatch.transition(|router, outputs, _| router.release(client, outputs));
                }
            });
        }
        for (number, client) in given_up {
            self.stats.given_up_events.add(1);
            tracing::error!(client = %self.clients.id(number), "gave up an event that ended several workers in turn");
            if let Some(client) = client {
                let close = ClientClose::by_gateway(client.codec, CloseCause::GivenUp, codes::GIVEN_UP);
                self.close(&client, close);
            }
        }
    }
}
