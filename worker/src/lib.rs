//! The worker of a Meepo cluster: what the business logic of an application is written against.
//!
//! An application implements [`Handler`], and gives its master an [`instance`] that makes one. Clients are connected to
//! gateways; their events come here, and what a handler sends goes back there. So an application can be stopped,
//! replaced and scaled without a client noticing.
//!
//! ```
//! use meepo_worker::{Client, Handler, Hello, Message, Reject, Result};
//!
//! struct ChatRoom;
//!
//! impl Handler for ChatRoom {
//!     async fn on_connect(&self, client: &Client, _hello: &Hello) -> Result<(), Reject> {
//!         client.join("lobby");
//!         Ok(())
//!     }
//!
//!     async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
//!         client.cluster().group("lobby").except(client.id()).send(message);
//!         Ok(())
//!     }
//! }
//! ```
//!
//! # The way of an event
//!
//! What an application imports is in `api`. An event passes these modules in this order:
//!
//! - [`instance()`] (`instance`): for the master. It reads `settings`, the sections `[worker]` and `[worker.push]`, and starts
//!   each child. [`Outside`] (`outside`) starts the same for a program that is no worker.
//! - `runtime::serve`: the life of a child, from [`Handler::on_start`] to [`Handler::on_stop`].
//! - `runtime::links`: a link to each gateway child that the registries name. `link`: one of them; events come in here.
//! - `runtime::client_queues`: each client's events in order, clients side by side, and forwarded requests by themselves.
//!   What this child knows of a client is a `ServedClient` (`api::client::served`), and where the client is in its life an
//!   enum (`api::client::life`).
//! - [`Handler`] (`api::handler`): the application. It is given a [`Client`] (`api::client`), and what the event carries:
//!   [`Hello`], [`Message`], [`CloseReason`], [`LastWords`] (`api::event`), or a [`Request`] that it answers with a
//!   [`Response`]. What goes wrong is a [`HandlerError`] (`api::error`).
//! - [`Cluster`] (`api::cluster`): all gateways. [`ClientTarget`] and [`Target`] (`api::targets`): the clients that a command
//!   goes to; a [`Receipt`] tells what became of a message. [`Answer`] and [`Select`] (`api::query`): what gateways are asked.
//!   [`Timer`] (`api::timers`). [`Client::request`] asks a client itself.
//! - `link::outgoing`: commands go out here, within a `link::send_budget`.
//!
//! Beside it: `runtime::leader_jobs` runs what [`Cluster::job`] adds, under a [`Lease`]. `push`, with the feature `push`: the
//! push API, for any program over HTTP and gRPC. `webhook`, with the feature `webhook`: the worker `meepo-worker`, whose
//! business logic is an HTTP endpoint.
//!
//! # Promises
//!
//! - The events of a client are handled in order, never two at a time, and each is answered with `done` once.
//! - What a handler sends leaves before its event is done: if this worker dies first, the event comes again elsewhere.
//! - A timer of a client runs in turn with its events. When the client has gone, or is served by another worker, its timers
//!   are over, and no request waits for it.
//! - An error or a panic in a handler is logged and counted, and told to `on_error`; nothing else ends.
//! - A client that came in gets one `on_close`, also when its gateway dies. If the gateway was only frozen for so long
//!   that it was taken for dead, and wakes up, the client is served again: its events come after that `on_close`.

// The push API and webhooks use parts of the modules below them that nothing else uses.
#![cfg_attr(not(all(feature = "push", feature = "webhook")), allow(dead_code))]

mod api;
mod figures;
mod instance;
mod link;
mod outside;
#[cfg(feature = "push")]
mod push;
mod runtime;
mod settings;
#[cfg(feature = "webhook")]
pub mod webhook;

#[cfg(test)]
mod tests;

pub use api::client::Client;
pub use api::client::open_requests::RequestError;
pub use api::client::target::ClientTarget;
pub use api::cluster::Cluster;
pub use api::cluster::leader_jobs::JobError;
pub use api::error::{HandlerError, Refusal};
pub use api::event::close::{CloseCause, CloseReason};
pub use api::event::hello::{Hello, Reject};
pub use api::event::last_words::LastWords;
pub use api::event::message::Message;
pub use api::handler::Handler;
pub use api::query::Answer;
pub use api::query::selection::{Member, Select};
pub use api::receipt::Receipt;
pub use api::request::Request;
pub use api::response::Response;
pub use api::targets::Target;
pub use api::timers::{Outcome, Timer};
/// The crate of HTTP's types, such as that of [`Request::headers`].
pub use http;
pub use instance::{WorkerInstance, instance};
pub use meepo_node::Lease;
pub use meepo_proto::{ClientId, ClientNumber, EventNumber, GatewayId};
pub use outside::{Outside, OutsideError};
pub use settings::{PushSection, WorkerSection};

/// What a handler returns: any error, which is logged and counted.
pub type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
