//! The section `[worker.push]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
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

impl PushSection {
    /// Reads the file of tokens, and refuses what cannot be.
    pub(crate) fn resolve(mut self, config: &Config) -> Result<Self, ConfigError> {
        for (key, number) in [
            ("worker.push.max_request", self.max_request.as_u64()),
            ("worker.push.max_requests", self.max_requests as u64),
        ] {
            if number == 0 {
                return Err(config.invalid(key, "it must be more than 0"));
            }
        }
        if let Some(file) = &self.token_file {
            let wrong = |why: String| config.invalid("worker.push.token_file", why);
            if !self.token.is_empty() {
                return Err(wrong("cannot be set together with token".into()));
            }
            let file = config.base_dir().join(file);
            let name = file.display();
            let text = std::fs::read_to_string(&file).map_err(|error| wrong(format!("{name}: {error}")))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            self.token = Tokens::new(lines).map_err(|error| wrong(format!("{name}: {error}")))?;
            if self.token.is_empty() {
                return Err(wrong(format!("{name} is empty")));
            }
        }
        match self.address {
            Some(address) if self.token.is_empty() && !address.ip().to_canonical().is_loopback() => {
                let why = format!("{address} is not a loopback address: set `token` or `token_file`");
                Err(config.invalid("worker.push.address", why))
            }
            _ => Ok(self),
        }
    }

    /// The listener that the master is to open.
    pub(crate) fn listen(&self) -> Option<Listen> {
        Some(Listen {
            label: "push".into(),
            address: self.address?,
            key: "worker.push.address".into(),
            page: None,
        })
    }

    pub(crate) fn request_limit(&self) -> usize {
        usize::try_from(self.max_request.as_u64()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkerSection;

    fn read(text: &str) -> Result<PushSection, String> {
        let config = Config::parse(text).map_err(|error| error.to_string())?;
        let section: WorkerSection = config.section("worker").map_err(|error| error.to_string())?;
        section.push.resolve(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        assert!(read("").expect("it is good").listen().is_none());
        for text in [
            "[worker.push]\naddress = '127.0.0.1:1'",
            "[worker.push]\naddress = '[::1]:1'",
            "[worker.push]\naddress = '0.0.0.0:1'\ntoken = 't'",
            "[worker.push]\naddress = '0.0.0.0:1'\ntoken = ['t', 'u']",
        ] {
            assert!(read(text).expect("it is good").listen().is_some(), "{text}");
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
