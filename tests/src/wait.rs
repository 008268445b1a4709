//! Conditions with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// Longer than any condition takes that a test waits for, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `ask` again and again until it gives a value.
///
/// # Panics
///
/// After [`DEADLINE`].
pub async fn wait_for<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(PAUSE).await;
    }
}

/// Waits until the condition holds.
///
/// # Panics
///
/// When it does not before the deadline.
pub async fn wait_until(what: &str, deadline: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !holds().await {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        sleep(PAUSE).await;
    }
}

/// Waits for a future.
///
/// # Panics
///
/// After [`DEADLINE`].
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}
