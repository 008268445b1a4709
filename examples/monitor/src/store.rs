//! The database: one SQLite file that all worker children of a machine share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};
use tokio::sync::{mpsc, oneshot};

use crate::sample::{Sample, Samples, now};

/// How long samples are kept.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How often older samples are deleted.
const TIDY: Duration = Duration::from_secs(600);
/// How long a child waits for the write of another child.
const BUSY: Duration = Duration::from_secs(10);
/// Writes that wait for the writer; further writes wait in the handlers of their clients.
const QUEUE: usize = 256;
/// The points of each host in a history, and the hosts in it.
const POINTS: i64 = 300;
const HOSTS: i64 = 200;

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    -- A sample that is acknowledged survives a power failure, too.
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS samples (
        host TEXT NOT NULL, at INTEGER NOT NULL, cpu REAL NOT NULL, used INTEGER NOT NULL, total INTEGER NOT NULL,
        PRIMARY KEY (host, at)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS samples_at ON samples (at);
";

/// One writer with a thread of its own, so that the runtime never waits for a disk, and a connection for reading.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    writes: mpsc::Sender<Write>,
    reader: Arc<Mutex<Connection>>,
}

#[derive(Debug)]
struct Write {
    samples: Samples,
    written: oneshot::Sender<Result<(), String>>,
}

/// Why samples are not in the database, or cannot be read from it.
#[derive(Debug)]
pub(crate) struct StoreError(String);

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the database: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

impl Store {
    /// Opens the file, or makes it. Blocks its thread.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let named = |error: String| StoreError(format!("{}: {error}", path.display()));
        let writer = connect(path).map_err(|error| named(error.to_string()))?;
        let reader = connect(path).map_err(|error| named(error.to_string()))?;
        let (writes, queue) = mpsc::channel(QUEUE);
        let path = PathBuf::from(path);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || write_all(writer, queue, &path))
            .map_err(|error| StoreError(error.to_string()))?;
        Ok(Self {
            writes,
            reader: Arc::new(Mutex::new(reader)),
        })
    }

    /// Returns when the samples are on the disk. Samples that are there already stay as they are.
    pub(crate) async fn write(&self, samples: Samples) -> Result<(), StoreError> {
        let (written, done) = oneshot::channel();
        let ended = || StoreError("the writer has ended".into());
        self.writes
            .send(Write { samples, written })
            .await
            .map_err(|_| ended())?;
        done.await.map_err(|_| ended())?.map_err(StoreError)
    }

    /// The samples of each host in this span up to now, thinned out to a few hundred.
    pub(crate) async fn history(&self, span: Duration) -> Result<Vec<Samples>, StoreError> {
        let reader = Arc::clone(&self.reader);
        let read = move || {
            let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            history(&reader, span).map_err(|error| StoreError(error.to_string()))
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| StoreError(error.to_string()))?
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    let end = Instant::now() + BUSY;
    loop {
        match connection.execute_batch(SCHEMA) {
            // SQLite does not wait by itself while another child makes the same file.
            Err(error) if is_busy(&error) && Instant::now() < end => thread::sleep(Duration::from_millis(20)),
            made => return made.map(|()| connection),
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Writes until all stores are dropped. All writes that wait are one transaction.
fn write_all(mut connection: Connection, mut queue: mpsc::Receiver<Write>, path: &Path) {
    let mut writes = Vec::new();
    let mut tidied: Option<Instant> = None;
    while queue.blocking_recv_many(&mut writes, QUEUE) > 0 {
        let tidy = tidied.is_none_or(|at| at.elapsed() >= TIDY);
        let result = write(&mut connection, &writes, tidy).map_err(|error| format!("{}: {error}", path.display()));
        if tidy && result.is_ok() {
            tidied = Some(Instant::now());
        }
        for write in writes.drain(..) {
            // The handler that waited may have been cut off.
            let _ = write.written.send(result.clone());
        }
    }
}

fn write(connection: &mut Connection, writes: &[Write], tidy: bool) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        // Samples that an agent sends again are there already.
        let mut insert = transaction.prepare_cached("INSERT OR IGNORE INTO samples VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for samples in writes.iter().map(|write| &write.samples) {
            for Sample { at, cpu, used, total } in &samples.samples {
                insert.execute(params![samples.host, at, cpu, used, total])?;
            }
        }
    }
    if tidy {
        transaction.execute("DELETE FROM samples WHERE at < ?1", [now() - millis(KEPT)])?;
    }
    transaction.commit()
}

fn history(connection: &Connection, span: Duration) -> rusqlite::Result<Vec<Samples>> {
    let span = millis(span);
    let mut select = connection.prepare_cached(
        "SELECT host, max(at), round(avg(cpu), 1), CAST(avg(used) AS INTEGER), max(total) FROM samples
         WHERE at > ?1 AND host IN (SELECT DISTINCT host FROM samples WHERE at > ?1 ORDER BY host LIMIT ?3)
         GROUP BY host, at / ?2 ORDER BY host, 2",
    )?;
    let mut rows = select.query(params![now() - span, (span / POINTS).max(1), HOSTS])?;
    let mut hosts: Vec<Samples> = Vec::new();
    while let Some(row) = rows.next()? {
        let host: String = row.get(0)?;
        let sample = Sample {
            at: row.get(1)?,
            cpu: row.get(2)?,
            used: row.get(3)?,
            total: row.get(4)?,
        };
        match hosts.last_mut().filter(|last| last.host == host) {
            Some(last) => last.samples.push(sample),
            None => hosts.push(Samples {
                host,
                samples: vec![sample],
            }),
        }
    }
    Ok(hosts)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(host: &str, ats: impl IntoIterator<Item = i64>) -> Samples {
        let sample = |at| Sample {
            at,
            cpu: 50.0,
            used: 1,
            total: 2,
        };
        Samples {
            host: host.into(),
            samples: ats.into_iter().map(sample).collect(),
        }
    }

    const SPAN: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn two_children_share_the_file_and_what_comes_twice_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let stores = [Store::open(&path).unwrap(), Store::open(&path).unwrap()];
        let now = now();
        let mut writes = Vec::new();
        for number in 0..200 {
            // Each sample is written to both stores.
            for store in &stores {
                let (store, samples) = (store.clone(), samples("a", [now - 1000 * number]));
                writes.push(tokio::spawn(async move { store.write(samples).await }));
            }
        }
        for write in writes {
            write.await.unwrap().unwrap();
        }
        stores[0].write(samples("b", [now])).await.unwrap();
        let history = stores[1].history(SPAN).await.unwrap();
        assert_eq!(
            history.iter().map(|host| host.host.as_str()).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(history[0].samples.len(), 200);
        assert!(history[0].samples.is_sorted_by_key(|sample| sample.at));
        assert_eq!(history[1].samples, samples("b", [now]).samples);
    }

    #[tokio::test]
    async fn a_history_is_thinned_out_and_old_samples_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let store = Store::open(&path).unwrap();
        let now = now();
        let old = now - millis(KEPT) - 1000;
        let many = samples("a", (0..3000).map(|number| now - 100 * number).chain([old]));
        store.write(many).await.unwrap();
        let points = store.history(SPAN).await.unwrap()[0].samples.len();
        assert!((299..=301).contains(&points), "{points}");
        let all = store.history(KEPT * 2).await.unwrap();
        assert!(all[0].samples.iter().all(|sample| sample.at > old));
        assert!(store.history(Duration::ZERO).await.unwrap().is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Store::open(Path::new("/proc/none/db")).unwrap_err().to_string();
        assert!(error.contains("/proc/none/db"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        std::fs::write(&path, "not a database, but long enough to look like one ".repeat(50)).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("not a database"), "{error}");
    }
}
