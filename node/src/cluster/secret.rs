//! The shared secret of a cluster: shown by the node that dials, checked by the node that serves.

use std::fmt;
use std::net::SocketAddr;

use meepo_proto::SECRET_HEADER;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use subtle::{Choice, ConstantTimeEq};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::observe::quota::REFUSALS;

/// The client's end: adds the secret to each call. Without a secret it adds nothing.
#[derive(Debug, Clone)]
pub struct SecretHeader(Option<Result<MetadataValue<Ascii>, NotAHeader>>);

/// The secret has characters that no header may have.
#[derive(Debug, Clone, Copy)]
struct NotAHeader;

/// The server's end: answers UNAUTHENTICATED to a call without the secret, and logs the peer.
///
/// An empty secret lets everyone in.
#[derive(Clone)]
pub struct SecretCheck {
    secret: Box<[u8]>,
}

/// Tokens of which a caller has to show one. No text form shows them.
///
/// Written as one text, or as a list of them: then one can be replaced while the other is still in use.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Box<str>>);

impl Tokens {
    /// Makes a list of tokens. An error names a token that no header can carry: only visible ASCII characters are allowed.
    pub fn new(tokens: impl IntoIterator<Item = impl Into<Box<str>>>) -> Result<Self, InvalidToken> {
        let tokens: Vec<Box<str>> = tokens.into_iter().map(Into::into).collect();
        let is_good = |token: &str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match tokens.iter().position(|token| !is_good(token)) {
            Some(index) => Err(InvalidToken(index + 1)),
            None => Ok(Self(tokens)),
        }
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a text is one of the tokens. The time that this takes does not tell which, or how much of it is right.
    pub fn has(&self, shown: &[u8]) -> bool {
        let same = |token: &str| token.as_bytes().ct_eq(shown);
        let all = self.0.iter().map(|token| same(token));
        all.fold(Choice::from(0), |has, same| has | same).into()
    }
}

/// The token of this number, counted from 1, cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token {0} must be of visible ASCII characters, without spaces")]
pub struct InvalidToken(usize);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Serialize for Tokens {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token, or a list of tokens")
            }

            fn visit_str<E: Error>(self, token: &str) -> Result<Tokens, E> {
                let token = Some(token).filter(|token| !token.is_empty());
                Tokens::new(token).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element::<String>()? {
                    tokens.push(token);
                }
                Tokens::new(tokens).map_err(A::Error::custom)
            }
        }

        from.deserialize_any(OneOrMany)
    }
}

impl SecretHeader {
    /// The header with this secret.
    pub fn new(secret: &str) -> Self {
        if secret.is_empty() {
            return Self(None);
        }
        let value = MetadataValue::try_from(secret.as_bytes()).map_err(|_| NotAHeader);
        Self(Some(value.map(|mut value| {
            value.set_sensitive(true);
            value
        })))
    }
}

impl Interceptor for SecretHeader {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match &self.0 {
            None => {}
            Some(Ok(value)) => {
                request.metadata_mut().insert(SECRET_HEADER, value.clone());
            }
            Some(Err(NotAHeader)) => {
                return Err(Status::invalid_argument(
                    "the secret has control characters: it cannot be sent",
                ));
            }
        }
        Ok(request)
    }
}

impl SecretCheck {
    /// A check for this secret.
    pub fn new(secret: &str) -> Self {
        Self {
            secret: secret.as_bytes().into(),
        }
    }
}

impl Interceptor for SecretCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.secret.is_empty() {
            return Ok(request);
        }
        let shown = request.metadata().get(SECRET_HEADER);
        // The time of the comparison tells the length of the secret at most.
        if shown.is_some_and(|shown| shown.as_bytes().ct_eq(&self.secret).into()) {
            return Ok(request);
        }
        if let Some(unlogged) = REFUSALS.take() {
            let peer = request.remote_addr().map(tracing::field::display);
            let why = if shown.is_some() { "wrong secret" } else { "no secret" };
            tracing::warn!(peer, why, unlogged, "refused a peer");
        }
        Err(Status::unauthenticated("the secret is missing or wrong"))
    }
}

/// Logs a warning if a server on this address lets in strangers from other hosts.
pub fn warn_if_open(what: &str, address: SocketAddr, secret: &str) {
    if secret.is_empty() && !address.ip().to_canonical().is_loopback() {
        tracing::warn!(what, %address, "everyone who reaches this address is let in: set a secret");
    }
}

impl fmt::Debug for SecretCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretCheck")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a server with one secret lets a client with another in.
    fn passes(server: &str, client: &str) -> bool {
        let request = SecretHeader::new(client).call(Request::new(())).unwrap();
        SecretCheck::new(server).call(request).is_ok()
    }

    #[test]
    fn only_the_right_secret_passes() {
        for secret in ["s", "a long one with spaces", "käse"] {
            assert!(passes(secret, secret));
            assert!(!passes(secret, ""));
            assert!(!passes(secret, &secret[..secret.len() - 1]));
            assert!(!passes(secret, &format!("{secret}x")));
        }
        assert!(!passes("secret", "Secret"));
    }

    #[test]
    fn an_empty_secret_lets_everyone_in() {
        assert!(passes("", ""));
        assert!(passes("", "anything"));
    }

    #[test]
    fn what_cannot_be_sent_is_said() {
        let refused = SecretHeader::new("two\nlines").call(Request::new(())).unwrap_err();
        assert!(refused.message().contains("control characters"));
    }

    #[test]
    fn any_of_the_tokens_will_do_and_no_other() {
        #[derive(serde::Deserialize)]
        struct Section {
            token: Tokens,
        }
        let read = |text: &str| toml::from_str::<Section>(text).map(|section| section.token);
        let two = read("token = ['old', 'the-new-one']").unwrap();
        for (shown, has) in [
            ("old", true),
            ("the-new-one", true),
            ("", false),
            ("ol", false),
            ("old2", false),
        ] {
            assert_eq!(two.has(shown.as_bytes()), has, "{shown}");
        }
        assert!(read("token = 'one'").unwrap().has(b"one"));
        let none = read("token = ''").unwrap();
        assert!(none.is_empty() && !none.has(b""));
        for text in ["token = ['a', '']", "token = 'a b'", "token = 'ä'", "token = 3"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_text_form_shows_the_secret() {
        let tokens = Tokens::new(["hush"]).unwrap();
        let shown = toml::Value::try_from(&tokens).unwrap();
        assert_eq!(
            (format!("{tokens:?}"), shown.as_str()),
            ("Tokens(1)".into(), Some("***"))
        );
        let texts = format!("{:?} {:?}", SecretHeader::new("hush"), SecretCheck::new("hush"));
        assert!(!texts.contains("hush"), "{texts}");
    }
}
