//! Numbers and ranges of etcd's API as types of their own.

use bytes::Bytes;

/// A lease at etcd: keys that are put under it are deleted when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EtcdLease(pub(crate) i64);

/// A revision of all that etcd has: it grows with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision(pub(crate) i64);

/// Some keys of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    first: Bytes,
    /// What comes after the last key; empty if the first key is the only one.
    end: Bytes,
}

impl KeyRange {
    /// One key.
    pub(crate) fn one(key: Bytes) -> Self {
        Self {
            first: key,
            end: Bytes::new(),
        }
    }

    /// All keys that begin with a text, which ends with a slash.
    pub(crate) fn below(folder: String) -> Self {
        let mut end = folder.clone();
        end.pop();
        // The character after the slash.
        end.push('0');
        Self {
            first: folder.into(),
            end: end.into(),
        }
    }

    /// `key` and `range_end` of a request.
    pub(crate) fn into_parts(self) -> (Bytes, Bytes) {
        (self.first, self.end)
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self.end.is_empty() {
            true => self.first == key,
            false => &self.first[..] <= key && key < &self.end[..],
        }
    }
}
