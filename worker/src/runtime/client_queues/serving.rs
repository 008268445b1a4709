//! What timers of clients, and requests to them, need of the lanes.

use std::sync::Arc;

use meepo_proto::ClientId;

use super::Lanes;
use super::task::{Job, What, Whose};
use crate::api::client::{CurrentEvent, Known};
use crate::api::cluster::Serving;
use crate::api::timers::Run;
use crate::{Handler, HandlerError};

impl<H: Handler> Serving for Lanes<H> {
    fn known(&self, id: ClientId) -> Option<Arc<Known>> {
        self.known(id)
    }

    fn has_let_in(&self, known: &Arc<Known>) -> bool {
        known.is_accepted() && known.is_attached()
    }

    fn run(self: Arc<Self>, known: &Arc<Known>, run: Run) {
        let id = known.id();
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.known.as_ref().is_some_and(|served| Arc::ptr_eq(served, known))
        {
            let job = Job::new(0, CurrentEvent::default(), What::Timer(run), self.cluster.stats());
            self.queue(id, lane, Whose::Client(known.clone()), job);
        }
    }

    #[cfg(test)]
    fn lanes(&self) -> usize {
        self.lanes.len()
    }
}

impl<H: Handler> Lanes<H> {
    /// Whether an event is the reply to a request. The end of a client is the end of its requests and timers, at once:
    /// a handler that waits may be in front of it.
    pub(super) fn answers_request(&self, known: &Known, job: &Job) -> bool {
        match &job.what {
            What::Message(message) => known.requests().answer(message, |panic| {
                let handler = "request_matching";
                self.failed(known.id(), handler, &HandlerError::panicked(handler, panic));
            }),
            What::Closed(_) | What::Lost => {
                known.close();
                false
            }
            _ => false,
        }
    }
}

impl Job {
    /// Whether requests to its client have to be looked at. What comes again was sent before any of them was made.
    pub(super) fn may_concern_requests(&self, known: &Known) -> bool {
        match self.what {
            What::Message(_) => !self.event.redelivered && known.requests().any(),
            What::Closed(_) | What::Lost => true,
            _ => false,
        }
    }
}
