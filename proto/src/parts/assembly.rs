//! Puts together what comes in parts.

use std::marker::PhantomData;
use std::mem;

use bytes::Bytes;
use tonic::Status;

use super::InParts;
use crate::link::Part;

/// So much room is made for what is announced; more only when as much has come, so that nobody can claim memory with a word.
const AT_ONCE: usize = 4 << 20;

/// What has come of an event or a command in parts. An error is one of the other end: the link is to end with it.
#[derive(Debug)]
pub struct Assembly<M> {
    limit: usize,
    /// How many bytes the one that is put together has. 0: there is none.
    size: usize,
    bytes: Vec<u8>,
    whole: PhantomData<fn() -> M>,
}

impl<M: InParts> Assembly<M> {
    /// One that takes up to this many bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            size: 0,
            bytes: Vec::new(),
            whole: PhantomData,
        }
    }

    /// Gives back what has come if it is whole, and what it completes if it is the last part.
    pub fn take(&mut self, mut message: M) -> Result<Option<M>, Status> {
        match message.take_part() {
            None => Ok(Some(message)),
            Some(part) => self.add(part),
        }
    }

    fn add(&mut self, part: Part) -> Result<Option<M>, Status> {
        let Part { bytes, size } = part;
        match (self.size, size) {
            (0, 0) => return Err(Status::invalid_argument("a part came that belongs to nothing")),
            (0, size) => self.begin(size)?,
            (_, 0) => {}
            (_, _) => {
                return Err(Status::invalid_argument(
                    "a first part came before the last of what was begun",
                ));
            }
        }
        if bytes.len() > self.size - self.bytes.len() {
            return Err(Status::invalid_argument("more came in parts than was announced"));
        }
        self.make_room(bytes.len());
        self.bytes.extend_from_slice(&bytes);
        if self.bytes.len() < self.size {
            return Ok(None);
        }
        self.size = 0;
        // What is in it shares the buffer, which has no room left over.
        let whole = M::decode(Bytes::from(mem::take(&mut self.bytes)));
        let mut whole =
            whole.map_err(|error| Status::invalid_argument(format!("what came in parts is not valid: {error}")))?;
        match whole.take_part() {
            None => Ok(Some(whole)),
            Some(_) => Err(Status::invalid_argument("what came in parts is a part itself")),
        }
    }

    fn begin(&mut self, size: u64) -> Result<(), Status> {
        let fits = usize::try_from(size).ok().filter(|&size| size <= self.limit);
        self.size = fits.ok_or_else(|| {
            let limit = self.limit;
            Status::out_of_range(format!("{size} bytes are to come in parts, the limit is {limit}"))
        })?;
        Ok(())
    }

    fn make_room(&mut self, bytes: usize) {
        let (here, room) = (self.bytes.len(), self.bytes.capacity());
        if room - here < bytes {
            let more = here.max(AT_ONCE).max(bytes);
            self.bytes.reserve_exact(more.min(self.size - here));
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::link::{Event, Message, event};

    const LIMIT: usize = 32 << 20;

    fn event(payload: usize) -> Event {
        Event {
            seq: 7,
            client: 9,
            body: Some(event::Body::Message(Message {
                payload: vec![b'x'; payload].into(),
                binary: true,
            })),
            ..Event::default()
        }
    }

    fn part(bytes: impl Into<Bytes>, size: usize) -> Event {
        let bytes = bytes.into();
        let size = size as u64;
        Event::carrying(Part { bytes, size })
    }

    /// The parts of an event, so many bytes each.
    fn parts(event: &Event, each: usize) -> Vec<Event> {
        let whole = prost::Message::encode_to_vec(event);
        let sizes = std::iter::once(whole.len()).chain(std::iter::repeat(0));
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
        assert_eq!(assembly.take(part("", whole.len())).expect("the first"), None);
        assert_eq!(assembly.take(part("", 0)).expect("another"), None);
        assert_eq!(assembly.take(part(whole, 0)).expect("the last"), Some(event(10)));
    }

    #[test]
    fn room_is_made_for_what_comes_and_not_for_what_is_announced() {
        let mut assembly = Assembly::<Event>::new(LIMIT);
        assembly.take(part("x", LIMIT)).expect("the first part");
        assert!(assembly.bytes.capacity() <= AT_ONCE + 1);
        let piece = vec![0; 1 << 20];
        for _ in 0..LIMIT / piece.len() - 1 {
            assembly.take(part(piece.clone(), 0)).expect("a part");
            let (here, room) = (assembly.bytes.len(), assembly.bytes.capacity());
            assert!(
                room <= (2 * here).max(AT_ONCE + 1) && room <= LIMIT,
                "{room} for {here}"
            );
        }
        let mut small = Assembly::<Event>::new(LIMIT);
        small.take(part("x", 100_000)).expect("the first part");
        assert_eq!(small.bytes.capacity(), 100_000);
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let invalid = |text: &str| (Code::InvalidArgument, text.to_owned());
        let fresh = || Assembly::new(1000);
        let belongs_to_nothing = refused(&mut fresh(), part("x", 0));
        assert_eq!(belongs_to_nothing, invalid("a part came that belongs to nothing"));

        let mut begun = fresh();
        begun.take(part("x", 3)).expect("the first part");
        let second = refused(&mut begun, part("x", 3));
        assert_eq!(second, invalid("a first part came before the last of what was begun"));

        let mut begun = fresh();
        begun.take(part("x", 3)).expect("the first part");
        let more = refused(&mut begun, part("xyz", 0));
        assert_eq!(more, invalid("more came in parts than was announced"));
        let more = refused(&mut fresh(), part("xyz", 2));
        assert_eq!(more, invalid("more came in parts than was announced"));

        assert_eq!(fresh().take(part("x", 1000)).expect("the first part"), None);
        for (size, says) in [
            (1001, "1001 bytes are to come in parts, the limit is 1000".to_owned()),
            (
                usize::MAX,
                format!("{} bytes are to come in parts, the limit is 1000", usize::MAX),
            ),
        ] {
            let over = refused(&mut fresh(), part("x", size));
            assert_eq!(over, (Code::OutOfRange, says));
        }

        let (code, says) = refused(&mut fresh(), part("\u{7f}\u{7f}", 2));
        assert_eq!(code, Code::InvalidArgument);
        assert!(says.starts_with("what came in parts is not valid: "), "{says}");

        let nested = prost::Message::encode_to_vec(&part("x", 1));
        let size = nested.len();
        let nested = refused(&mut fresh(), part(nested, size));
        assert_eq!(nested, invalid("what came in parts is a part itself"));
    }
}
