//! The section `[worker.push]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use meepo_node::config::bytes;
use meepo_node::secret::Tokens;
use meepo_node::{Config, ConfigError, Listen};
use serde::{Deserialize, Serialize};

/// The section `[worker.push]`: any program can push from outside, over HTTP and gRPC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PushSection {
    /// Where it is served. Default: nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The token that callers have to show, or several. Default: none, which only a loopback address may have.
    pub token: Tokens,
    /// A file that holds the tokens, one a line. Not together with `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The largest request, in bytes; a larger one is refused (413). Default: `2MiB`.
    pub max_request: ByteSize,
    /// Requests that a worker child has at a time; more of them are refused (503). Default: 64.
    pub max_requests: usize,
}

impl Default for PushSection {
    fn default() -> Self {
        Self {
            address: None,
            token: Tokens::default(),
            token_file: None,
            max_request: ByteSize::mib(2),
            max_requests: 64,
        }
    }
}

/// The settings of the push API, checked.
#[derive(Debug, Clone)]
pub(crate) struct PushSettings {
    pub(crate) address: SocketAddr,
    /// Callers have to show one of them, if there are any.
    pub(crate) tokens: Tokens,
    /// The largest request, in bytes.
    pub(crate) max_request: usize,
    /// Requests that a child has at a time.
    pub(crate) max_requests: usize,
}

impl PushSection {
    /// Whether the program was built without the push API.
    pub(super) fn is_left_out(&self) -> bool {
        false
    }

    /// Checks the section, and reads the file of tokens. None if pushes are not served.
    pub(super) fn resolve(&self, config: &Config) -> Result<Option<PushSettings>, ConfigError> {
        for (key, number) in [
            ("worker.push.max_request", self.max_request.as_u64()),
            ("worker.push.max_requests", self.max_requests as u64),
        ] {
            if number == 0 {
                return Err(config.invalid(key, "it must be more than 0"));
            }
        }
        let tokens = self.tokens(config)?;
        match self.address {
            Some(address) if tokens.is_empty() && !address.ip().to_canonical().is_loopback() => {
                let why = format!("{address} is not a loopback address: set `token` or `token_file`");
                Err(config.invalid("worker.push.address", why))
            }
            address => Ok(address.map(|address| self.with(address, tokens))),
        }
    }

    fn with(&self, address: SocketAddr, tokens: Tokens) -> PushSettings {
        PushSettings {
            address,
            tokens,
            max_request: bytes(self.max_request),
            max_requests: self.max_requests,
        }
    }

    /// The tokens, from their file if they are in one.
    fn tokens(&self, config: &Config) -> Result<Tokens, ConfigError> {
        let Some(file) = &self.token_file else {
            return Ok(self.token.clone());
        };
        let wrong = |why: String| config.invalid("worker.push.token_file", why);
        if !self.token.is_empty() {
            return Err(wrong("cannot be set together with token".into()));
        }
        let file = config.base_dir().join(file);
        let name = file.display();
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(format!("{name}: {error}")))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let tokens = Tokens::new(lines).map_err(|error| wrong(format!("{name}: {error}")))?;
        match tokens.is_empty() {
            true => Err(wrong(format!("{name} is empty"))),
            false => Ok(tokens),
        }
    }
}

impl PushSettings {
    /// The settings of a push API that a test serves at a listener of its own, and lets everyone in.
    #[cfg(test)]
    pub(crate) fn open(address: SocketAddr) -> Self {
        PushSection::default().with(address, Tokens::default())
    }

    /// The listener that the master is to open.
    pub(crate) fn listen(&self) -> Listen {
        Listen {
            label: "push".into(),
            address: self.address,
            key: "worker.push.address".into(),
            page: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::WorkerSettings;

    fn read(text: &str) -> Result<Option<PushSettings>, String> {
        let config = Config::parse(text).map_err(|error| error.to_string())?;
        let settings = WorkerSettings::read(&config).map_err(|error| error.to_string())?;
        Ok(settings.push)
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        assert!(read("").expect("it is good").is_none());
        for text in [
            "[worker.push]\naddress = '127.0.0.1:1'",
            "[worker.push]\naddress = '[::1]:1'",
            "[worker.push]\naddress = '0.0.0.0:1'\ntoken = 't'",
            "[worker.push]\naddress = '0.0.0.0:1'\ntoken = ['t', 'u']",
        ] {
            assert!(read(text).expect("it is good").is_some(), "{text}");
        }
        for (text, says) in [
            (
                "address = '0.0.0.0:1'",
                "meepo.toml:2: worker.push.address: 0.0.0.0:1 is not",
            ),
            (
                "address = '192.0.2.1:1'\ntoken = ''",
                "meepo.toml:2: worker.push.address",
            ),
            ("address = '[::]:1'\ntoken = []", "meepo.toml:2: worker.push.address"),
            ("token = 'with space'", "meepo.toml:2: worker.push.token: token 1 must"),
            (
                "token_file = '/nowhere'",
                "meepo.toml:2: worker.push.token_file: /nowhere: ",
            ),
            ("token = 't'\ntoken_file = 'f'", "together with token"),
            ("max_request = 0", "worker.push.max_request"),
            ("max_requests = 0", "worker.push.max_requests"),
            ("adress = '127.0.0.1:1'", "did you mean \"address\""),
        ] {
            let error = read(&format!("[worker.push]\n{text}")).expect_err("it is refused");
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("with space"), "{error}");
        }
    }
}
