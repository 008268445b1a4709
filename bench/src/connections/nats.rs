//! What a connection to a NATS server says inside its WebSocket: the loads as subscriptions and publishes.
//!
//! Echo is a publish to a subject that only this connection has subscribed to.

use crate::error::Failure;

/// Introduces the connection, and asks for an answer that says that all this is done.
pub(crate) fn greeting(number: usize) -> Vec<u8> {
    format!(
        "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {own} {own}\r\nPING\r\n",
        own = own(number)
    )
    .into_bytes()
}

pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// A message of the bench's protocol as a command: what its first byte asks of a server is asked of this one.
pub(crate) fn command(number: usize, payload: &[u8]) -> Vec<u8> {
    match payload {
        [b'J'] => b"SUB room room\r\n".to_vec(),
        [b'J', name @ ..] => [b"SUB ", name, b" ", name, b"\r\n"].concat(),
        [b'P', ..] => publish(b"room", payload),
        [b'G', rest @ ..] => publish(rest.get(..8).unwrap_or_default(), payload),
        _ => publish(own(number).as_bytes(), payload),
    }
}

/// Several generators can be there at the same time.
fn own(number: usize) -> String {
    format!("c{}-{number}", std::process::id())
}

fn publish(subject: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = payload.len().to_string();
    [b"PUB ", subject, b" ", length.as_bytes(), b"\r\n", payload, b"\r\n"].concat()
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Info,
    Message(&'a [u8]),
    Ping,
    Pong,
    Ok,
}

/// What the input begins with, and how many bytes that takes; nothing if it is not all there yet.
pub(crate) fn decode(input: &[u8]) -> Result<Option<(Said<'_>, usize)>, Failure> {
    let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else {
        return Ok(None);
    };
    let (line, used) = (String::from_utf8_lossy(&input[..end]), end + 2);
    let said = match line.split_once(' ').map_or(&*line, |(word, _)| word) {
        "INFO" => Said::Info,
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "+OK" => Said::Ok,
        "MSG" => {
            let length: Option<usize> = line.rsplit(' ').next().and_then(|length| length.parse().ok());
            let length = length.ok_or(Failure::Unsupported("a NATS message without a length"))?;
            return Ok(input
                .get(used..used + length + 2)
                .map(|rest| (Said::Message(&rest[..length]), used + length + 2)));
        }
        _ => return Err(Failure::Closed(line.into_owned())),
    };
    Ok(Some((said, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_a_publish_to_oneself() {
        let greeting = String::from_utf8(greeting(7)).unwrap();
        let own = own(7);
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
        assert_eq!(decode(input).unwrap(), Some((Said::Message(b"E\r\nxy"), 20)));
        assert_eq!(decode(&input[20..]).unwrap(), Some((Said::Ping, 6)));
        let error = decode(b"-ERR 'Maximum Payload Violation'\r\n").unwrap_err();
        assert!(error.to_string().contains("Maximum Payload"), "{error}");
    }
}
