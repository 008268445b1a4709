//! The life of a client at the worker child that serves it: one state, and the steps between them.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where a client is in its life at this worker child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Life {
    /// `on_connect` has not let the client in yet.
    Asked,
    /// The client is let in.
    Open,
    /// The client has closed before `on_connect` has let it in.
    AskedClosing,
    /// The client was let in and has closed; its earlier events and `on_close` are still to be handled.
    Closing,
    /// A handler leaves its event, and the events behind it, to another worker.
    HandedBack,
    /// The same, of a client that has closed.
    HandedBackClosing,
    /// This child no longer serves the client: another worker does, or the client was rejected.
    Released,
    /// This child no longer serves the client, which has closed.
    Gone,
}

/// What takes a client from one state to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `on_connect` has let the client in.
    LetIn,
    /// The client's last event has come: it has closed, or its gateway has died.
    Close,
    /// A handler of a child that drains leaves its event to another worker.
    HandBack,
    /// This child forgets the client: its last event is handled, or another worker serves it.
    Forget,
}

impl Life {
    const ALL: [Self; 8] = [
        Self::Asked,
        Self::Open,
        Self::AskedClosing,
        Self::Closing,
        Self::HandedBack,
        Self::HandedBackClosing,
        Self::Released,
        Self::Gone,
    ];

    /// The state after a step. A step that means nothing in a state leaves it as it is.
    pub(crate) fn after(self, step: Step) -> Self {
        match (self, step) {
            (Self::Asked, Step::LetIn) => Self::Open,
            (Self::AskedClosing, Step::LetIn) => Self::Closing,
            (Self::Asked, Step::Close) => Self::AskedClosing,
            (Self::Open, Step::Close) => Self::Closing,
            (Self::HandedBack, Step::Close) => Self::HandedBackClosing,
            (Self::Released, Step::Close) => Self::Gone,
            (Self::Asked | Self::Open, Step::HandBack) => Self::HandedBack,
            (Self::AskedClosing | Self::Closing, Step::HandBack) => Self::HandedBackClosing,
            (Self::Asked | Self::Open | Self::HandedBack, Step::Forget) => Self::Released,
            (Self::AskedClosing | Self::Closing | Self::HandedBackClosing, Step::Forget) => Self::Gone,
            (life, _) => life,
        }
    }

    /// Whether this child serves the client: its events are handled here.
    pub(crate) fn is_served(self) -> bool {
        !matches!(self, Self::Released | Self::Gone)
    }

    /// Whether the client is let in, and is to get `on_close`.
    pub(crate) fn is_let_in(self) -> bool {
        matches!(self, Self::Open | Self::Closing)
    }

    /// Whether the client has closed.
    pub(crate) fn has_closed(self) -> bool {
        matches!(
            self,
            Self::AskedClosing | Self::Closing | Self::HandedBackClosing | Self::Gone
        )
    }

    /// Whether a handler leaves its event to another worker.
    pub(crate) fn is_handed_back(self) -> bool {
        matches!(self, Self::HandedBack | Self::HandedBackClosing)
    }

    /// Whether no timer of the client is to run and no request to it to wait any more.
    pub(crate) fn is_over(self) -> bool {
        self.has_closed() || !self.is_served()
    }
}

/// The state of a client that several threads look at.
pub(crate) struct SharedLife(AtomicU8);

impl SharedLife {
    pub(crate) fn new(life: Life) -> Self {
        Self(AtomicU8::new(life as u8))
    }

    pub(crate) fn get(&self) -> Life {
        Life::ALL[usize::from(self.0.load(Ordering::Acquire))]
    }

    pub(crate) fn step(&self, step: Step) {
        let after = |life| Some(Life::ALL[usize::from(life)].after(step) as u8);
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/src/states.md, section "A client at the worker".
    #[test]
    fn each_step_from_each_state_leads_where_the_table_says() {
        use Life::*;
        let steps = [Step::LetIn, Step::Close, Step::HandBack, Step::Forget];
        let table = [
            (Asked, [Open, AskedClosing, HandedBack, Released]),
            (Open, [Open, Closing, HandedBack, Released]),
            (AskedClosing, [Closing, AskedClosing, HandedBackClosing, Gone]),
            (Closing, [Closing, Closing, HandedBackClosing, Gone]),
            (HandedBack, [HandedBack, HandedBackClosing, HandedBack, Released]),
            (
                HandedBackClosing,
                [HandedBackClosing, HandedBackClosing, HandedBackClosing, Gone],
            ),
            (Released, [Released, Gone, Released, Released]),
            (Gone, [Gone, Gone, Gone, Gone]),
        ];
        assert_eq!(table.map(|(life, _)| life), Life::ALL);
        for (life, after) in table {
            for (step, after) in steps.into_iter().zip(after) {
                let shared = SharedLife::new(life);
                shared.step(step);
                assert_eq!((life.after(step), shared.get()), (after, after), "{life:?}, {step:?}");
                // Nothing is taken back.
                assert!(after.has_closed() || !life.has_closed(), "{life:?}, {step:?}");
                assert!(life.is_served() || !after.is_served(), "{life:?}, {step:?}");
                assert!(after.is_over() || !life.is_over(), "{life:?}, {step:?}");
            }
        }
    }

    #[test]
    fn each_state_says_what_it_means() {
        let says = |life: Life| {
            [
                life.is_served(),
                life.is_let_in(),
                life.has_closed(),
                life.is_handed_back(),
                life.is_over(),
            ]
        };
        let (yes, no) = (true, false);
        for (life, said) in Life::ALL.into_iter().zip([
            [yes, no, no, no, no],
            [yes, yes, no, no, no],
            [yes, no, yes, no, yes],
            [yes, yes, yes, no, yes],
            [yes, no, no, yes, no],
            [yes, no, yes, yes, yes],
            [no, no, no, no, yes],
            [no, no, yes, no, yes],
        ]) {
            assert_eq!(says(life), said, "{life:?}");
        }
    }
}
