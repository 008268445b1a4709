//! The section `[gateway]`.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use meepo_node::{Config, ConfigError};
use serde::{Deserialize, Serialize};

use crate::config::limits::{Limits, SlowClient};
use crate::config::listen::{ListenSettings, Protocol};

/// The section `[gateway]` of `meepo.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// Child processes. Default: 2.
    pub children: usize,
    /// Threads of each child. Default: 1.
    pub threads: usize,
    /// Where clients come in. Default: `ws` on 127.0.0.1:19910 and `line` on 127.0.0.1:19909.
    pub listen: Vec<ListenSettings>,
    /// Where workers come in: the port is the one of the first child, each further child has the next one (0: any free
    /// port). Default: `127.0.0.1:19912`.
    pub inner: SocketAddr,
    /// The host that workers are told to dial, a name or an address, when it is not the one of `inner`. A port may
    /// follow (`host:port`) when it is mapped; each further child has the next one. Default: empty.
    pub advertise: String,
    /// Whether workers of the same host and network namespace come in over a Unix socket, past the network, if the gateway
    /// runs as their user or as root.
    /// Default: true.
    pub local: bool,
    /// The largest message from a client or to it; a client that sends a larger one is closed (1009). Default: `1MiB`.
    pub max_message: ByteSize,
    /// How long a client may take for its handshake, for the head of a request, for its body, and for each 64 KiB of the
    /// answer. Default: `10s`.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long a new client waits for a worker's answer before it gets 503 or is closed; also how long a request waits
    /// for a worker. Default: `10s`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long a request waits for its answer in all before it gets 504. Default: `30s`.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Requests of a child whose answers are not written yet; a further one gets 503. Default: 1024.
    pub max_requests: usize,
    /// Bytes of all requests and answers that a child holds. A request that would exceed it gets 503; so does who asked for an
    /// answer that would, or 502 if the request may not be repeated. Default: `64MiB`.
    pub request_memory: ByteSize,
    /// How long a WebSocket client may be silent before it is asked with a ping. Default: `25s`.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long a WebSocket client may be silent, pings included, before it is closed. Default: `60s`.
    #[serde(with = "humantime_serde")]
    pub heartbeat_timeout: Duration,
    /// How long a client that is closed may take to read what it was sent and to answer. Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub close_timeout: Duration,
    /// Bytes that may wait for a client that does not read; one message may exceed it alone. Default: `1MiB`.
    pub send_buffer: ByteSize,
    /// What happens at the end of `send_buffer`: `close` the client (1008), or `drop` the message. Default: `close`.
    pub slow_client: SlowClient,
    /// Keys and values of a client's session, in all. Default: `64KiB`.
    pub max_session: ByteSize,
    /// Groups that a client can be in. Default: 1024.
    pub max_groups: usize,
    /// Events of one client that a worker may have at a time. Default: 64.
    pub client_in_flight: usize,
    /// Bytes that a worker child may have in flight. Default: `8MiB`.
    pub link_in_flight: ByteSize,
    /// Bytes of one client that wait for a worker before the client is not read any more. Default: `256KiB`.
    pub client_waiting: ByteSize,
    /// Bytes of all clients of a child that wait for workers before those who add to it are not read any more.
    /// Default: `64MiB`.
    pub waiting: ByteSize,
    /// A reload closes clients with 1012 over this time, so that they do not come back all at once; half of
    /// `stop_timeout` at most. Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub reload_spread: Duration,
    /// A stop closes clients with 1001 over this time, for the same reason; half of `stop_timeout` at most. It makes a
    /// stop as much longer. Default: `1s`.
    #[serde(with = "humantime_serde")]
    pub stop_spread: Duration,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let listen = |protocol, port| ListenSettings::new(protocol, loopback(port));
        Self {
            children: 2,
            threads: 1,
            listen: vec![listen(Protocol::Ws, 19910), listen(Protocol::Line, 19909)],
            inner: loopback(19912),
            advertise: String::new(),
            local: true,
            max_message: ByteSize::mib(1),
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            max_requests: 1024,
            request_memory: ByteSize::mib(64),
            ping_interval: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(5),
            send_buffer: ByteSize::mib(1),
            slow_client: SlowClient::Close,
            max_session: ByteSize::kib(64),
            max_groups: 1024,
            client_in_flight: 64,
            link_in_flight: ByteSize::mib(8),
            client_waiting: ByteSize::kib(256),
            waiting: ByteSize::mib(64),
            reload_spread: Duration::from_secs(5),
            stop_spread: Duration::from_secs(1),
        }
    }
}

impl GatewaySettings {
    /// Fills in what a listener has by its protocol.
    pub fn resolve(mut self) -> Self {
        self.listen.iter_mut().for_each(ListenSettings::resolve);
        self
    }

    /// Checks the whole section, and gives its limits.
    pub(crate) fn check(&self, config: &Config) -> Result<Limits, ConfigError> {
        let at_least_one = [
            ("children", self.children),
            ("threads", self.threads),
            ("client_in_flight", self.client_in_flight),
            ("max_requests", self.max_requests),
            ("listen", self.listen.len()),
        ];
        for (key, number) in at_least_one {
            if number == 0 {
                return Err(config.invalid(&format!("gateway.{key}"), "there must be at least one"));
            }
        }
        if self.max_message == ByteSize(0) || self.max_message > MAX_MAX_MESSAGE {
            let why = format!("must be from 1 B to {MAX_MAX_MESSAGE}");
            return Err(config.invalid("gateway.max_message", why));
        }
        if self.heartbeat_timeout <= self.ping_interval {
            return Err(config.invalid("gateway.heartbeat_timeout", "must be longer than `ping_interval`"));
        }
        if self.request_memory < self.max_message {
            return Err(config.invalid("gateway.request_memory", "must be at least `max_message`"));
        }
        for (index, listen) in self.listen.iter().enumerate() {
            listen.check(index, config)?;
        }
        Ok(self.limits())
    }

    /// The section as limits, in the units in which they are compared.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_message: bytes(self.max_message),
            handshake_timeout: self.handshake_timeout,
            connect_timeout: self.connect_timeout,
            request_timeout: self.request_timeout,
            max_requests: self.max_requests,
            request_memory: bytes(self.request_memory),
            ping_interval: self.ping_interval,
            heartbeat_timeout: self.heartbeat_timeout,
            close_timeout: self.close_timeout,
            send_buffer: bytes(self.send_buffer),
            slow_client: self.slow_client,
            max_session: bytes(self.max_session),
            max_groups: self.max_groups,
            client_in_flight: self.client_in_flight,
            link_in_flight: bytes(self.link_in_flight),
            client_waiting: bytes(self.client_waiting),
            waiting: bytes(self.waiting),
            reload_spread: self.reload_spread,
            stop_spread: self.stop_spread,
        }
    }
}

#[cfg(test)]
impl Default for Limits {
    fn default() -> Self {
        GatewaySettings::default().limits()
    }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// The largest `max_message`: a link carries a message of this size in parts, with room for what is around it.
const MAX_MAX_MESSAGE: ByteSize = ByteSize::mib(64);
