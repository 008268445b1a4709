//! The table of close codes: the code and the reason that a client is sent when it is closed, and whether it should reconnect.

/// Whether a client should reconnect after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// No: it would be closed again for the same cause.
    No,
    /// Yes: at once, or after a short random pause.
    Yes,
}

/// A close code that Meepo itself sends. Applications use 3000 to 4999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseCode {
    /// The number on the wire.
    pub code: u16,
    /// The reason on the wire.
    pub reason: &'static str,
    /// Whether the client should reconnect.
    pub reconnect: Reconnect,
}

const fn close(code: u16, reason: &'static str, reconnect: Reconnect) -> CloseCode {
    CloseCode {
        code,
        reason,
        reconnect,
    }
}

/// A worker has closed the client and named no code.
pub const NORMAL: CloseCode = close(1000, "", Reconnect::No);
/// The gateway stops.
pub const GOING_AWAY: CloseCode = close(1001, "gateway stops", Reconnect::Yes);
/// The client has broken the protocol.
pub const PROTOCOL_ERROR: CloseCode = close(1002, "protocol error", Reconnect::No);
/// A text message of the client was not UTF-8.
pub const INVALID_TEXT: CloseCode = close(1007, "text is not UTF-8", Reconnect::No);
/// A worker has rejected a client that another worker had accepted.
pub const POLICY: CloseCode = close(1008, "rejected", Reconnect::No);
/// The client has not read the messages that it was sent: its send buffer is full.
pub const SLOW_CLIENT: CloseCode = close(1008, "slow client", Reconnect::Yes);
/// The client was silent for longer than its heartbeat allows.
pub const HEARTBEAT_LOST: CloseCode = close(1008, "heartbeat lost", Reconnect::Yes);
/// A message of the client was larger than the limit.
pub const TOO_BIG: CloseCode = close(1009, "message too big", Reconnect::No);
/// An event of the client was given up, since several links ended while it was in flight.
pub const GIVEN_UP: CloseCode = close(1011, "message could not be handled", Reconnect::Yes);
/// The gateway restarts: its next generation is there.
pub const RESTART: CloseCode = close(1012, "gateway restarts", Reconnect::Yes);

/// All close codes that Meepo sends, in the order of their numbers.
pub const ALL: [CloseCode; 10] = [
    NORMAL,
    GOING_AWAY,
    PROTOCOL_ERROR,
    INVALID_TEXT,
    POLICY,
    SLOW_CLIENT,
    HEARTBEAT_LOST,
    TOO_BIG,
    GIVEN_UP,
    RESTART,
];

/// Whether an application may send this code: 1000, 1001, 1008, 1011 to 1013, and 3000 to 4999.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handbook_has_them_all() {
        let page = include_str!("../../docs/src/protocols.md");
        for CloseCode { code, reconnect, .. } in ALL {
            let row = page
                .lines()
                .find(|line| line.starts_with(&format!("| {code} |")))
                .unwrap_or_default();
            let answer = if reconnect == Reconnect::Yes { "yes" } else { "no" };
            assert!(row.contains(answer), "{code}: {row:?}");
            assert!(may_be_sent(code) || matches!(code, 1002 | 1007 | 1009), "{code}");
        }
    }
}
