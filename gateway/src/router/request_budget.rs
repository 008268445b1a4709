//! The request budget: how many forwarded requests a child has at a time, and how many bytes of them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget that is left for forwarded requests.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The share of one request, its response included. It is given back when the last clone of the `Arc` around it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    budget: Arc<RequestBudget>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    request: Option<OwnedSemaphorePermit>,
    bytes: Option<OwnedSemaphorePermit>,
}

/// The budget is used up for now.
#[derive(Debug)]
pub(crate) struct OverBudget;

impl RequestBudget {
    /// A budget of this many requests and bytes at a time.
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Arc<Self> {
        let permits = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            requests: permits(max_requests),
            bytes: permits(max_bytes),
        })
    }

    /// A ticket that takes nothing yet.
    pub(crate) fn ticket(self: &Arc<Self>) -> Arc<Ticket> {
        Arc::new(Ticket {
            budget: Arc::clone(self),
            held: Mutex::default(),
        })
    }
}

impl Ticket {
    /// Takes room for a request, before it is given to a worker.
    pub(crate) fn count(&self) -> Result<(), OverBudget> {
        let permit = take(&self.budget.requests, 1)?;
        self.held.lock().request = Some(permit);
        Ok(())
    }

    /// Takes room for bytes of the request or of its response.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), OverBudget> {
        let permit = take(&self.budget.bytes, bytes)?;
        match &mut self.held.lock().bytes {
            // A permit counts in 32 bits.
            Some(held) if held.num_permits() + permit.num_permits() > u32::MAX as usize => return Err(OverBudget),
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }

    /// Takes room for the body of the response: it counts until it is written.
    pub(crate) fn carry(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, OverBudget> {
        self.hold(bytes.len())?;
        Ok(Bytes::from_owner(Carried {
            bytes,
            _ticket: Arc::clone(self),
        }))
    }
}

fn take(from: &Arc<Semaphore>, permits: usize) -> Result<OwnedSemaphorePermit, OverBudget> {
    let permits = u32::try_from(permits).map_err(|_| OverBudget)?;
    Arc::clone(from).try_acquire_many_owned(permits).map_err(|_| OverBudget)
}

struct Carried {
    bytes: Bytes,
    _ticket: Arc<Ticket>,
}

impl AsRef<[u8]> for Carried {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_request_is_given_back_with_the_last_of_it() {
        let budget = RequestBudget::new(1, 100);
        let (ticket, other) = (budget.ticket(), budget.ticket());
        assert!(ticket.count().is_ok() && ticket.hold(60).is_ok());
        assert!(other.count().is_err() && other.hold(41).is_err());
        assert!(other.hold(40).is_ok());
        drop(other);
        assert!(
            ticket.carry(Bytes::from_static(&[7; 41])).is_err(),
            "answers have no more"
        );
        let answer = ticket.carry(Bytes::from_static(&[7; 40])).expect("there is room");
        drop(ticket);
        let half = answer.slice(20..);
        drop(answer);
        let next = budget.ticket();
        assert!(next.count().is_err(), "its answer is being written");
        assert!(next.hold(1).is_err());
        assert_eq!(half, [7; 20][..]);
        drop(half);
        assert!(next.count().is_ok() && next.hold(100).is_ok());
    }
}
