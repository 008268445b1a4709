//! A task: a run of a handler that waits in its client's queue, and by which rules it is done.

use std::sync::Arc;
use std::time::Duration;

use meepo_proto::link as wire;
use meepo_proto::{EventNumber, Seq};

use super::last_words::SayLastWords;
use crate::api::client::served::ServedClient;
use crate::api::client::{Client, CurrentEvent};
use crate::api::cluster::served_clients::TimerRun;
use crate::api::error::HandlerError;
use crate::api::event::close::CloseReason;
use crate::api::event::message::Message;
use crate::figures::WorkerFigures;
use crate::link::Link;

/// A run of a handler that waits in its client's queue.
pub(super) struct Task {
    /// The number of its event on the link. None for a task that is not answered with `done`.
    pub(super) seq: Option<Seq>,
    pub(super) event: CurrentEvent,
    pub(super) kind: TaskKind,
    _in_flight: InFlight,
}

/// The client whose task it is.
pub(super) enum Owner {
    /// The client as it was when the task came: it may be forgotten since, and have come again.
    Client(Arc<ServedClient>),
    /// A client that this worker does not serve through the link that its event came over.
    Unknown(Arc<Link>),
}

/// What a task is about, which decides the handler that it runs.
pub(super) enum TaskKind {
    Opened,
    Message(Message),
    Closed(CloseReason),
    BufferFull,
    BufferEmpty,
    /// The gateway has refused a command. It is no event, and is not answered with `done`.
    Refused(HandlerError),
    LastWords(Arc<SayLastWords>),
    /// The gateway died. The only task that is done after its link has ended.
    GatewayLost,
    Timer(TimerRun),
}

/// Counts an event for as long as it is not finished.
pub(super) struct InFlight(&'static WorkerFigures);

/// The client that a task is for, if the task is still to be done.
pub(super) fn begin(owner: Owner, task: &Task) -> Option<Client> {
    if owner.link().has_ended() && !matches!(task.kind, TaskKind::GatewayLost) {
        // The gateway gives the event to another worker.
        return None;
    }
    match owner {
        Owner::Client(served) if served.life().is_served() => Some(Client::new(served, task.event)),
        // The client was rejected, has gone already, or comes again after a handler was cut off.
        _ => {
            owner.link().done(task.seq);
            None
        }
    }
}

impl Owner {
    pub(super) fn link(&self) -> &Arc<Link> {
        match self {
            Self::Client(served) => served.link(),
            Self::Unknown(link) => link,
        }
    }
}

impl Task {
    /// A task that is an event of its client.
    pub(super) fn of_event(delivery: Option<wire::Delivery>, kind: TaskKind, stats: &'static WorkerFigures) -> Self {
        Self {
            seq: delivery.map(|delivery| Seq(delivery.seq)),
            event: CurrentEvent {
                number: delivery.map(|delivery| EventNumber(delivery.event_number)),
                redelivered: delivery.is_some_and(|delivery| delivery.redelivered),
            },
            kind,
            _in_flight: InFlight::new(stats),
        }
    }

    /// A task that is no event, and is not answered with `done`.
    pub(super) fn of_no_event(kind: TaskKind, stats: &'static WorkerFigures) -> Self {
        Self::of_event(None, kind, stats)
    }

    /// The news that a gateway has died. `redelivered`: another worker may have been told of the client's end before.
    pub(super) fn gateway_lost(redelivered: bool, stats: &'static WorkerFigures) -> Self {
        Self {
            event: CurrentEvent {
                number: None,
                redelivered,
            },
            ..Self::of_no_event(TaskKind::GatewayLost, stats)
        }
    }
}

/// How a task is to be done.
pub(super) struct Rules {
    /// The method of the handler, for logs.
    pub(super) handler: &'static str,
    /// How long the handler may take.
    pub(super) limit: Duration,
    /// The task is an event of the client, which a worker is to handle to its end.
    pub(super) event: bool,
}

impl TaskKind {
    pub(super) fn rules(&self, limit: Duration) -> Rules {
        let (limit, event) = match self {
            // A timer limits each run itself: it goes on after a run that was cut off.
            Self::Timer(_) => (Duration::MAX, false),
            Self::LastWords(last_words) => (last_words.left().min(limit), false),
            Self::Refused(_) => (Duration::MAX, false),
            _ => (limit, true),
        };
        Rules {
            handler: self.handler(),
            limit,
            event,
        }
    }

    pub(super) fn handler(&self) -> &'static str {
        match self {
            Self::Opened => "on_connect",
            Self::Message(_) => "on_message",
            Self::Closed(_) | Self::GatewayLost => "on_close",
            Self::Timer(_) => "timer",
            Self::BufferFull => "on_buffer_full",
            Self::BufferEmpty => "on_buffer_empty",
            Self::Refused(_) => "on_error",
            Self::LastWords(_) => "on_last_words",
        }
    }
}

impl InFlight {
    pub(super) fn new(stats: &'static WorkerFigures) -> Self {
        stats.events_in_flight.add(1);
        Self(stats)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.events_in_flight.sub(1);
    }
}
