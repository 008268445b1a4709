//! A job: what is to be done for a client, and by which rules.

use std::sync::Arc;
use std::time::Duration;

use meepo_node::stats::Slot;

use crate::api::client::{CurrentEvent, Known};
use crate::api::event::last_words::Parting;
use crate::api::timers::{Run, TIMER};
use crate::link::Link;
use crate::{Client, CloseReason, HandlerError, Message};

pub(super) struct Job {
    pub(super) seq: u64,
    pub(super) event: CurrentEvent,
    pub(super) what: What,
    _in_flight: InFlight,
}

/// Whose event a job is.
pub(super) enum Whose {
    /// The client as it was when this came: it may be forgotten since, and have come again.
    Client(Arc<Known>),
    /// A client that this worker does not serve through the link that it came over.
    Nobody(Arc<Link>),
}

pub(super) enum What {
    Opened,
    Message(Message),
    Closed(CloseReason),
    /// The send buffer is full, or empty again.
    Buffered(bool),
    /// The gateway has refused a command. It is no event: there is nothing to be done.
    Refused(HandlerError),
    Farewell(Arc<Parting>),
    /// The gateway died. The only job that is done after its link has ended.
    Lost,
    Timer(Run),
}

/// Counts an event for as long as it is not finished.
pub(super) struct InFlight(&'static Slot);

/// The client that a job is for, if it is still to be done.
pub(super) fn begin(whose: Whose, job: &Job) -> Option<Client> {
    if whose.link().has_ended() && !matches!(job.what, What::Lost) {
        // The gateway hands it to another worker.
        return None;
    }
    match whose {
        Whose::Client(known) if known.is_attached() => Some(Client::new(known, job.event)),
        // Of a client that was rejected, has gone already, or comes again after a handler was cut off.
        _ => {
            whose.link().done(job.seq);
            None
        }
    }
}

impl Whose {
    pub(super) fn link(&self) -> &Arc<Link> {
        match self {
            Self::Client(known) => known.link(),
            Self::Nobody(link) => link,
        }
    }
}

impl Job {
    pub(super) fn new(seq: u64, event: CurrentEvent, what: What, stats: &'static Slot) -> Self {
        Self {
            seq,
            event,
            what,
            _in_flight: InFlight::new(stats),
        }
    }
}

/// How a job is to be done.
pub(super) struct Rules {
    pub(super) handler: &'static str,
    /// How long it may take.
    pub(super) limit: Duration,
    /// It is an event of the client, which a worker is to handle to its end.
    pub(super) event: bool,
}

impl What {
    pub(super) fn rules(&self, limit: Duration) -> Rules {
        let (limit, event) = match self {
            // It limits itself: it goes on after a run that was cut off.
            Self::Timer(_) => (Duration::MAX, false),
            Self::Farewell(parting) => (parting.left().min(limit), false),
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
            Self::Closed(_) | Self::Lost => "on_close",
            Self::Timer(_) => TIMER,
            Self::Buffered(true) => "on_buffer_full",
            Self::Buffered(false) => "on_buffer_empty",
            Self::Refused(_) => "on_error",
            Self::Farewell(_) => "on_farewell",
        }
    }
}

impl InFlight {
    pub(super) fn new(stats: &'static Slot) -> Self {
        stats.events_in_flight.add(1);
        Self(stats)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.events_in_flight.sub(1);
    }
}
