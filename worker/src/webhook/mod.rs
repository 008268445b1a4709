//! The webhook worker: business logic that is an HTTP endpoint of an application in any language.
//!
//! Each event of a client is a POST of a CloudEvent (HTTP binary mode), signed as Standard Webhooks says. The answer can carry
//! commands. The handbook's page "Business logic over HTTP" describes both. It is an application of the API like any other.
//!
//! # Layout
//!
//! - `settings`: the section `[webhook]`.
//! - `handler`: the [`Handler`](crate::Handler) that turns events into POSTs and answers into commands.
//! - `event`: an event as a request; `signature`: its signature.
//! - `delivery`: one event until the endpoint has answered it; `verdict`: what an answer means for the event; `endpoint`:
//!   one POST.
//! - `commands`: the commands in an answer.

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

use meepo_node::stats::FigureInfo;
use meepo_node::{Config, ConfigError, Instance, Plan};

use crate::figures::WorkerFigures;
use crate::instance::{listeners, serve_child};
use crate::settings::WorkerSettings;

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

    fn figures(&self) -> &'static [FigureInfo] {
        WorkerFigures::TABLE
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let mut worker = WorkerSettings::read(config)?;
        let webhook: WebhookSection = config.section("webhook")?;
        let settings = webhook.resolve(config)?;
        // A handler waits for an endpoint that is away as long as it takes: each POST has a limit instead.
        worker.effective.remove("handler_timeout");
        worker.limits.handler_timeout = Duration::MAX;
        let webhook = toml::Table::try_from(&webhook).map_err(|error| config.invalid("webhook", error))?;
        Ok(Plan {
            children: worker.children,
            threads: worker.threads,
            shared: listeners(&worker),
            own: None,
            effective: worker.effective.clone(),
            further: toml::Table::from_iter([("webhook".into(), webhook.into())]),
            serve: Rc::new(move |child| {
                let (worker, settings) = (worker.clone(), settings.clone());
                Box::pin(async move { serve_child(Webhook::new(settings), worker, child).await })
            }),
        })
    }
}
