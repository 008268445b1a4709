//! The worker as a master runs it.

use std::fmt;
use std::rc::Rc;

use meepo_node::stats::FigureInfo;
use meepo_node::{BoxError, Child, Config, ConfigError, Instance, Listen, Plan};

use crate::Handler;
use crate::figures::WorkerFigures;
use crate::runtime::serve::{Entrance, serve};
use crate::settings::WorkerSettings;

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
        serve: Rc::new(move |settings, child| {
            let new = new.clone();
            Box::pin(async move { serve_child(new(), settings, child).await })
        }),
    }
}

/// The worker of an application, for its master. [`instance`] makes it.
pub struct WorkerInstance {
    serve: Rc<dyn Fn(WorkerSettings, Child) -> meepo_node::instance::Serving>,
}

impl Instance for WorkerInstance {
    fn name(&self) -> &'static str {
        "worker"
    }

    fn figures(&self) -> &'static [FigureInfo] {
        WorkerFigures::TABLE
    }

    fn plan(&self, config: &Config) -> Result<Plan, ConfigError> {
        let settings = WorkerSettings::read(config)?;
        let serve = self.serve.clone();
        Ok(Plan {
            children: settings.children,
            threads: settings.threads,
            shared: listeners(&settings),
            own: None,
            effective: settings.effective.clone(),
            further: toml::Table::new(),
            serve: Rc::new(move |child| serve(settings.clone(), child)),
        })
    }
}

impl fmt::Debug for WorkerInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerInstance").finish_non_exhaustive()
    }
}

/// The listeners that the master opens for all children.
pub(crate) fn listeners(settings: &WorkerSettings) -> Vec<Listen> {
    #[cfg(feature = "push")]
    return settings.push.iter().map(|push| push.listen()).collect();
    #[cfg(not(feature = "push"))]
    {
        let _ = settings;
        Vec::new()
    }
}

/// Runs a worker child, with the push API if it is set up.
pub(crate) async fn serve_child<H: Handler>(
    handler: H,
    settings: WorkerSettings,
    mut child: Child,
) -> Result<(), BoxError> {
    let entrance = entrance(&settings, &mut child)?;
    serve(handler, settings.limits, child, entrance).await
}

#[cfg(feature = "push")]
fn entrance(settings: &WorkerSettings, child: &mut Child) -> Result<Option<Entrance>, BoxError> {
    let (Some(settings), Some(listener)) = (settings.push.clone(), child.shared.pop()) else {
        return Ok(None);
    };
    if settings.tokens.is_empty() {
        let address = settings.address;
        tracing::warn!(%address, "everyone who reaches this address is let in to push: set a token");
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop = child.stop.clone();
    Ok(Some(Box::new(move |cluster| {
        Box::pin(crate::push::serve(cluster, settings, listener, stop))
    })))
}

#[cfg(not(feature = "push"))]
fn entrance(_settings: &WorkerSettings, _child: &mut Child) -> Result<Option<Entrance>, BoxError> {
    Ok(None)
}
