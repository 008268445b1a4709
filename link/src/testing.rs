//! The other end of a sending half, played by a test.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_core::Stream as _;
use tonic::Status;

use crate::outgoing::{Outgoing, Source};
use crate::parts::Assembly;

/// Reads a sending half as the other end of the link would.
#[derive(Debug)]
pub struct Played<S: Source> {
    /// The half that is read.
    pub outgoing: Outgoing<S>,
    short: fn(S::Message) -> String,
}

/// Polls a sending half once.
pub fn poll<S: Source>(outgoing: &mut Outgoing<S>) -> Poll<Option<Result<S::Message, Status>>>
where
    S::Message: Unpin,
    S::Kept: Unpin,
{
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(outgoing).poll_next(&mut cx)
}

impl<S: Source> Played<S>
where
    S::Message: Unpin,
    S::Kept: Unpin,
{
    /// Reads `outgoing`, and tells of each message in `short`.
    pub fn new(outgoing: Outgoing<S>, short: fn(S::Message) -> String) -> Self {
        Self { outgoing, short }
    }

    /// Reads until the source has no more: messages in short, each whole; texts of errors; and "end" if the stream ended.
    ///
    /// # Panics
    ///
    /// If parts do not follow each other as they should.
    pub fn all(&mut self) -> Vec<String> {
        let mut assembly = Assembly::new(usize::MAX);
        let mut all = Vec::new();
        let mut pending = 0;
        // One poll may be pending because a part has just gone out.
        while pending < 2 {
            match poll(&mut self.outgoing) {
                Poll::Pending => pending += 1,
                Poll::Ready(None) => {
                    all.push("end".to_owned());
                    return all;
                }
                Poll::Ready(Some(Err(status))) => all.push(status.message().to_owned()),
                Poll::Ready(Some(Ok(message))) => {
                    pending = 0;
                    let whole = assembly.take(message).expect("parts follow each other");
                    all.extend(whole.map(self.short));
                }
            }
        }
        all
    }
}
