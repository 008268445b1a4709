//! Accepting connections, also when no file descriptor is free: then new connections wait, and the others are served on.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use nix::sys::resource::{Resource, getrlimit};
use tokio::time::Instant;
use tokio_util::net::Listener;

use crate::observe::stats::CommonFigures;

/// How long to wait when no file descriptor is free.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// How often a failing accept is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A listener whose shortages are seen in the statistics.
#[derive(Debug)]
pub struct Acceptor<L> {
    listener: L,
    /// The kind of peers that connect here, for the log.
    whom: &'static str,
    stats: &'static CommonFigures,
    /// Whether it is counted among the blocked listeners.
    blocked: bool,
    logged: Option<Instant>,
}

impl<L: Listener> Acceptor<L> {
    /// Accepts on a listener. `whom` names the kind of peers in log lines.
    pub fn new(listener: L, whom: &'static str, stats: &'static CommonFigures) -> Self {
        Self {
            listener,
            whom,
            stats,
            blocked: false,
            logged: None,
        }
    }

    /// The next connection. Cancel safe.
    pub async fn accept(&mut self) -> (L::Io, L::Addr) {
        loop {
            let accepted = if self.blocked {
                // If no connection waits, the shortage is over for this listener.
                self.listener.accept().now_or_never()
            } else {
                Some(self.listener.accept().await)
            };
            match accepted {
                None => self.unblock(),
                Some(Ok(connection)) => {
                    self.unblock();
                    return connection;
                }
                Some(Err(error)) if is_about_one_peer(&error) => {}
                Some(Err(error)) => {
                    self.block(&error);
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }

    fn block(&mut self, error: &io::Error) {
        self.stats.failed_accepts.add(1);
        if !std::mem::replace(&mut self.blocked, true) {
            self.stats.blocked_listeners.add(1);
        }
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let (whom, limit) = (self.whom, descriptor_limit());
            tracing::warn!(%error, whom, limit, "cannot accept connections, trying on");
        }
    }
}

impl<L> Acceptor<L> {
    fn unblock(&mut self) {
        if std::mem::take(&mut self.blocked) {
            self.stats.blocked_listeners.sub(1);
        }
    }
}

impl<L> Drop for Acceptor<L> {
    fn drop(&mut self) {
        self.unblock();
    }
}

fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Whether the failure is that of one peer, which gave up while it waited.
fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
