//! A client protocol, as everything outside its own folder knows it.

use bytes::Bytes;

/// How many client protocols there are. What is encoded once for all its receivers has a cell for each.
pub(crate) const CODECS: usize = 2;

/// A client protocol: how it is called, and how the gateway speaks it.
#[derive(Debug)]
pub(crate) struct Codec {
    /// The name in configuration, `status` and on the link.
    pub(crate) name: &'static str,
    /// The cell of this protocol in what is encoded once: below [`CODECS`], and no other protocol's.
    pub(crate) index: usize,
    /// The frame of a message, by its payload and whether that is binary.
    pub(crate) encode: fn(&[u8], bool) -> Bytes,
    /// The last frame of a client that the gateway closes, by close code and reason, if the protocol has one.
    pub(crate) close: fn(Option<u16>, &str) -> Option<Bytes>,
    /// The frame that a silent client has to answer, if the protocol has one.
    pub(crate) ping: Option<&'static [u8]>,
}

impl Codec {
    /// Checked when the program is compiled: a codec whose cell is not there does not build.
    pub(crate) const fn checked(self) -> Self {
        assert!(self.index < CODECS, "a new client protocol needs a larger `CODECS`");
        self
    }
}
