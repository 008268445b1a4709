//! The section `[webhook]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_rustls::ConfigBuilderExt;
use meepo_node::config::bytes;
use meepo_node::{Config, ConfigError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize, Serializer};

use super::signature::Keys;

/// The section `[webhook]` as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct WebhookSection {
    /// Where events are sent to: `http` or `https`. It has to be set.
    #[serde(serialize_with = "show_url")]
    url: String,
    /// The key that events are signed with, or several, with white space in between. Default: empty, nothing is signed.
    secret: String,
    /// A file that holds them, one a line. Not together with `secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<PathBuf>,
    /// A PEM file of the certificates that may have signed the endpoint's, in the place of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    /// Which events are sent. Default: all, `["opened", "message", "closed"]`.
    events: Vec<EventKind>,
    /// Keys of the client's session that are sent with each event. Default: none.
    session: Vec<String>,
    /// What `ce-source` says. Default: `/meepo`.
    source: String,
    /// How long a POST may take, with its answer. Default: `10s`.
    #[serde(with = "humantime_serde")]
    timeout: Duration,
    /// POSTs that each child has at a time, over about as many connections. Default: `16`.
    connections: usize,
    /// How many answers with 500 an event may get before it is given up, or how often it may get none while others are
    /// answered. Default: `10`.
    attempts: u32,
    /// The first pause before an event is sent again; twice as long each time. Default: `200ms`.
    #[serde(with = "humantime_serde")]
    retry_min: Duration,
    /// The longest pause. Default: `10s`.
    #[serde(with = "humantime_serde")]
    retry_max: Duration,
    /// The longest answer. Default: `1MiB`.
    max_response: ByteSize,
}

/// What happens to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventKind {
    Opened,
    Message,
    Closed,
}

/// The same, ready for use.
#[derive(Clone)]
pub(crate) struct WebhookSettings {
    pub(crate) url: Uri,
    /// The URL without its query, in which there may be a secret: for logs.
    pub(crate) place: String,
    pub(crate) keys: Keys,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) events: Vec<EventKind>,
    pub(crate) session: Vec<String>,
    pub(crate) source: HeaderValue,
    pub(crate) timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) attempts: u32,
    pub(crate) retry: (Duration, Duration),
    pub(crate) max_response: usize,
}

impl Default for WebhookSection {
    fn default() -> Self {
        Self {
            url: String::new(),
            secret: String::new(),
            secret_file: None,
            ca_file: None,
            events: vec![EventKind::Opened, EventKind::Message, EventKind::Closed],
            session: Vec::new(),
            source: "/meepo".into(),
            timeout: Duration::from_secs(10),
            connections: 16,
            attempts: 10,
            retry_min: Duration::from_millis(200),
            retry_max: Duration::from_secs(10),
            max_response: ByteSize::mib(1),
        }
    }
}

impl WebhookSection {
    /// Checks the settings, and reads the files that they name.
    pub(crate) fn resolve(&self, config: &Config) -> Result<WebhookSettings, ConfigError> {
        let wrong = [
            ("webhook.timeout", self.timeout.is_zero()),
            ("webhook.connections", self.connections == 0),
            ("webhook.attempts", self.attempts == 0),
            ("webhook.retry_min", self.retry_min.is_zero()),
            ("webhook.max_response", self.max_response.as_u64() == 0),
        ];
        if let Some((key, _)) = wrong.into_iter().find(|(_, wrong)| *wrong) {
            return Err(config.invalid(key, "it must be more than 0"));
        }
        if self.retry_max < self.retry_min {
            return Err(config.invalid("webhook.retry_max", "it must not be less than retry_min"));
        }
        if self.connections > MOST_CONNECTIONS {
            let why = format!("it must be at most {MOST_CONNECTIONS}");
            return Err(config.invalid("webhook.connections", why));
        }
        if self.events.is_empty() {
            return Err(config.invalid("webhook.events", "it must name one at least"));
        }
        let url = self.url().map_err(|why| config.invalid("webhook.url", why))?;
        Ok(WebhookSettings {
            place: without_query(&self.url).into(),
            url,
            keys: self.keys(config)?,
            tls: Arc::new(self.tls(config)?),
            events: self.events.clone(),
            session: self.session.clone(),
            source: self.source().map_err(|why| config.invalid("webhook.source", why))?,
            timeout: self.timeout,
            connections: self.connections,
            attempts: self.attempts,
            retry: (self.retry_min, self.retry_max),
            max_response: bytes(self.max_response),
        })
    }

    fn url(&self) -> Result<Uri, String> {
        if self.url.is_empty() {
            return Err("must be set to where events are sent, such as \"https://app.example/meepo\"".into());
        }
        let place = without_query(&self.url);
        let url: Uri = self
            .url
            .parse()
            .map_err(|error| format!("\"{place}\" is not a URL: {error}"))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) {
            return Err(format!("\"{place}\" does not begin with http:// or https://"));
        }
        let authority = url.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err("a user name or password cannot be part of it".into());
        }
        let host = url.host().unwrap_or_default();
        let port_is_wrong = authority.len() > host.len() && url.port_u16().is_none_or(|port| port == 0);
        if host.is_empty() || port_is_wrong {
            return Err(format!(
                "\"{place}\" has no host, or its port is no number of 1 to 65535"
            ));
        }
        Ok(url)
    }

    fn source(&self) -> Result<HeaderValue, String> {
        let plain = |c: char| c.is_ascii_graphic() && !"\"%<>\\^`{|}".contains(c);
        match HeaderValue::from_str(&self.source) {
            Ok(source) if !self.source.is_empty() && self.source.chars().all(plain) => Ok(source),
            _ => Err(format!("\"{}\" is not a URI, such as \"/meepo\"", self.source)),
        }
    }

    fn keys(&self, config: &Config) -> Result<Keys, ConfigError> {
        let Some(file) = &self.secret_file else {
            return Keys::parse(&self.secret).map_err(|why| config.invalid("webhook.secret", why));
        };
        let wrong = |why: String| config.invalid("webhook.secret_file", why);
        if !self.secret.is_empty() {
            return Err(wrong("cannot be set together with secret".into()));
        }
        let file = config.base_dir().join(file);
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(format!("{}: {error}", file.display())))?;
        if text.trim().is_empty() {
            return Err(wrong(format!("{} is empty", file.display())));
        }
        Keys::parse(&text).map_err(|why| wrong(format!("{}: {why}", file.display())))
    }

    fn tls(&self, config: &Config) -> Result<ClientConfig, ConfigError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| config.invalid("webhook.url", error))?;
        let Some(file) = &self.ca_file else {
            return Ok(builder.with_webpki_roots().with_no_client_auth());
        };
        let file = config.base_dir().join(file);
        let wrong = |why: String| config.invalid("webhook.ca_file", format!("{}: {why}", file.display()));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| wrong(error.to_string()))? {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("has no certificate".into()));
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A URL as it may be shown: there may be a secret in its query.
pub(crate) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn show_url<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(without_query(url))
}

/// Most POSTs at a time: far above what an endpoint is given on purpose.
const MOST_CONNECTIONS: usize = 4096;

#[cfg(test)]
mod tests {
    use meepo_node::Instance;

    use super::*;

    fn plan(settings: &str) -> Result<meepo_node::Plan, String> {
        let config = Config::parse(&format!("[webhook]\n{settings}")).map_err(|error| error.to_string())?;
        crate::webhook::instance()
            .plan(&config)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn good_settings_are_shown_as_they_are_in_force() {
        let shown = plan("url = \"https://app.example:8443/hook?key=1\"\nevents = [\"message\"]").unwrap();
        assert_eq!(shown.further["webhook"]["events"].as_array().map(Vec::len), Some(1));
        assert_eq!(shown.further["webhook"]["timeout"].as_str(), Some("10s"));
        let url = shown.further["webhook"]["url"].as_str();
        assert_eq!(url, Some("https://app.example:8443/hook"), "a query may be a secret");
        assert!(!shown.effective.contains_key("handler_timeout"));
        for url in ["http://localhost", "http://[::1]:8080/", "HTTP://a.example./x"] {
            assert!(plan(&format!("url = \"{url}\"")).is_ok(), "{url}");
        }
    }

    #[test]
    fn wrong_settings_are_named_with_their_line() {
        for (settings, key, why) in [
            ("", "webhook.url", "must be set"),
            ("url = \"ftp://a/\"", "webhook.url", "http://"),
            ("url = \"ftp://a/?hush\"", "webhook.url", "\"ftp://a/\""),
            ("url = \"http://a b/?hush\"", "webhook.url", "\"http://a b/\""),
            ("url = \"http://a:0/?hush\"", "webhook.url", "\"http://a:0/\""),
            ("url = \"http://\"", "webhook.url", ""),
            ("url = \"http://a:99999/\"", "webhook.url", ""),
            ("url = \"http://me:pw@a/\"", "webhook.url", "password"),
            ("url = \"http://a/\"\ntimeuot = \"1s\"", "webhook.timeuot", "timeout"),
            (
                "url = \"http://a/\"\ntimeout = \"0s\"",
                "webhook.timeout",
                "more than 0",
            ),
            (
                "url = \"http://a/\"\nevents = [\"open\"]",
                "webhook.events[0]",
                "opened",
            ),
            ("url = \"http://a/\"\nevents = []", "webhook.events", "one at least"),
            (
                "url = \"http://a/\"\nretry_max = \"1ms\"",
                "webhook.retry_max",
                "retry_min",
            ),
            (
                "url = \"http://a/\"\nsecret_file = \"nowhere\"",
                "webhook.secret_file",
                "nowhere",
            ),
            ("url = \"http://a/\"\nsecret = \"whsec_*\"", "webhook.secret", "base64"),
            (
                "url = \"https://a/\"\nca_file = \"../Cargo.toml\"",
                "webhook.ca_file",
                "no certificate",
            ),
        ] {
            let error = plan(settings).err().unwrap_or_default();
            assert!(error.starts_with("meepo.toml:"), "{settings}: {error}");
            assert!(error.contains(key) && error.contains(why), "{settings}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
