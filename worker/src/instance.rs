//! The worker as a master runs it, and its settings.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytesize::ByteSize;
use meepo_node::{Child, Config, ConfigError, Instance, Plan};
use serde::{Deserialize, Serialize};

use crate::Handler;
use crate::push::PushSection;
use crate::runtime::serve::serve;

/// The worker instance of an application: for each child, `new` makes the handler.
///
/// `new` runs in the child, on its runtime.
///
/// ```
/// use meepo_worker::{Client, Handler, Message, Result};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
///         client.send(message);
///         Ok(())
///     }
/// }
///
/// let instance = meepo_worker::instance(|| Echo);
/// // Master::from_args().instance(instance).run()
/// # let _ = instance;
/// ```
pub fn instance<H: Handler>(new: impl Fn() -> H + 'static) -> WorkerInstance {
    let new = Rc::new(new);
    WorkerInstance {
        serve: Rc::new(move |section, child| {
            let new = new.clone();
            Box::pin(async move { serve(new(), section, child).await })
        }),
    }
}

/// The worker of an application, for its master. [`instance`] makes it.
pub struct WorkerInstance {
    serve: Rc<dyn Fn(WorkerSection, Child) -> meepo_node::instance::Serving>,
}

/// The section `[worker]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSection {
    /// How many children run handlers. Default: `2`.
    pub children: usize,
    /// Threads of each child. With more than one, handlers of several clients run at the same instant. Default: `1`.
    pub threads: usize,
    /// How long a handler may take. One that takes longer is cut off where it waits, and its event is delivered again,
    /// marked; after three times it is given up and its client closed with 1011. Default: `60s`.
    #[serde(with = "humantime_serde")]
    pub handler_timeout: Duration,
    /// How long a question to all gateways may take; those that have not answered by then are named in the answer.
    /// Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub query_timeout: Duration,
    /// How much may wait to be sent to a gateway child before the events of its clients wait as well; four times as much
    /// may wait in a whole worker child. A handler that runs is never held up: what it sends is added. Default: `8MiB`.
    pub send_queue: ByteSize,
    /// Pushing from outside, over HTTP and gRPC.
    pub push: PushSection,
}

impl Default for WorkerSection {
    fn default() -> Self {
        Self {
            children: 2,
            threads: 1,
            handler_timeout: Duration::from_secs(60),
            query_timeout: Duration::from_secs(5),
            send_queue: ByteSize::mib(8),
            push: PushSection::default(),
        }
    }
}

impl WorkerSection {
    /// Reads the section, and checks it.
    pub(crate) fn read(config: &Config) -> Result<Self, ConfigError> {
        let section: Self = config.section("worker")?;
        section.check(config)?;
        Ok(section)
    }

    pub(crate) fn queue_limit(&self) -> usize {
        usize::try_from(self.send_queue.as_u64()).unwrap_or(usize::MAX)
    }

    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let wrong = [
            ("worker.children", self.children == 0),
            ("worker.threads", self.threads == 0),
            ("worker.handler_timeout", self.handler_timeout.is_zero()),
            ("worker.query_timeout", self.query_timeout.is_zero()),
            ("worker.send_queue", self.send_queue.as_u64() == 0),
        ];
        match wrong.into_iter().find(|(_, wrong)| *wrong) {
            Some((key, _)) => Err(config.invalid(key, "it must be more than 0")),
            None => Ok(()),
        }
    }
}

impl Instance for WorkerInstance {
    fn name(&self) -> &'static str {
        "worker"
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let mut section = WorkerSection::read(config)?;
        section.push = section.push.resolve(config)?;
        let effective = toml::Table::try_from(&section).map_err(|error| config.invalid("worker", error))?;
        let serve = self.serve.clone();
        Ok(Plan {
            children: section.children,
            threads: section.threads,
            shared: section.push.listen().into_iter().collect(),
            own: None,
            effective,
            further: toml::Table::new(),
            serve: Rc::new(move |child| serve(section.clone(), child)),
        })
    }
}

impl fmt::Debug for WorkerInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerInstance").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, String> {
        struct Silent;
        impl Handler for Silent {
            async fn on_message(&self, _client: &crate::Client, _message: crate::Message) -> crate::Result<()> {
                Ok(())
            }
        }
        let config = Config::parse(text).map_err(|error| error.to_string())?;
        instance(|| Silent).plan(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_have_defaults_and_are_checked() {
        let planned = plan("").expect("the defaults are good");
        assert_eq!((planned.children, planned.threads), (2, 1));
        let planned = plan("[worker]\nchildren = 3\nsend_queue = \"1MiB\"").expect("these are good");
        assert_eq!(planned.children, 3);
        for (text, key) in [
            ("[worker]\nchildren = 0", "worker.children"),
            ("[worker]\nhandler_timeout = \"0s\"", "worker.handler_timeout"),
            ("[worker]\nquery_timeout = \"0s\"", "worker.query_timeout"),
            ("[worker]\nthread = 1", "threads"),
        ] {
            let error = plan(text).expect_err("it is refused");
            assert!(error.contains(key), "{error}");
        }
    }
}
