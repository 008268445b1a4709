//! The messages of the push API, over gRPC and as JSON: the code generated from `push.proto`, and how JSON is read and written
//! where serde alone would do it differently. `proto/generate/src/json.rs` names these functions.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

pub use generated::*;

#[allow(clippy::all, missing_debug_implementations, unreachable_pub)]
mod generated {
    include!("generated/meepo.push.v1.rs");
}

/// A message that is a JSON object. What serde derives would also take an array of the fields' values.
#[derive(Debug)]
pub struct Object<T>(
    /// The message.
    pub T,
);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        from.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// A field that is a message.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Object::deserialize(from).map(|object| Some(object.0))
}

/// An optional field: it may be left out, but `null` is refused.
fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A whole number; also one that is written with a fraction of zero, which JSON Schema counts as whole.
fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number of 32 bits")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u32, E> {
            u32::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<u32, E> {
            let whole = number as u32;
            match f64::from(whole) == number {
                true => Ok(whole),
                false => Err(E::invalid_value(Unexpected::Float(number), &self)),
            }
        }
    }

    from.deserialize_any(Whole).map(Some)
}

/// A list with at least one entry: an empty one would mean all clients in a filter and no client in a target.
fn non_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::deserialize(from)?;
    match list.is_empty() {
        true => Err(D::Error::custom("the list is empty")),
        false => Ok(list),
    }
}

/// Bytes, which are base64 in JSON.
fn base64<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(from)?;
    match BASE64.decode(text.as_bytes()) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) => Err(D::Error::custom(format!("not base64: {error}"))),
    }
}

/// The name of a receipt in place of its number.
fn receipt<S: Serializer>(number: &Option<i32>, to: S) -> Result<S::Ok, S::Error> {
    let receipt = number.and_then(|number| Receipt::try_from(number).ok());
    receipt.unwrap_or_default().serialize(to)
}
