//! The webhook worker: business logic that is an HTTP endpoint of an application in any language.
//!
//! Each event of a client is a POST of a CloudEvent (HTTP binary mode), signed as Standard Webhooks says. The answer can carry
//! commands. The handbook's page "Business logic over HTTP" describes both.
//!
//! # Layout
//!
//! - `settings`: the section `[webhook]`.
//! - `handler`: the [`Handler`](crate::Handler) that turns events into POSTs and answers into commands.
//! - `event`: an event as a request; `signature`: its signature.
//! - `delivery`: one event until the endpoint has answered it; `verdict`: what an answer means; `endpoint`: one POST.
//! - `commands`: what an answer asks for.

pub(crate) mod commands;
mod delivery;
mod endpoint;
mod event;
mod handler;
mod settings;
mod signature;
mod verdict;

use std::rc::Rc;
use std::time::Duration;

use meepo_node::{Config, ConfigError, Instance, Plan};

use crate::instance::WorkerSection;
use crate::runtime::serve::serve;

use handler::Webhook;
use settings::WebhookSection;

/// The webhook worker, for a master to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebhookInstance(());

/// The webhook worker, for a master to run: what the program `meepo-worker` is.
///
/// ```
/// let instance = meepo_worker::webhook::instance();
/// // Master::from_args().instance(instance).run()
/// # let _ = instance;
/// ```
pub fn instance() -> WebhookInstance {
    WebhookInstance(())
}

impl Instance for WebhookInstance {
    fn name(&self) -> &'static str {
        "worker"
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let mut section = WorkerSection::read(config)?;
        section.push = section.push.resolve(config)?;
        let webhook: WebhookSection = config.section("webhook")?;
        let settings = webhook.resolve(config)?;
        let mut effective = toml::Table::try_from(&section).map_err(|error| config.invalid("worker", error))?;
        // An endpoint that is away for long is nothing that a handler is to blame for: each POST has a limit instead.
        effective.remove("handler_timeout");
        section.handler_timeout = Duration::MAX;
        let webhook = toml::Table::try_from(&webhook).map_err(|error| config.invalid("webhook", error))?;
        Ok(Plan {
            children: section.children,
            threads: section.threads,
            shared: section.push.listen().into_iter().collect(),
            own: None,
            effective,
            further: toml::Table::from_iter([("webhook".into(), webhook.into())]),
            serve: Rc::new(move |child| {
                let (section, settings) = (section.clone(), settings.clone());
                Box::pin(async move { serve(Webhook::new(settings), section, child).await })
            }),
        })
    }
}
