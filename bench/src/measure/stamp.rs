//! The stamp of a payload: a number, so that lost and reordered messages are seen, and the time that its latency counts from.

use std::io::Write;
use std::time::{Duration, Instant};

/// Bytes of a stamp: its kind, 8 hexadecimal digits of the group, 8 of the number, 12 of the time.
pub(crate) const SIZE: usize = 29;
/// The largest payload: the default limit of most gateways is far below.
pub(crate) const MAX_PAYLOAD: usize = 16 << 20;

const FILL: u8 = b'x';

/// The first byte of a message, which says what a server does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Echo = b'E',
    Publish = b'P',
    /// A publish to a group that is not the one room.
    Group = b'G',
    /// A publish to the one room, but not to its sender.
    Others = b'O',
}

/// The first bytes of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
    /// Its eight digits are the group's name.
    pub(crate) group: u32,
    pub(crate) number: u32,
    /// When the message was due, on the clock of the run.
    pub(crate) at: Duration,
}

/// A payload that is stamped again for each message.
#[derive(Debug)]
pub(crate) struct Payload(Vec<u8>);

impl Payload {
    pub(crate) fn new(size: usize) -> Self {
        debug_assert!(size >= SIZE, "checked on the command line");
        Self(vec![FILL; size])
    }

    /// The payload of one message.
    pub(crate) fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        self.0[0] = stamp.kind as u8;
        let nanos = (stamp.at.as_nanos() as u64) & 0xffff_ffff_ffff;
        write!(
            &mut self.0[1..SIZE],
            "{:08x}{:08x}{nanos:012x}",
            stamp.group,
            stamp.number
        )
        .expect("a stamp has a fixed size");
        &self.0
    }

    /// The stamp of a payload that came back; none if the payload was damaged.
    pub(crate) fn read(&self, kind: Kind, payload: &[u8]) -> Option<Stamp> {
        if payload.len() != self.0.len() || payload[0] != kind as u8 || payload[SIZE..] != self.0[SIZE..] {
            return None;
        }
        let digits = std::str::from_utf8(&payload[1..SIZE]).ok()?;
        Some(Stamp {
            kind,
            group: u32::from_str_radix(&digits[..8], 16).ok()?,
            number: u32::from_str_radix(&digits[8..16], 16).ok()?,
            at: Duration::from_nanos(u64::from_str_radix(&digits[16..], 16).ok()?),
        })
    }
}

/// The time since a run began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }

    /// The instant at which this clock shows that time.
    pub(crate) fn at(self, time: Duration) -> Instant {
        self.0 + time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_the_way_there_and_back() {
        let mut payload = Payload::new(64);
        let stamp = Stamp {
            kind: Kind::Echo,
            group: 0xffff_fffe,
            number: u32::MAX,
            at: Duration::from_nanos(0xffff_ffff_fffe),
        };
        let sent = payload.stamped(stamp).to_vec();
        assert_eq!(sent.len(), 64);
        assert_eq!(payload.read(Kind::Echo, &sent), Some(stamp));
    }

    #[test]
    fn a_damaged_payload_has_no_stamp() {
        let mut payload = Payload::new(SIZE + 2);
        let stamp = Stamp {
            kind: Kind::Publish,
            group: 0,
            number: 7,
            at: Duration::ZERO,
        };
        let sent = payload.stamped(stamp).to_vec();
        assert_eq!(payload.read(Kind::Echo, &sent), None);
        assert_eq!(payload.read(Kind::Publish, &sent[..SIZE]), None);
        for place in 1..sent.len() {
            let mut damaged = sent.clone();
            damaged[place] = b'\xff';
            assert_eq!(payload.read(Kind::Publish, &damaged), None, "byte {place}");
        }
        assert_eq!(payload.read(Kind::Publish, b""), None);
    }
}
