//! The shared secret of a cluster: shown by the node that dials, checked by the one that serves.

use std::fmt;
use std::net::SocketAddr;

use meepo_proto::SECRET_HEADER;
use subtle::ConstantTimeEq;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::quota::REFUSALS;

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
                    "our secret has control characters: it cannot be sent",
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
        // The time tells the length at most.
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
    fn no_text_form_shows_the_secret() {
        let texts = format!("{:?} {:?}", SecretHeader::new("hush"), SecretCheck::new("hush"));
        assert!(!texts.contains("hush"), "{texts}");
    }
}
