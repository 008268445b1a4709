//! The address that a node tells others, which need not be the one it binds.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};

/// No address can be told to others.
#[derive(Debug, thiserror::Error)]
pub enum AdvertiseError {
    /// The configured text is no address.
    #[error("cannot advertise `{0}`: it must be a host name or an IP address, and may have a port")]
    Invalid(String),
    /// The configured address means "all addresses of this host".
    #[error("cannot advertise `{0}`: nobody can connect to it; configure a host name or address that others reach")]
    Unspecified(String),
    /// Others would look for the node at their own host.
    #[error(
        "cannot advertise `{address}`: the registry `{registry}` is not on loopback, so other hosts would be told to \
         connect to themselves; bind an address that they reach, or configure which one to advertise"
    )]
    Loopback {
        /// The address that would have been advertised.
        address: String,
        /// The registry that others come to as well.
        registry: String,
    },
    /// The registry's name has no address (yet).
    #[error("cannot tell which address to advertise: the registry `{registry}` cannot be resolved")]
    Unresolved {
        /// The registry.
        registry: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no way to the registry (yet).
    #[error("cannot tell which address to advertise: there is no route to the registry `{registry}`")]
    NoRoute {
        /// The registry.
        registry: String,
        /// Why not.
        source: io::Error,
    },
}

impl AdvertiseError {
    /// Whether a later attempt may succeed, when the network is up.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unresolved { .. } | Self::NoRoute { .. })
    }
}

/// The address that a node tells others, as host and port, when it binds `bind`.
///
/// The configured address comes first (a port that it leaves out is the bound one), then the bound address, and for a bound
/// address that means "all" the address that leads to the registry. An address that others cannot reach is an error. This may
/// resolve host names, so it blocks.
pub fn advertised(bind: SocketAddr, configured: Option<&str>, registries: &[String]) -> Result<String, AdvertiseError> {
    let (host, port) = match configured {
        Some(text) => split(text, bind.port())?,
        None if bind.ip().is_unspecified() => (outward(bind, registries)?.to_string(), bind.port()),
        None => (bind.ip().to_string(), bind.port()),
    };
    let ip = host.parse::<IpAddr>().map(|ip| ip.to_canonical()).ok();
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    if ip.is_some_and(|ip| ip.is_unspecified()) || port == 0 {
        return Err(AdvertiseError::Unspecified(address));
    }
    if ip.map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback()) {
        for registry in registries {
            if !resolve(registry)?.iter().all(|at| at.ip().to_canonical().is_loopback()) {
                return Err(AdvertiseError::Loopback {
                    address,
                    registry: registry.clone(),
                });
            }
        }
    }
    Ok(address)
}

/// Host and port of a configured address.
fn split(text: &str, default_port: u16) -> Result<(String, u16), AdvertiseError> {
    let invalid = || AdvertiseError::Invalid(text.to_owned());
    if let Ok(at) = text.parse::<SocketAddr>() {
        return Ok((at.ip().to_string(), at.port()));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = bare.unwrap_or(text).parse::<IpAddr>() {
        return Ok((ip.to_string(), default_port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| invalid())?),
        None => (text, default_port),
    };
    let is_name = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err(invalid());
    }
    Ok((host.to_owned(), port))
}

fn resolve(registry: &str) -> Result<Vec<SocketAddr>, AdvertiseError> {
    let found = registry
        .to_socket_addrs()
        .map_err(|source| AdvertiseError::Unresolved {
            registry: registry.to_owned(),
            source,
        })?;
    Ok(found.collect())
}

/// The address of this host from which it reaches a registry, one on another host if there is any.
fn outward(bind: SocketAddr, registries: &[String]) -> Result<IpAddr, AdvertiseError> {
    let mut local = None;
    let mut failure = None;
    for registry in registries {
        match route(bind, registry) {
            Ok(ip) if ip.is_loopback() => local = Some(ip),
            Ok(ip) => return Ok(ip),
            Err(error) => failure = Some(error),
        }
    }
    match (failure, local) {
        (Some(error), _) => Err(error),
        (None, Some(ip)) => Ok(ip),
        (None, None) => Err(AdvertiseError::Unspecified(bind.to_string())),
    }
}

/// Asks the kernel which way a packet to the registry would take; none is sent.
fn route(bind: SocketAddr, registry: &str) -> Result<IpAddr, AdvertiseError> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for at in resolve(registry)? {
        // A node that listens on IPv4 only cannot be reached at an IPv6 address.
        if bind.is_ipv4() && at.is_ipv6() {
            continue;
        }
        let any: IpAddr = if at.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let asked = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(at)?;
            socket.local_addr()
        });
        match asked {
            Ok(local) => return Ok(local.ip()),
            Err(error) => last = error,
        }
    }
    Err(AdvertiseError::NoRoute {
        registry: registry.to_owned(),
        source: last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address or the variant of the error.
    fn told(bind: &str, configured: Option<&str>, registries: &[&str]) -> String {
        let registries: Vec<String> = registries.iter().map(|&r| r.to_owned()).collect();
        match advertised(bind.parse().unwrap(), configured, &registries) {
            Ok(address) => address,
            Err(AdvertiseError::Invalid(_)) => "invalid".into(),
            Err(AdvertiseError::Unspecified(_)) => "unspecified".into(),
            Err(AdvertiseError::Loopback { .. }) => "loopback".into(),
            Err(AdvertiseError::Unresolved { .. }) => "unresolved".into(),
            Err(AdvertiseError::NoRoute { .. }) => "no route".into(),
        }
    }

    #[test]
    fn the_rules() {
        const HERE: &[&str] = &["127.0.0.1:19911"];
        const NEAR_AND_FAR: &[&str] = &["127.0.0.1:19911", "192.0.2.7:19911"];
        const UNKNOWN: &[&str] = &["registry.invalid:19911"];
        let table: &[(&str, Option<&str>, &[&str], &str)] = &[
            // A bound address advertises itself.
            ("127.0.0.1:19912", None, HERE, "127.0.0.1:19912"),
            ("127.0.0.2:19912", None, &["localhost:19911"], "127.0.0.2:19912"),
            ("192.0.2.1:19912", None, NEAR_AND_FAR, "192.0.2.1:19912"),
            ("[2001:db8::1]:19912", None, HERE, "[2001:db8::1]:19912"),
            // All addresses: the one that leads to the registry.
            ("0.0.0.0:19912", None, HERE, "127.0.0.1:19912"),
            ("0.0.0.0:19912", None, &["127.0.0.5:19911"], "127.0.0.1:19912"),
            ("0.0.0.0:19912", None, &[], "unspecified"),
            ("0.0.0.0:19912", None, UNKNOWN, "unresolved"),
            ("0.0.0.0:19912", None, &["[::1]:19911"], "no route"),
            // The configured address comes first.
            ("0.0.0.0:19912", Some("gateway-1"), UNKNOWN, "gateway-1:19912"),
            (
                "0.0.0.0:19912",
                Some("gw.example.org:443"),
                NEAR_AND_FAR,
                "gw.example.org:443",
            ),
            (
                "127.0.0.1:19912",
                Some("198.51.100.4"),
                NEAR_AND_FAR,
                "198.51.100.4:19912",
            ),
            ("[::]:19912", Some("2001:db8::5"), NEAR_AND_FAR, "[2001:db8::5]:19912"),
            ("[::]:19912", Some("[2001:db8::5]:7"), NEAR_AND_FAR, "[2001:db8::5]:7"),
            // Loopback is for loopback.
            ("127.0.0.1:19912", None, NEAR_AND_FAR, "loopback"),
            ("[::1]:19912", None, NEAR_AND_FAR, "loopback"),
            ("127.0.0.1:19912", None, UNKNOWN, "unresolved"),
            ("0.0.0.0:19912", Some("127.0.0.1"), NEAR_AND_FAR, "loopback"),
            ("0.0.0.0:19912", Some("localhost:5"), NEAR_AND_FAR, "loopback"),
            ("0.0.0.0:19912", Some("localhost:5"), HERE, "localhost:5"),
            // These are addresses that no node can connect to.
            ("127.0.0.1:19912", Some("0.0.0.0"), HERE, "unspecified"),
            ("127.0.0.1:19912", Some("[::]:5"), HERE, "unspecified"),
            ("127.0.0.1:19912", Some("host:0"), HERE, "unspecified"),
            ("127.0.0.1:19912", Some(""), HERE, "invalid"),
            ("127.0.0.1:19912", Some("a b"), HERE, "invalid"),
            ("127.0.0.1:19912", Some("http://host"), HERE, "invalid"),
            ("127.0.0.1:19912", Some("host:"), HERE, "invalid"),
            ("127.0.0.1:19912", Some("host:99999"), HERE, "invalid"),
            ("127.0.0.1:19912", Some("[::1"), HERE, "invalid"),
        ];
        for &(bind, configured, registries, expected) in table {
            let told = told(bind, configured, registries);
            assert_eq!(
                told, expected,
                "bind {bind}, configured {configured:?}, registries {registries:?}"
            );
        }
    }

    #[test]
    fn only_what_may_pass_is_temporary() {
        let ask = |configured, registry: &str| {
            advertised("0.0.0.0:1".parse().unwrap(), configured, &[registry.to_owned()]).unwrap_err()
        };
        assert!(ask(None, "registry.invalid:1").is_temporary());
        assert!(!ask(Some("a b"), "127.0.0.1:1").is_temporary());
        let error = ask(Some("127.0.0.1"), "192.0.2.7:1");
        assert!(!error.is_temporary());
        assert!(error.to_string().contains("`192.0.2.7:1`"), "{error}");
    }
}
