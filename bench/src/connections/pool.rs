//! All connections, on one thread and one poll.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Socket, Type};

use super::connection::{Connection, Outbox, State};
use super::wire::Target;
use crate::args::Common;
use crate::error::{Error, Failure};

/// Connections that are opened at the same time, if a load does not say otherwise.
pub(crate) const OPENING: usize = 128;
/// Connections from one source address. It has about 28,000 ports, and the fewer are free, the longer the system searches for one.
pub(crate) const PER_SOURCE: usize = 5_000;
/// Open files besides the connections.
const SPARE_FILES: u64 = 64;
const TIMER: Token = Token(usize::MAX);
/// Shorter waits use the timer: a poll counts in milliseconds.
const COARSE: Duration = Duration::from_millis(2);

/// The connections of a run.
pub(crate) struct Pool {
    poll: Poll,
    events: Events,
    timer: TimerFd,
    armed: Option<Instant>,
    scratch: Vec<u8>,
    targets: Vec<Rc<Target>>,
    connections: Vec<Connection>,
    /// The number of the first connection, among those of all processes of a run.
    first: usize,
    /// How long each connection took to open.
    pub(crate) opened: Vec<Duration>,
    /// Connections that ended during the run.
    pub(crate) ended: u64,
    /// Why the first of these ended.
    pub(crate) first_failure: Option<Failure>,
}

impl Pool {
    /// A pool without connections. Checks the URLs, and raises the limit of open files.
    pub(crate) fn new(common: &Common) -> Result<Self, Error> {
        Self::numbered(common, 0)
    }

    /// The same for connections whose numbers begin with `first`.
    pub(crate) fn numbered(common: &Common, first: usize) -> Result<Self, Error> {
        allow_files(common.conns as u64 + SPARE_FILES)?;
        let targets = common
            .urls
            .iter()
            .map(|url| Target::parse(url).map(Rc::new))
            .collect::<Result<_, _>>()?;
        let poll = Poll::new()?;
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )
        .map_err(std::io::Error::from)?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            timer,
            armed: None,
            scratch: vec![0; 64 << 10],
            targets,
            connections: Vec::with_capacity(common.conns),
            first,
            opened: Vec::with_capacity(common.conns),
            ended: 0,
            first_failure: None,
        })
    }

    /// Opens all connections, `at_a_time` at the same time. The first failure is the error.
    pub(crate) fn open(&mut self, common: &Common, at_a_time: usize) -> Result<(), Error> {
        let mut begun = Vec::with_capacity(common.conns);
        let mut progress = Instant::now();
        while self.opened.len() < common.conns {
            while begun.len() < common.conns && begun.len() - self.opened.len() < at_a_time {
                let number = begun.len();
                begun.push(Instant::now());
                let connection = self.connect(number, self.first + common.conns > PER_SOURCE);
                let connection = connection.map_err(|error| self.open_error(number, error.into()))?;
                self.connections.push(connection);
            }
            self.wait(progress + common.connect_timeout)?;
            for event in &self.events {
                let number = event.token().0;
                let Some(connection) = self.connections.get_mut(number) else {
                    continue;
                };
                let before = connection.state();
                if let Err(failure) = connection.advance(&mut self.scratch, event.is_read_closed(), |_, _| {}) {
                    return Err(self.open_error(number, failure));
                }
                if before != State::Open && connection.state() == State::Open {
                    progress = Instant::now();
                    self.opened.push(progress - begun[number]);
                }
            }
            if progress.elapsed() >= common.connect_timeout {
                let waiting = self
                    .connections
                    .iter()
                    .position(|connection| connection.state() != State::Open);
                return Err(self.open_error(waiting.unwrap_or_default(), Failure::Timeout));
            }
        }
        Ok(())
    }

    fn connect(&self, number: usize, many: bool) -> std::io::Result<Connection> {
        let target = &self.targets[number % self.targets.len()];
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM.nonblocking(), None)?;
        if let Some(source) = source(self.first + number, target.address.ip()).filter(|_| many) {
            // A port that is chosen before the destination is known is kept from others until long after its end.
            setsockopt(&socket, IpBindAddressNoPort, &true).map_err(std::io::Error::from)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&target.address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        self.poll
            .registry()
            .register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection::new(self.first + number, stream, Rc::clone(target)))
    }

    fn open_error(&self, number: usize, failure: Failure) -> Error {
        Error::Open {
            number: number + 1,
            url: self.targets[number % self.targets.len()].url.clone(),
            failure,
        }
    }

    /// Waits for sockets that are ready, at most until `until`; gives each message to `on`, with the number of its connection
    /// and the outbox of that connection.
    pub(crate) fn turn(&mut self, until: Instant, mut on: impl FnMut(usize, &[u8], &mut Outbox)) -> Result<(), Error> {
        self.wait(until)?;
        for event in &self.events {
            let number = event.token().0;
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            let took = connection.advance(&mut self.scratch, event.is_read_closed(), |payload, outbox| {
                on(number, payload, outbox);
            });
            if let Err(failure) = took {
                connection.end();
                let _ = self.poll.registry().deregister(connection.stream());
                self.ended += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
        Ok(())
    }

    /// Sends a message on a connection, unless it has ended.
    pub(crate) fn send(&mut self, number: usize, payload: &[u8]) {
        let connection = &mut self.connections[number];
        if connection.state() != State::Open {
            return;
        }
        if let Err(failure) = connection.send(payload) {
            connection.end();
            self.ended += 1;
            self.first_failure.get_or_insert(failure);
        }
    }

    /// Frees the spare room of a connection's buffers after a large message.
    pub(crate) fn shrink(&mut self, number: usize) {
        self.connections[number].shrink();
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether all servers can echo a message to its sender alone.
    pub(crate) fn echoes(&self) -> bool {
        self.targets.iter().all(|target| target.echoes())
    }

    fn wait(&mut self, until: Instant) -> Result<(), Error> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = if left >= COARSE {
            Some(left - COARSE / 2)
        } else if left.is_zero() {
            Some(Duration::ZERO)
        } else {
            if self.armed != Some(until) {
                self.timer
                    .set(
                        Expiration::OneShot(TimeSpec::from_duration(left)),
                        TimerSetTimeFlags::empty(),
                    )
                    .map_err(std::io::Error::from)?;
                self.armed = Some(until);
            }
            None
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => Ok(other?),
        }
    }
}

/// The source address of a connection: ports limit the connections of one address, and loopback has many addresses.
fn source(number: usize, to: IpAddr) -> Option<IpAddr> {
    let last = u8::try_from(1 + number / PER_SOURCE).ok().filter(|last| *last < 255)?;
    matches!(to, IpAddr::V4(to) if to.is_loopback()).then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

/// The next number after this number of connections at which a new source address begins.
pub(crate) fn whole_sources(conns: usize) -> usize {
    conns.next_multiple_of(PER_SOURCE)
}

/// The hard limit of open files of a process.
pub(crate) fn files() -> Result<u64, Error> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(std::io::Error::from)?;
    Ok(hard)
}

/// The most connections that a process can have.
pub(crate) fn most() -> Result<usize, Error> {
    let files = files()?.saturating_sub(SPARE_FILES);
    Ok(usize::try_from(files).unwrap_or(usize::MAX).max(1))
}

/// Raises the limit of open files: above the hard limit where that is allowed and needed, else to the hard limit.
fn allow_files(wanted: u64) -> Result<(), Error> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(std::io::Error::from)?;
    let more = wanted.max(hard);
    if setrlimit(Resource::RLIMIT_NOFILE, more, more).is_ok() {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(std::io::Error::from)?;
    if hard < wanted {
        return Err(Error::TooManyFiles { wanted, limit: hard });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_taken_in_turn() {
        let loopback: IpAddr = [127, 0, 0, 9].into();
        assert_eq!(source(PER_SOURCE - 1, loopback), Some([127, 0, 0, 1].into()));
        assert_eq!(source(PER_SOURCE, loopback), Some([127, 0, 0, 2].into()));
        assert_eq!(source(PER_SOURCE, [10, 0, 0, 1].into()), None);
        assert_eq!(source(PER_SOURCE * 300, loopback), None);
    }
}
