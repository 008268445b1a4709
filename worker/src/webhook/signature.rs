//! Signatures as Standard Webhooks says: HMAC-SHA256 over id, time and body.

use std::fmt;

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What marks a key that is written as base64.
const MARK: &str = "whsec_";

/// The keys that events are signed with. While keys are changed there are several, and a signature of each.
#[derive(Clone, Default)]
pub(crate) struct Keys(Vec<Hmac<Sha256>>);

impl Keys {
    /// Reads keys with white space in between: `whsec_` and base64, or any other text, which is the key as it stands.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let keys = text.split_whitespace().enumerate().map(|(index, word)| {
            let key = match word.strip_prefix(MARK) {
                Some(base64) => BASE64
                    .decode(base64.as_bytes())
                    .map_err(|error| format!("secret {}: what follows {MARK} is not base64: {error}", index + 1))?,
                None => word.as_bytes().to_vec(),
            };
            if key.is_empty() {
                return Err(format!("secret {} is empty", index + 1));
            }
            Hmac::new_from_slice(&key).map_err(|error| format!("secret {}: {error}", index + 1))
        });
        keys.collect::<Result<_, String>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signed = self.0.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference implementations of Standard Webhooks test with.
    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn it_is_what_standard_webhooks_says() {
        let keys = Keys::parse(KEY).unwrap();
        assert_eq!(keys.sign(ID, 1_614_265_330, BODY), SIGNATURE);
    }

    #[test]
    fn each_key_signs() {
        let keys = Keys::parse(&format!("other\n{KEY}\n")).unwrap();
        let signature = keys.sign(ID, 1_614_265_330, BODY);
        let (first, second) = signature.split_once(' ').unwrap();
        assert_eq!(second, SIGNATURE);
        assert_eq!(first, Keys::parse("other").unwrap().sign(ID, 1_614_265_330, BODY));
        assert_ne!(first, second);
    }

    #[test]
    fn a_key_that_is_none_is_named() {
        assert!(Keys::parse("").unwrap().is_empty());
        let error = Keys::parse("fine whsec_***").unwrap_err();
        assert!(error.contains("secret 2") && !error.contains("***"), "{error}");
        assert!(Keys::parse("whsec_").unwrap_err().contains("empty"));
    }
}
