//! Records of the link between front and back: a length, a client's number, a kind, and the payload.

const HEAD: usize = 9;

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// From the front: a client's message. From the back: a message to that client.
    Message,
    /// The client becomes a member of a group.
    Join,
    /// A message to all members of a group.
    Publish,
    /// A message to all members of a group but the client.
    Others,
}

/// Appends a record.
pub(super) fn push(out: &mut Vec<u8>, kind: RecordKind, client: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_ne_bytes());
    out.extend_from_slice(&client.to_ne_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
}

/// Gives each complete record to `on`, and returns how many bytes they had.
pub(super) fn each(input: &[u8], mut on: impl FnMut(RecordKind, u32, &[u8])) -> usize {
    let mut used = 0;
    while let Some((head, rest)) = input[used..].split_first_chunk::<HEAD>() {
        let [a, b, c, d, e, f, g, h, kind] = *head;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(payload) = rest.get(..length) else { break };
        let kind = match kind {
            0 => RecordKind::Message,
            1 => RecordKind::Join,
            2 => RecordKind::Publish,
            _ => RecordKind::Others,
        };
        on(kind, u32::from_ne_bytes([e, f, g, h]), payload);
        used += HEAD + length;
    }
    used
}

/// The name of the group that a client's message joins or publishes to; that of the one room is empty.
pub(super) fn group(payload: &[u8]) -> &[u8] {
    match payload {
        [b'J', name @ ..] => name,
        [b'G', rest @ ..] => rest.get(..8).unwrap_or_default(),
        _ => &[],
    }
}

/// What a client's message asks for.
pub(super) fn decide(payload: &[u8]) -> RecordKind {
    match payload.first() {
        Some(b'J') => RecordKind::Join,
        Some(b'P' | b'G') => RecordKind::Publish,
        Some(b'O') => RecordKind::Others,
        _ => RecordKind::Message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names() {
        assert_eq!((group(b"J"), group(b"P1234567890")), (&b""[..], &b""[..]));
        assert_eq!(
            (group(b"Jabcdefgh"), group(b"Gabcdefgh12")),
            (&b"abcdefgh"[..], &b"abcdefgh"[..])
        );
    }

    #[test]
    fn records_come_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        push(&mut bytes, RecordKind::Message, 7, b"hello");
        push(&mut bytes, RecordKind::Join, 8, b"");
        push(&mut bytes, RecordKind::Publish, u32::MAX, b"P");
        let whole = bytes.len();
        bytes.extend_from_slice(&[200, 0, 0, 0, 1]);
        let mut got = Vec::new();
        let used = each(&bytes, |kind, client, payload| {
            got.push((kind, client, payload.to_vec()))
        });
        assert_eq!(used, whole);
        assert_eq!(
            got,
            [
                (RecordKind::Message, 7, b"hello".to_vec()),
                (RecordKind::Join, 8, Vec::new()),
                (RecordKind::Publish, u32::MAX, b"P".to_vec())
            ]
        );
    }
}
