//! The rules by which a holder knows that it alone has a name, without sockets or clocks.
//!
//! A registry grants a name to one holder for a time. The holder counts that time from when it sent its request, which is
//! before the registry counts, and leaves a tenth of it out, for clocks that do not run alike. It has the name as long as
//! most of the registries have granted it, so nobody else can have it: any two majorities share a registry. Registries that
//! share a store speak for all.
//!
//! Its term is larger than that of every holder before: the answers of a majority say how large it must be, and it is told
//! to a majority before the holder begins. So the next one hears of it.
//!
//! A time that has run out is over for good, whatever an answer says that comes later: in between, another may have had
//! the name.

use std::time::Duration;

use meepo_proto::registry::HoldReply;

/// The part of a lease that the holder counts, in tenths.
const COUNTED: u32 = 9;
/// No registry grants more at once.
const LONGEST: Duration = Duration::from_secs(60);

/// A request for a name that was sent to a registry.
#[derive(Debug, Clone, Copy)]
pub struct SentRequest {
    /// When, just before it was sent.
    pub sent: Duration,
    /// The term in it, once that is settled.
    pub term: Option<u64>,
}

/// How far a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimPhase {
    /// The holder does not have the name.
    Asking,
    /// The holder has the name, and has to tell its term before it begins.
    Telling,
    /// The holder has the name, and may work.
    Held,
    /// The holder has had the name, and never will again by this claim.
    Lost,
}

/// One attempt to get a name, until it is lost.
#[derive(Debug, Clone)]
pub struct Claim {
    answers: Vec<RegistryAnswer>,
    phase: ClaimPhase,
    term: Option<u64>,
}

/// The latest answer of one registry.
#[derive(Debug, Clone, Copy, Default)]
struct RegistryAnswer {
    /// When its grant ends; zero without a grant.
    until: Duration,
    /// The least that the term may be.
    term: u64,
    /// It shares its store with other registries, and speaks for all of them.
    shared: bool,
    /// It knows the term.
    told: bool,
    /// It was asked, and may have granted something.
    open: bool,
}

impl Claim {
    /// A claim at this number of registries.
    pub fn new(registries: usize) -> Self {
        Self {
            answers: vec![RegistryAnswer::default(); registries],
            phase: ClaimPhase::Asking,
            term: None,
        }
    }

    /// How far the claim is at a time.
    pub fn phase(&mut self, now: Duration) -> ClaimPhase {
        if matches!(self.phase, ClaimPhase::Telling | ClaimPhase::Held) && now >= self.until() {
            self.phase = ClaimPhase::Lost;
        }
        self.phase
    }

    /// The term to ask with, once it is settled.
    pub fn term(&self) -> Option<u64> {
        self.term
    }

    /// When the claim ends if no further grant comes. Zero for a claim that is lost.
    pub fn until(&self) -> Duration {
        if self.phase == ClaimPhase::Lost {
            return Duration::ZERO;
        }
        let mut all: Vec<_> = self.answers.iter().map(|known| known.until).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let of_most = all.get(self.majority() - 1).copied().unwrap_or_default();
        let shared = self
            .answers
            .iter()
            .filter(|known| known.shared)
            .map(|known| known.until);
        shared.fold(of_most, Duration::max)
    }

    /// The least number of registries that are more than half of them.
    pub fn majority(&self) -> usize {
        self.answers.len() / 2 + 1
    }

    /// Notes that a registry is asked at a time, and returns the request.
    pub fn ask(&mut self, registry: usize, now: Duration) -> SentRequest {
        self.answers[registry].open = true;
        SentRequest {
            sent: now,
            term: self.term,
        }
    }

    /// Notes the answer of a registry to a request.
    pub fn answer(&mut self, registry: usize, now: Duration, asked: SentRequest, answer: &HoldReply) {
        let phase = self.phase(now);
        let known = &mut self.answers[registry];
        known.open = answer.grant.is_some();
        if phase == ClaimPhase::Lost {
            return;
        }
        // Registries that share a store know whether the holder still has the name: its key is gone, or another one is there.
        if answer.shared && asked.term.is_some() && answer.grant.is_none_or(|grant| Some(grant.term) != self.term) {
            self.phase = ClaimPhase::Lost;
            return;
        }
        let Some(grant) = answer.grant else {
            return;
        };
        let time = Duration::from_millis(grant.time_ms.into()).min(LONGEST);
        known.until = known.until.max(asked.sent + time * COUNTED / 10);
        known.shared = answer.shared;
        known.told |= asked.term.is_some();
        if asked.term.is_none() {
            known.term = grant.term;
        }
        if phase == ClaimPhase::Asking && self.are_enough(|known| now < known.until) {
            let granted = self.answers.iter().filter(|known| now < known.until);
            self.term = granted.map(|known| known.term).max();
            self.phase = ClaimPhase::Telling;
        } else if phase == ClaimPhase::Telling && self.are_enough(|known| known.told) {
            self.phase = ClaimPhase::Held;
        }
    }

    /// The registries that may have granted the name to this holder.
    pub fn open(&self) -> Vec<usize> {
        let open = self.answers.iter().enumerate().filter(|(_, known)| known.open);
        open.map(|(registry, _)| registry).collect()
    }

    fn are_enough(&self, holds: impl Fn(&RegistryAnswer) -> bool) -> bool {
        let those = || self.answers.iter().filter(|known| holds(known));
        those().count() >= self.majority() || those().any(|known| known.shared)
    }
}

#[cfg(test)]
mod tests {
    use meepo_proto::registry::Grant;

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn answer(granted: bool, term: u64) -> HoldReply {
        HoldReply {
            grant: granted.then_some(Grant {
                term,
                time_ms: TIME.as_millis() as u32,
            }),
            shared: false,
        }
    }

    fn shared(granted: bool, term: u64) -> HoldReply {
        HoldReply {
            shared: true,
            ..answer(granted, term)
        }
    }

    #[test]
    fn most_have_to_grant_it_and_to_hear_the_largest_term() {
        let mut claim = Claim::new(3);
        let asked: Vec<_> = (0..3).map(|registry| claim.ask(registry, at(0))).collect();
        claim.answer(0, at(1), asked[0], &answer(true, 5));
        assert_eq!(claim.phase(at(1)), ClaimPhase::Asking);
        claim.answer(1, at(1), asked[1], &answer(false, 99));
        assert_eq!(claim.open(), [0, 2]);
        claim.answer(2, at(1), asked[2], &answer(true, 7));
        assert_eq!((claim.phase(at(1)), claim.term()), (ClaimPhase::Telling, Some(7)));
        let asked: Vec<_> = (0..3).map(|registry| claim.ask(registry, at(2))).collect();
        claim.answer(0, at(3), asked[0], &answer(true, 7));
        assert_eq!(claim.phase(at(3)), ClaimPhase::Telling);
        claim.answer(2, at(3), asked[2], &answer(true, 7));
        assert_eq!(
            (claim.phase(at(3)), claim.until()),
            (ClaimPhase::Held, at(2) + TIME * 9 / 10)
        );
    }

    #[test]
    fn it_lasts_as_long_as_most_grant_it_and_never_comes_back() {
        let mut claim = held();
        // Two of three were asked again, and one of them answers.
        let later = claim.ask(0, at(5));
        let lost = claim.ask(1, at(6));
        claim.answer(0, at(8), later, &answer(true, 7));
        assert_eq!(claim.until(), at(9));
        assert_eq!(claim.phase(at(8)), ClaimPhase::Held);
        // The answer would have been in time, but was read too late.
        claim.answer(1, at(9), lost, &answer(true, 7));
        assert_eq!((claim.phase(at(8)), claim.until()), (ClaimPhase::Lost, Duration::ZERO));
        assert_eq!(claim.open(), [0, 1, 2], "it has to be given back");
    }

    #[test]
    fn what_runs_out_before_the_term_is_told_is_lost() {
        let mut claim = Claim::new(1);
        let asked = claim.ask(0, at(0));
        claim.answer(0, at(1), asked, &answer(true, 7));
        let asked = claim.ask(0, at(2));
        claim.answer(0, at(9), asked, &answer(true, 7));
        assert_eq!(claim.phase(at(9)), ClaimPhase::Lost);
    }

    #[test]
    fn a_registry_that_refuses_may_have_forgotten_but_the_others_count() {
        let mut claim = held();
        let asked = claim.ask(0, at(1));
        claim.answer(0, at(1), asked, &answer(false, 8));
        assert_eq!((claim.phase(at(8)), claim.until()), (ClaimPhase::Held, at(9)));
    }

    #[test]
    fn one_that_shares_its_store_speaks_for_all() {
        let mut claim = Claim::new(3);
        let asked = claim.ask(1, at(0));
        claim.answer(1, at(0), asked, &shared(true, 12));
        let asked = claim.ask(2, at(0));
        assert_eq!(asked.term, Some(12));
        claim.answer(2, at(0), asked, &shared(true, 12));
        assert_eq!(claim.phase(at(8)), ClaimPhase::Held);
        let mut other = claim.clone();
        for (claim, word) in [(&mut claim, shared(false, 13)), (&mut other, shared(true, 13))] {
            let asked = claim.ask(0, at(1));
            claim.answer(0, at(1), asked, &word);
            assert_eq!(claim.phase(at(1)), ClaimPhase::Lost, "another had it meanwhile");
        }
    }

    #[test]
    fn without_registries_nobody_has_it() {
        let mut claim = Claim::new(0);
        assert_eq!(
            (claim.phase(at(0)), claim.until()),
            (ClaimPhase::Asking, Duration::ZERO)
        );
    }

    /// Held at all three of three, with the term 7, until second 9.
    fn held() -> Claim {
        let mut claim = Claim::new(3);
        for term in [None, Some(7)] {
            let asked: Vec<_> = (0..3).map(|registry| claim.ask(registry, at(0))).collect();
            assert_eq!(asked[0].term, term);
            for (registry, asked) in asked.into_iter().enumerate() {
                claim.answer(registry, at(0), asked, &answer(true, 7));
            }
        }
        assert_eq!((claim.phase(at(0)), claim.until()), (ClaimPhase::Held, at(9)));
        claim
    }
}
