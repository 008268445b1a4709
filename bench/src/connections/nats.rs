//! The NATS protocol inside WebSocket frames: the loads as subscriptions and publishes.
//!
//! An echo is a publish to a subject that only this connection has subscribed to.

use crate::error::Failure;

/// The first operations of a connection: connect, subscribe, and a ping whose pong says that both are done.
pub(crate) fn greeting(number: usize) -> Vec<u8> {
    format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {own} {own}\r\nPING\r\n",
        own = own_subject(number)
    )
    .into_bytes()
}

pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// A message of the bench's protocol as a NATS operation: its first byte says which.
pub(crate) fn command(number: usize, payload: &[u8]) -> Vec<u8> {
    match payload {
        [b'J'] => b"SUB room room\r\n".to_vec(),
        [b'J', name @ ..] => [b"SUB ", name, b" ", name, b"\r\n"].concat(),
        [b'P', ..] => publish(b"room", payload),
        [b'G', rest @ ..] => publish(rest.get(..8).unwrap_or_default(), payload),
        _ => publish(own_subject(number).as_bytes(), payload),
    }
}

/// The subject of one connection. Several generators may run at the same time, so the process id is part of it.
fn own_subject(number: usize) -> String {
    format!("c{}-{number}", std::process::id())
}

fn publish(subject: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = payload.len().to_string();
    [b"PUB ", subject, b" ", length.as_bytes(), b"\r\n", payload, b"\r\n"].concat()
}

/// An operation that a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Info,
    Message(&'a [u8]),
    Ping,
    Pong,
    Ok,
}

/// The operation at the beginning of the input, and its length; none if it is not complete yet.
pub(crate) fn decode(input: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Failure> {
    let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else {
        return Ok(None);
    };
    let (line, used) = (String::from_utf8_lossy(&input[..end]), end + 2);
    let operation = match line.split_once(' ').map_or(&*line, |(word, _)| word) {
        "INFO" => Operation::Info,
        "PING" => Operation::Ping,
        "PONG" => Operation::Pong,
        "+OK" => Operation::Ok,
        "MSG" => {
            let length: Option<usize> = line.rsplit(' ').next().and_then(|length| length.parse().ok());
            let length = length.ok_or(Failure::Unsupported("a NATS message without a length"))?;
            return Ok(input
                .get(used..used + length + 2)
                .map(|rest| (Operation::Message(&rest[..length]), used + length + 2)));
        }
        _ => return Err(Failure::Closed(line.into_owned())),
    };
    Ok(Some((operation, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_a_publish_to_oneself() {
        let greeting = String::from_utf8(greeting(7)).unwrap();
        let own = own_subject(7);
        assert!(greeting.contains(&format!("SUB {own} {own}\r\n")), "{greeting}");
        assert_eq!(command(7, b"Exy"), format!("PUB {own} 3\r\nExy\r\n").into_bytes());
    }

    #[test]
    fn messages_become_commands() {
        for (payload, text) in [
            ("J", "SUB room room\r\n"),
            ("J0000000a", "SUB 0000000a 0000000a\r\n"),
            ("Pxy", "PUB room 3\r\nPxy\r\n"),
            ("G0000000axy", "PUB 0000000a 11\r\nG0000000axy\r\n"),
        ] {
            assert_eq!(String::from_utf8(command(7, payload.as_bytes())).unwrap(), text);
        }
    }

    #[test]
    fn what_a_server_says_comes_whole_or_not_at_all() {
        let input = b"MSG c7 c7 5\r\nE\r\nxy\r\nPING\r\n";
        for cut in [3, 13, 18, 19] {
            assert_eq!(decode(&input[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(decode(input).unwrap(), Some((Operation::Message(b"E\r\nxy"), 20)));
        assert_eq!(decode(&input[20..]).unwrap(), Some((Operation::Ping, 6)));
        let error = decode(b"-ERR 'Maximum Payload Violation'\r\n").unwrap_err();
        assert!(error.to_string().contains("Maximum Payload"), "{error}");
    }
}
