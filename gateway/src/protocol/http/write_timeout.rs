//! A socket that is given up when its other end takes too little for too long.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What has to be taken in each limit, as long as there is more: who takes a little now and then would hold for minutes what
/// it was answered.
const LEAST: usize = 64 << 10;

/// A socket whose writes fail once less than [`LEAST`] was taken within the limit.
#[derive(Debug)]
pub(crate) struct WriteTimeout<S> {
    inner: S,
    limit: Duration,
    /// Runs from when the socket was full until all is written.
    stalled: Option<Stalled>,
}

#[derive(Debug)]
struct Stalled {
    end: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            stalled: None,
        }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            if let (Some(stalled), Ok(taken)) = (&mut self.stalled, &written) {
                stalled.taken += taken;
            }
            return Poll::Ready(written);
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            end: Box::pin(sleep(limit)),
            taken: 0,
        });
        loop {
            ready!(stalled.end.as_mut().poll(context));
            if std::mem::take(&mut stalled.taken) < LEAST {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            stalled.end.as_mut().reset(Instant::now() + limit);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who writes flushes when it has nothing left to write.
        self.stalled = None;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// How long writes last whose other end takes so much every 4 s, five times, and how they end.
    async fn ends(taken: usize) -> (io::ErrorKind, Duration) {
        let (ours, mut theirs) = duplex(taken);
        let mut ours = WriteTimeout::new(ours, Duration::from_secs(10));
        let reads = async {
            let mut some = vec![0; taken];
            for _ in 0..5 {
                sleep(Duration::from_secs(4)).await;
                theirs.read_exact(&mut some).await.expect("it is written");
            }
            std::future::pending().await
        };
        let start = Instant::now();
        let writes = async {
            let error = ours.write_all(&vec![7; 100 * taken]).await.expect_err("it stops");
            (error.kind(), start.elapsed())
        };
        tokio::select! {
            ended = writes => ended,
            () = reads => unreachable!("it does not end"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_enough_is_waited_for_and_one_that_takes_little_or_stops_is_not() {
        let timed_out = |after| (io::ErrorKind::TimedOut, Duration::from_secs(after));
        assert_eq!(ends(LEAST / 2).await, timed_out(30), "until it stops");
        assert_eq!(ends(LEAST / 4).await, timed_out(10), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_hurried_when_there_is_nothing_to_write() {
        let (ours, mut theirs) = duplex(10);
        let mut ours = WriteTimeout::new(ours, Duration::from_secs(10));
        for _ in 0..3 {
            let (wrote, _) = tokio::join!(
                async {
                    ours.write_all(&[7; 20]).await?;
                    ours.flush().await
                },
                async {
                    sleep(Duration::from_secs(9)).await;
                    theirs.read_exact(&mut [0; 20]).await
                }
            );
            wrote.expect("all is taken in time");
            sleep(Duration::from_secs(60)).await;
        }
    }
}
