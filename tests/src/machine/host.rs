//! Loopback addresses, each of one test alone.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

/// The port that a test holds to show that an address is its own.
const CLAIM: u16 = 19899;

/// An address in 127.0.0.0/8 that no other test has, so that all its ports are free. It stands for a host.
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

    /// The address of the gateway's `ws` listener.
    pub fn ws(&self) -> SocketAddr {
        self.port(19910)
    }

    /// The address of the gateway's `line` listener.
    pub fn line(&self) -> SocketAddr {
        self.port(19909)
    }

    /// The address of a node's metrics, if it is configured to serve them.
    pub fn metrics(&self) -> SocketAddr {
        self.port(19920)
    }

    /// The address of a worker's push API, if it is configured to serve it.
    pub fn push(&self) -> SocketAddr {
        self.port(19908)
    }

    /// The address of a webhook worker's endpoint.
    pub fn endpoint(&self) -> SocketAddr {
        self.port(8080)
    }

    /// The address of the registry.
    pub fn registry(&self) -> SocketAddr {
        self.port(19911)
    }
}
