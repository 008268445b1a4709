//! A loopback address of a test's own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

/// The port that a test holds to show that an address is its own.
const CLAIM: u16 = 19899;

/// An address in 127.0.0.0/8 that no other test has, so that all ports of it are free. It plays a host of its own.
#[derive(Debug, Clone)]
pub struct Host {
    ip: Ipv4Addr,
    _claim: Arc<TcpListener>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Takes an address. It is free again once all clones are dropped.
    pub fn new() -> Self {
        for _ in 0..1000 {
            let ip = Ipv4Addr::new(127, fastrand::u8(64..128), fastrand::u8(..), fastrand::u8(1..255));
            if let Ok(claim) = TcpListener::bind((ip, CLAIM)) {
                return Self {
                    ip,
                    _claim: Arc::new(claim),
                };
            }
        }
        panic!("no loopback address is free");
    }

    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// A port of this host.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// Where the gateway's `ws` listener is.
    pub fn ws(&self) -> SocketAddr {
        self.port(19910)
    }

    /// Where the gateway's `line` listener is.
    pub fn line(&self) -> SocketAddr {
        self.port(19909)
    }

    /// Where the metrics of a node are, if it was told so.
    pub fn metrics(&self) -> SocketAddr {
        self.port(19920)
    }

    /// Where a worker takes pushes, if it was told so.
    pub fn push(&self) -> SocketAddr {
        self.port(19908)
    }

    /// Where the endpoint of a webhook worker is.
    pub fn endpoint(&self) -> SocketAddr {
        self.port(8080)
    }

    /// Where the registry is.
    pub fn registry(&self) -> SocketAddr {
        self.port(19911)
    }
}
