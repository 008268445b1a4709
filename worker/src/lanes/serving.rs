//! What timers of clients need of the lanes.

use std::sync::Arc;

use meepo_proto::ClientId;

use super::{InFlight, Job, Lanes, What};
use crate::Handler;
use crate::client::Known;
use crate::cluster::Serving;
use crate::timers::Run;

impl<H: Handler> Serving for Lanes<H> {
    fn known(&self, id: ClientId) -> Option<Arc<Known>> {
        Some(self.record(id)?.known)
    }

    fn run(self: Arc<Self>, known: &Arc<Known>, run: Run) {
        let id = known.id();
        if let Some(mut lane) = self.lanes.get_mut(&id)
            && lane
                .record
                .as_ref()
                .is_some_and(|record| Arc::ptr_eq(&record.known, known))
        {
            let job = Job {
                link: known.link().clone(),
                seq: 0,
                known: Some(known.clone()),
                redelivered: false,
                what: What::Timer(run),
                _in_flight: InFlight::new(self.cluster.stats()),
            };
            self.queue(id, &mut lane, job);
        }
    }

    #[cfg(test)]
    fn lanes(&self) -> usize {
        self.lanes.len()
    }
}
