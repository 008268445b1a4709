//! The leases that one registry has granted, and the rules by which it grants them. Without sockets or clocks.

use std::collections::HashMap;
use std::time::Duration;

use meepo_proto::registry::{HolderId, Term};

use crate::store::{LEASE_TIME, MAX_LEASES, StoreError};

/// The leases that one registry has granted.
///
/// It grants nothing for the time of one lease after it has begun: until then a holder may have what an earlier registry
/// at this address has granted.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// When earlier registries at this address had ceased to grant; `None` as long as one may still grant.
    begun: Option<Duration>,
    granted: HashMap<String, Lease>,
    /// The largest term that a holder has told.
    largest_term: u64,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    holder: HolderId,
    until: Duration,
}

impl Leases {
    /// No earlier registry at this address grants any more.
    pub(crate) fn begin_to_grant(&mut self, now: Duration) {
        self.begun.get_or_insert(now);
    }

    /// Grants or extends the lease of a name; see [`Store::hold`](crate::store::Store::hold). Terms begin at the wall clock, in
    /// milliseconds, so that they grow although a registry forgets all when it ends.
    pub(crate) fn hold(
        &mut self,
        name: &str,
        holder: HolderId,
        term: Option<Term>,
        now: Duration,
        wall_ms: u64,
    ) -> Result<Option<Term>, StoreError> {
        let smallest = wall_ms.max(self.largest_term + 1);
        let may_grant = self.begun.is_some_and(|begun| now >= begun + LEASE_TIME);
        let current = self.granted.get(name).filter(|lease| now < lease.until);
        if !may_grant || current.is_some_and(|lease| lease.holder != holder) {
            return Ok(None);
        }
        if current.is_none() {
            self.make_room(name, now)?;
        }
        let until = now + LEASE_TIME;
        self.granted.insert(name.into(), Lease { holder, until });
        if let Some(Term(told)) = term {
            self.largest_term = self.largest_term.max(told);
        }
        Ok(Some(term.unwrap_or(Term(smallest))))
    }

    /// Ends the lease of a name, if the holder has it.
    pub(crate) fn release(&mut self, name: &str, holder: HolderId) {
        if self.granted.get(name).is_some_and(|lease| lease.holder == holder) {
            self.granted.remove(name);
        }
    }

    fn make_room(&mut self, name: &str, now: Duration) -> Result<(), StoreError> {
        if self.granted.len() >= MAX_LEASES && !self.granted.contains_key(name) {
            self.granted.retain(|_, lease| now < lease.until);
            if self.granted.len() >= MAX_LEASES {
                return Err(StoreError::Full);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);
    const WALL: u64 = 5000;

    /// A registry that may grant, and the time at which it may.
    fn leases() -> (Leases, Duration) {
        let mut leases = Leases::default();
        leases.begin_to_grant(START);
        (leases, START + LEASE_TIME)
    }

    /// The term with which a lease is granted.
    fn hold(leases: &mut Leases, name: &str, holder: u64, term: Option<u64>, now: Duration) -> Option<u64> {
        let granted = leases.hold(name, HolderId(holder), term.map(Term), now, WALL).unwrap();
        granted.map(|Term(term)| term)
    }

    #[test]
    fn a_name_has_one_holder_until_its_time_is_over_or_it_is_released() {
        let (mut leases, now) = leases();
        let leases = &mut leases;
        assert_eq!(hold(leases, "a", 1, None, now), Some(WALL));
        assert_eq!(hold(leases, "a", 1, Some(WALL), now + SECOND), Some(WALL));
        let end = now + SECOND + LEASE_TIME;
        assert_eq!(hold(leases, "a", 2, None, end - SECOND), None);
        assert_eq!(hold(leases, "b", 2, None, now), Some(WALL + 1));
        leases.release("a", HolderId(2));
        assert_eq!(hold(leases, "a", 2, None, end - SECOND), None);
        assert_eq!(hold(leases, "a", 2, None, end), Some(WALL + 1));
        leases.release("a", HolderId(2));
        assert_eq!(hold(leases, "a", 3, None, end), Some(WALL + 1));
    }

    #[test]
    fn a_registry_that_has_just_begun_grants_nothing() {
        let mut leases = Leases::default();
        assert_eq!(hold(&mut leases, "a", 1, None, START), None);
        leases.begin_to_grant(START);
        leases.begin_to_grant(START + SECOND);
        let end = START + LEASE_TIME;
        assert_eq!(hold(&mut leases, "a", 1, Some(7), end - SECOND), None);
        assert_eq!(hold(&mut leases, "a", 1, Some(7), end), Some(7));
    }

    #[test]
    fn terms_grow_also_when_the_wall_clock_goes_back() {
        let (mut leases, now) = leases();
        hold(&mut leases, "a", 1, Some(WALL + 50), now);
        leases.release("a", HolderId(1));
        let granted = leases.hold("a", HolderId(2), None, now, 1).unwrap();
        assert_eq!(granted, Some(Term(WALL + 51)));
    }

    #[test]
    fn names_are_bounded_and_leases_that_have_ended_make_room() {
        let (mut leases, now) = leases();
        for number in 0..MAX_LEASES {
            hold(&mut leases, &number.to_string(), 1, None, now);
        }
        let refused = leases.hold("one more", HolderId(1), None, now, WALL);
        assert!(matches!(refused, Err(StoreError::Full)));
        hold(&mut leases, "0", 1, Some(WALL), now + SECOND);
        hold(&mut leases, "one more", 1, None, now + LEASE_TIME);
        assert_eq!(leases.granted.len(), 2);
    }
}
