//! Logs: one line an event, each line one write to a file in append mode, so that processes do not interleave.
//!
//! There is no thread and no buffer: what is logged before a crash is in the file, and a fork is harmless. A line that
//! cannot be written (a full disk, a terminal that is gone) is dropped and counted, and service goes on. As soon as there is
//! room again, a line says how many were lost.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::config::{self, LogFormat, NodeSection};
use crate::error_text;
use crate::observe::stats::CommonFigures;

/// How often [`mend`] is to be called while lines are lost.
pub(crate) const MEND_EVERY: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    /// `None`: the standard error output.
    target: RwLock<Option<(PathBuf, File)>>,
    /// Which process writes: `master`, `gateway/0`.
    process: RwLock<String>,
    json: AtomicBool,
    /// The standard outputs go to the file as well.
    redirect: AtomicBool,
    /// The last write stopped within a line.
    torn: AtomicBool,
    /// Lines that were lost and not told of yet.
    lost: AtomicU64,
    /// The figures of this process.
    stats: RwLock<Option<&'static CommonFigures>>,
    /// Raised with the first line that is lost.
    alarm: OnceLock<EventFd>,
    filter: Handle<Targets, Registry>,
    format: Handle<Format, Filtered>,
}

type Filtered = Layered<reload::Layer<Targets, Registry>, Registry>;
type Format = Box<dyn Layer<Filtered> + Send + Sync>;

/// Starts logging in the master, for it and for its children.
pub(crate) fn start(node: &NodeSection, redirect: bool) -> io::Result<()> {
    let target = node.log_file.as_deref().map(open).transpose()?;
    let ansi =
        target.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (filter, filter_handle) = reload::Layer::new(filter(node));
    let (format, format_handle) = reload::Layer::new(format(node.log_format, ansi));
    let log = Log {
        target: RwLock::new(target),
        process: RwLock::new("master".into()),
        json: AtomicBool::new(node.log_format == LogFormat::Json),
        redirect: AtomicBool::new(redirect),
        torn: AtomicBool::new(false),
        lost: AtomicU64::new(0),
        stats: RwLock::new(None),
        alarm: OnceLock::new(),
        filter: filter_handle,
        format: format_handle,
    };
    log.redirect()?;
    if LOG.set(log).is_err() {
        return Err(io::Error::other("logging has started already"));
    }
    let subscriber = tracing_subscriber::registry().with(filter).with(format);
    // A program that has a subscriber of its own keeps it.
    if subscriber.try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let text = error_text::of_panic(panic.payload()).unwrap_or("no text");
            tracing::error!(place, text, "panicked");
        }));
    }
    Ok(())
}

/// Takes up changed settings.
pub(crate) fn change(node: &NodeSection) -> io::Result<()> {
    let Some(log) = LOG.get() else {
        return Ok(());
    };
    let target = node.log_file.as_deref().map(open).transpose()?;
    let ansi =
        target.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    *log.target.write().unwrap_or_else(PoisonError::into_inner) = target;
    log.json.store(node.log_format == LogFormat::Json, Ordering::Relaxed);
    // Both fail only when the subscriber is gone, which it never is.
    let _ = log.filter.reload(filter(node));
    let _ = log.format.reload(format(node.log_format, ansi));
    log.redirect()
}

/// Opens the file again by its name, as after it was renamed.
pub(crate) fn reopen() {
    let Some(log) = LOG.get() else {
        return;
    };
    let path = log
        .target
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .map(|(path, _)| path.clone());
    let Some(path) = path else {
        return;
    };
    match open(&path) {
        Ok(target) => *log.target.write().unwrap_or_else(PoisonError::into_inner) = Some(target),
        Err(error) => tracing::error!(%error, path = %path.display(), "cannot reopen the log file"),
    }
    if let Err(error) = log.redirect() {
        tracing::error!(%error, "cannot redirect the standard outputs");
    }
}

/// Names this process in all lines from now on, and counts its lost lines in these figures.
pub(crate) fn name_process(name: &str, stats: &'static CommonFigures) {
    if let Some(log) = LOG.get() {
        *log.process.write().unwrap_or_else(PoisonError::into_inner) = name.into();
        *log.stats.write().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        // Lines that another process has lost are told by that one.
        log.lost.store(0, Ordering::Relaxed);
    }
}

/// The descriptor that becomes readable when a line is lost. [`mend`] is to be called every [`MEND_EVERY`] after that.
pub(crate) fn alarm() -> io::Result<Option<&'static EventFd>> {
    let Some(log) = LOG.get() else {
        return Ok(None);
    };
    let alarm = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    Ok(Some(log.alarm.get_or_init(|| alarm)))
}

/// Whether lines were lost and that could not be told yet.
pub(crate) fn fails() -> bool {
    LOG.get().is_some_and(|log| log.lost.load(Ordering::Relaxed) > 0)
}

/// Tells of lines that were lost, if there is room again.
pub(crate) fn mend() {
    if let Some(log) = LOG.get() {
        log.tell_lost();
    }
}

fn filter(node: &NodeSection) -> Targets {
    // A section that was not checked may be wrong.
    config::log_targets(&node.log_level).unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

fn format(format: LogFormat, ansi: bool) -> Format {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Lines)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => Box::new(layer.with_ansi(ansi).with_timer(Stamp)),
        LogFormat::Json => Box::new(layer.with_ansi(false).json()),
    }
}

fn open(path: &Path) -> io::Result<(PathBuf, File)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok((path.into(), file))
}

impl Log {
    fn redirect(&self) -> io::Result<()> {
        if self.redirect.load(Ordering::Relaxed)
            && let Some((_, file)) = &*self.target.read().unwrap_or_else(PoisonError::into_inner)
        {
            nix::unistd::dup2_stdout(file)?;
            nix::unistd::dup2_stderr(file)?;
        }
        Ok(())
    }

    fn write(&self, event: &[u8]) {
        self.tell_lost();
        if !self.put(&self.line(event)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            if let Some(stats) = *self.stats.read().unwrap_or_else(PoisonError::into_inner) {
                stats.lost_log_lines.add(1);
                stats.log_fails.set(1);
            }
            if let Some(alarm) = self.alarm.get() {
                // This fails only when the alarm is raised already.
                let _ = alarm.write(1);
            }
        }
    }

    fn tell_lost(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        if !self.put(&self.line(self.lost_lines(lost).as_bytes())) {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        } else if let Some(stats) = *self.stats.read().unwrap_or_else(PoisonError::into_inner) {
            stats.log_fails.set(0);
        }
    }

    /// An event that no filter holds up.
    fn lost_lines(&self, lost: u64) -> String {
        let mut time = String::new();
        let json = self.json.load(Ordering::Relaxed);
        let to = &mut Writer::new(&mut time);
        // Writing to a string does not fail.
        let _ = if json {
            SystemTime.format_time(to)
        } else {
            Stamp.format_time(to)
        };
        let (target, message) = (module_path!(), "log lines could not be written and are lost");
        if json {
            let fields = format!("{{\"message\":\"{message}\",\"lost\":{lost}}}");
            format!("{{\"timestamp\":\"{time}\",\"level\":\"ERROR\",\"fields\":{fields},\"target\":\"{target}\"}}")
        } else {
            format!("{time} ERROR {target}: {message} lost={lost}")
        }
    }

    /// Writes a line; whether all of it was taken.
    fn put(&self, line: &[u8]) -> bool {
        let written = match &*self.target.read().unwrap_or_else(PoisonError::into_inner) {
            Some((_, file)) => write_once(file, line),
            None => write_once(&mut io::stderr(), line),
        };
        if let Some(torn) = tears(written, line.len()) {
            self.torn.store(torn, Ordering::Relaxed);
        }
        written == line.len()
    }

    /// The event as one line: no line break but at the end.
    fn line(&self, event: &[u8]) -> Vec<u8> {
        let event = event.strip_suffix(b"\n").unwrap_or(event);
        let mut line = Vec::with_capacity(event.len() + 64);
        if self.torn.load(Ordering::Relaxed) {
            line.push(b'\n');
        }
        let mut rest = event;
        if self.json.load(Ordering::Relaxed)
            && let Some(fields) = event.strip_prefix(b"{")
        {
            let process = self.process.read().unwrap_or_else(PoisonError::into_inner);
            line.extend(format!("{{\"process\":\"{process}\",\"pid\":{},", std::process::id()).bytes());
            rest = fields;
        }
        for byte in rest {
            match byte {
                b'\n' => line.extend(b"\\n"),
                b'\r' => line.extend(b"\\r"),
                byte => line.push(*byte),
            }
        }
        line.push(b'\n');
        line
    }
}

/// Whether the file ends within a line now; nothing if it ends as before.
fn tears(written: usize, length: usize) -> Option<bool> {
    (written > 0).then_some(written < length)
}

/// One write, or none: how much of the text was taken.
fn write_once(mut to: impl Write, text: &[u8]) -> usize {
    loop {
        match to.write(text) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.unwrap_or(0),
        }
    }
}

/// Writes events of this process.
#[derive(Clone, Copy)]
struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if let Some(log) = LOG.get() {
            log.write(event);
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time, and the process that writes.
struct Stamp;

impl FormatTime for Stamp {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        SystemTime.format_time(to)?;
        match LOG.get() {
            Some(log) => {
                let process = log.process.read().unwrap_or_else(PoisonError::into_inner);
                write!(to, " {process}[{}]", std::process::id())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_stays_torn_until_something_is_written() {
        assert_eq!(tears(0, 10), None);
        assert_eq!(tears(4, 10), Some(true));
        assert_eq!(tears(10, 10), Some(false));
    }
}
