//! Where registrations are in etcd: `PREFIX/nodes/ADDRESS/NODE/SESSION`. The holder of a name is at `PREFIX/held/NAME`.
//!
//! All that is known of an address is one range, so that a transaction can tell whether anything there has changed.

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What would make a key mean something else.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'/').add(b'%');

/// A node as one registry child knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Where others reach the node; empty for a worker.
    pub(crate) address: String,
    /// The node's id.
    pub(crate) node: u64,
    /// The etcd lease of the registry child.
    pub(crate) session: i64,
}

/// All keys from the first to before the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range(pub(crate) Bytes, pub(crate) Bytes);

/// The names of keys.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Ends with a slash.
    root: String,
    /// Where names that have a holder are; ends with a slash.
    held: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self {
            root: format!("{prefix}/nodes/"),
            held: format!("{prefix}/held/"),
        }
    }

    /// All names that have a holder.
    pub(crate) fn all_held(&self) -> Range {
        below(self.held.clone())
    }

    /// The holder of a name.
    pub(crate) fn held(&self, name: &str) -> Range {
        let key = format!("{}{}", self.held, utf8_percent_encode(name, ESCAPED));
        Range(key.into(), Bytes::new())
    }

    /// All registrations.
    pub(crate) fn all(&self) -> Range {
        below(self.root.clone())
    }

    /// Those at an address.
    pub(crate) fn at(&self, address: &str) -> Range {
        below(self.place(address))
    }

    /// Those of a node at an address.
    pub(crate) fn of(&self, address: &str, node: u64) -> Range {
        below(format!("{}{node:016x}/", self.place(address)))
    }

    pub(crate) fn write(&self, key: &Key) -> Bytes {
        let place = self.place(&key.address);
        format!("{place}{:016x}/{:016x}", key.node, key.session).into()
    }

    /// `None` if it is not one of ours.
    pub(crate) fn read(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        let mut parts = rest.split('/');
        let (address, node, session) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Key {
            address: percent_decode_str(address).decode_utf8().ok()?.into_owned(),
            node: u64::from_str_radix(node, 16).ok()?,
            session: i64::from_str_radix(session, 16).ok()?,
        })
    }

    fn place(&self, address: &str) -> String {
        format!("{}{}/", self.root, utf8_percent_encode(address, ESCAPED))
    }
}

/// All keys that begin with a text, which ends with a slash.
fn below(text: String) -> Range {
    let mut end = text.clone();
    end.pop();
    // The character after the slash.
    end.push('0');
    Range(text.into(), end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, node: u64) -> Key {
        Key {
            address: address.into(),
            node,
            session: 0x7f00_0000_0000_0001,
        }
    }

    #[test]
    fn keys_can_be_read_again() {
        let keys = Keys::new("/meepo");
        for address in ["", "10.0.0.1:19912", "[2001:db8::1]:19912", "a/b%2F\n:1", "höst:1"] {
            let key = key(address, 7);
            assert_eq!(keys.read(&keys.write(&key)), Some(key));
        }
        assert_eq!(
            keys.write(&key("10.0.0.1:19912", 7)),
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
    fn a_name_is_one_key_whatever_it_has() {
        let keys = Keys::new("/meepo");
        assert_eq!(keys.held("a/b%").0, "/meepo/held/a%2Fb%25");
        let Range(first, end) = keys.all_held();
        assert!((first..end).contains(&keys.held("a/b").0));
        assert_eq!(keys.read(&keys.held("a").0), None);
    }

    #[test]
    fn ranges_hold_what_they_should_and_nothing_else() {
        let keys = Keys::new("/meepo/");
        let holds = |range: &Range, key: &Key| (range.0.clone()..range.1.clone()).contains(&keys.write(key));
        let here = key("a:1", 7);
        let strangers = [key("a:11", 7), key("a", 7), key("a/:1", 7), key("", 7)];
        assert!(holds(&keys.all(), &here) && holds(&keys.at("a:1"), &here) && holds(&keys.of("a:1", 7), &here));
        for stranger in &strangers {
            assert!(holds(&keys.all(), stranger) && !holds(&keys.at("a:1"), stranger));
        }
        assert!(holds(&keys.at(""), &key("", 7)));
        assert!(!holds(&keys.of("a:1", 7), &key("a:1", 8)) && !holds(&keys.of("a:1", 7), &key("a:1", 0x77)));
        assert!(!(keys.all().0..keys.all().1).contains(&Bytes::from("/meepo/other")));
    }
}
