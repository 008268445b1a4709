//! What an instance tells its master, and what each of its children is given.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Config, ConfigError, NodeSection};
use crate::observe::stats::{FigureInfo, Siblings, Slot};
use crate::process::dialogue::Report;
use crate::process::to_master;
use crate::stop::Stop;

/// Any error, such as the one that ends a child.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A node type: the registry, a gateway or a worker.
pub trait Instance {
    /// Its name in `status`, with `--only` and as a section of the configuration.
    fn name(&self) -> &'static str;

    /// Reads its section of the configuration. It runs in the master, before anything is bound or forked, and again at
    /// each reload; it starts no thread and opens nothing.
    fn plan(&self, config: &Config) -> Result<Plan, ConfigError>;

    /// The figures of its children beside those that every child has: the `TABLE` of a set that [`figures!`](crate::figures)
    /// declares. Default: none.
    fn figures(&self) -> &'static [FigureInfo] {
        &[]
    }

    /// When it drains as the node stops: instances with a lower number go first. Instances that hold clients go before those
    /// that handle the clients' last events, and the registry is the last. Default: 1.
    fn stop_order(&self) -> u8 {
        1
    }
}

/// The future of a child: it ends when the child has drained, or with the reason why it cannot serve.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

/// All that the master needs to know to run an instance.
pub struct Plan {
    /// How many children the master keeps.
    pub children: usize,
    /// Threads of a child's runtime; 1 is a current-thread runtime.
    pub threads: usize,
    /// Listeners that all children share, opened by the master.
    pub shared: Vec<Listen>,
    /// A listener of each child's own: its port is the one given here plus the child's index (0: any free port). While a reload
    /// replaces a child, its successor has the next port that is free among those of the instance.
    pub own: Option<Listen>,
    /// The effective settings, as `check` prints them.
    pub effective: toml::Table,
    /// The effective settings of further sections that the instance reads, by the sections' names.
    pub further: toml::Table,
    /// Runs in the child, after the fork, on the child's own runtime.
    pub serve: Rc<dyn Fn(Child) -> Serving>,
}

/// A listener that the master is to open.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The listener's name in `status`, such as a protocol.
    pub label: String,
    /// Where it binds.
    pub address: SocketAddr,
    /// The configuration key that asked for it, for errors.
    pub key: String,
    /// The scheme and path of a page that a person can open here, such as `http` and `/`.
    pub page: Option<(&'static str, String)>,
}

/// Everything that a child is given.
pub struct Child {
    /// The child's number within its instance, counted from 0.
    pub index: usize,
    /// The listeners of [`Plan::shared`], in the same order. Not blocking.
    pub shared: Vec<TcpListener>,
    /// The listener of [`Plan::own`]. Not blocking.
    pub own: Option<TcpListener>,
    /// This child's figures.
    pub stats: &'static Slot,
    /// The figures of all children of this instance.
    pub siblings: Siblings,
    /// The section `[node]`.
    pub node: Arc<NodeSection>,
    /// Tells when to drain.
    pub stop: Stop,
}

impl Child {
    /// Tells the master that this child serves. Until then a start waits, and a reload keeps the child's predecessor.
    pub fn ready(&self) {
        to_master::report(&Report::Ready);
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("children", &self.children)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
