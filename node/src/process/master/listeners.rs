//! Listeners that the master opens, and keeps open: connections that wait in them outlive a child.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ConfigError;
use crate::process::instance::Listen;
use crate::process::setup::Setup;

/// How many connections may wait to be accepted; the kernel has a bound of its own below it.
const BACKLOG: i32 = 4096;
/// How many ports after the first are tried for a successor.
const TRIES: u16 = 256;

/// An open listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) asked: Listen,
    pub(crate) address: SocketAddr,
    pub(crate) socket: TcpListener,
}

/// A port of a child's own, as long as the child lives: the base address, and which one after it.
pub(crate) type Reserved = (SocketAddr, u16);

/// The listeners that are shared.
#[derive(Debug)]
pub(crate) struct SharedListeners {
    /// The listeners of each instance.
    pub(crate) instances: Vec<Vec<Rc<Listener>>>,
    /// Where the whole node's metrics are served.
    pub(crate) metrics: Option<Rc<Listener>>,
}

impl SharedListeners {
    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Listener>> {
        self.instances.iter().flatten().chain(&self.metrics)
    }
}

impl Listener {
    fn open(asked: &Listen) -> io::Result<Self> {
        let socket = bind(asked.address)?;
        let address = socket.local_addr()?;
        Ok(Self {
            asked: asked.clone(),
            address,
            socket,
        })
    }

    /// Opens a child's own listener, this many ports after the first.
    pub(crate) fn open_own(asked: &Listen, offset: u16) -> io::Result<Self> {
        let mut asked = asked.clone();
        if asked.address.port() != 0 {
            let port = asked.address.port().checked_add(offset);
            asked
                .address
                .set_port(port.ok_or_else(|| io::Error::other("there is no port after 65535"))?);
        }
        Self::open(&asked)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {}: {error}", asked.address)))
    }

    /// Opens a listener for a child whose predecessor still has its own: at the next port that is free.
    pub(crate) fn open_next(asked: &Listen, taken: &HashSet<Reserved>) -> io::Result<(Self, Reserved)> {
        let mut last = io::Error::other("all ports are taken");
        for offset in (0..TRIES).filter(|offset| !taken.contains(&(asked.address, *offset))) {
            match Self::open_own(asked, offset) {
                Ok(listener) => return Ok((listener, (asked.address, offset))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// Opens all listeners that a setup asks for, or copies those that are open already. The originals stay open, so that a
/// refused reload changes nothing.
pub(crate) fn open_shared(setup: &Setup, open: &[Rc<Listener>]) -> Result<SharedListeners, ConfigError> {
    let mut free: Vec<Rc<Listener>> = open.to_vec();
    let mut take = |asked: &Listen| take_or_open(setup, asked, &mut free);
    let mut instances = Vec::new();
    for planned in &setup.plans {
        instances.push(planned.plan.shared.iter().map(&mut take).collect::<Result<_, _>>()?);
    }
    let metrics = setup.metrics().as_ref().map(take).transpose()?;
    Ok(SharedListeners { instances, metrics })
}

fn take_or_open(setup: &Setup, asked: &Listen, free: &mut Vec<Rc<Listener>>) -> Result<Rc<Listener>, ConfigError> {
    let same = free.iter().position(|open| open.asked.address == asked.address);
    let listener = match same.map(|same| free.swap_remove(same)) {
        Some(open) => {
            let socket = open
                .socket
                .try_clone()
                .map_err(|error| setup.config.invalid(&asked.key, error))?;
            Listener {
                asked: asked.clone(),
                address: open.address,
                socket,
            }
        }
        None => Listener::open(asked).map_err(|error| {
            setup
                .config
                .invalid(&asked.key, format!("cannot listen at {}: {error}", asked.address))
        })?,
    };
    Ok(Rc::new(listener))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run that wait for their time to be over are no obstacle.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(port: u16) -> Listen {
        Listen {
            label: "inner".into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            key: "gateway.inner".into(),
            page: None,
        }
    }

    #[test]
    fn a_successor_has_the_next_free_port() {
        let first = Listener::open_own(&asked(0), 0).unwrap();
        let base = asked(first.address.port());
        let (next, reserved) = Listener::open_next(&base, &HashSet::from([(base.address, 0)])).unwrap();
        assert_eq!(next.address.port(), base.address.port() + reserved.1);
        assert!(reserved.1 >= 1);
    }

    #[test]
    fn an_address_that_is_taken_is_named() {
        let first = Listener::open_own(&asked(0), 0).unwrap();
        let error = Listener::open_own(&asked(first.address.port()), 0).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("cannot listen at {}", first.address)),
            "{error}"
        );
    }
}
