//! Which holder has which name, as far as one registry knows: the rules, without sockets or clocks.

use std::collections::HashMap;
use std::time::Duration;

use crate::store::{Grant, MAX_NAMES, Refused, TIME};

/// The names that one registry has granted.
///
/// It grants nothing for one lease's time after it has begun: until then somebody may have what an earlier registry at
/// this address has granted.
#[derive(Debug, Default)]
pub struct Grants {
    /// When others had stopped to grant at this address.
    begun: Option<Duration>,
    holders: HashMap<String, Holder>,
    /// The largest term that a holder has had.
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    id: u64,
    until: Duration,
}

impl Grants {
    /// Nobody else grants at this address any more.
    pub fn begin(&mut self, now: Duration) {
        self.begun.get_or_insert(now);
    }

    /// Grants a name, or keeps it, if no other holder has it. The wall clock, in milliseconds, is where terms begin, so that
    /// they grow although a registry forgets all when it ends.
    pub fn hold(&mut self, name: &str, holder: u64, term: u64, now: Duration, wall: u64) -> Result<Grant, Refused> {
        let least = wall.max(self.last + 1);
        let quiet = self.begun.is_none_or(|begun| now < begun + TIME);
        let known = self.holders.get(name).filter(|known| now < known.until);
        let granted = !quiet && known.is_none_or(|known| known.id == holder);
        if granted {
            if known.is_none() {
                self.make_room(name, now)?;
            }
            let until = now + TIME;
            self.holders.insert(name.into(), Holder { id: holder, until });
            self.last = self.last.max(term);
        }
        Ok(Grant {
            granted,
            term: if granted && term != 0 { term } else { least },
            shared: false,
        })
    }

    /// Takes a name from its holder.
    pub fn release(&mut self, name: &str, holder: u64) {
        if self.holders.get(name).is_some_and(|known| known.id == holder) {
            self.holders.remove(name);
        }
    }

    fn make_room(&mut self, name: &str, now: Duration) -> Result<(), Refused> {
        if self.holders.len() >= MAX_NAMES && !self.holders.contains_key(name) {
            self.holders.retain(|_, known| now < known.until);
            if self.holders.len() >= MAX_NAMES {
                return Err(Refused::Full);
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

    /// A registry that may grant, and the time then.
    fn grants() -> (Grants, Duration) {
        let mut grants = Grants::default();
        grants.begin(START);
        (grants, START + TIME)
    }

    fn granted(term: u64) -> Grant {
        Grant {
            granted: true,
            term,
            shared: false,
        }
    }

    fn refused(term: u64) -> Grant {
        Grant {
            granted: false,
            ..granted(term)
        }
    }

    #[test]
    fn a_name_has_one_holder_until_its_time_is_over_or_it_gives_it_back() {
        let (mut grants, now) = grants();
        assert_eq!(grants.hold("a", 1, 0, now, WALL).unwrap(), granted(WALL));
        assert_eq!(grants.hold("a", 1, WALL, now + SECOND, WALL).unwrap(), granted(WALL));
        let end = now + SECOND + TIME;
        assert_eq!(grants.hold("a", 2, 0, end - SECOND, WALL).unwrap(), refused(WALL + 1));
        assert_eq!(grants.hold("b", 2, 0, now, WALL).unwrap(), granted(WALL + 1));
        grants.release("a", 2);
        assert_eq!(grants.hold("a", 2, 0, end - SECOND, WALL).unwrap(), refused(WALL + 1));
        assert_eq!(grants.hold("a", 2, 0, end, WALL).unwrap(), granted(WALL + 1));
        grants.release("a", 2);
        assert_eq!(grants.hold("a", 3, 0, end, WALL).unwrap(), granted(WALL + 1));
    }

    #[test]
    fn one_that_has_just_begun_grants_nothing() {
        let mut grants = Grants::default();
        assert_eq!(grants.hold("a", 1, 0, START, WALL).unwrap(), refused(WALL));
        grants.begin(START);
        grants.begin(START + SECOND);
        assert_eq!(
            grants.hold("a", 1, 7, START + TIME - SECOND, WALL).unwrap(),
            refused(WALL)
        );
        assert_eq!(grants.hold("a", 1, 7, START + TIME, WALL).unwrap(), granted(7));
    }

    #[test]
    fn terms_grow_also_when_the_wall_clock_goes_back() {
        let (mut grants, now) = grants();
        grants.hold("a", 1, WALL + 50, now, WALL).unwrap();
        grants.release("a", 1);
        assert_eq!(grants.hold("a", 2, 0, now, 1).unwrap(), granted(WALL + 51));
    }

    #[test]
    fn names_are_bounded_and_those_whose_time_is_over_make_room() {
        let (mut grants, now) = grants();
        for number in 0..MAX_NAMES {
            grants.hold(&number.to_string(), 1, 0, now, WALL).unwrap();
        }
        assert!(matches!(grants.hold("one more", 1, 0, now, WALL), Err(Refused::Full)));
        grants.hold("0", 1, WALL, now + SECOND, WALL).unwrap();
        grants.hold("one more", 1, 0, now + TIME, WALL).unwrap();
        assert_eq!(grants.holders.len(), 2);
    }
}
