//! The states of a client in the router. Each is an enum of its own; `docs/src/states.md` has their tables.

use super::LinkId;

/// Which link serves a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Place {
    /// None.
    #[default]
    Nowhere,
    /// This one, which has seen no event of the client yet, or has forgotten the client.
    Chosen(LinkId),
    /// This one, which knows the client.
    Attached(LinkId),
}

/// Whose queue it is, and whether somebody still waits for its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A client that no worker has let in yet.
    New,
    /// A client that some worker has let in.
    Known,
    /// A client that was rejected: it is forgotten with the end of what is in flight.
    Rejected,
    /// A request whose response somebody waits for.
    Request,
    /// A request that has its response, or whose client has gone: it is forgotten with the end of what is in flight.
    RequestOver,
}

/// Whether the next event of a client may be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Readiness {
    /// It may.
    #[default]
    Free,
    /// Its link has the client in its queue of those that wait for room, or of those with a suspect in front.
    Blocked,
    /// It is not to be tried for a while.
    Held,
}

impl Place {
    /// The link, if there is one.
    pub(super) fn link(self) -> Option<LinkId> {
        match self {
            Self::Nowhere => None,
            Self::Chosen(link) | Self::Attached(link) => Some(link),
        }
    }

    /// The link, if it knows the client.
    pub(super) fn attached(self) -> Option<LinkId> {
        match self {
            Self::Attached(link) => Some(link),
            Self::Nowhere | Self::Chosen(_) => None,
        }
    }

    /// The link is told of the client. True if it did not know the client.
    pub(super) fn attach(&mut self) -> bool {
        match *self {
            Self::Chosen(link) => {
                *self = Self::Attached(link);
                true
            }
            Self::Nowhere | Self::Attached(_) => false,
        }
    }

    /// The worker behind the link has forgotten the client.
    pub(super) fn detach(&mut self) {
        if let Self::Attached(link) = *self {
            *self = Self::Chosen(link);
        }
    }
}

impl Standing {
    /// A worker has finished an event.
    pub(super) fn done(&mut self) {
        if *self == Self::New {
            *self = Self::Known;
        }
    }

    /// Nobody waits for further events: none is delivered again.
    pub(super) fn dismiss(&mut self) {
        *self = match self {
            Self::New | Self::Known | Self::Rejected => Self::Rejected,
            Self::Request | Self::RequestOver => Self::RequestOver,
        };
    }

    /// Whether nobody waits for further events.
    pub(super) fn is_dismissed(self) -> bool {
        matches!(self, Self::Rejected | Self::RequestOver)
    }

    /// Whether it is a request, not a client that stays.
    pub(super) fn is_request(self) -> bool {
        matches!(self, Self::Request | Self::RequestOver)
    }
}

impl Readiness {
    /// The link takes the client into a queue.
    pub(super) fn block(&mut self) {
        *self = Self::Blocked;
    }

    /// The link has taken the client out of its queue, or is gone.
    pub(super) fn unblock(&mut self) {
        if *self == Self::Blocked {
            *self = Self::Free;
        }
    }

    /// The next event has ended so many links that it has to wait.
    pub(super) fn hold(&mut self) {
        *self = Self::Held;
    }

    /// The next event may be tried again.
    pub(super) fn release(&mut self) {
        if *self == Self::Held {
            *self = Self::Free;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after<S: Copy>(state: S, change: impl FnOnce(&mut S)) -> S {
        let mut next = state;
        change(&mut next);
        next
    }

    #[test]
    fn every_transition_of_every_place() {
        use Place::*;
        let link = LinkId(7);
        for (place, attach, attaches, detach) in [
            (Nowhere, Nowhere, false, Nowhere),
            (Chosen(link), Attached(link), true, Chosen(link)),
            (Attached(link), Attached(link), false, Chosen(link)),
        ] {
            let mut next = place;
            assert_eq!((next.attach(), next), (attaches, attach), "{place:?}");
            assert_eq!(after(place, Place::detach), detach, "{place:?}");
            assert_eq!(place.link(), (place != Nowhere).then_some(link));
            assert_eq!(place.attached(), (place == Attached(link)).then_some(link));
        }
    }

    #[test]
    fn every_transition_of_every_standing() {
        use Standing::*;
        for (standing, done, dismissed) in [
            (New, Known, Rejected),
            (Known, Known, Rejected),
            (Rejected, Rejected, Rejected),
            (Request, Request, RequestOver),
            (RequestOver, RequestOver, RequestOver),
        ] {
            assert_eq!(after(standing, Standing::done), done, "{standing:?}");
            assert_eq!(after(standing, Standing::dismiss), dismissed, "{standing:?}");
            assert_eq!(standing.is_dismissed(), matches!(standing, Rejected | RequestOver));
            assert_eq!(standing.is_request(), matches!(standing, Request | RequestOver));
        }
    }

    #[test]
    fn every_transition_of_every_readiness() {
        use Readiness::*;
        for (readiness, unblocked, released) in [(Free, Free, Free), (Blocked, Free, Blocked), (Held, Held, Free)] {
            assert_eq!(after(readiness, Readiness::block), Blocked, "{readiness:?}");
            assert_eq!(after(readiness, Readiness::unblock), unblocked, "{readiness:?}");
            assert_eq!(after(readiness, Readiness::hold), Held, "{readiness:?}");
            assert_eq!(after(readiness, Readiness::release), released, "{readiness:?}");
        }
    }
}
