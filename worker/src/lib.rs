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
//! # Layout
//!
//! - [`Handler`]: the trait (`handler`), with [`Hello`] and [`Reject`] (`hello`), [`Message`] (`message`) and
//!   [`CloseReason`] (`close`).
//! - [`Client`]: the client whose event is handled (`client`).
//! - [`Cluster`]: all gateways (`cluster`). [`ClientTarget`], [`Target`]: whom to send to (`client_target`, `target`).
//! - [`Answer`]: questions to all gateways (`query`). [`Select`]: about clients that meet conditions (`select`).
//! - [`Outside`]: a cluster for a program that is no worker (`outside`).
//! - [`instance()`]: for the master, with the settings (`instance`), and the life of a child (`serve`).
//! - `links`, `link`, `room`: the streams to the gateways, one of them, and what bounds its queue.
//! - [`webhook`]: the worker `meepo-worker`, whose business logic is an HTTP endpoint.
//! - `lanes`: each client's events in order, clients side by side.
//!
//! # Promises
//!
//! - The events of a client are handled in order, never two at a time, and each is answered with `done` once.
//! - What a handler sends leaves before its event is done: if this worker dies first, the event comes again elsewhere.
//! - An error or a panic in a handler is logged and counted; nothing else ends.
//! - A client that came in gets one `on_close`, also when its gateway dies. If the gateway was only frozen for so long
//!   that it was taken for dead, and wakes up, the client is served again: its events come after that `on_close`.

mod client;
mod client_target;
mod close;
mod cluster;
mod handler;
mod hello;
mod instance;
mod lanes;
mod link;
mod links;
mod message;
mod outside;
mod query;
mod room;
mod select;
mod serve;
mod target;
pub mod webhook;

#[cfg(test)]
mod tests;

pub use client::Client;
pub use client_target::{ClientTarget, Delivery};
pub use close::{CloseCause, CloseReason};
pub use cluster::Cluster;
pub use handler::Handler;
pub use hello::{Hello, Reject};
pub use instance::{WorkerInstance, WorkerSection, instance};
pub use meepo_proto::{ClientId, GatewayId};
pub use message::Message;
pub use outside::{Outside, OutsideError};
pub use query::Answer;
pub use select::{Member, Select};
pub use target::Target;

/// What a handler returns: any error, which is logged and counted.
pub type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
