//! How messages are put into the streams between nodes.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// Protobuf, as everywhere, in buffers for what is sent that hold as many small messages as are written at once: none has to
/// grow and be copied. What is received is read into small ones, since a payload that is kept keeps its buffer.
#[derive(Debug)]
pub struct Roomy<T, U>(PhantomData<(T, U)>);

const SENT: usize = 32 * 1024;

impl<T, U> Default for Roomy<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Roomy<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(SENT, SENT))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}
