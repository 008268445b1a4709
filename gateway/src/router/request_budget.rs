//! What all requests of a child together may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What requests may take, and what they take now.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    max_requests: usize,
    max_bytes: usize,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// What one request takes, its answer included. It is given back when the last clone of the `Arc` around it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    budget: Arc<RequestBudget>,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// There is no room now.
#[derive(Debug)]
pub(crate) struct OverBudget;

impl RequestBudget {
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_requests,
            max_bytes,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        })
    }

    /// A ticket that takes nothing yet.
    pub(crate) fn ticket(self: &Arc<Self>) -> Arc<Ticket> {
        Arc::new(Ticket {
            budget: Arc::clone(self),
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        })
    }
}

impl Ticket {
    /// Takes room for a request, before it is given to a worker.
    pub(crate) fn count(&self) -> Result<(), OverBudget> {
        add(&self.budget.requests, 1, self.budget.max_requests)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes room for bytes of the request or of its answer.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), OverBudget> {
        add(&self.budget.bytes, bytes, self.budget.max_bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Takes room for the body of the answer: it counts until it has been written.
    pub(crate) fn carry(self: &Arc<Self>, bytes: Bytes) -> Result<Bytes, OverBudget> {
        self.hold(bytes.len())?;
        Ok(Bytes::from_owner(Carried {
            bytes,
            _ticket: Arc::clone(self),
        }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.budget
            .requests
            .fetch_sub(*self.requests.get_mut(), Ordering::Relaxed);
        self.budget.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

fn add(to: &AtomicUsize, more: usize, limit: usize) -> Result<(), OverBudget> {
    let within = |now: usize| now.checked_add(more).filter(|sum| *sum <= limit);
    to.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within)
        .map(drop)
        .map_err(|_| OverBudget)
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
    fn what_a_request_takes_is_given_back_with_the_last_of_it() {
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
