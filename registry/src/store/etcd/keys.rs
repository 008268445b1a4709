//! Where things are in etcd: registrations at `PREFIX/nodes/ADDRESS/NODE/LEASE`, holders of leases at `PREFIX/held/NAME`.
//!
//! All registrations at an address are one range, so that a transaction can tell whether any of them has changed.

use bytes::Bytes;
use meepo_proto::registry::NodeId;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::client::{EtcdLease, KeyRange};

/// Characters that would change the meaning of a key.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'/').add(b'%');

/// The key of a registration: of one node by one registry child.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RegistrationKey {
    /// Where others reach the node. `None` for a worker, and for a gateway that has drained and gone.
    pub(crate) address: Option<String>,
    /// The node.
    pub(crate) node: NodeId,
    /// The lease that the key is under: that of the registry child, or one of its own for a drained gateway.
    pub(crate) lease: EtcdLease,
}

/// Writes and reads keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// The folder of registrations; ends with a slash.
    nodes: String,
    /// The folder of leased names; ends with a slash.
    leases: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self {
            nodes: format!("{prefix}/nodes/"),
            leases: format!("{prefix}/held/"),
        }
    }

    /// The keys of all leased names.
    pub(crate) fn all_leases(&self) -> KeyRange {
        KeyRange::below(self.leases.clone())
    }

    /// The key of a leased name; its value is the holder's id.
    pub(crate) fn lease(&self, name: &str) -> Bytes {
        format!("{}{}", self.leases, utf8_percent_encode(name, ESCAPED)).into()
    }

    /// The keys of all registrations.
    pub(crate) fn all_registrations(&self) -> KeyRange {
        KeyRange::below(self.nodes.clone())
    }

    /// The keys of the registrations at an address.
    pub(crate) fn at_address(&self, address: &str) -> KeyRange {
        KeyRange::below(self.folder(address))
    }

    /// The keys of a node's registrations at an address.
    pub(crate) fn of_node(&self, address: &str, node: NodeId) -> KeyRange {
        KeyRange::below(format!("{}{node}/", self.folder(address)))
    }

    /// The key of a registration as etcd has it.
    pub(crate) fn registration(&self, key: &RegistrationKey) -> Bytes {
        let folder = self.folder(key.address.as_deref().unwrap_or_default());
        format!("{folder}{}/{:016x}", key.node, key.lease.0).into()
    }

    /// Reads what [`registration`](Self::registration) has written; `None` if it is another key.
    pub(crate) fn read(&self, key: &[u8]) -> Option<RegistrationKey> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.nodes)?;
        let mut parts = rest.split('/');
        let (address, node, lease) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let address = percent_decode_str(address).decode_utf8().ok()?;
        Some(RegistrationKey {
            address: (!address.is_empty()).then(|| address.into_owned()),
            node: NodeId(u64::from_str_radix(node, 16).ok()?),
            lease: EtcdLease(i64::from_str_radix(lease, 16).ok()?),
        })
    }

    /// The folder of an address, which is empty for a worker; ends with a slash.
    fn folder(&self, address: &str) -> String {
        format!("{}{}/", self.nodes, utf8_percent_encode(address, ESCAPED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, node: u64) -> RegistrationKey {
        RegistrationKey {
            address: (!address.is_empty()).then(|| address.into()),
            node: NodeId(node),
            lease: EtcdLease(0x7f00_0000_0000_0001),
        }
    }

    #[test]
    fn keys_can_be_read_again() {
        let keys = Keys::new("/meepo");
        for address in ["", "10.0.0.1:19912", "[2001:db8::1]:19912", "a/b%2F\n:1", "höst:1"] {
            let key = key(address, 7);
            assert_eq!(keys.read(&keys.registration(&key)), Some(key));
        }
        assert_eq!(
            keys.registration(&key("10.0.0.1:19912", 7)),
            "/meepo/nodes/10.0.0.1:19912/0000000000000007/7f00000000000001"
        );
        for other in [
            &b"/meepo/nodes/a:1"[..],
            b"/meepo/nodes/a:1/7",
            b"/meepo/nodes/a:1/7/8/9",
            b"/meepo/nodes/a:1/x/8",
            b"/other/nodes/a:1/7/8",
            b"\xff",
        ] {
            assert_eq!(keys.read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_name_is_one_key_whatever_characters_it_has() {
        let keys = Keys::new("/meepo");
        assert_eq!(keys.lease("a/b%"), "/meepo/held/a%2Fb%25");
        assert!(keys.all_leases().contains(&keys.lease("a/b")));
        assert_eq!(keys.read(&keys.lease("a")), None);
    }

    #[test]
    fn ranges_have_their_own_keys_and_no_others() {
        let keys = Keys::new("/meepo/");
        let has = |range: KeyRange, key: &RegistrationKey| range.contains(&keys.registration(key));
        let here = key("a:1", 7);
        let strangers = [key("a:11", 7), key("a", 7), key("a/:1", 7), key("", 7)];
        assert!(has(keys.all_registrations(), &here));
        assert!(has(keys.at_address("a:1"), &here) && has(keys.of_node("a:1", NodeId(7)), &here));
        for stranger in &strangers {
            assert!(has(keys.all_registrations(), stranger) && !has(keys.at_address("a:1"), stranger));
        }
        assert!(has(keys.at_address(""), &key("", 7)));
        for other in [8, 0, 0x77] {
            assert!(!has(keys.of_node("a:1", NodeId(7)), &key("a:1", other)));
        }
        assert!(!keys.all_registrations().contains(b"/meepo/other"));
    }
}
