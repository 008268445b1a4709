//! The states of a client at the gateway. Each is an enum of its own; `docs/src/states.md` has their tables.

/// Whether a client is served, and how its end stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is sent messages.
    Open,
    /// Its socket failed: its own task is about to close it.
    Broken,
    /// It is closed: frames that wait still go out, no more are added.
    Closing,
    /// It is closed, and its socket failed: nothing goes out any more.
    Lost,
    /// It is closed without a graceful close: its task ends at once.
    Cut,
}

/// Who writes the frames that wait for a client's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// Nothing waits, or whoever sends next writes.
    Idle,
    /// The client is in a batch of clients to flush.
    Batched,
    /// The socket is full: the client's own task goes on writing.
    Blocked,
}

/// How full a client's send buffer is, and whether workers were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendBuffer {
    /// It has been empty since it was full last.
    Empty,
    /// It was full, and workers still believe so.
    EmptyUntold,
    /// It has filled, and has not been empty since.
    Full,
    /// It has filled, and workers were not told yet.
    FullUntold,
}

/// Whether the gateway itself lets a client be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It does.
    Free,
    /// It does not: too much of the client, or of all clients, waits for a worker.
    HeldBack,
}

impl Phase {
    /// The client is closed. False if it was closed before.
    pub(crate) fn close(&mut self) -> bool {
        let (next, first) = match *self {
            Self::Open => (Self::Closing, true),
            Self::Broken => (Self::Lost, true),
            closed => (closed, false),
        };
        *self = next;
        first
    }

    /// The client is closed without a graceful close. False if it was closed before.
    pub(crate) fn cut(&mut self) -> bool {
        let first = !self.is_closed();
        *self = Self::Cut;
        first
    }

    /// The socket failed.
    pub(crate) fn fail(&mut self) {
        *self = match self {
            Self::Open | Self::Broken => Self::Broken,
            Self::Closing | Self::Lost => Self::Lost,
            Self::Cut => Self::Cut,
        };
    }

    /// Whether the client was closed, in whatever way.
    pub(crate) fn is_closed(self) -> bool {
        matches!(self, Self::Closing | Self::Lost | Self::Cut)
    }

    /// Whether its socket is known to have failed.
    pub(crate) fn is_broken(self) -> bool {
        matches!(self, Self::Broken | Self::Lost)
    }
}

impl Writing {
    /// A frame waits for a flush. True if the client has to join the batch of clients to flush.
    pub(crate) fn batch(&mut self) -> bool {
        let joins = *self == Self::Idle;
        if joins {
            *self = Self::Batched;
        }
        joins
    }

    /// A write begins. True if the socket was full before.
    pub(crate) fn begin(&mut self) -> bool {
        std::mem::replace(self, Self::Idle) == Self::Blocked
    }

    /// The write ended with a full socket.
    pub(crate) fn block(&mut self) {
        *self = Self::Blocked;
    }

    /// Whether the socket is full.
    pub(crate) fn is_blocked(self) -> bool {
        self == Self::Blocked
    }
}

impl SendBuffer {
    /// The send buffer has filled. False if it was full.
    pub(crate) fn fill(&mut self) -> bool {
        let (next, changed) = match *self {
            Self::Empty => (Self::FullUntold, true),
            // Workers never learn that it was empty in between.
            Self::EmptyUntold => (Self::Full, true),
            full => (full, false),
        };
        *self = next;
        changed
    }

    /// Everything is written. False if it was not full before.
    pub(crate) fn empty(&mut self) -> bool {
        let (next, changed) = match *self {
            Self::Full => (Self::EmptyUntold, true),
            // Workers never learn that it was full.
            Self::FullUntold => (Self::Empty, true),
            empty => (empty, false),
        };
        *self = next;
        changed
    }

    /// Workers are told. Gives what they have to be told, if anything: whether the send buffer is full.
    pub(crate) fn tell(&mut self) -> Option<bool> {
        let (next, full) = match *self {
            Self::EmptyUntold => (Self::Empty, Some(false)),
            Self::FullUntold => (Self::Full, Some(true)),
            told => (told, None),
        };
        *self = next;
        full
    }

    /// Whether workers have to be told.
    pub(crate) fn is_untold(self) -> bool {
        matches!(self, Self::EmptyUntold | Self::FullUntold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transition_of_every_phase() {
        use Phase::*;
        for (phase, close, cut, fail) in [
            (Open, (Closing, true), (Cut, true), Broken),
            (Broken, (Lost, true), (Cut, true), Broken),
            (Closing, (Closing, false), (Cut, false), Lost),
            (Lost, (Lost, false), (Cut, false), Lost),
            (Cut, (Cut, false), (Cut, false), Cut),
        ] {
            let mut next = phase;
            let first = next.close();
            assert_eq!((next, first), close, "{phase:?} is closed");
            let mut next = phase;
            let first = next.cut();
            assert_eq!((next, first), cut, "{phase:?} is cut");
            let mut next = phase;
            next.fail();
            assert_eq!(next, fail, "{phase:?} fails");
            assert_eq!(phase.is_closed(), matches!(phase, Closing | Lost | Cut));
            assert_eq!(phase.is_broken(), matches!(phase, Broken | Lost));
        }
    }

    #[test]
    fn every_transition_of_writing() {
        use Writing::*;
        for (writing, batch, begin) in [
            (Idle, (Batched, true), (Idle, false)),
            (Batched, (Batched, false), (Idle, false)),
            (Blocked, (Blocked, false), (Idle, true)),
        ] {
            let mut next = writing;
            let joins = next.batch();
            assert_eq!((next, joins), batch, "{writing:?}, a frame waits");
            let mut next = writing;
            let was_blocked = next.begin();
            assert_eq!((next, was_blocked), begin, "{writing:?}, a write begins");
            let mut next = writing;
            next.block();
            assert_eq!(next, Blocked, "{writing:?}, the socket is full");
            assert_eq!(writing.is_blocked(), writing == Blocked);
        }
    }

    #[test]
    fn every_transition_of_the_send_buffer() {
        use SendBuffer::*;
        for (buffer, fill, empty, tell) in [
            (Empty, (FullUntold, true), (Empty, false), (Empty, None)),
            (EmptyUntold, (Full, true), (EmptyUntold, false), (Empty, Some(false))),
            (Full, (Full, false), (EmptyUntold, true), (Full, None)),
            (FullUntold, (FullUntold, false), (Empty, true), (Full, Some(true))),
        ] {
            let mut next = buffer;
            let changed = next.fill();
            assert_eq!((next, changed), fill, "{buffer:?} fills");
            let mut next = buffer;
            let changed = next.empty();
            assert_eq!((next, changed), empty, "{buffer:?} empties");
            let mut next = buffer;
            let full = next.tell();
            assert_eq!((next, full), tell, "{buffer:?} is told");
            assert_eq!(buffer.is_untold(), tell.1.is_some(), "{buffer:?}");
        }
    }
}
