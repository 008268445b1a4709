//! Timers: closures that run once after a while, or again and again.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::api::client::served::ServedClient;
use crate::api::client::{Client, CurrentEvent};
use crate::api::cluster::Cluster;
use crate::api::cluster::served_clients::TimerRun;
use crate::api::error::{HandlerError, guarded};

/// Most timers of one client at a time: each is a small tokio task, and a client may be the cause of each.
const MAX_OF_CLIENT: usize = 64;
/// Most timers without a client that a worker child has at a time.
const MAX_OF_CHILD: usize = 65_536;
/// The shortest time: the clock is no finer, and a period of zero would keep a core busy.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest time, which can still be added to the present.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A timer, as [`Client::after`], [`Client::every`], [`Cluster::after`] and [`Cluster::every`] set it.
///
/// Dropping it cancels nothing. A clone is the same timer.
#[derive(Debug, Clone)]
pub struct Timer {
    over: CancellationToken,
}

impl Timer {
    /// Cancels the timer: no run begins any more. A run that has begun goes on to its end.
    pub fn cancel(&self) {
        self.over.cancel();
    }

    /// Whether no run begins any more: it was cancelled, its client is no longer served here, or it has run.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// What a timer's closure may return: nothing, a [`Result`], or, to end an `every`, [`ControlFlow::Break`].
pub trait Outcome {
    /// Whether to go on.
    fn outcome(self) -> Result<ControlFlow<()>>;
}

impl Outcome for () {
    fn outcome(self) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

impl Outcome for ControlFlow<()> {
    fn outcome(self) -> Result<ControlFlow<()>> {
        Ok(self)
    }
}

impl<T: Outcome> Outcome for Result<T> {
    fn outcome(self) -> Result<ControlFlow<()>> {
        self?.outcome()
    }
}

/// What a timer runs.
type Routine<C> = Box<dyn FnMut(C) -> BoxFuture<'static, Result<ControlFlow<()>>> + Send>;

/// How often a timer runs, and when first.
#[derive(Debug, Clone, Copy)]
enum Due {
    Once(Duration),
    Every(Duration),
}

/// What a timer is called where it stands beside handlers.
const TIMER: &str = "timer";

/// # Timers
///
/// A timer of a client runs in order with the client's events, never at the same time as a handler of the same client,
/// and is subject to `handler_timeout`. An error or a panic is logged and counted, and an `every` goes on.
///
/// It ends by itself when the client has closed, and **when another worker serves the client from now on**: the link to
/// its gateway has ended, or this worker drains, or a handler of the client was cut off. The next worker knows nothing of
/// the timer. A timer that has to go on there is set again in a handler, which sees in the client's session that it is due.
///
/// A client has up to 64 timers at a time: one more is refused, which is logged and counted as a handler's error, and
/// [is over](Timer::is_over) at once.
impl Client {
    /// Runs a closure once, after a time of at least 1 ms.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use meepo_worker::Client;
    /// # fn example(client: &Client) {
    /// let time_is_up = client.after(Duration::from_secs(30), async move |client| {
    ///     client.send("time is up");
    ///     client.close(4000, "too slow");
    /// });
    /// // As soon as the client has answered:
    /// time_is_up.cancel();
    /// # }
    /// ```
    pub fn after<F, R>(&self, time: Duration, closure: F) -> Timer
    where
        F: FnOnce(Client) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.set_timer(Due::Once(time), once(closure))
    }

    /// Runs a closure again and again, first after one period of at least 1 ms.
    ///
    /// A run that is due while the last one runs, or waits for its turn, is skipped: runs never pile up.
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # use std::time::Duration;
    /// # use meepo_worker::Client;
    /// # fn example(client: &Client) {
    /// let mut left = 10;
    /// client.every(Duration::from_secs(1), move |client| {
    ///     left -= 1;
    ///     async move {
    ///         client.send(format!("{left} s left"));
    ///         match left {
    ///             0 => ControlFlow::Break(()),
    ///             _ => ControlFlow::Continue(()),
    ///         }
    ///     }
    /// });
    /// # }
    /// ```
    pub fn every<F, R>(&self, period: Duration, closure: F) -> Timer
    where
        F: FnMut(Client) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.set_timer(Due::Every(period), again(closure))
    }

    fn set_timer(&self, due: Due, mut routine: Routine<Client>) -> Timer {
        let (served, cluster) = (self.served().clone(), self.cluster().clone());
        let over = served.over().child_token();
        let timer = Timer { over: over.clone() };
        if over.is_cancelled() {
            return timer;
        }
        let Some(counted) = served.timers().one_more(MAX_OF_CLIENT) else {
            over.cancel();
            cluster.stats().handler_errors.add(1);
            tracing::warn!(client = %self.id(), limit = MAX_OF_CLIENT, "timer refused: the client has too many");
            return timer;
        };
        tokio::spawn(async move {
            let (_counted, _over) = (counted, over.clone().drop_guard());
            let mut ticks = due.ticks();
            while over.run_until_cancelled(ticks.tick()).await.is_some() {
                let Some(served_clients) = cluster.served_clients() else {
                    return;
                };
                let (back, ran) = oneshot::channel();
                served_clients.queue_run(served.id(), in_turn(&served, routine, &over, back));
                match ran.await {
                    Ok(again) if due.again() => routine = again,
                    _ => return,
                }
            }
        });
        timer
    }
}

/// A run of a client's timer, for the client's queue. It gives the routine back once it has run.
fn in_turn(
    served: &Arc<ServedClient>,
    mut routine: Routine<Client>,
    over: &CancellationToken,
    back: oneshot::Sender<Routine<Client>>,
) -> TimerRun {
    let (served, over) = (served.clone(), over.clone());
    TimerRun::new(async move {
        // It may have been cancelled, and the client may have left and come again, while the run waited for its turn.
        if over.is_cancelled() || !served.life().is_served() {
            return Ok(());
        }
        let limit = served.cluster().limits().handler_timeout;
        let client = Client::new(served, CurrentEvent::default());
        let ran = attempt(&mut routine, client, limit).await;
        if let Ok(ControlFlow::Break(())) = ran {
            over.cancel();
        }
        let _ = back.send(routine);
        ran.map(drop)
    })
}

/// # Timers
///
/// A timer without a client is subject to `handler_timeout`, too, and an error or a panic in it is logged and counted.
/// Each worker child has its own: what is to be done once in the whole cluster is not for a timer.
///
/// They end when the child begins to drain. A run that has begun then holds the drain up in nothing: it goes on for as
/// long as the child lives.
///
/// There can be 65,536 at a time in a child: one more is refused, which is logged and counted as a handler's error, and
/// [is over](Timer::is_over) at once.
impl Cluster {
    /// Runs a closure once, after this time; as [`Client::after`].
    pub fn after<F, R>(&self, time: Duration, closure: F) -> Timer
    where
        F: FnOnce(Cluster) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.set_timer(Due::Once(time), once(closure))
    }

    /// Runs a closure again and again; as [`Client::every`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use meepo_worker::Cluster;
    /// # fn example(cluster: &Cluster) {
    /// cluster.every(Duration::from_secs(60), async |cluster| {
    ///     let online = cluster.count().await;
    ///     cluster.group("admins").send(format!("{} online", online.value));
    /// });
    /// # }
    /// ```
    pub fn every<F, R>(&self, period: Duration, closure: F) -> Timer
    where
        F: FnMut(Cluster) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.set_timer(Due::Every(period), again(closure))
    }

    fn set_timer(&self, due: Due, mut routine: Routine<Cluster>) -> Timer {
        let cluster = self.clone();
        let over = self.stopping().child_token();
        let timer = Timer { over: over.clone() };
        if over.is_cancelled() {
            return timer;
        }
        let Some(counted) = self.timers().one_more(MAX_OF_CHILD) else {
            over.cancel();
            self.stats().handler_errors.add(1);
            tracing::warn!(limit = MAX_OF_CHILD, "timer refused: this worker has too many");
            return timer;
        };
        tokio::spawn(async move {
            let (_counted, _over) = (counted, over.clone().drop_guard());
            let mut ticks = due.ticks();
            while over.run_until_cancelled(ticks.tick()).await.is_some() {
                match attempt(&mut routine, cluster.clone(), cluster.limits().handler_timeout).await {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return,
                    Err(error) => {
                        cluster.stats().handler_errors.add(1);
                        tracing::warn!(handler = TIMER, %error, "handler failed");
                    }
                }
                if !due.again() {
                    return;
                }
            }
        });
        timer
    }
}

impl Due {
    fn ticks(self) -> Interval {
        let (Self::Once(time) | Self::Every(time)) = self;
        let time = time.clamp(SHORTEST, LONGEST);
        let mut ticks = interval_at(Instant::now() + time, time);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    fn again(self) -> bool {
        matches!(self, Self::Every(_))
    }
}

fn once<C, F, R>(closure: F) -> Routine<C>
where
    F: FnOnce(C) -> R + Send + 'static,
    R: Future<Output: Outcome> + Send + 'static,
{
    let mut closure = Some(closure);
    Box::new(move |context| {
        let running = closure.take().map(|closure| closure(context));
        Box::pin(async move {
            match running {
                Some(running) => running.await.outcome(),
                None => Ok(ControlFlow::Break(())),
            }
        })
    })
}

fn again<C, F, R>(mut closure: F) -> Routine<C>
where
    F: FnMut(C) -> R + Send + 'static,
    R: Future<Output: Outcome> + Send + 'static,
{
    Box::new(move |context| {
        let running = closure(context);
        Box::pin(async move { running.await.outcome() })
    })
}

async fn attempt<C>(routine: &mut Routine<C>, context: C, limit: Duration) -> Result<ControlFlow<()>, HandlerError> {
    // What the closure does before its first await is guarded as well.
    match timeout(limit, guarded(async { routine(context).await })).await {
        Ok(Ok(ran)) => ran.map_err(|error| HandlerError::Failed { handler: TIMER, error }),
        Ok(Err(panic)) => Err(HandlerError::panicked(TIMER, panic)),
        Err(_) => Err(HandlerError::CutOff { handler: TIMER, limit }),
    }
}
