//! Puts messages together that come in parts.

use std::marker::PhantomData;
use std::mem;

use bytes::Bytes;
use tonic::Status;

use super::InParts;
use meepo_proto::link::Part;

/// Bytes that are reserved for an announced message; more only when as many have come, so that an announcement alone takes no memory.
const AT_ONCE: usize = 4 << 20;

/// The bytes of the event or command that is coming in parts. An error is a fault of the other end, and ends the link.
#[derive(Debug)]
pub struct Assembly<M> {
    limit: usize,
    /// Bytes of the whole message that is put together, if there is one.
    size: Option<usize>,
    bytes: Vec<u8>,
    whole: PhantomData<fn() -> M>,
}

impl<M: InParts> Assembly<M> {
    /// Takes messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            size: None,
            bytes: Vec::new(),
            whole: PhantomData,
        }
    }

    /// Gives the message back if it is whole, or the whole message if this is its last part.
    pub fn take(&mut self, mut message: M) -> Result<Option<M>, Status> {
        match message.take_part() {
            None => Ok(Some(message)),
            Some(part) => self.add(part),
        }
    }

    fn add(&mut self, part: Part) -> Result<Option<M>, Status> {
        let Part { bytes, size } = part;
        let whole = match (self.size, size) {
            (None, None) => return Err(Status::invalid_argument("a part without a first part")),
            (None, Some(size)) => self.begin(size)?,
            (Some(whole), None) => whole,
            (Some(_), Some(_)) => {
                return Err(Status::invalid_argument(
                    "a first part before the last part of another message",
                ));
            }
        };
        if bytes.len() > whole - self.bytes.len() {
            return Err(Status::invalid_argument(
                "more bytes in parts than the first part announced",
            ));
        }
        self.reserve(bytes.len(), whole);
        self.bytes.extend_from_slice(&bytes);
        if self.bytes.len() < whole {
            return Ok(None);
        }
        self.size = None;
        // Payloads share the buffer, which has no spare capacity.
        let whole = M::decode(Bytes::from(mem::take(&mut self.bytes)));
        let mut whole =
            whole.map_err(|error| Status::invalid_argument(format!("a message in parts is not valid: {error}")))?;
        match whole.take_part() {
            None => Ok(Some(whole)),
            Some(_) => Err(Status::invalid_argument("a message in parts is a part itself")),
        }
    }

    fn begin(&mut self, size: u64) -> Result<usize, Status> {
        let fits = usize::try_from(size).ok().filter(|&size| size <= self.limit);
        let size = fits.ok_or_else(|| {
            let limit = self.limit;
            Status::out_of_range(format!("a message of {size} bytes in parts, over the limit of {limit}"))
        })?;
        self.size = Some(size);
        Ok(size)
    }

    fn reserve(&mut self, bytes: usize, whole: usize) {
        let (here, room) = (self.bytes.len(), self.bytes.capacity());
        if room - here < bytes {
            let more = here.max(AT_ONCE).max(bytes);
            self.bytes.reserve_exact(more.min(whole - here));
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use meepo_proto::link::{Delivery, Event, Message, event};

    const LIMIT: usize = 32 << 20;

    fn event(payload: usize) -> Event {
        Event {
            delivery: Some(Delivery {
                seq: 7,
                ..Delivery::default()
            }),
            subject: Some(event::Subject::Client(9)),
            body: Some(event::Body::Message(Message {
                payload: vec![b'x'; payload].into(),
                binary: true,
            })),
            ..Event::default()
        }
    }

    fn part(bytes: impl Into<Bytes>, size: Option<usize>) -> Event {
        let bytes = bytes.into();
        let size = size.map(|size| size as u64);
        Event::carrying(Part { bytes, size })
    }

    /// The parts of an event, each of `each` bytes.
    fn parts(event: &Event, each: usize) -> Vec<Event> {
        let whole = prost::Message::encode_to_vec(event);
        let sizes = std::iter::once(Some(whole.len())).chain(std::iter::repeat(None));
        let pieces = whole.chunks(each).map(<[u8]>::to_vec);
        pieces.zip(sizes).map(|(piece, size)| part(piece, size)).collect()
    }

    fn refused(assembly: &mut Assembly<Event>, event: Event) -> (Code, String) {
        let status = assembly.take(event).expect_err("it is refused");
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn what_is_cut_is_put_together_again_beside_whole_ones() {
        let mut assembly = Assembly::new(LIMIT);
        for (payload, each) in [(100, 1), (200_000, 1 << 16), (3, 1 << 16), (9 << 20, 1 << 16)] {
            let large = event(payload);
            let mut parts = parts(&large, each);
            let last = parts.pop().expect("there is one");
            for part in parts {
                assert_eq!(assembly.take(part).expect("a part"), None);
                assert_eq!(assembly.take(event(1)).expect("a whole one"), Some(event(1)));
            }
            assert_eq!(assembly.take(last).expect("the last part"), Some(large));
        }
    }

    #[test]
    fn a_part_without_bytes_changes_nothing() {
        let mut assembly = Assembly::new(LIMIT);
        let whole = prost::Message::encode_to_vec(&event(10));
        assert_eq!(assembly.take(part("", Some(whole.len()))).expect("the first"), None);
        assert_eq!(assembly.take(part("", None)).expect("another"), None);
        assert_eq!(assembly.take(part(whole, None)).expect("the last"), Some(event(10)));
    }

    #[test]
    fn room_is_made_for_what_comes_and_not_for_what_is_announced() {
        let mut assembly = Assembly::<Event>::new(LIMIT);
        assembly.take(part("x", Some(LIMIT))).expect("the first part");
        assert!(assembly.bytes.capacity() <= AT_ONCE + 1);
        let piece = vec![0; 1 << 20];
        for _ in 0..LIMIT / piece.len() - 1 {
            assembly.take(part(piece.clone(), None)).expect("a part");
            let (here, room) = (assembly.bytes.len(), assembly.bytes.capacity());
            assert!(
                room <= (2 * here).max(AT_ONCE + 1) && room <= LIMIT,
                "{room} for {here}"
            );
        }
        let mut small = Assembly::<Event>::new(LIMIT);
        small.take(part("x", Some(100_000))).expect("the first part");
        assert_eq!(small.bytes.capacity(), 100_000);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let invalid = |text: &str| (Code::InvalidArgument, text.to_owned());
        let fresh = || Assembly::new(1000);
        let no_first = refused(&mut fresh(), part("x", None));
        assert_eq!(no_first, invalid("a part without a first part"));

        let mut begun = fresh();
        begun.take(part("x", Some(3))).expect("the first part");
        let second = refused(&mut begun, part("x", Some(3)));
        assert_eq!(second, invalid("a first part before the last part of another message"));

        let mut begun = fresh();
        begun.take(part("x", Some(3))).expect("the first part");
        let more = refused(&mut begun, part("xyz", None));
        assert_eq!(more, invalid("more bytes in parts than the first part announced"));
        let more = refused(&mut fresh(), part("xyz", Some(2)));
        assert_eq!(more, invalid("more bytes in parts than the first part announced"));

        assert_eq!(fresh().take(part("x", Some(1000))).expect("the first part"), None);
        for (size, says) in [
            (
                1001,
                "a message of 1001 bytes in parts, over the limit of 1000".to_owned(),
            ),
            (
                usize::MAX,
                format!("a message of {} bytes in parts, over the limit of 1000", usize::MAX),
            ),
        ] {
            let over = refused(&mut fresh(), part("x", Some(size)));
            assert_eq!(over, (Code::OutOfRange, says));
        }

        let (code, says) = refused(&mut fresh(), part("\u{7f}\u{7f}", Some(2)));
        assert_eq!(code, Code::InvalidArgument);
        assert!(says.starts_with("a message in parts is not valid: "), "{says}");

        let nested = prost::Message::encode_to_vec(&part("x", Some(1)));
        let size = nested.len();
        let nested = refused(&mut fresh(), part(nested, Some(size)));
        assert_eq!(nested, invalid("a message in parts is a part itself"));
    }
}
