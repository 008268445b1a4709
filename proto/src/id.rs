//! Identifiers of clients, gateways and workers, and the numbers that they give.
//!
//! A gateway child draws its id at random when it starts and never uses it again, so a client's id is never reused.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

/// One run of a gateway child.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayId(pub u64);

/// One run of a worker child.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A client: a connection of one run of a gateway child. Its text form is 22 characters, safe in a URL.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    /// The gateway child that holds the connection.
    pub gateway: GatewayId,
    /// The client's number at that child.
    pub number: ClientNumber,
}

/// Defines a number that one side counts, from 1. It travels as a bare `u64`.
macro_rules! number {
    ($(#[doc = $doc:literal] $name:ident,)*) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl From<u64> for $name {
            fn from(number: u64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

number! {
    /// A client's number at its gateway child.
    ClientNumber,
    /// A forwarded HTTP request's number at its gateway child.
    RequestNumber,
    /// An event's number on its link.
    Seq,
    /// An event's number among the events of its client, the same whenever it is delivered.
    EventNumber,
    /// A query's number on its link.
    QueryId,
}

/// The text is not a client id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a client id: it must be the 22 characters that the gateway gave")]
pub struct InvalidClientId;

impl GatewayId {
    /// Draws an id that no other run has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl WorkerId {
    /// Draws an id that no other run has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl ClientId {
    /// The client with this number at this gateway.
    pub fn new(gateway: GatewayId, number: impl Into<ClientNumber>) -> Self {
        let number = number.into();
        Self { gateway, number }
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&self.gateway.0.to_be_bytes());
        raw[8..].copy_from_slice(&self.number.0.to_be_bytes());
        let mut text = [0; 22];
        BASE64URL_NOPAD.encode_mut(&raw, &mut text);
        f.write_str(std::str::from_utf8(&text).expect("base64 is ASCII"))
    }
}

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(text: &str) -> Result<Self, InvalidClientId> {
        if text.len() != 22 {
            return Err(InvalidClientId);
        }
        let raw = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| InvalidClientId)?;
        let (gateway, number) = raw.split_at_checked(8).ok_or(InvalidClientId)?;
        let gateway = u64::from_be_bytes(gateway.try_into().map_err(|_| InvalidClientId)?);
        let number = u64::from_be_bytes(number.try_into().map_err(|_| InvalidClientId)?);
        if gateway == 0 || number == 0 {
            return Err(InvalidClientId);
        }
        Ok(Self::new(GatewayId(gateway), number))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_is_short() {
        for (gateway, number) in [(1, 1), (u64::MAX, u64::MAX), (0x0123_4567_89ab_cdef, 42)] {
            let id = ClientId::new(GatewayId(gateway), number);
            let text = id.to_string();
            assert_eq!(text.len(), 22);
            assert_eq!(text.parse(), Ok(id));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let good = ClientId::new(GatewayId(7), 9).to_string();
        let zero = ClientId::new(GatewayId(0), 9).to_string();
        let padded = format!("{good}==");
        let not_canonical = format!("{}/", &good[..21]);
        let last_bits = format!("{}B", &good[..21]);
        for text in [
            "",
            "1",
            &good[..21],
            &zero,
            &padded,
            &not_canonical,
            &last_bits,
            "äääääääääää",
        ] {
            assert_eq!(text.parse::<ClientId>(), Err(InvalidClientId), "{text:?}");
        }
    }
}
